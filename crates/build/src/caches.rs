//! Directories that steps keep between builds (`RUN --mount=type=cache`).
//!
//! Each name has one directory, and copies of it for steps that want it for themselves while another has it. A step holds
//! what it uses ([`Held`]): `shared` goes beside other shared ones, `locked` waits for its turn, `private` takes a copy that
//! nobody holds.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use events::now;
use model::digest::Digest;
use model::lock::{Mutex, MutexGuard};
use model::time::Timestamp;
use model::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::copy::{self, How, Target};
use crate::key::Key;
use crate::record::{Chain, keys};
use crate::root::{Roots, Tree};

/// Behind the name of a cache: the file that says what is known of it, and bytes of that.
const ABOUT: &str = ".json";
const ABOUT_BYTES: u64 = 64 << 10;
/// Before the name of a cache that is being removed.
const GONE: &str = "gone-";
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
        self.held.lock()
    }
}

/// A cache that a step uses. It is let go when the value is dropped.
pub(crate) struct Held {
    holders: Arc<Holders>,
    name: String,
    /// What its users call it.
    id: String,
}

/// What is known of a cache, in a file beside its directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct About {
    /// For people.
    pub description: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last taken.
    pub used: Timestamp,
    /// How often it was taken.
    pub uses: u64,
    /// Bytes, when it was last measured.
    pub size: u64,
    /// When that was.
    pub measured: Timestamp,
}

/// A cache.
pub(crate) struct Known {
    /// The name of its directory.
    pub name: String,
    /// What records are called by.
    pub key: Digest,
    pub about: About,
    /// A step has it.
    pub in_use: bool,
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
            if let Some(mut held) = self.try_hold(&name, sharing)? {
                held.id = id.to_owned();
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
            return Ok(Some(Held { holders: self.holders.clone(), name: place, id: String::new() }));
        }
        Err(Error::conflict(format!("more than {COPIES} steps use a cache that is not shared")))
    }

    /// The directory of a cache; a new one begins with what lies in the layers at `part`. Blocks.
    pub(crate) fn place(&self, roots: &Roots, held: &Held, begin: &Chain, part: &str) -> Result<PathBuf> {
        let _turn = self.turn();
        let place = self.dir.join(&held.name);
        if place.is_dir() {
            self.note(held)?;
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
        self.note(held)?;
        Ok(place)
    }

    /// Notes that a step has taken a cache.
    fn note(&self, held: &Held) -> Result<()> {
        let now = now();
        let mut about = self.about(&held.name).unwrap_or_else(|| About { created: now, ..About::default() });
        about.description = format!("cached mount with id {:?}", held.id);
        (about.used, about.uses) = (now, about.uses + 1);
        self.write(&held.name, &about)
    }

    fn about(&self, name: &str) -> Option<About> {
        let mut bytes = Vec::new();
        let file = fs::File::open(self.dir.join(format!("{name}{ABOUT}"))).ok()?;
        file.take(ABOUT_BYTES).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn write(&self, name: &str, about: &About) -> Result<()> {
        let bytes = serde_json::to_vec(about).map_err(|error| Error::system(format!("noting a cache: {error}")))?;
        let (new, place) = (self.dir.join("new-note"), self.dir.join(format!("{name}{ABOUT}")));
        fs::write(&new, bytes).and_then(|()| fs::rename(&new, &place)).context("noting a cache")
    }

    /// All caches, those that were taken since they were measured measured anew. Blocks.
    pub(crate) fn all(&self) -> Vec<Known> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let digits = name.split('-').next().unwrap_or_default();
            if Digest::from_hex(digits).is_none() || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let in_use = self.holders.held().contains_key(&name);
            let mut about = self.about(&name).unwrap_or_default();
            if in_use || about.measured <= about.used {
                let measured = now();
                let dir = fs::File::open(entry.path()).map(Into::into);
                // One that changes meanwhile is measured the next time.
                if let Ok(size) = dir.and_then(sys::tree::disk_usage) {
                    let _turn = self.turn();
                    // It may have been taken once more.
                    about = self.about(&name).unwrap_or(about);
                    (about.size, about.measured) = (size, measured);
                    if let Err(error) = self.write(&name, &about) {
                        tracing::warn!(%error, "the size of a cache is not noted");
                    }
                }
            }
            let mut key = Key::new("cache-mount");
            key.part(name.as_bytes());
            found.push(Known { name, key: key.finish(), about, in_use });
        }
        found
    }

    /// Removes a cache, unless a step has it. Blocks.
    pub(crate) fn remove(&self, name: &str) -> Result<bool> {
        let gone = self.dir.join(format!("{GONE}{name}"));
        {
            let _turn = self.turn();
            remove(&gone)?;
            let held = self.holders.held();
            if held.contains_key(name) {
                return Ok(false);
            }
            match fs::rename(self.dir.join(name), &gone) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                moved => moved.context("removing a cache")?,
            }
        }
        // It is made anew when it is gone.
        drop(fs::remove_file(self.dir.join(format!("{name}{ABOUT}"))));
        remove(&gone)?;
        Ok(true)
    }

    /// Removes what a daemon that was killed has not removed any more. Blocks.
    pub(crate) fn tidy_up(&self) -> Result<()> {
        let left = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let is_left = |name: &str| name.starts_with(GONE) || name.starts_with("new");
        left.filter(|entry| entry.file_name().to_str().is_some_and(is_left)).try_for_each(|entry| {
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => remove(&entry.path()),
                false => fs::remove_file(entry.path()).context("removing a note of a cache"),
            }
        })
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.making.lock()
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

    #[test]
    fn caches_are_measured_and_removed_when_nobody_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::new(dir.path().join("caches"));
        fs::create_dir_all(dir.path().join("caches")).unwrap();
        let name = Key::new("x").finish().hex().to_owned();
        let mut held = caches.try_hold(&name, Shared).unwrap().unwrap();
        held.id = "go".into();
        fs::create_dir(caches.dir.join(&name)).unwrap();
        fs::write(caches.dir.join(&name).join("file"), vec![1; 1 << 20]).unwrap();
        caches.note(&held).unwrap();
        let known = caches.all();
        assert!(known[0].in_use && known[0].about.size >= 1 << 20 && known[0].about.uses == 1);
        assert_eq!(known[0].about.description, "cached mount with id \"go\"");
        assert!(!caches.remove(&name).unwrap());
        drop(held);
        fs::create_dir(caches.dir.join("gone-x")).unwrap();
        caches.tidy_up().unwrap();
        assert!(caches.remove(&name).unwrap() && !caches.remove(&name).unwrap());
        assert_eq!(fs::read_dir(&caches.dir).unwrap().count(), 0);
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
