//! Waiting at the end of a log for more of it.
//!
//! inotify only wakes; what has happened is then read from the files themselves, so that neither a lost event nor a
//! rotation at any moment can make a follower skip or repeat a line. Where inotify is not to be had (the user's limit of
//! instances), the follower looks five times a second.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::chain::{self, Held, Link};
use crate::{Stop, time};

/// How often to look without inotify, nanoseconds.
const LOOK_EVERY: i64 = 200_000_000;

/// A follower's place in the chain.
#[derive(Debug)]
pub struct Follower {
    name: PathBuf,
    /// The file being read.
    held: Held,
    /// The file has been rotated away and has been read to its end since.
    sealed: bool,
    /// The writer had finished before the last attempt to read.
    ending: bool,
    watch: Option<Watch>,
}

/// What to do at the end of the present file.
#[derive(Debug)]
pub enum Next {
    /// There may be more in the same file.
    Again,
    /// Go on with this file.
    File(Link),
    /// Nothing more will come.
    End,
}

impl Follower {
    /// At the newest file when the log was opened.
    pub fn new(name: &Path, held: Held) -> Follower {
        Follower { name: name.to_owned(), held, sealed: false, ending: false, watch: Watch::new(name).ok() }
    }

    /// To be called before the file's end is looked for the first time, so that no change goes unnoticed.
    pub fn watch(&mut self, file: Option<&File>) {
        if let (Some(watch), Some(file)) = (&mut self.watch, file)
            && watch.switch(file).is_err()
        {
            self.watch = None;
        }
    }

    /// The present file gives no more lines: waits for what comes next. `until`: unix nanoseconds.
    pub fn next(&mut self, stop: &Stop, until: Option<i64>) -> io::Result<Next> {
        loop {
            if stop.is_cancelled() {
                return Ok(Next::End);
            }
            if chain::inode_of(&self.name)? != Some(self.held.inode) {
                // The writer has finished with this file, but perhaps after our last look into it.
                if !self.sealed {
                    self.sealed = true;
                    return Ok(Next::Again);
                }
                if let Some(link) = chain::successor(&self.name, self.held)? {
                    self.held = Held::from(&link);
                    self.sealed = false;
                    return Ok(Next::File(link));
                }
            }
            if self.ending || until.is_some_and(|until| time::now() > until) {
                return Ok(Next::End);
            }
            if stop.is_ended() {
                self.ending = true;
                return Ok(Next::Again);
            }
            if self.wait(stop, until)? {
                return Ok(Next::Again);
            }
        }
    }

    /// True = something may have been written; false = a timeout.
    fn wait(&self, stop: &Stop, until: Option<i64>) -> io::Result<bool> {
        let left = until.map(|until| (until - time::now()).max(0) + 1);
        let look = if self.watch.is_none() { Some(LOOK_EVERY) } else { None };
        let timeout = [left, look].into_iter().flatten().min();
        let timeout = timeout.map(|nanos| Timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 });
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        fds.extend(self.watch.as_ref().map(|watch| PollFd::new(&watch.inotify, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return Ok(self.watch.is_none()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        if let Some(watch) = &self.watch {
            watch.drain();
        }
        Ok(true)
    }
}

/// Wakes on writing to one file, and on a new file taking the log's name.
#[derive(Debug)]
struct Watch {
    inotify: OwnedFd,
    file: Option<i32>,
}

impl Watch {
    fn new(name: &Path) -> io::Result<Watch> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let dir = name.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        inotify::add_watch(&inotify, dir, WatchFlags::MOVED_TO | WatchFlags::DELETE)?;
        Ok(Watch { inotify, file: None })
    }

    fn switch(&mut self, file: &File) -> io::Result<()> {
        // By descriptor: the name may be another file's by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let new = inotify::add_watch(&self.inotify, path, WatchFlags::MODIFY)?;
        if let Some(old) = self.file.replace(new).filter(|&old| old != new) {
            // It may be gone by itself, with its file.
            let _ = inotify::remove_watch(&self.inotify, old);
        }
        Ok(())
    }

    fn drain(&self) {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(self.inotify.as_fd(), &mut space);
        while events.next().is_ok() {}
    }
}
