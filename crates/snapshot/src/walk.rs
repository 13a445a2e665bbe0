//! A walk over directory trees that lie over each other, merged as overlay merges them, names in order.
//!
//! Invariants:
//! - one descriptor per tree is held, whatever the depth: on the way back a directory is opened again by its path,
//!   beneath its tree and through no link;
//! - a container may change its tree meanwhile: what vanishes or turns into something else is passed over, and nothing
//!   outside of the trees is ever seen;
//! - a node is looked at by a descriptor that cannot read (`O_PATH`): finding a device or a pipe does not open it.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use sys::rooted::openat2;

use crate::apply::is_whiteout;
use crate::tree;
use crate::view::is_opaque;

/// Bytes of the longest path that is looked at: the kernel opens none that is longer.
const PATH: usize = 4095;

/// See the module.
pub(crate) struct Walk {
    /// Top first.
    roots: Vec<OwnedFd>,
    /// Overlay's marks delete and hide.
    whiteouts: bool,
    /// The current directory in the trees that show it, by number.
    here: Vec<(usize, OwnedFd)>,
    levels: Vec<Level>,
    path: Vec<u8>,
}

struct Level {
    /// The trees that show this directory.
    trees: Vec<usize>,
    /// Names to visit, last first.
    todo: Vec<CString>,
    /// Bytes of its path.
    length: usize,
}

/// What stands under a name.
pub(crate) struct Seen {
    pub stat: Stat,
    /// The thing itself, by `O_PATH`.
    pub node: OwnedFd,
    name: CString,
    /// Where in `here` it was found.
    at: usize,
}

impl Walk {
    /// Begins in the roots of the trees, top first.
    pub(crate) fn new(roots: Vec<OwnedFd>, whiteouts: bool) -> io::Result<Walk> {
        let here = roots.iter().map(|root| tree::open_dir(root, c".")).enumerate();
        let here = here.map(|(n, dir)| Ok((n, dir?))).collect::<io::Result<_>>()?;
        let mut walk = Walk { roots, whiteouts, here: Vec::new(), levels: Vec::new(), path: Vec::new() };
        walk.enter(here)?;
        Ok(walk)
    }

    /// The path of what was seen last.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Whether the current directory, in the topmost tree that shows it, hides those below.
    pub(crate) fn hides(&self) -> io::Result<bool> {
        self.here.first().map_or(Ok(false), |(_, dir)| is_opaque(dir))
    }

    /// Whether the current directory's topmost tree has the name.
    pub(crate) fn has(&self, name: &CString) -> io::Result<bool> {
        Ok(match self.here.first() {
            Some((_, dir)) => tree::stat(dir, name)?.is_some(),
            None => false,
        })
    }

    /// The next name's node. A directory's content is skipped unless [`Walk::descend`] follows.
    pub(crate) fn next(&mut self) -> io::Result<Option<Seen>> {
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            self.path.truncate(level.length);
            let Some(name) = level.todo.pop() else {
                self.leave();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            if self.path.len() > PATH {
                tracing::warn!("a path of more than {PATH} bytes is left out");
            } else if let Some(seen) = self.look(name)? {
                return Ok(Some(seen));
            }
        }
    }

    fn look(&self, name: CString) -> io::Result<Option<Seen>> {
        for (at, (_, dir)) in self.here.iter().enumerate() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let node = match rustix::fs::openat(dir, &name, flags, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let stat = rustix::fs::fstat(&node)?;
            let gone = self.whiteouts && is_whiteout(&stat);
            return Ok(Some(Seen { stat, node, name, at }).filter(|_| !gone));
        }
        Ok(None)
    }

    /// Enters the directory that was seen last.
    pub(crate) fn descend(&mut self, seen: &Seen) -> io::Result<()> {
        let mut dirs = Vec::new();
        for (at, (tree, dir)) in self.here.iter().enumerate().skip(seen.at) {
            let opened = match at == seen.at {
                true => tree::open_dir(&seen.node, c".")?,
                false => match tree::stat(dir, &seen.name)? {
                    None => continue,
                    Some(stat) if tree::file_type(&stat).is_dir() => tree::open_dir(dir, &seen.name)?,
                    // A whiteout, or something that is no directory, hides what lies below it.
                    Some(_) => break,
                },
            };
            let opaque = self.whiteouts && is_opaque(&opened)?;
            dirs.push((*tree, opened));
            if opaque {
                break;
            }
        }
        self.enter(dirs)
    }

    fn enter(&mut self, dirs: Vec<(usize, OwnedFd)>) -> io::Result<()> {
        let mut names = BTreeSet::new();
        for (_, dir) in &dirs {
            names.extend(tree::names(dir)?);
        }
        let trees = dirs.iter().map(|(tree, _)| *tree).collect();
        self.levels.push(Level { trees, todo: names.into_iter().rev().collect(), length: self.path.len() });
        self.here = dirs;
        Ok(())
    }

    /// Back to the directory above.
    fn leave(&mut self) {
        self.levels.pop();
        let Some(above) = self.levels.last_mut() else { return };
        if above.todo.is_empty() {
            return;
        }
        self.path.truncate(above.length);
        let path: &[u8] = if self.path.is_empty() { b"." } else { &self.path };
        let open = |tree: &usize| Ok((*tree, open_beneath(&self.roots[*tree], path)?));
        match above.trees.iter().map(open).collect::<Result<_, Errno>>() {
            Ok(here) => self.here = here,
            // It was removed or moved away meanwhile.
            Err(_) => above.todo.clear(),
        }
    }
}

fn open_beneath(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root.as_fd(), Path::new(OsStr::from_bytes(path)), flags, Mode::empty(), resolve)
}
