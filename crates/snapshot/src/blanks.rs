//! Blank writable layers made ahead: a new container takes one by a rename, which costs a file system less than making
//! four directories.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::Result;
use rustix::fs::{CWD, RenameFlags};

use crate::layers::{make_dir, remove_tree};

/// How many wait: one for the next container, and one for a container at the same time.
const BLANKS: usize = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Blanks {
    root: PathBuf,
    next: AtomicU64,
    waiting: Mutex<Vec<PathBuf>>,
}

impl Blanks {
    /// None yet; they will lie in `root`.
    pub(crate) fn new(root: PathBuf) -> Blanks {
        Blanks { root, next: AtomicU64::new(0), waiting: Mutex::default() }
    }

    /// Removes what an earlier process has made ahead.
    pub(crate) fn clear(&self) -> Result<()> {
        make_dir(&self.root, 0o700)?;
        for entry in self.root.read_dir()?.flatten() {
            remove_tree(&self.root, &entry.file_name().to_string_lossy())?;
        }
        Ok(())
    }

    /// Puts a blank one to `target`, which must not exist; `false` when that did not work.
    pub(crate) fn take(&self, target: &Path) -> bool {
        let blank = self.waiting().pop();
        blank.is_some_and(|blank| rustix::fs::renameat_with(CWD, &blank, CWD, target, RenameFlags::NOREPLACE).is_ok())
    }

    /// Makes what is missing: `make` fills a directory that does not exist yet.
    pub(crate) fn refill(&self, make: impl Fn(&Path) -> Result<()>) -> Result<()> {
        while self.waiting().len() < BLANKS {
            let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
            let path = self.root.join(&name);
            make(&path).inspect_err(|_| drop(remove_tree(&self.root, &name)))?;
            // Others may have been at it, too: one more does no harm.
            self.waiting().push(path);
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
