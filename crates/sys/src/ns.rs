//! Joining and leaving namespaces.
//!
//! Only for single-threaded processes: a thread that has joined another namespace must never serve anyone else.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::clone::Flags;
use crate::process;

/// Joins the namespace of one kind that `fd` (a `/proc/<pid>/ns/<kind>` file) names, or, `fd` being a pidfd, all the
/// namespaces of that process that `flags` tells.
pub fn join(fd: BorrowedFd<'_>, flags: Flags) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let r = unsafe { libc::setns(fd.as_raw_fd(), flags.bits() as i32) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The pause before a namespace that could not be joined again for want of memory is tried once more.
const RETURN_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Runs `work` in another network namespace, then comes back to `home`, whatever that takes: nothing else of the process may
/// run in the other one.
pub fn in_network<T>(
    other: BorrowedFd<'_>,
    home: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    join(other, Flags::NEWNET)?;
    let result = work();
    while join(home, Flags::NEWNET).is_err() {
        std::thread::sleep(RETURN_PAUSE);
    }
    result
}

/// The kinds of namespaces that [`of_process`] opens: flag, request of the pidfd (`PIDFD_GET_*_NAMESPACE`, linux/pidfd.h), file
/// below `/proc/<pid>/ns`.
const KINDS: [(Flags, libc::c_ulong, &str); 7] = [
    (Flags::NEWCGROUP, 0xFF01, "cgroup"),
    (Flags::NEWIPC, 0xFF02, "ipc"),
    (Flags::NEWNS, 0xFF03, "mnt"),
    (Flags::NEWNET, 0xFF04, "net"),
    (Flags::NEWPID, 0xFF05, "pid"),
    (Flags::NEWUSER, 0xFF09, "user"),
    (Flags::NEWUTS, 0xFF0A, "uts"),
];

/// The namespace of one kind in which the process of a pidfd lives; `ESRCH` or `ENOENT` when it has ended.
pub fn of_process(pidfd: BorrowedFd<'_>, kind: Flags) -> io::Result<OwnedFd> {
    let known = KINDS.iter().find(|(flag, ..)| *flag == kind).ok_or(io::ErrorKind::InvalidInput)?;
    match ask_pidfd(pidfd, known.1) {
        // Before Linux 6.11.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => of_number(pidfd, known.2),
        other => other,
    }
}

fn ask_pidfd(pidfd: BorrowedFd<'_>, request: libc::c_ulong) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::ioctl(pidfd.as_raw_fd(), request, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has made this descriptor, close-on-exec, for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// By the process's number: it was still the process's own when the file was opened if the process is there, reaped by
/// nobody, afterwards.
fn of_number(pidfd: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let file = std::fs::File::open(format!("/proc/{}/ns/{name}", process::number(pidfd)?))?;
    process::signal(pidfd, 0)?;
    Ok(file.into())
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Child, Command};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    fn sleeper() -> (Child, OwnedFd) {
        let child = Command::new("sleep").arg("1000").spawn().expect("sleep");
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("pidfd_open");
        (child, pidfd)
    }

    #[test]
    fn namespaces_of_a_process_that_lives_and_of_one_that_has_ended() {
        let (mut child, pidfd) = sleeper();
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).expect("fstat").st_ino;
        for (flag, _, name) in KINDS {
            let own = std::fs::File::open(format!("/proc/self/ns/{name}")).expect(name);
            let own = inode(&own.into());
            assert_eq!(inode(&of_process(pidfd.as_fd(), flag).expect(name)), own, "{name}");
            assert_eq!(inode(&of_number(pidfd.as_fd(), name).expect(name)), own, "{name}");
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
        for (flag, _, name) in KINDS {
            assert!(of_process(pidfd.as_fd(), flag).is_err(), "{name}");
            assert!(of_number(pidfd.as_fd(), name).is_err(), "{name}");
        }
        assert!(of_process(pidfd.as_fd(), Flags::NEWTIME).is_err());
    }
}
