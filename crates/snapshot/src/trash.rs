//! Trees on their way out: a rename takes them out of sight at once, a thread of its own removes them.
//!
//! Removing a container costs its caller one rename, however many files the container has. What a crash leaves in the
//! trash goes when the next process opens it.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use model::lock::{Condvar, Mutex};
use model::{Context, Result};

use sys::tree;

/// Stack of the thread: a walk holds no more than a few buffers.
const STACK: usize = 128 << 10;

/// A directory whose content is being removed.
pub struct Trash {
    dir: PathBuf,
    /// Trees that wait or are being removed.
    left: Arc<(Mutex<usize>, Condvar)>,
    /// Names in the directory; the disk bounds their number.
    queue: Mutex<Sender<CString>>,
}

impl Trash {
    /// Takes over the existing directory `dir`; what lies in it goes first.
    pub fn open(dir: &Path) -> Result<Trash> {
        let context = || format!("emptying {}", dir.display());
        let (queue, names) = channel();
        let left = Arc::<(Mutex<usize>, Condvar)>::default();
        for entry in fs::read_dir(dir).with_context(context)? {
            // No name of a directory entry has a zero byte, and the receiver lives.
            let name = CString::new(entry.with_context(context)?.file_name().into_vec()).unwrap_or_default();
            *left.0.lock() += 1;
            drop(queue.send(name));
        }
        let parent = File::open(dir).with_context(context)?;
        let thread = std::thread::Builder::new().name("trash".into()).stack_size(STACK);
        let done = left.clone();
        let work = move || {
            // Refused, it works at the priority of all.
            let _ = sys::sched::go_to_the_background();
            empty(&parent, &names, &done);
        };
        thread.spawn(work).context("starting the removal of trash")?;
        Ok(Trash { dir: dir.to_owned(), left, queue: Mutex::new(queue) })
    }

    /// Waits until everything that was taken is removed, or for so long.
    pub fn await_empty(&self, longest: Duration) {
        let (left, changed) = &*self.left;
        drop(changed.wait_timeout_while(left.lock(), longest, |left| *left > 0));
    }

    /// Removes the tree at `path`, which nobody will look for any more; absent is fine. What cannot be renamed (another
    /// file system, a full disk) is removed before this returns.
    pub fn take(&self, path: &Path) -> Result<()> {
        let context = || format!("removing {}", path.display());
        let file_name = path.file_name().unwrap_or_default();
        let name = CString::new(file_name.as_bytes()).unwrap_or_default();
        if fs::rename(path, self.dir.join(file_name)).is_ok() {
            *self.left.0.lock() += 1;
            let queue = self.queue.lock();
            // The thread lives as long as this end of the queue.
            drop(queue.send(name));
            return Ok(());
        }
        match File::open(path.parent().unwrap_or(Path::new("/"))) {
            Ok(parent) => tree::remove(parent, &name).with_context(context),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e).with_context(context),
        }
    }
}

fn empty(parent: &File, names: &Receiver<CString>, (left, changed): &(Mutex<usize>, Condvar)) {
    while let Ok(name) = names.recv() {
        let mut removed = tree::remove(parent, &name);
        // Nobody waits for it.
        while removed.is_err() && sys::descriptors::are_short(sys::descriptors::KEPT_FROM_CLIENTS) {
            std::thread::sleep(sys::descriptors::RETRY_PAUSE);
            removed = tree::remove(parent, &name);
        }
        if let Err(error) = removed {
            tracing::warn!(name = %name.to_string_lossy(), %error, "it stays in the trash until the next start");
        }
        *left.lock() -= 1;
        changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn is_emptied(dir: &Path) -> bool {
        let begin = Instant::now();
        while fs::read_dir(dir).unwrap().next().is_some() {
            if begin.elapsed() > Duration::from_secs(60) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    #[test]
    fn trees_go_at_once_and_leftovers_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, tree) = (dir.path().join("trash"), dir.path().join("tree"));
        for path in [bin.join("old/deep"), tree.join("a/b")] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(bin.join("file"), "x").unwrap();
        let trash = Trash::open(&bin).unwrap();
        trash.take(&tree).unwrap();
        assert!(!tree.exists());
        trash.take(&tree).unwrap();
        assert!(is_emptied(&bin));
        fs::create_dir_all(tree.join("c/d")).unwrap();
        trash.take(&tree).unwrap();
        trash.await_empty(Duration::from_secs(60));
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_moved_is_removed_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, tree) = (dir.path().join("trash"), dir.path().join("tree"));
        fs::create_dir_all(tree.join("a")).unwrap();
        fs::create_dir(&bin).unwrap();
        let trash = Trash::open(&bin).unwrap();
        fs::remove_dir(&bin).unwrap();
        trash.take(&tree).unwrap();
        assert!(!tree.exists());
    }
}
