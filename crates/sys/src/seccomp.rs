//! Loading a system call filter.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Bytes of one BPF instruction (`struct sock_filter`).
pub const INSTRUCTION: usize = 8;

/// Actions other than allowing are logged: `SECCOMP_FILTER_FLAG_LOG` of seccomp(2).
pub const FLAG_LOG: u32 = libc::SECCOMP_FILTER_FLAG_LOG as u32;
/// Speculation mitigations are not forced on: `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
pub const FLAG_SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;

#[repr(C)]
struct Program {
    len: u16,
    filter: *const libc::sock_filter,
}

/// Filters all further system calls of this process and its descendants by `program`, a `struct sock_filter` array. Needs
/// `no_new_privs` or `CAP_SYS_ADMIN`. `flags` are bits of seccomp(2); the kernel refuses those that it does not know.
pub fn load(program: &[u8], flags: u32) -> io::Result<()> {
    let count = program.len() / INSTRUCTION;
    if !program.len().is_multiple_of(INSTRUCTION) || count == 0 || count > usize::from(u16::MAX) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let filter: Vec<libc::sock_filter> = program
        .chunks_exact(INSTRUCTION)
        .map(|c| libc::sock_filter {
            code: u16::from_ne_bytes([c[0], c[1]]),
            jt: c[2],
            jf: c[3],
            k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
        })
        .collect();
    let program = Program { len: count as u16, filter: filter.as_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::c_ulong::from(flags));
    // SAFETY: program points to `len` instructions that live until the call returns; the kernel copies them.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// socket(2) with all 64 bits of the family's register, of which the kernel takes an int. For programs that try filters.
pub fn socket_of_register(family: u64) -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes three numbers and no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_socket, family, libc::SOCK_DGRAM, 0) };
    match RawFd::try_from(fd) {
        // SAFETY: the kernel has just made it, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
