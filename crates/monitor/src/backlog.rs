//! Output that a client has not taken yet.
//!
//! A little of it waits in memory, more in an unnamed file on disk. Only when the container's [`Room`] is used up as well, or
//! there is none on the disk, does the backlog call itself full: the container's output then waits for the client, up to the
//! client's last chance (`viewer`). So a slow client loses nothing, and costs neither memory nor, within the limits, the
//! container's time. The room is one for all clients of a container, however many they are.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{CWD, Mode, OFlags};

/// Bytes of one client that wait in memory.
pub const MEMORY: usize = 256 * 1024;
/// Bytes of all clients of a container that wait in memory before more of any goes to its file.
pub const MEMORY_OF_ALL: usize = 2 * 1024 * 1024;
/// Bytes of the files of all clients of a container; a file is given back when its client has caught up or has gone.
pub const SPILL: u64 = 256 * 1024 * 1024;
/// Bytes of a file up to which its client is not held responsible for the room being full.
const SHARE: u64 = 1024 * 1024;
/// Read back from the file at a time.
const BLOCK: usize = 16 * 1024;

/// What the backlogs of one container share.
#[derive(Debug)]
pub struct Room {
    /// Where the files are made.
    dir: PathBuf,
    memory: Cell<usize>,
    spilled: Cell<u64>,
}

impl Room {
    pub fn new(dir: PathBuf) -> Room {
        Room { dir, memory: Cell::new(0), spilled: Cell::new(0) }
    }

    /// Whether the files of all clients together have grown to their bound.
    fn is_full(&self) -> bool {
        self.spilled.get() >= SPILL
    }
}

/// A queue of bytes.
#[derive(Debug)]
pub struct Backlog {
    room: Rc<Room>,
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
    pub fn new(room: &Rc<Room>) -> Backlog {
        Backlog { room: room.clone(), memory: VecDeque::new(), spill: None }
    }

