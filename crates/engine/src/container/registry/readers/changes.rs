//! Waking those who follow logs: one inotify instance for the daemon, one watch for a container's directory however many
//! follow its log.
//!
//! Where there is no instance or watch to be had (the user's limits), followers look five times a second.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::lock::{Mutex, MutexGuard};

use ::logs::{Changed, Watch, Watches};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use run::link::register;

/// How often a follower looks that nobody wakes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// All watched directories; `None` without an instance.
pub struct Changes(Option<Arc<Instance>>);

struct Instance {
    watches: AsyncFd<Watches>,
    directories: Mutex<HashMap<Watch, Directory>>,
}

/// A watched directory.
struct Directory {
    told: watch::Sender<()>,
    followers: usize,
}

impl Changes {
    /// To be called on the runtime.
    pub fn start() -> Changes {
        Changes(Instance::start())
    }

    /// Tells of every change in a directory from now on.
    pub fn follow(&self, dir: &Path) -> Wake {
        Wake(self.0.as_ref().and_then(|instance| instance.follow(dir)))
    }
}

impl Instance {
    fn start() -> Option<Arc<Instance>> {
        let watches = Watches::new().and_then(|watches| register(watches, Interest::READABLE));
        let watches = watches.inspect_err(|error| tracing::warn!(%error, "logs are followed without inotify")).ok()?;
        let instance = Arc::new(Instance { watches, directories: Mutex::default() });
        tokio::spawn(Instance::run(instance.clone()));
        Some(instance)
    }

    async fn run(instance: Arc<Instance>) {
        while let Ok(mut ready) = instance.watches.readable().await {
            ready.get_inner().drain(|changed| instance.tell(changed));
            ready.clear_ready();
        }
    }

    fn tell(&self, changed: Changed) {
        let directories = self.directories();
        match changed {
            Changed::In(watch) => directories.get(&watch).into_iter().for_each(Directory::tell),
            Changed::Anything => directories.values().for_each(Directory::tell),
        }
    }

    fn follow(self: &Arc<Instance>, dir: &Path) -> Option<Following> {
        // Under the lock: a watch must not be removed between its being found and its being counted.
        let mut directories = self.directories();
        let watch = self.watches.get_ref().add(dir).ok()?;
        let directory = directories.entry(watch);
        let directory = directory.or_insert_with(|| Directory { told: watch::Sender::new(()), followers: 0 });
        directory.followers += 1;
        Some(Following { instance: self.clone(), watch, told: directory.told.subscribe() })
    }

    fn directories(&self) -> MutexGuard<'_, HashMap<Watch, Directory>> {
        self.directories.lock()
    }
}

impl Directory {
    fn tell(&self) {
        self.told.send_replace(());
    }
}

/// One follower's part of a watch; `None`: it has to look by itself.
pub struct Wake(Option<Following>);

struct Following {
    instance: Arc<Instance>,
    watch: Watch,
    told: watch::Receiver<()>,
}

impl Wake {
    /// The follower looks now: only later changes wake it.
    pub fn look(&mut self) {
        if let Some(following) = &mut self.0 {
            following.told.mark_unchanged();
        }
    }

    /// Resolves when something has changed since the last look, or may have.
    pub async fn changed(&mut self) {
        let told = match &mut self.0 {
            Some(following) => following.told.changed().await.is_ok(),
            None => false,
        };
        if !told {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut directories = self.instance.directories();
        let Some(directory) = directories.get_mut(&self.watch) else { return };
        directory.followers -= 1;
        if directory.followers == 0 {
            directories.remove(&self.watch);
            self.instance.watches.get_ref().remove(self.watch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_wakes_all_followers_of_its_directory_and_no_others() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let changes = Changes::start();
        let (mut one, mut two, mut else_where) =
            (changes.follow(dir.path()), changes.follow(dir.path()), changes.follow(other.path()));
        one.look();
        std::fs::write(dir.path().join("l"), "x").unwrap();
        one.changed().await;
        two.changed().await;
        let idle = tokio::time::timeout(Duration::from_millis(50), else_where.changed()).await;
        assert!(idle.is_err());
        let instance = changes.0.clone().unwrap();
        drop(one);
        assert_eq!(instance.directories().len(), 2);
        drop(two);
        assert_eq!(instance.directories().len(), 1);
    }

    #[tokio::test]
    async fn without_a_directory_to_watch_it_is_looked_now_and_then() {
        let mut wake = Changes::start().follow(Path::new("/nonexistent"));
        wake.look();
        wake.changed().await;
    }
}
