//! The file under the database: positioned reads and writes, one lock, space reserved ahead.
//!
//! Invariants:
//! - the file is locked (`flock`) for as long as it is open, so that two daemons cannot share a data root;
//! - it always owns more blocks than it has length, where the file system can do that: a full disk then stops neither
//!   the commit that grows the file nor the deletions that make room again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use redb::StorageBackend;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;

/// Bytes reserved at least: the metadata of a few hundred containers.
const RESERVE_MIN: u64 = 4 << 20;

/// How often a held lock is tried again, and the pause before each: a daemon that ended in the middle of starting a
/// process leaves its descriptors to it until that has begun.
const LOCK_ATTEMPTS: (u32, Duration) = (50, Duration::from_millis(20));

/// A database file, locked and with space ahead.
#[derive(Debug)]
pub(crate) struct LockedFile {
    file: File,
}

impl LockedFile {
    /// Opens or creates the file with mode 0600. `WouldBlock` means that another process has it.
    pub(crate) fn open(path: &Path) -> io::Result<LockedFile> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        lock(&file)?;
        let file = LockedFile { file };
        file.reserve(file.len()?)?;
        Ok(file)
    }

    /// Allocates blocks for `len` bytes, and for twice as many when there is room.
    fn reserve(&self, len: u64) -> io::Result<()> {
        let ahead = len.saturating_mul(2).max(RESERVE_MIN);
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, ahead) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(_) => match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, len.max(1)) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
                Err(e) => Err(e.into()),
            },
        }
    }
}

fn lock(file: &File) -> io::Result<()> {
    for _ in 1..LOCK_ATTEMPTS.0 {
        if flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(());
        }
        std::thread::sleep(LOCK_ATTEMPTS.1);
    }
    Ok(flock(file, FlockOperation::NonBlockingLockExclusive)?)
}

impl StorageBackend for LockedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.reserve(len)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}
