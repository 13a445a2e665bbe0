//! Volumes that are named by what is being made: a container's create holds them until the container is there to be seen, so
//! that none is removed in between.

use std::collections::HashMap;
use std::sync::Arc;

use model::lock::{Mutex, MutexGuard};

/// Who claims which volume.
#[derive(Clone, Default)]
pub(crate) struct Claims(Arc<Mutex<HashMap<String, Vec<String>>>>);

impl Claims {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<String>>> {
        self.0.lock()
    }

    /// Claims a volume for `user`. The caller has the turn of the volume.
    pub(crate) fn take(&self, volume: &str, user: &str) -> Claim {
        self.lock().entry(volume.to_owned()).or_default().push(user.to_owned());
        Claim { claims: self.clone(), volume: volume.to_owned(), user: user.to_owned() }
    }

    /// Who claims a volume.
    pub(crate) fn of(&self, volume: &str) -> Vec<String> {
        self.lock().get(volume).cloned().unwrap_or_default()
    }
}

/// A volume that is not removed for as long as this lives.
pub struct Claim {
    claims: Claims,
    volume: String,
    user: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut all = self.claims.lock();
        let Some(users) = all.get_mut(&self.volume) else { return };
        if let Some(at) = users.iter().position(|user| *user == self.user) {
            users.swap_remove(at);
        }
        if users.is_empty() {
            all.remove(&self.volume);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_claim_counts() {
        let claims = Claims::default();
        let (first, second) = (claims.take("v", "a"), claims.take("v", "a"));
        let other = claims.take("v", "b");
        assert_eq!(claims.of("v"), ["a", "a", "b"]);
        drop(first);
        assert_eq!(claims.of("v").len(), 2);
        drop((second, other));
        assert!(claims.of("v").is_empty() && claims.lock().is_empty());
    }
}
