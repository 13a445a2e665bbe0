//! Becoming another program, and waiting for one.
//!
//! The calls that rustix lacks or that Rust's runtime gets in the way of. All of them act on the calling process and are
//! meant for single-threaded ones.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::process::{WaitId, WaitIdOptions, waitid};

/// A shell's offset of exit codes of processes killed by a signal.
const SIGNALLED: i32 = 128;

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for the end of a child: its exit code, 128 + n after signal n. `Ok(None)` only if `block` is not asked for and it
/// still runs.
pub fn wait(pidfd: BorrowedFd<'_>, block: Block) -> io::Result<Option<i32>> {
    let mut options = WaitIdOptions::EXITED;
    if block == Block::No {
        options |= WaitIdOptions::NOHANG;
    }
    loop {
        match waitid(WaitId::PidFd(pidfd), options) {
            Ok(None) => return Ok(None),
            Ok(Some(status)) => {
                let signalled = status.terminating_signal().map(|s| SIGNALLED + s);
                return Ok(Some(status.exit_status().or(signalled).unwrap_or(SIGNALLED)));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether [`wait`] may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    Yes,
    No,
}

/// Lets a child go on that a signal has stopped; whether it was stopped. One that is traced stays where it is.
pub fn resume_stopped(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let stopped = waitid(WaitId::PidFd(pidfd), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG)?.is_some();
    if stopped {
        signal(pidfd, libc::SIGCONT)?;
    }
    Ok(stopped)
}

/// Sends a signal, real-time ones included, to the process of a pidfd.
pub fn signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo means "as kill(2)".
    let r = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, none, 0) };
    check(r as libc::c_int)
}

/// The number, in the caller's PID namespace, of the process of a pidfd; `ESRCH` when nobody has it any more.
pub fn number(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
    number.filter(|number| *number > 0).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// Ends this process at once: no destructors, no buffers flushed. For the child side of a clone.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Arguments of an execve, prepared before there is anything to undo.
#[derive(Debug)]
pub struct Image {
    strings: Vec<CString>,
    argc: usize,
}

impl Image {
    /// Fails with `InvalidInput` if a string contains a zero byte.
    pub fn new<S: AsRef<str>>(args: &[S], env: &[S]) -> io::Result<Image> {
        let strings: Result<Vec<CString>, _> = args.iter().chain(env).map(|s| CString::new(s.as_ref())).collect();
        Ok(Image { strings: strings?, argc: args.len() })
    }

    /// Executes `path`; comes back only with the error.
    pub fn execute(&self, path: &CStr) -> io::Error {
        let (argv, envp) = self.lists();
        // SAFETY: null-terminated lists of C strings that `self` keeps alive.
        unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        io::Error::last_os_error()
    }

    /// Executes the file that `program` is (open for reading, or only as a path); comes back only with the error.
    pub fn execute_file(&self, program: BorrowedFd<'_>) -> io::Error {
        let (argv, envp) = self.lists();
        let (fd, flags) = (program.as_raw_fd(), libc::AT_EMPTY_PATH);
        // SAFETY: an empty path and null-terminated lists of C strings that `self` keeps alive.
        unsafe { libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), flags) };
        io::Error::last_os_error()
    }

    /// Arguments and environment, each with a null pointer at its end.
    fn lists(&self) -> (Vec<*const libc::c_char>, Vec<*const libc::c_char>) {
        let (args, env) = self.strings.split_at(self.argc);
        let list = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        (list(args), list(env))
    }
}

/// Closes every descriptor from 3 on but `keep`, whoever owns it: only for a process that will own nothing any more, just
/// before its execve. Close-on-exec alone would be too late, since a path like `/proc/self/fd/7/..` in what is executed is
/// resolved before it takes effect.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().filter(|fd| *fd >= 3) {
        if fd > first {
            // SAFETY: no memory is passed.
            check(unsafe { libc::close_range(first, fd - 1, 0) })?;
        }
        first = fd + 1;
    }
    // SAFETY: as above.
    check(unsafe { libc::close_range(first, u32::MAX, 0) })
}

/// Closes the standard streams: for a process that will never use them.
pub fn close_streams() {
    for fd in 0..3 {
        // SAFETY: no memory is passed.
        unsafe { libc::close(fd) };
    }
}

/// Signals that shells and Rust's runtime leave ignored in what they start (`gantryd &`, nohup).
const OFTEN_IGNORED: [libc::c_int; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE, libc::SIGTERM, libc::SIGCHLD];

