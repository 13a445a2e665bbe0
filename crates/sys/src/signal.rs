//! Signals of a single-threaded process that takes them one by one instead of having handlers, and the foreground of its
//! terminal.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Faults of the process itself; blocking them would hide them.
const FAULTS: [libc::c_int; 7] =
    [libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];

/// `SIGCHLD`: a child ended, stopped or goes on.
pub const CHILD: i32 = libc::SIGCHLD;
/// `SIGTTIN`: a background process reads its terminal.
pub const TERMINAL_INPUT: i32 = libc::SIGTTIN;
/// `SIGTTOU`: a background process writes to its terminal.
pub const TERMINAL_OUTPUT: i32 = libc::SIGTTOU;

/// All signals but faults, blocked: they wait until [`Blocked::next`] takes them. Children inherit that, but for
/// [`spawn_in_foreground`].
#[derive(Debug)]
pub struct Blocked {
    set: libc::sigset_t,
}

impl Blocked {
    /// Blocks them for the calling thread (pthread_sigmask(3)). The kernel's errno when it refuses.
    pub fn all() -> io::Result<Blocked> {
        // SAFETY: sigfillset and sigdelset fill the set before it is read; the numbers are valid.
        let set = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut set);
            for fault in FAULTS {
                libc::sigdelset(&raw mut set, fault);
            }
            set
        };
        // SAFETY: reads one set.
        let r = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if r == 0 { Ok(Blocked { set }) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits for a signal and takes it.
    pub fn next(&self) -> io::Result<i32> {
        loop {
            // SAFETY: reads one set; no siginfo is asked for.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.set, std::ptr::null_mut()) };
            match signal {
                -1 => {}
                signal => return Ok(signal),
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// The signal has no effect from now on. Programs executed later inherit that.
pub fn ignore(signal: i32) -> io::Result<()> {
    set_disposition(signal, libc::SIG_IGN)
}

fn set_disposition(signal: i32, disposition: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: callers pass SIG_IGN or SIG_DFL, never a handler.
    let r = unsafe { libc::signal(signal, disposition) };
    if r == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends `signal`, real-time ones included, to a process. One that is gone is no error.
pub fn send(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error())
            .or_else(|e| if e.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(e) }),
    }
}

/// Starts a child in a process group of its own, which becomes the foreground of the terminal on standard input, if there is
/// one, before the program runs: keys like Ctrl-C then reach the child alone. In the child nothing is blocked, and
/// [`TERMINAL_INPUT`] and [`TERMINAL_OUTPUT`] have their default effect.
pub fn spawn_in_foreground(command: &mut Command) -> io::Result<Child> {
    let take_terminal = || {
        set_disposition(libc::SIGTTOU, libc::SIG_IGN)?;
        // SAFETY: no memory is passed. Without a terminal there is nothing to take.
        unsafe { libc::tcsetpgrp(libc::STDIN_FILENO, libc::getpid()) };
        set_disposition(libc::SIGTTIN, libc::SIG_DFL)?;
        set_disposition(libc::SIGTTOU, libc::SIG_DFL)?;
        crate::process::reset_signals()
    };
    command.process_group(0);
    // SAFETY: the closure makes system calls only; nothing in it allocates or takes a lock.
    unsafe { command.pre_exec(take_terminal) }.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_signals_wait() {
        // In a thread of its own: the mask belongs to the thread, and so does a signal sent to it.
        std::thread::spawn(|| {
            let blocked = Blocked::all().unwrap();
            // SAFETY: no memory is passed.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGRTMIN() + 3) };
            assert_eq!(blocked.next().unwrap(), libc::SIGRTMIN() + 3);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn children_in_the_foreground_have_nothing_blocked() {
        std::thread::spawn(|| {
            let _blocked = Blocked::all().unwrap();
            let mut child = spawn_in_foreground(Command::new("sh").args(["-c", "kill -TERM $$"])).unwrap();
            assert_eq!(child.wait().unwrap().code(), None);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn sending() {
        send(std::process::id() as i32, 0).unwrap();
        let mut child = spawn_in_foreground(Command::new("sleep").arg("60")).unwrap();
        let pid = child.id() as i32;
        // SAFETY: no memory is passed.
        assert_eq!(unsafe { libc::getpgid(pid) }, pid);
        send(pid, libc::SIGTERM).unwrap();
        assert!(!child.wait().unwrap().success());
        send(pid, libc::SIGTERM).unwrap();
    }
}
