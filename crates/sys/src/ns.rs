//! Joining and leaving namespaces.
//!
//! Only for single-threaded processes: a thread that has joined another namespace must never serve anyone else.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::clone::Flags;

/// Joins the namespace of one kind that `fd` (a `/proc/<pid>/ns/<kind>` file) names, or, `fd` being a pidfd, all the
/// namespaces of that process that `flags` tells.
pub fn join(fd: BorrowedFd<'_>, flags: Flags) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let r = unsafe { libc::setns(fd.as_raw_fd(), flags.bits() as i32) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves the process into new namespaces (`NEWTIME` and `NEWPID`: its later children).
pub fn unshare(flags: Flags) -> io::Result<()> {
    // SAFETY: no memory is passed; CLONE_FILES and CLONE_FS are not among `Flags`.
    let r = unsafe { libc::unshare(flags.bits() as i32) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