/// Undoes what was done to signals on the way here: nothing blocked, nothing of the usual ignored. (Handlers are reset by
/// the clone.)
pub fn reset_signals() -> io::Result<()> {
    for signal in OFTEN_IGNORED {
        // SAFETY: SIG_DFL is a valid disposition.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: a zeroed sigset_t is an empty set.
    unsafe {
        let empty: libc::sigset_t = std::mem::zeroed();
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut()))
    }
}

/// The process dies with its parent. The caller must check afterwards that the parent still lives.
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) })
}

/// Whether other processes of the same user may look into this one (`/proc/<pid>/exe`, ptrace).
pub fn set_dumpable(dumpable: Dumpable) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, dumpable as libc::c_ulong, 0, 0, 0) })
}

/// See [`set_dumpable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dumpable {
    No = 0,
    Yes = 1,
}

/// execve no longer grants privileges.
pub fn set_no_new_privs() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Whether a change of user keeps the permitted capabilities.
pub fn keep_capabilities(keep: bool) -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(keep)?)
}

/// Replaces supplementary groups, group and user, in this order.
pub fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the list has `len` elements.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) } as libc::c_int)?;
    // SAFETY: no memory is passed. The raw calls change this thread only, which is the process.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) } as libc::c_int)?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) } as libc::c_int)
}

/// The number of a resource limit's name (`RLIMIT_NOFILE`).
pub fn rlimit_number(name: &str) -> Option<u32> {
    let number = match name.strip_prefix("RLIMIT_")? {
        "CPU" => libc::RLIMIT_CPU,
        "FSIZE" => libc::RLIMIT_FSIZE,
        "DATA" => libc::RLIMIT_DATA,
        "STACK" => libc::RLIMIT_STACK,
        "CORE" => libc::RLIMIT_CORE,
        "RSS" => libc::RLIMIT_RSS,
        "NPROC" => libc::RLIMIT_NPROC,
        "NOFILE" => libc::RLIMIT_NOFILE,
        "MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "AS" => libc::RLIMIT_AS,
        "LOCKS" => libc::RLIMIT_LOCKS,
        "SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "NICE" => libc::RLIMIT_NICE,
        "RTPRIO" => libc::RLIMIT_RTPRIO,
        "RTTIME" => libc::RLIMIT_RTTIME,
        _ => return None,
    };
    Some(number)
}

/// Sets a resource limit of the calling process; `u64::MAX` = unlimited.
pub fn set_rlimit(number: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: reads one struct.
    check(unsafe { libc::prlimit64(0, number, &raw const limit, std::ptr::null_mut()) })
}

/// The most descriptors that are asked for; the kernel's own bound (`fs.nr_open`) is the same unless somebody changed it.
const DESCRIPTORS: u64 = 1 << 20;

/// Raises the calling process's limit of open descriptors as far as it may; returns the soft and the hard limit before. What
/// it starts inherits the new ones.
pub fn raise_descriptor_limit() -> (u64, u64) {
    let before = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let (soft, hard) = (before.current.unwrap_or(u64::MAX), before.maximum.unwrap_or(u64::MAX));
    let highest = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let wanted = highest.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    if soft < wanted && (hard >= wanted || set_rlimit(libc::RLIMIT_NOFILE, wanted, wanted).is_err()) {
        // Raising the hard limit takes CAP_SYS_RESOURCE; the soft one may always go up to it.
        drop(set_rlimit(libc::RLIMIT_NOFILE, wanted.min(hard), hard));
    }
    (soft, hard)
}

/// Joins a new session keyring of its own, so that keys of the host's session cannot be read. A kernel without keyrings is
/// no error.
pub fn new_session_keyring(name: &CStr) -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: name is a C string.
    let r = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    match r {
        -1 => Err(io::Error::last_os_error())
            .or_else(|e| if e.raw_os_error() == Some(libc::ENOSYS) { Ok(()) } else { Err(e) }),
        _ => Ok(()),
    }
}

/// Sets the host name of the calling process's UTS namespace.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Bytes of a domain name that the kernel keeps (`__NEW_UTS_LEN`, uname(2)).
const DOMAINNAME: usize = 64;

/// Sets the NIS domain name of the calling process's UTS namespace; of a longer one the first 64 bytes, as the kernel takes it
/// from `/proc/sys/kernel/domainname`.
pub fn set_domainname(name: &str) -> io::Result<()> {
    Ok(rustix::system::setdomainname(&name.as_bytes()[..name.len().min(DOMAINNAME)])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rlimit_names() {
        assert_eq!(rlimit_number("RLIMIT_NOFILE"), Some(7));
        assert_eq!(rlimit_number("NOFILE"), None);
        assert_eq!(rlimit_number("RLIMIT_X"), None);
    }

    #[test]
    fn zero_bytes_in_arguments() {
        assert!(Image::new(&["a\0b"], &[]).is_err());
    }
}
