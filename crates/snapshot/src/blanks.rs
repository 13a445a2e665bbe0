//! Blank writable layers made ahead: a new container takes one by a rename, which costs a file system less than making
//! four directories.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use model::Result;
use model::spares::Spares;
use rustix::fs::{CWD, RenameFlags};

use crate::layers::{empty_dir, make_dir, remove_tree};

/// Where they lie, beside the layers.
pub(crate) const DIR: &str = "blanks";

/// See the module.
#[derive(Debug)]
pub(crate) struct Blanks {
    root: PathBuf,
    next: AtomicU64,
    waiting: Spares<PathBuf>,
}

impl Blanks {
    /// None yet; they will lie in `root`.
    pub(crate) fn new(root: PathBuf) -> Blanks {
        Blanks { root, next: AtomicU64::new(0), waiting: Spares::default() }
    }

    /// Removes what an earlier process has made ahead.
    pub(crate) fn clear(&self) -> Result<()> {
        make_dir(&self.root, 0o700)?;
        empty_dir(&self.root)
    }

    /// Puts a blank one to `target`, which must not exist; `false` when that did not work.
    pub(crate) fn take(&self, target: &Path) -> bool {
        let Some(blank) = self.waiting.take() else { return false };
        let is_there = rustix::fs::renameat_with(CWD, &blank, CWD, target, RenameFlags::NOREPLACE).is_ok();
        if !is_there && blank.exists() {
            self.waiting.put(blank);
        }
        is_there
    }

    /// Makes what is missing: `make` fills a directory that does not exist yet.
    pub(crate) fn refill(&self, make: impl Fn(&Path) -> Result<()>) -> Result<()> {
        self.waiting.refill(|| {
            let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
            let path = self.root.join(&name);
            make(&path).inspect_err(|_| drop(remove_tree(&self.root, &name)))?;
            Ok(path)
        })
    }
}
