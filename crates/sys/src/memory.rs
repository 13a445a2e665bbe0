//! The allocator of a process that lives long (mallopt(3), malloc_trim(3)).
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

/// Bytes of this process that lie in memory (proc(5), statm).
pub fn resident() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: Option<u64> = text.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    let pages = pages.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/statm"))?;
    Ok(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

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
