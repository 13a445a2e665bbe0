//! What a container changed: the list behind `docker diff`.
//!
//! Overlay: only the upper directory is walked; whiteouts are deletions. Copy: the whole tree is compared with the
//! merged view of the layers. A directory counts as modified when its own attributes differ or something below changed.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use model::{Context, Result};
use rustix::fs::Stat;

use crate::apply::is_whiteout;
use crate::view::{View, is_opaque, link_target};
use crate::{Change, ChangeKind, tree};

/// Bytes of the longest path looked into: longer ones cannot be opened by their name anyway.
const PATH: usize = 4096;

/// Which names of a container's directory to look at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// An overlay's upper directory: what it has no entry for is unchanged.
    Upper,
    /// A whole tree: what it has no entry for is deleted.
    Whole,
}

struct Differ<'v> {
    view: &'v View,
    source: Source,
    found: Vec<Change>,
}

/// Changes held by an overlay's upper directory.
pub(crate) fn of_upper(view: &View, upper: &Path) -> Result<Vec<Change>> {
    run(view, upper, Source::Upper)
}

/// Changes of a whole tree.
pub(crate) fn of_tree(view: &View, tree: &Path) -> Result<Vec<Change>> {
    run(view, tree, Source::Whole)
}

fn run(view: &View, root: &Path, source: Source) -> Result<Vec<Change>> {
    let context = || format!("comparing {}", root.display());
    let dir: OwnedFd = File::open(root).with_context(context)?.into();
    let mut differ = Differ { view, source, found: Vec::new() };
    differ.directory(&dir, &mut Vec::new(), false).with_context(context)?;
    differ.found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(differ.found)
}

impl Differ<'_> {
    fn note(&mut self, path: &[u8], kind: ChangeKind) {
        let path = format!("/{}", OsStr::from_bytes(path).to_string_lossy());
        self.found.push(Change { path, kind });
    }

    /// Compares one directory; `added`: nothing of it is in the layers. Tells whether anything in it changed.
    fn directory(&mut self, dir: &OwnedFd, path: &mut Vec<u8>, added: bool) -> io::Result<bool> {
        let before = self.found.len();
        let names = tree::names(dir)?;
        for name in &names {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            self.name(dir, name, path, added)?;
            path.truncate(length);
        }
        let complete = self.source == Source::Whole || is_opaque(dir)?;
        if complete && !added {
            for gone in self.view.list(path)?.iter().filter(|name| names.binary_search(name).is_err()) {
                let full = if path.is_empty() { gone.as_bytes().to_vec() } else { [path, gone.as_bytes()].join(&b'/') };
                self.note(&full, ChangeKind::Deleted);
            }
        }
        Ok(self.found.len() > before)
    }

    fn name(&mut self, dir: &OwnedFd, name: &CString, path: &mut Vec<u8>, added: bool) -> io::Result<()> {
        let Some(stat) = tree::stat(dir, name)? else { return Ok(()) };
        let lower = if added { None } else { self.view.shown(path)? };
        if self.source == Source::Upper && is_whiteout(&stat) {
            if lower.is_some() {
                self.note(path, ChangeKind::Deleted);
            }
            return Ok(());
        }
        let is_dir = tree::file_type(&stat).is_dir();
        let same = match &lower {
            None => false,
            Some(lower) => {
                same(&stat, &lower.stat)
                    && (!tree::file_type(&stat).is_symlink()
                        || link_target(dir, name)? == link_target(&lower.parent, &lower.name)?)
            }
        };
        let new = lower.as_ref().is_none_or(|lower| is_dir && !tree::file_type(&lower.stat).is_dir());
        let below = is_dir && path.len() < PATH && {
            let child = tree::open_dir(dir, name)?;
            self.directory(&child, path, new)?
        };
        match lower {
            None => self.note(path, ChangeKind::Added),
            // A copied-up file with equal attributes was still opened for writing: overlay's list names it.
            Some(_) if !same || below || (self.source == Source::Upper && !is_dir) => {
                self.note(path, ChangeKind::Modified);
            }
            Some(_) => {}
        }
        Ok(())
    }
}

fn same(a: &Stat, b: &Stat) -> bool {
    let dir = tree::file_type(a).is_dir();
    a.st_mode == b.st_mode
        && (a.st_uid, a.st_gid) == (b.st_uid, b.st_gid)
        && a.st_rdev == b.st_rdev
        && (dir || a.st_size == b.st_size)
        && (a.st_mtime, a.st_mtime_nsec) == (b.st_mtime, b.st_mtime_nsec)
}
