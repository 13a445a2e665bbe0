//! Reading a `BPF_MAP_TYPE_RINGBUF` (Documentation/bpf/ringbuf.rst): a page with the reader's position, one with the
//! writer's, then the records, each behind a header of eight bytes, mapped twice so that none is cut.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bits of a record's header: it is being written; it is to be left out.
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER: usize = 8;

/// A ring, mapped for reading.
#[derive(Debug)]
pub struct Ring {
    fd: OwnedFd,
    page: usize,
    /// Bytes of records.
    size: usize,
    /// The reader's page.
    reader: NonNull<u8>,
    /// The writer's page, and the records.
    writer: NonNull<u8>,
}

// SAFETY: the mappings belong to the value, and what others write there is read atomically or after it was released.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps a ring with `size` bytes of records.
    pub fn open(fd: OwnedFd, size: usize) -> io::Result<Ring> {
        let page = rustix::param::page_size();
        let map = |length, access, offset| {
            let (null, shared) = (std::ptr::null_mut(), libc::MAP_SHARED);
            // SAFETY: a new mapping, at an address that the kernel chooses.
            let at = unsafe { libc::mmap(null, length, access, shared, fd.as_raw_fd(), offset) };
            let at = NonNull::new(at.cast::<u8>()).filter(|_| at != libc::MAP_FAILED);
            at.ok_or_else(io::Error::last_os_error)
        };
        let reader = map(page, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        let writer = map(page + 2 * size, libc::PROT_READ, page as libc::off_t);
        let writer = writer.inspect_err(|_| {
            // SAFETY: the mapping that was made above, used by nobody.
            let _ = unsafe { libc::munmap(reader.as_ptr().cast(), page) };
        })?;
        Ok(Ring { fd, page, size, reader, writer })
    }

    /// Readable when there is a record.
    pub fn pollable(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The next record's first bytes, at most as many as `record` has; how many. `None`: there is none.
    pub fn next(&mut self, record: &mut [u8]) -> Option<usize> {
        // SAFETY: both pages are mapped for as long as the value lives, and aligned; the kernel writes whole words.
        let (reader, written) =
            unsafe { (self.reader.cast::<AtomicU64>().as_ref(), self.writer.cast::<AtomicU64>().as_ref()) };
        loop {
            let at = reader.load(Ordering::Relaxed);
            if at >= written.load(Ordering::Acquire) {
                return None;
            }
            let offset = self.page + (at as usize & (self.size - 1));
            // SAFETY: the records are mapped twice, so a header that begins in the first copy lies in the mapping.
            let header = unsafe { self.writer.add(offset).cast::<AtomicU32>().as_ref() }.load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            let length = (header & !(BUSY | DISCARDED)) as usize;
            let taken = length.min(record.len()).min(self.size - HEADER);
            if header & DISCARDED == 0 {
                // SAFETY: as above; a record is not longer than the ring, and was released by the kernel.
                unsafe { self.writer.add(offset + HEADER).copy_to(NonNull::from(&mut *record).cast(), taken) };
            }
            reader.store(at + (HEADER + length).next_multiple_of(8) as u64, Ordering::Release);
            if header & DISCARDED == 0 {
                return Some(taken);
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mappings of this value, which ends here.
        unsafe {
            let _ = libc::munmap(self.reader.as_ptr().cast(), self.page);
            let _ = libc::munmap(self.writer.as_ptr().cast(), self.page + 2 * self.size);
        }
    }
}
