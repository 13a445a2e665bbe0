//! Pseudo-terminals of a given devpts instance, never by a path that a container could have changed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::termios::Winsize;

/// Both ends of a terminal.
#[derive(Debug)]
pub struct Pair {
    pub master: OwnedFd,
    pub peer: OwnedFd,
}

/// A new terminal of the devpts instance whose root directory is `devpts`.
pub fn open_in(devpts: BorrowedFd<'_>) -> io::Result<Pair> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat(devpts, "ptmx", flags | OFlags::NOFOLLOW, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    // SAFETY: the argument of TIOCGPTPEER is a number (open flags).
    let peer = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
    if peer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, owned by nobody else.
    Ok(Pair { master, peer: unsafe { OwnedFd::from_raw_fd(peer) } })
}

/// Sets the size; the foreground process group gets SIGWINCH. Either end will do.
pub fn resize(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Makes the terminal the controlling one of the calling session leader.
pub fn make_controlling(peer: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(peer)?)
}
