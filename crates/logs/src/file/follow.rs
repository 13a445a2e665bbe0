//! A follower's place at the end of a log.
//!
//! Nothing here waits: a follower is told from outside that it should look again ([`crate::Watches`], or simply time). What
//! has happened is read from the files themselves, so that neither a lost event nor a rotation at any moment can make a
//! follower skip or repeat a line.

use std::io;
use std::path::{Path, PathBuf};

use super::chain::{self, Held, Successor};
use crate::time;

/// A follower's place in the chain.
#[derive(Debug)]
pub struct Follower {
    name: PathBuf,
    /// The file being read.
    held: Held,
    /// The file has been rotated away and has been read to its end since.
    sealed: bool,
    /// The writer has finished.
    finished: bool,
    /// The writer had finished before the last attempt to read.
    ending: bool,
}

/// What to do at the end of the present file.
#[derive(Debug)]
pub enum Next {
    /// There may be more in the same file.
    Again,
    /// Go on with this file.
    File(Successor),
    /// There is nothing more now.
    Wait,
    /// Nothing more will come.
    End,
}

impl Follower {
    /// At the newest file when the log was opened.
    pub fn new(name: &Path, held: Held) -> Follower {
        Follower { name: name.to_owned(), held, sealed: false, finished: false, ending: false }
    }

    /// The writer has finished: what it has written until now is all there is.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The present file gives no more lines: what comes next. `until`: unix nanoseconds. `end`: of the present file, once it is
    /// rotated away.
    pub fn next(&mut self, until: Option<i64>, end: impl FnOnce() -> Option<u64>) -> io::Result<Next> {
        if chain::inode_of(&self.name)? != Some(self.held.inode) {
            // The writer has finished with this file, but perhaps after our last look into it.
            if !self.sealed {
                self.sealed = true;
                return Ok(Next::Again);
            }
            if let Some(next) = chain::successor(&self.name, self.held, end())? {
                self.held = Held::from(&next.link);
                self.sealed = false;
                return Ok(Next::File(next));
            }
        }
        if self.ending || until.is_some_and(|until| time::now() > until) {
            return Ok(Next::End);
        }
        if self.finished {
            self.ending = true;
            return Ok(Next::Again);
        }
        Ok(Next::Wait)
    }
}
