//! How a build is ended early.

use std::sync::Arc;

use model::{Error, Result};
use tokio::sync::watch;

/// Ends a build, or a part of it, early. Clones are the same.
#[derive(Clone, Debug)]
pub struct Cancel {
    own: Arc<watch::Sender<bool>>,
    /// That of what it is a part of.
    above: Option<Arc<Cancel>>,
}

impl Default for Cancel {
    fn default() -> Cancel {
        Cancel { own: Arc::new(watch::Sender::new(false)), above: None }
    }
}

impl Cancel {
    /// For a part: it ends with the whole, and may end alone.
    #[must_use]
    pub fn part(&self) -> Cancel {
        Cancel { above: Some(Arc::new(self.clone())), ..Cancel::default() }
    }

    /// Nothing begins any more, and what runs is ended.
    pub fn cancel(&self) {
        self.own.send_replace(true);
    }

    /// Whether it was called, here or of what this is a part of.
    pub fn is_cancelled(&self) -> bool {
        *self.own.borrow() || self.above.as_ref().is_some_and(|above| above.is_cancelled())
    }

    /// Returns when it is called.
    pub async fn cancelled(&self) {
        let mut own = self.own.subscribe();
        // The sender lives in `self`.
        let own = own.wait_for(|cancelled| *cancelled);
        match &self.above {
            None => drop(own.await),
            Some(above) => tokio::select! {
                _ = own => {}
                () = Box::pin(above.cancelled()) => {}
            },
        }
    }

    /// The error of what was cancelled.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }
}

/// The error of what was cancelled.
pub fn cancelled() -> Error {
    Error::system("context canceled")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_ends_with_the_whole_and_not_the_other_way_round() {
        let whole = Cancel::default();
        let (one, other) = (whole.part(), whole.part().part());
        one.cancel();
        one.cancelled().await;
        assert!(one.is_cancelled() && !whole.is_cancelled() && !other.is_cancelled());
        whole.cancel();
        other.cancelled().await;
        assert!(other.is_cancelled() && other.check().is_err());
    }
}
