//! inotify(7) on the directories of logs: one instance for all readers of a process, since a user has few of them.
//!
//! An event only says that a reader should look again; what has happened is then read from the files.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// An inotify instance. Its descriptor is readable when a watched directory has changed.
#[derive(Debug)]
pub struct Watches(OwnedFd);

/// A watched directory's number; the kernel gives none twice while the other is in use.
pub type Watch = i32;

/// What [`Watches::drain`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// A file in this directory was written to, or got another name, or was removed.
    In(Watch),
    /// The kernel's queue overflowed: anything may have changed.
    Anything,
}

impl Watches {
    /// Fails with `EMFILE` when the user has no instance left (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Watches> {
        Ok(Watches(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?))
    }

    /// Watches a log's directory; the same one again has the same number. `ENOSPC`: `fs.inotify.max_user_watches`.
    pub fn add(&self, dir: &Path) -> io::Result<Watch> {
        let flags = WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        Ok(inotify::add_watch(&self.0, dir, flags)?)
    }

    /// Watches it no longer. One that is gone already, with its directory, is fine.
    pub fn remove(&self, watch: Watch) {
        let _ = inotify::remove_watch(&self.0, watch);
    }

    /// Takes all events there are; never waits.
    pub fn drain(&self, mut changed: impl FnMut(Changed)) {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(self.0.as_fd(), &mut space);
        while let Ok(event) = events.next() {
            let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            changed(if lost { Changed::Anything } else { Changed::In(event.wd()) });
        }
    }
}

impl AsFd for Watches {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Watches {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn drain(watches: &Watches) -> Vec<Changed> {
        let mut found = Vec::new();
        watches.drain(|changed| found.push(changed));
        found.dedup();
        found
    }

    #[test]
    fn writing_and_rotating_are_noticed_until_the_watch_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("l");
        let mut file = fs::File::create(&name).unwrap();
        let watches = Watches::new().unwrap();
        let watch = watches.add(dir.path()).unwrap();
        assert_eq!(watches.add(dir.path()).unwrap(), watch);
        assert_eq!(drain(&watches), []);
        file.write_all(b"x").unwrap();
        assert_eq!(drain(&watches), [Changed::In(watch)]);
        fs::rename(&name, dir.path().join("l.1")).unwrap();
        assert_eq!(drain(&watches), [Changed::In(watch)]);
        file.write_all(b"by its new name").unwrap();
        assert_eq!(drain(&watches), [Changed::In(watch)]);
        watches.remove(watch);
        // Its own last event is about the watch.
        assert_eq!(drain(&watches), [Changed::In(watch)]);
        file.write_all(b"unseen").unwrap();
        assert_eq!(drain(&watches), []);
        watches.remove(watch);
    }
}
