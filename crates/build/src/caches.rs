//! Directories that steps keep between builds (`RUN --mount=type=cache`).
//!
//! Each name has one directory, and copies of it for steps that want it for themselves while another has it. A step holds
//! what it uses ([`Held`]): `shared` goes beside other shared ones, `locked` waits for its turn, `private` takes a copy that
//! nobody holds.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard_buildkit_proto::pb;
use model::{Context, Error, Result};
use tokio::sync::Notify;

use crate::copy::{self, How, Target};
use crate::key::Key;
use crate::record::{Chain, keys};
use crate::root::{Roots, Tree};

/// Copies of one cache.
const COPIES: usize = 256;

/// All of them, below one directory.
#[derive(Clone)]
pub struct Caches {
    dir: PathBuf,
    /// Held while one is made.
    making: Arc<Mutex<()>>,
    holders: Arc<Holders>,
}

#[derive(Default)]
struct Holders {
    /// By directory: how many steps share it, or that one has it alone.
    held: Mutex<HashMap<String, Holder>>,
    released: Notify,
}

/// Who holds a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Shared(usize),
    Alone,
}

impl Holders {
    fn held(&self) -> MutexGuard<'_, HashMap<String, Holder>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cache that a step uses. It is let go when the value is dropped.
pub(crate) struct Held {
    holders: Arc<Holders>,
    name: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.holders.held();
        match held.get_mut(&self.name) {
            Some(Holder::Shared(count)) if *count > 1 => *count -= 1,
            _ => _ = held.remove(&self.name),
        }
        drop(held);
        self.holders.released.notify_waiters();
    }
}

impl Caches {
    /// Below this directory.
    pub fn new(dir: PathBuf) -> Caches {
        Caches { dir, making: Arc::default(), holders: Arc::default() }
    }

    /// Takes hold of the cache of this name; with `locked` it waits until nobody else has it.
    ///
    /// Errors: `Conflict` for more than [`COPIES`] of one cache.
    pub(crate) async fn hold(&self, id: &str, sharing: pb::CacheSharingOpt) -> Result<Held> {
        let mut key = Key::new("cache");
        key.part(id.as_bytes());
        let name = key.finish().hex().to_owned();
        loop {
            let released = self.holders.released.notified();
            tokio::pin!(released);
            // From here on nothing that is let go is missed.
            released.as_mut().enable();
            if let Some(held) = self.try_hold(&name, sharing)? {
                return Ok(held);
            }
            released.await;
        }
    }

    /// `None`: it has to be waited for.
    fn try_hold(&self, name: &str, sharing: pb::CacheSharingOpt) -> Result<Option<Held>> {
        let mut held = self.holders.held();
        let wanted = match sharing {
            pb::CacheSharingOpt::Shared => Holder::Shared(1),
            pb::CacheSharingOpt::Private | pb::CacheSharingOpt::Locked => Holder::Alone,
        };
        for copy in 0..COPIES {
            let place = if copy == 0 { name.to_owned() } else { format!("{name}-{copy}") };
            let holder = match (held.get(&place), wanted) {
                (None, _) => wanted,
                (Some(Holder::Shared(count)), Holder::Shared(_)) => Holder::Shared(count + 1),
                (Some(_), _) if sharing == pb::CacheSharingOpt::Locked => return Ok(None),
                (Some(_), _) => continue,
            };
            held.insert(place.clone(), holder);
            return Ok(Some(Held { holders: self.holders.clone(), name: place }));
        }
        Err(Error::conflict(format!("more than {COPIES} steps use a cache that is not shared")))
    }

    /// The directory of a cache; a new one begins with what lies in the layers at `part`. Blocks.
    pub(crate) fn place(&self, roots: &Roots, held: &Held, begin: &Chain, part: &str) -> Result<PathBuf> {
        let _turn = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.dir.join(&held.name);
        if place.is_dir() {
            return Ok(place);
        }
        fs::create_dir_all(&self.dir).with_context(|| format!("creating {}", self.dir.display()))?;
        let new = self.dir.join("new");
        remove(&new)?;
        fs::create_dir(&new).with_context(|| format!("creating {}", new.display()))?;
        if !begin.is_empty() {
            let tree = Tree::open(roots, &keys(begin))?;
            let part = part.trim_start_matches('/');
            let node = tree.root().locate(format!("/{part}")).with_context(|| format!("looking for {part}"))?;
            let target = sys::rooted::Rooted::open_dir(&new)?;
            let how = How { contents: true, ..How::default() };
            copy::copy(&node, "", &Target { root: &target, path: "/" }, &how)?;
            let stat = rustix::fs::fstat(&node).map_err(std::io::Error::from)?;
            std::os::unix::fs::chown(&new, Some(stat.st_uid), Some(stat.st_gid))?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(stat.st_mode & 0o7777);
            fs::set_permissions(&new, mode)?;
        }
        fs::rename(&new, &place).with_context(|| format!("making {}", place.display()))?;
        Ok(place)
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::CacheSharingOpt::{Locked, Private, Shared};

    fn taken(caches: &Caches, sharing: pb::CacheSharingOpt) -> Option<Held> {
        caches.try_hold("c", sharing).unwrap()
    }

    #[test]
    fn sharing_says_who_waits_and_who_gets_a_copy() {
        let caches = Caches::new(PathBuf::from("/nowhere"));
        let (one, two) = (taken(&caches, Shared).unwrap(), taken(&caches, Shared).unwrap());
        assert_eq!((one.name.as_str(), two.name.as_str()), ("c", "c"));
        assert!(taken(&caches, Locked).is_none());
        let copy = taken(&caches, Private).unwrap();
        assert_eq!(copy.name, "c-1");
        drop(one);
        assert!(taken(&caches, Locked).is_none());
        drop(two);
        let alone = taken(&caches, Locked).unwrap();
        assert_eq!(alone.name, "c");
        assert_eq!(taken(&caches, Private).unwrap().name, "c-2");
        drop((copy, alone));
        assert_eq!(taken(&caches, Private).unwrap().name, "c");
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_the_cache_is_let_go() {
        let caches = Caches::new(PathBuf::from("/nowhere"));
        let first = caches.hold("x", Locked).await.unwrap();
        let own = caches.clone();
        let waiting = tokio::spawn(async move { own.hold("x", Locked).await.map(|held| held.name.clone()) });
        tokio::task::yield_now().await;
        let name = first.name.clone();
        drop(first);
        assert_eq!(waiting.await.unwrap().unwrap(), name);
    }
}
