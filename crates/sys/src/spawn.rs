//! posix_spawn of a program with chosen descriptors, from a multi-threaded process.
//!
//! glibc's posix_spawn is a vfork: no page table is copied, and the descriptors get their places in the child only, so that
//! no thread of the caller ever sees (or leaks into another child) a descriptor without close-on-exec.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A child of the calling process.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Runs the program that `exe` is (open for reading, or only as a path) with the arguments `argv` in a new session, in `/`, with `/dev/null` as standard input and output, the
/// caller's standard error, `fds` as 3, 4, …, an environment of `PATH` only, and all signals at their defaults.
pub fn detached(exe: BorrowedFd<'_>, argv: &[CString], fds: &[BorrowedFd<'_>]) -> io::Result<Child> {
    let first_free = 3 + i32::try_from(fds.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // All out of the way of the numbers that they are moved to.
    let exe = rustix::io::fcntl_dupfd_cloexec(exe, first_free)?;
    let path = CString::new(format!("/proc/self/fd/{}", exe.as_raw_fd())).expect("a number has no zero byte");
    let fds: Vec<OwnedFd> =
        fds.iter().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, first_free)).collect::<Result<_, _>>()?;
    let mut actions = Actions::new()?;
    actions.open(0, c"/dev/null", libc::O_RDONLY)?;
    actions.open(1, c"/dev/null", libc::O_WRONLY)?;
    for (fd, target) in fds.iter().zip(3..) {
        actions.move_to(fd, target)?;
    }
    actions.chdir(c"/")?;
    let attributes = Attributes::new_session()?;
    let search = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let search = CString::new(format!("PATH={search}")).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let argv: Vec<*mut libc::c_char> = argv.iter().map(|a| a.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect();
    let envp = [search.as_ptr().cast_mut(), std::ptr::null_mut()];
    let mut pid: libc::pid_t = 0;
    // SAFETY: every pointer is to an initialised object that outlives the call; argv and envp end with null.
    check(unsafe {
        libc::posix_spawn(&mut pid, path.as_ptr(), &actions.0, &attributes.0, argv.as_ptr(), envp.as_ptr())
    })?;
    let child = Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn returned no pid"))?;
    // The child cannot have been reaped: only the caller does that, and only by what is returned here.
    Ok(Child { pid, pidfd: pidfd_open(child, PidfdFlags::empty())? })
}

/// Takes possession of a descriptor that [`detached`] gave to this process, and marks it close-on-exec. Each number once,
/// before anything else opens descriptors; a number that is not open is an error.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the protocol above nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn check(errno: libc::c_int) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Actions> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: initialises the object it is given.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialised by the successful call above.
        Ok(Actions(unsafe { actions.assume_init() }))
    }

    fn open(&mut self, fd: i32, path: &CStr, flags: i32) -> io::Result<()> {
        // SAFETY: the object is initialised; the path is copied.
        check(unsafe { libc::posix_spawn_file_actions_addopen(&mut self.0, fd, path.as_ptr(), flags, 0) })
    }

    fn move_to(&mut self, fd: &OwnedFd, target: i32) -> io::Result<()> {
        // SAFETY: the object is initialised; numbers only.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, fd.as_raw_fd(), target) })
    }

    fn chdir(&mut self, path: &CStr) -> io::Result<()> {
        // SAFETY: the object is initialised; the path is copied.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&mut self.0, path.as_ptr()) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    /// A new session, every signal at its default and none blocked.
    fn new_session() -> io::Result<Attributes> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: initialises the object it is given.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised by the successful call above.
        let mut attributes = Attributes(unsafe { attributes.assume_init() });
        let (mut all, mut none) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: both calls initialise the set they are given and cannot fail.
        let (all, none): (libc::sigset_t, libc::sigset_t) = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::sigemptyset(none.as_mut_ptr());
            (all.assume_init(), none.assume_init())
        };
        let flags = libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSID as i32;
        // SAFETY: the object and the sets are initialised and copied.
        unsafe {
            check(libc::posix_spawnattr_setsigdefault(&mut attributes.0, &all))?;
            check(libc::posix_spawnattr_setsigmask(&mut attributes.0, &none))?;
            check(libc::posix_spawnattr_setflags(&mut attributes.0, flags as libc::c_short))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new_session`, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    /// The output of a shell script, which it writes to descriptor 3, of which it has `copies` in a row.
    fn output(script: &CStr, copies: usize) -> String {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let argv = [c"sh".to_owned(), c"-c".to_owned(), script.to_owned(), c"zero".to_owned()];
        let fds = vec![writer.as_fd(); copies];
        let child = detached(File::open("/bin/sh").unwrap().as_fd(), &argv, &fds).unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let id = rustix::process::WaitId::PidFd(child.pidfd.as_fd());
        let status = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0));
        text
    }

    #[test]
    fn descriptors_and_arguments_arrive() {
        assert_eq!(output(c"echo $0 $(pwd) >&3", 1), "zero /\n");
        assert_eq!(output(c"echo x >&4; echo y >&5", 3), "x\ny\n");
        // The test itself may have been started with open descriptors: only the difference counts.
        let count = |copies| output(c"ls /proc/self/fd | wc -l >&3", copies).trim().parse::<usize>().unwrap();
        assert_eq!(count(3), count(1) + 2);
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        let file = File::open("/etc/passwd").unwrap();
        let error = detached(file.as_fd(), &[c"x".to_owned()], &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
