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

/// Brings the loopback interface of the calling process's network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: reads one ifreq.
    let r = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
