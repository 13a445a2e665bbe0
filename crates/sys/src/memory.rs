//! Memory of a process that lives long: its allocator (mallopt(3), malloc_trim(3)), and the pages of its executable.
//!
//! glibc gives each thread that meets another one in the allocator an arena of its own, eight for each processor, and keeps
//! in each what was freed between two pieces that are in use. A daemon that is idle after a busy hour would keep its peak.

use std::io;

/// Lets all threads share so many arenas; to be called before there is a second thread.
pub fn limit_arenas(count: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) changes a number of the allocator's.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, count);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}

/// Gives the kernel every page back that holds nothing in use, of all arenas. Blocks the allocator for the time that the
/// kernel needs to take the pages: about a millisecond for ten megabytes.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) is thread-safe and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes that the allocator has given out and not got back (mallinfo(3)); 0 where it does not tell. What it has besides may lie in
/// memory or not: it does not know.
pub fn in_use() -> u64 {
    #[cfg(target_env = "gnu")]
    let in_use = {
        // SAFETY: mallinfo2(3) is thread-safe and only counts.
        let info = unsafe { libc::mallinfo2() };
        (info.uordblks + info.hblkhd) as u64
    };
    #[cfg(not(target_env = "gnu"))]
    let in_use = 0;
    in_use
}

/// The program headers of this executable (elf(5)).
fn program_headers() -> &'static [libc::Elf64_Phdr] {
    // SAFETY: the values are those that the kernel gave this process (getauxval(3)).
    let (start, count) = unsafe { (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM)) };
    if start == 0 {
        return &[];
    }
    // SAFETY: so many headers lie there, in a mapping that lives as long as the process and is never written.
    unsafe { std::slice::from_raw_parts(start as *const libc::Elf64_Phdr, count as usize) }
}

/// Unmaps the pages of the executable's code and constants that were used so far, and returns how many bytes those
/// segments have. What is used again is mapped again from the page cache, without a read of the disk as long as it lies
/// there: about a microsecond for 64 KiB.
pub fn unmap_code() -> io::Result<u64> {
    let headers = program_headers();
    let own = headers.iter().find(|header| header.p_type == libc::PT_PHDR);
    // A program that is loaded where it was linked to has the difference 0.
    let base = own.map_or(0, |own| (headers.as_ptr() as u64).wrapping_sub(own.p_vaddr));
    let page = rustix::param::page_size() as u64;
    let mut unmapped = 0;
    for segment in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0) {
        let start = base.wrapping_add(segment.p_vaddr);
        // Whole pages of the segment alone: what lies beside it may be written to.
        let (first, end) = (start.next_multiple_of(page), (start + segment.p_filesz) / page * page);
        let Some(length) = end.checked_sub(first).filter(|length| *length > 0) else { continue };
        // SAFETY: a private mapping of a file that nothing writes to: its pages are read from the file again (madvise(2)).
        let done = unsafe { libc::madvise(first as *mut libc::c_void, length as usize, libc::MADV_DONTNEED) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        unmapped += length;
    }
    Ok(unmapped)
}

/// Bytes of this process that lie in memory (proc(5), statm).
pub fn resident() -> io::Result<u64> {
    statm(1)
}

/// Bytes of files that this process has mapped in memory, its executable among them (proc(5), statm).
pub fn resident_files() -> io::Result<u64> {
    statm(2)
}

fn statm(field: usize) -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: Option<u64> = text.split_ascii_whitespace().nth(field).and_then(|pages| pages.parse().ok());
    let pages = pages.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/statm"))?;
    Ok(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_goes_on_without_its_code_in_memory() {
        let words = |n: u32| (0..n).map(|i| format!("{i:x}")).collect::<Vec<_>>().join(" ");
        let before = (words(1000), resident_files().unwrap());
        let unmapped = unmap_code().unwrap();
        assert!(unmapped > 1 << 16, "{unmapped} bytes of code and constants");
        for _ in 0..100 {
            unmap_code().unwrap();
            assert_eq!(words(1000), before.0);
        }
        assert!(before.1 > 0 && resident_files().unwrap() > 0);
    }

    #[test]
    fn what_is_freed_between_pieces_in_use_is_given_back() {
        const PIECE: usize = 32 * 1024;
        limit_arenas(2);
        let mut pieces: Vec<Vec<u8>> = (0..4096).map(|n| vec![n as u8; PIECE]).collect();
        let mut n = 0;
        pieces.retain(|_| {
            n += 1;
            n % 64 == 0
        });
        let before = resident().unwrap();
        assert!(cfg!(not(target_env = "gnu")) || before > in_use() + (4096 - 128) * PIECE as u64);
        give_back();
        let after = resident().unwrap();
        assert!(pieces.iter().all(|piece| piece.len() == PIECE));
        let freed = (4096 - 64) * PIECE as u64;
        assert!(after < 4096 * PIECE as u64 / 4 || before - after > freed / 2, "{before} before, {after} after");
    }
}