    pub fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.spill.is_none()
    }

    /// Takes bytes in any case, but the caller shall stop reading when this is true.
    pub fn is_full(&self) -> bool {
        match &self.spill {
            Some(spill) => !spill.behind.is_empty() || spill.written >= SHARE && self.room.is_full(),
            // More than that is in memory only if no file could be made.
            None => self.memory.len() > MEMORY,
        }
    }

    /// Appends bytes, to a file if one is needed.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.spill.is_none() && !self.fits(bytes.len()) {
            self.spill = Spill::create(&self.room.dir).ok();
        }
        match &mut self.spill {
            Some(spill) => {
                let before = spill.written;
                spill.append(bytes);
                self.room.spilled.set(self.room.spilled.get() + (spill.written - before));
            }
            None => self.keep(|memory| memory.extend(bytes)),
        }
    }

    fn fits(&self, count: usize) -> bool {
        self.memory.len() + count <= MEMORY && self.room.memory.get() + count <= MEMORY_OF_ALL
    }

    /// Changes what is in memory, and counts it.
    fn keep(&mut self, change: impl FnOnce(&mut VecDeque<u8>)) {
        let others = self.room.memory.get() - self.memory.len();
        change(&mut self.memory);
        self.room.memory.set(others + self.memory.len());
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
        self.keep(|memory| drop(memory.drain(..count)));
        if self.memory.is_empty() {
            self.load();
            if self.memory.is_empty() {
                // Nothing of a burst's memory is kept.
                self.memory = VecDeque::new();
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.keep(|memory| *memory = VecDeque::new());
        self.close();
    }

    fn load(&mut self) {
        let Some(spill) = &mut self.spill else { return };
        let mut block = vec![0; spill.left().min(BLOCK)];
        match spill.file.read_at(&mut block, spill.read) {
            Ok(n) if n > 0 => {
                spill.read += n as u64;
                let more = spill.left() > 0;
                self.keep(|memory| memory.extend(&block[..n]));
                if more {
                    return;
                }
            }
            // Unreadable: the rest is lost.
            _ => {}
        }
        if let Some(spill) = self.close() {
            self.keep(|memory| memory.extend(spill.behind));
        }
    }

    /// Gives the file back.
    fn close(&mut self) -> Option<Spill> {
        let spill = self.spill.take()?;
        self.room.spilled.set(self.room.spilled.get() - spill.written);
        Some(spill)
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.clear();
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

    fn room(dir: &Path) -> Rc<Room> {
        Rc::new(Room::new(dir.to_owned()))
    }

    #[test]
    fn order_is_kept_through_memory_file_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let room = room(dir.path());
        let mut backlog = Backlog::new(&room);
        let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
        let mut got = Vec::new();
        for piece in data.chunks(50_001) {
            backlog.push(piece);
            let n = backlog.front().len().min(20_000);
            got.extend_from_slice(&backlog.front()[..n]);
            backlog.consume(n);
        }
        assert!(backlog.spill.is_some() && !backlog.is_full() && backlog.memory.len() <= MEMORY);
        assert!(room.spilled.get() > 0 && room.memory.get() == backlog.memory.len());
        got.extend(drain(&mut backlog, 30_000));
        assert!(got == data);
        assert_eq!((room.memory.get(), room.spilled.get()), (0, 0));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn memory_filled_exactly_is_not_full() {
        let dir = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::new(&room(dir.path()));
        backlog.push(&[1; MEMORY]);
        assert!(!backlog.is_full() && backlog.spill.is_none());
        backlog.push(&[1]);
        assert!(!backlog.is_full() && backlog.spill.is_some());
    }

    #[test]
    fn all_clients_of_a_container_share_memory_and_disk() {
        let dir = tempfile::tempdir().unwrap();
        let room = room(dir.path());
        let mut backlogs: Vec<_> = (0..100).map(|_| Backlog::new(&room)).collect();
        for backlog in &mut backlogs {
            backlog.push(&[1; MEMORY]);
        }
        assert!(room.memory.get() <= MEMORY_OF_ALL);
        let piece = vec![2; 1 << 20];
        let mut rounds = 0;
        while !backlogs.iter().any(Backlog::is_full) {
            backlogs.iter_mut().for_each(|backlog| backlog.push(&piece));
            rounds += 1;
        }
        // One round may go beyond: it had begun.
        assert!(rounds <= 4 && room.spilled.get() < SPILL + (101 << 20), "{rounds}: {room:?}");
        assert!(backlogs.iter().all(Backlog::is_full));
        let mut modest = Backlog::new(&room);
        modest.push(&[3; MEMORY + 1]);
        assert!(!modest.is_full());
        drop(modest);
        // What one gives back is room for the others.
        while room.is_full() {
            drop(backlogs.pop());
        }
        assert!(!backlogs.iter().any(Backlog::is_full));
        backlogs.clear();
        assert_eq!((room.memory.get(), room.spilled.get()), (0, 0));
    }

    #[test]
    fn without_room_on_disk_it_is_full_and_still_loses_nothing() {
        let mut backlog = Backlog::new(&room(Path::new("/proc/self")));
        backlog.push(&[1; MEMORY]);
        backlog.push(&[2; 100]);
        assert!(backlog.is_full());
        let all = drain(&mut backlog, 1 << 20);
        assert_eq!((all.len(), all[MEMORY - 1], all[MEMORY]), (MEMORY + 100, 1, 2));

        let dir = tempfile::tempdir().unwrap();
        let room = room(dir.path());
        let mut backlog = Backlog::new(&room);
        backlog.push(&[1; MEMORY + 1]);
        backlog.spill.as_mut().unwrap().file = File::open("/dev/null").unwrap();
        backlog.spill.as_mut().unwrap().written = 0;
        room.spilled.set(0);
        backlog.push(&[3; 10]);
        assert!(backlog.is_full());
        assert_eq!(drain(&mut backlog, 7), [3; 10]);
    }
}
