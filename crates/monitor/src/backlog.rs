//! Output that a client has not taken yet.
//!
//! A little of it waits in memory, more in an unnamed file on disk. Only when that is full as well, or there is no room for
//! it, does the backlog call itself full: the container's output then waits for the client, up to the client's last chance
//! (`viewer`). So a slow client loses nothing, and costs neither memory nor, within the limits, the container's time.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

/// Bytes that wait in memory.
pub const MEMORY: usize = 256 * 1024;
/// Bytes of the file; it is given back when the client has caught up.
pub const SPILL: u64 = 256 * 1024 * 1024;
/// Read back from the file at a time.
const BLOCK: usize = 64 * 1024;

/// A queue of bytes.
#[derive(Debug, Default)]
pub struct Backlog {
    memory: VecDeque<u8>,
    spill: Option<Spill>,
}

#[derive(Debug)]
struct Spill {
    file: File,
    read: u64,
    written: u64,
    /// What the disk did not take any more; behind the file's contents. A read's worth, since the backlog is full then.
    behind: Vec<u8>,
}

impl Backlog {
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.spill.is_none()
    }

    /// Takes bytes in any case, but the caller shall stop reading when this is true.
    pub fn is_full(&self) -> bool {
        match &self.spill {
            Some(spill) => !spill.behind.is_empty() || spill.written >= SPILL,
            // More than that is in memory only if no file could be made.
            None => self.memory.len() > MEMORY,
        }
    }

    /// Appends bytes; `dir` is where the file is made if one is needed.
    pub fn push(&mut self, bytes: &[u8], dir: &Path) {
        if self.spill.is_none() && self.memory.len() + bytes.len() > MEMORY {
            self.spill = Spill::create(dir).ok();
        }
        match &mut self.spill {
            Some(spill) => spill.append(bytes),
            None => self.memory.extend(bytes),
        }
    }

    /// The next bytes.
    pub fn front(&mut self) -> &[u8] {
        if self.memory.is_empty() {
            self.load();
        }
        self.memory.as_slices().0
    }

    /// The client has taken so many.
    pub fn consume(&mut self, count: usize) {
        self.memory.drain(..count);
        if self.memory.is_empty() {
            self.load();
            if self.memory.is_empty() {
                // Nothing of a burst's memory is kept.
                self.memory = VecDeque::new();
            }
        }
    }

    fn load(&mut self) {
        let Some(spill) = &mut self.spill else { return };
        let mut block = vec![0; spill.left().min(BLOCK)];
        match spill.file.read_at(&mut block, spill.read) {
            Ok(n) if n > 0 => {
                spill.read += n as u64;
                self.memory.extend(&block[..n]);
                if spill.left() > 0 {
                    return;
                }
            }
            // Unreadable: the rest is lost.
            _ => {}
        }
        self.memory.extend(std::mem::take(&mut spill.behind));
        self.spill = None;
    }
}

impl Spill {
    fn create(dir: &Path) -> io::Result<Spill> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Spill { file: file.into(), read: 0, written: 0, behind: Vec::new() })
    }

    fn left(&self) -> usize {
        usize::try_from(self.written - self.read).unwrap_or(usize::MAX)
    }

    fn append(&mut self, bytes: &[u8]) {
        let mut left = bytes;
        while !left.is_empty() && self.behind.is_empty() {
            match self.file.write_at(left, self.written) {
                Ok(n) => {
                    self.written += n as u64;
                    left = &left[n..];
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.behind.extend_from_slice(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(backlog: &mut Backlog, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !backlog.is_empty() {
            let front = backlog.front();
            let n = front.len().min(step);
            all.extend_from_slice(&front[..n]);
            backlog.consume(n);
        }
        all
    }

    #[test]
    fn order_is_kept_through_memory_file_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::default();
        let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
        let mut got = Vec::new();
        for piece in data.chunks(50_001) {
            backlog.push(piece, dir.path());
            let n = backlog.front().len().min(20_000);
            got.extend_from_slice(&backlog.front()[..n]);
            backlog.consume(n);
        }
        assert!(backlog.spill.is_some() && !backlog.is_full() && backlog.memory.len() <= MEMORY);
        got.extend(drain(&mut backlog, 30_000));
        assert!(got == data);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn memory_filled_exactly_is_not_full() {
        let dir = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::default();
        backlog.push(&[1; MEMORY], dir.path());
        assert!(!backlog.is_full() && backlog.spill.is_none());
        backlog.push(&[1], dir.path());
        assert!(!backlog.is_full() && backlog.spill.is_some());
    }

    #[test]
    fn without_room_on_disk_it_is_full_and_still_loses_nothing() {
        let nowhere = Path::new("/proc/self");
        let mut backlog = Backlog::default();
        backlog.push(&[1; MEMORY], nowhere);
        backlog.push(&[2; 100], nowhere);
        assert!(backlog.is_full());
        let all = drain(&mut backlog, 1 << 20);
        assert_eq!((all.len(), all[MEMORY - 1], all[MEMORY]), (MEMORY + 100, 1, 2));

        let dir = tempfile::tempdir().unwrap();
        backlog.push(&[1; MEMORY + 1], dir.path());
        backlog.spill.as_mut().unwrap().file = File::open("/dev/null").unwrap();
        backlog.spill.as_mut().unwrap().written = 0;
        backlog.push(&[3; 10], dir.path());
        assert!(backlog.is_full());
        assert_eq!(drain(&mut backlog, 7), [3; 10]);
    }
}
