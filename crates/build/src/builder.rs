//! What builds of a daemon share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blocking::{Class, Work};
use image::Images;
use model::Result;
use model::lock::{Mutex, MutexGuard, RwLock};
use snapshot::Snapshots;
use store::Store;
use tokio::sync::Semaphore;

use crate::caches::Caches;
use crate::cancel::Cancel;
use crate::history::History;
use crate::policy::Settings;
use crate::record::Records;
use crate::result::Locks;
use crate::root::Roots;

/// Exports that are streamed to clients at one time.
const STREAMS: usize = 64;
/// The directory of what builds keep, in the data root.
const DIR: &str = "build";

/// Builds that can be cancelled by a name.
#[derive(Clone, Default)]
pub struct Going(Arc<Mutex<HashMap<String, Cancel>>>);

impl Going {
    /// Notes a build until the value is dropped. An empty name is none.
    pub fn note(&self, name: &str, cancel: &Cancel) -> Noted {
        if !name.is_empty() {
            self.all().insert(name.to_owned(), cancel.clone());
        }
        Noted { going: self.clone(), name: name.to_owned() }
    }

    /// Cancels the build of this name, if it goes on.
    pub fn cancel(&self, name: &str) {
        if let Some(cancel) = self.all().get(name) {
            cancel.cancel();
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Cancel>> {
        self.0.lock()
    }
}

/// See [`Going::note`].
pub struct Noted {
    going: Going,
    name: String,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.going.all().remove(&self.name);
    }
}

/// Everything that builds share.
pub struct Builder {
    /// Where base images come from, and results go to.
    pub images: Arc<Images>,
    /// Where file systems of steps come from.
    pub roots: Roots,
    /// Results of steps.
    pub records: Arc<Records>,
    /// The directory of what builds keep and of what they work with.
    pub dir: PathBuf,
    /// Threads of steps.
    pub threads: Class,
    /// Builds of the past.
    pub history: History,
    /// Builds that go on, by the names that their clients gave them.
    pub going: Going,
    /// The settings of builds; they may be replaced at any time.
    settings: RwLock<Arc<Settings>>,
    /// Places of exports that are streamed to clients.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) caches: Caches,
    pub(crate) steps: Locks,
}

impl Builder {
    /// Opens the cache of a data root.
    pub fn open(data_root: &Path, store: Store, images: Arc<Images>, snapshots: Snapshots) -> Result<Builder> {
        let dir = data_root.join(DIR);
        // What a daemon that was killed has left.
        match std::fs::remove_dir_all(dir.join("git")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => tracing::warn!(error = %e, "a checkout stays"),
            _ => {}
        }
        let caches = Caches::new(dir.join("caches"));
        caches.tidy_up()?;
        Ok(Builder {
            images,
            roots: Roots { snapshots, containers: data_root.join("containers") },
            records: Arc::new(Records::open(store)?),
            threads: Class::new(Work::Builds),
            history: History::new(dir.join("history")),
            going: Going::default(),
            settings: RwLock::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            caches,
            dir,
            steps: Locks::default(),
        })
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    /// Puts settings in force.
    pub fn replace_settings(&self, settings: Settings) {
        *self.settings.write() = Arc::new(settings);
    }
}
