//! Blank writable layers made ahead: a new container takes one by a rename, which costs a file system less than making
//! four directories.
//!
//! They lie beside the containers' directories, under a few names that are used again: a rename within one directory is
//! durable with that directory, whatever file system it is.

use std::fs;
use std::path::{Path, PathBuf};

use model::lock::Mutex;
use model::spares::Spares;
use model::{Context, Result};
use rustix::fs::{CWD, RenameFlags};

use crate::layers::remove_tree;

/// What their names begin with; no container's id does.
pub const PREFIX: &str = "spare-";

/// See the module.
#[derive(Debug)]
pub(crate) struct Blanks {
    /// The directory of containers.
    root: PathBuf,
    waiting: Spares<PathBuf>,
    /// Held while one gets or loses its name.
    naming: Mutex<()>,
}

impl Blanks {
    /// None yet; they will lie in `root`.
    pub(crate) fn new(root: PathBuf) -> Blanks {
        Blanks { root, waiting: Spares::default(), naming: Mutex::default() }
    }

    /// Removes them, also what an earlier process has made ahead.
    pub(crate) fn clear(&self) -> Result<()> {
        while self.waiting.take().is_some() {}
        let context = || format!("listing {}", self.root.display());
        for entry in fs::read_dir(&self.root).with_context(context)? {
            let name = entry.with_context(context)?.file_name();
            if let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) {
                remove_tree(&self.root, name)?;
            }
        }
        Ok(())
    }

    /// Puts a blank one to `target`, which must not exist; `false` when that did not work.
    pub(crate) fn take(&self, target: &Path) -> bool {
        let _naming = self.naming.lock();
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
            // The first name that none has. Only one refills at a time.
            let mut names = (0..).map(|n: u32| format!("{PREFIX}{n}"));
            let name = {
                let _naming = self.naming.lock();
                names.find(|name| !self.waiting.any(|path| path.ends_with(name))).unwrap_or_default()
            };
            let path = self.root.join(&name);
            // One that could neither be made nor removed.
            remove_tree(&self.root, &name)?;
            make(&path).inspect_err(|_| drop(remove_tree(&self.root, &name)))?;
            Ok(path)
        })
    }
}
