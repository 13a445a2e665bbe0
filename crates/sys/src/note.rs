//! A number that one process leaves for another, out of reach of its own children.
//!
//! Descriptors and memory are copied by a clone, and whoever may trace the child can use the copies. The page of a note is
//! shared with nobody but through its descriptor, which the writer closes, and its mapping is not inherited
//! (`MADV_DONTFORK`, madvise(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::MemfdFlags;

const SIZE: usize = 4096;

/// The reader's side; the number is 0 until it is written.
#[derive(Debug)]
pub struct Note(OwnedFd);

impl Note {
    pub fn new() -> io::Result<Note> {
        let fd = rustix::fs::memfd_create("gantry-note", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, SIZE as u64)?;
        Ok(Note(fd))
    }

    pub fn read(&self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        let n = rustix::io::pread(&self.0, &mut bytes, 0)?;
        if n == bytes.len() { Ok(u32::from_ne_bytes(bytes)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl AsFd for Note {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The writer's side. Stays mapped as long as the process lives.
#[derive(Debug)]
pub struct Pen(NonNull<AtomicU32>);

impl Pen {
    /// `note` may be closed afterwards.
    pub fn new(note: BorrowedFd<'_>) -> io::Result<Pen> {
        let (protection, fd) = (libc::PROT_READ | libc::PROT_WRITE, note.as_raw_fd());
        // SAFETY: a new mapping, wherever the kernel puts it.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, protection, libc::MAP_SHARED, fd, 0) };
        let Some(page) = NonNull::new(page).filter(|_| page != libc::MAP_FAILED) else {
            return Err(io::Error::last_os_error());
        };
        // SAFETY: exactly the mapping made above.
        if unsafe { libc::madvise(page.as_ptr(), SIZE, libc::MADV_DONTFORK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Pen(page.cast()))
    }

    /// In the process that made the pen, never in a child of it.
    pub fn write(self, number: u32) {
        // SAFETY: the page is mapped for good, aligned, and only ever accessed as this atomic.
        unsafe { self.0.as_ref() }.store(number, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let note = Note::new().unwrap();
        assert_eq!(note.read().unwrap(), 0);
        Pen::new(note.as_fd()).unwrap().write(77);
        assert_eq!(note.read().unwrap(), 77);
    }
}
