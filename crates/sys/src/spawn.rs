//! Starting a program with chosen descriptors, from a multi-threaded process.
//!
//! A vfork in effect: the child borrows the caller's memory until its execve, so no page table is copied, and the
//! descriptors get their places in the child only: no thread of the caller ever sees (or leaks into another child) one
//! without close-on-exec. The child's copies of all others are closed before its execve, so that none is left when the call
//! returns. glibc's posix_spawn does the same with sixty more system calls, because it asks for the
//! disposition of every signal; here all signals stay blocked instead, and the new program unblocks them
//! ([`unblock_signals`]). A program that is not Gantry's own ([`program`]) gets every signal as a login shell would
//! give it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// The child's stack until its execve.
const STACK: usize = 64 * 1024;
const STACK_ALIGNMENT: usize = 16;
/// Signals that whoever started the caller may have made it ignore (nohup, a shell's background), and the one that Rust's
/// runtime ignores. Handlers are reset by the execve.
const OFTEN_IGNORED: [c_int; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGPIPE,
    libc::SIGCHLD,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];
/// The highest signal number of signal(7).
const LAST_SIGNAL: c_int = 64;
const EXIT_NOT_STARTED: c_int = 127;

/// A child of the calling process.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// What the child does; made before, since it must not allocate.
struct Plan<'a> {
    path: &'a CStr,
    argv: &'a [*const c_char],
    envp: &'a [*const c_char],
    form: Form<'a>,
    /// The errno of the step that failed.
    error: AtomicI32,
}

/// Which descriptors, session and signals the program gets.
enum Form<'a> {
    /// `fds` as 3, 4, …; the program itself is `exe`, which becomes number `own`.
    Detached { exe: RawFd, own: RawFd, fds: &'a [RawFd] },
    /// Standard output and error; both lie above 2.
    Program { output: RawFd, error: RawFd },
}

/// Runs the program that `exe` is (open for reading, or only as a path) with the arguments `argv` in `/`, with `/dev/null`
/// as standard input and output, the caller's standard error, `fds` as 3, 4, …, and an environment of `PATH` only. It stays
/// in the caller's session. All signals are blocked.
pub fn detached(exe: BorrowedFd<'_>, argv: &[CString], fds: &[BorrowedFd<'_>]) -> io::Result<Child> {
    let first_free = 3 + c_int::try_from(fds.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // What lies where a descriptor is moved to is moved out of the way first.
    let mut copies = Vec::new();
    let mut clear = |fd: BorrowedFd<'_>| -> io::Result<RawFd> {
        if fd.as_raw_fd() >= first_free {
            return Ok(fd.as_raw_fd());
        }
        let copy = rustix::io::fcntl_dupfd_cloexec(fd, first_free)?;
        copies.push(copy);
        Ok(copies[copies.len() - 1].as_raw_fd())
    };
    let exe = clear(exe)?;
    let fds: Vec<RawFd> = fds.iter().map(|fd| clear(*fd)).collect::<Result<_, _>>()?;
    let path = CString::new(format!("/proc/self/fd/{first_free}")).expect("a number has no zero byte");
    let search = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let search = CString::new(format!("PATH={search}")).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let (argv, envp) = (pointers(argv), [search.as_ptr(), std::ptr::null()]);
    let form = Form::Detached { exe, own: first_free, fds: &fds };
    started(&Plan { path: &path, argv: &argv, envp: &envp, form, error: AtomicI32::new(0) })
}

/// Runs the program at `path` with the arguments `argv` and nothing but the environment `env` (`NAME=value`), in `/`, in a
/// session (and process group) of its own, with `/dev/null` as standard input, `output` and `errors` as the other two
/// standard streams, and no other descriptor. Every signal has its default disposition and none is blocked.
///
/// Errors: execve(2)'s, `ENOENT` and `E2BIG` among them.
pub fn program(
    path: &CStr,
    argv: &[CString],
    env: &[CString],
    output: BorrowedFd<'_>,
    errors: BorrowedFd<'_>,
) -> io::Result<Child> {
    // Out of the way of the numbers that they will have.
    let output = rustix::io::fcntl_dupfd_cloexec(output, 3)?;
    let errors = rustix::io::fcntl_dupfd_cloexec(errors, 3)?;
    let form = Form::Program { output: output.as_raw_fd(), error: errors.as_raw_fd() };
    started(&Plan { path, argv: &pointers(argv), envp: &pointers(env), form, error: AtomicI32::new(0) })
}

/// With a null pointer at the end.
fn pointers(words: &[CString]) -> Vec<*const c_char> {
    words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
}

fn started(plan: &Plan<'_>) -> io::Result<Child> {
    let child = launch(plan)?;
    match plan.error.load(Ordering::Acquire) {
        0 => Ok(child),
        errno => {
            let id = rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&child.pidfd));
            // It has ended already; only its remains are collected.
            let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
            Err(io::Error::from_raw_os_error(errno))
        }
    }
}

/// Comes back when the child has executed its program or given up.
fn launch(plan: &Plan<'_>) -> io::Result<Child> {
    let mut stack = vec![0_u8; STACK];
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the result lies within the allocation.
    let top = unsafe { top.sub(top.addr() % STACK_ALIGNMENT) };
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let arg = std::ptr::from_ref(plan).cast_mut().cast::<c_void>();
    let before = block_signals()?;
    // SAFETY: the child has a stack of its own and the plan for as long as it shares our memory, since this thread sleeps
    // until its execve or exit; signal handlers cannot run in it, as everything is blocked.
    let pid = unsafe { libc::clone(child, top.cast(), flags, arg, &raw mut pidfd) };
    let error = io::Error::last_os_error();
    set_signal_mask(&before)?;
    if pid < 0 {
        return Err(error);
    }
    // SAFETY: the kernel has stored a new descriptor, owned by nobody else.
    Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// In the child: system calls only, on memory that the parent prepared.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `launch` passes a plan that outlives the child's use of it.
    let plan = unsafe { &*plan.cast_const().cast::<Plan<'_>>() };
    let errno = match arrange(plan) {
        Ok(()) => {
            // SAFETY: strings and arrays end with zero and outlive the call.
            unsafe { libc::execve(plan.path.as_ptr(), plan.argv.as_ptr(), plan.envp.as_ptr()) };
            last_errno()
        }
        Err(errno) => errno,
    };
    plan.error.store(errno, Ordering::Release);
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(EXIT_NOT_STARTED) }
}

fn arrange(plan: &Plan<'_>) -> Result<(), c_int> {
    // SAFETY: numbers and constant strings only; the process is the caller's own child.
    unsafe {
        let null = done(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC))?;
        done(libc::dup2(null, 0))?;
        done(libc::dup2(null, 1))?;
        done(libc::chdir(c"/".as_ptr()))?;
    }
    match plan.form {
        Form::Detached { exe, own, fds } => arrange_detached(exe, own, fds),
        Form::Program { output, error } => arrange_program(output, error),
    }
}

fn arrange_detached(exe: RawFd, own: RawFd, fds: &[RawFd]) -> Result<(), c_int> {
    for signal in OFTEN_IGNORED {
        // SAFETY: numbers only; the child has a table of signal actions of its own.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    for (&fd, target) in fds.iter().zip(3..) {
        // SAFETY: numbers only.
        done(unsafe { libc::dup2(fd, target) })?;
    }
    // SAFETY: numbers only; the table of descriptors is the child's own.
    unsafe {
        if exe != own {
            done(libc::dup3(exe, own, libc::O_CLOEXEC))?;
        }
        done(libc::close_range(own as u32 + 1, u32::MAX, 0))?;
    }
    Ok(())
}

fn arrange_program(output: RawFd, error: RawFd) -> Result<(), c_int> {
    // The kernel's struct sigaction, all zero: the default. glibc would refuse the two signals that it uses itself.
    let default = [0_u64; 4];
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: reads `default` only; SIGKILL and SIGSTOP are refused. None can arrive: all are blocked.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8_usize) };
    }
    // SAFETY: numbers only; the table of descriptors is the child's own.
    unsafe {
        done(libc::dup2(output, 1))?;
        done(libc::dup2(error, 2))?;
        done(libc::close_range(3, u32::MAX, 0))?;
        done(libc::setsid())?;
    }
    // The caller's handlers are gone: from here on a signal does its default.
    set_signal_mask(&empty_set()).map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL))
}

fn done(result: c_int) -> Result<c_int, c_int> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

fn last_errno() -> c_int {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}

fn block_signals() -> io::Result<libc::sigset_t> {
    let (mut all, mut before) = (empty_set(), empty_set());
    // SAFETY: both sets are initialised.
    let r = unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before)
    };
    if r == 0 { Ok(before) } else { Err(io::Error::from_raw_os_error(r)) }
}

fn empty_set() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: initialises the set it is given, and cannot fail.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn set_signal_mask(mask: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialised.
    let r = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
    if r == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(r)) }
}

/// To be called first by a program that [`detached`] has started.
pub fn unblock_signals() -> io::Result<()> {
    set_signal_mask(&empty_set())
}

/// Leaves a descriptor open over the next execve; its number, to be told to the program ([`inherited`]).
pub fn bequeath(fd: OwnedFd) -> io::Result<RawFd> {
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty())?;
    Ok(fd.into_raw_fd())
}

/// Takes possession of a descriptor that [`detached`] or [`bequeath`] gave to this process, and marks it close-on-exec. Each number once,
/// before anything else opens descriptors; a number that is not open is an error.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the protocol above nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
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

    /// What [`program`] gives: standard output, standard error, the exit status.
    fn ran(script: &CStr, env: &[CString]) -> (String, String, i32) {
        let ((mut out, output), (mut err, errors)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let argv = [c"sh".to_owned(), c"-c".to_owned(), script.to_owned()];
        let child = program(c"/bin/sh", &argv, env, output.as_fd(), errors.as_fd()).unwrap();
        drop((output, errors));
        let mut texts = (String::new(), String::new());
        out.read_to_string(&mut texts.0).unwrap();
        err.read_to_string(&mut texts.1).unwrap();
        let id = rustix::process::WaitId::PidFd(child.pidfd.as_fd());
        let status = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).unwrap().unwrap();
        (texts.0, texts.1, status.exit_status().unwrap_or(-1))
    }

    #[test]
    fn a_program_gets_its_streams_and_environment_and_nothing_else() {
        let inherited = rustix::io::dup(File::open("/dev/null").unwrap()).unwrap();
        let (out, err, code) = ran(c"pwd; echo $A; echo no >&2; read x || exit 3", &[c"A=b".to_owned()]);
        assert_eq!((out.as_str(), err.as_str(), code), ("/\nb\n", "no\n", 3));
        // The shell and ls: three streams, and the directory that ls itself has open.
        assert_eq!(ran(c"/bin/ls /proc/self/fd", &[]).0, "0\n1\n2\n3\n");
        let env = ran(c"exec /usr/bin/env", &[c"A=b".to_owned()]).0;
        assert!(
            env.lines().all(|line| ["A=", "PWD=", "SHLVL=", "_="].iter().any(|name| line.starts_with(name))),
            "{env}"
        );
        drop(inherited);
    }

    #[test]
    fn a_program_has_a_session_of_its_own_and_default_signals() {
        let (out, ..) =
            ran(c"echo $$ $(cut -d' ' -f5,6 /proc/$$/stat); exec grep -E '^Sig(Blk|Ign)' /proc/self/status", &[]);
        let mut lines = out.lines();
        let ids: Vec<&str> = lines.next().unwrap().split(' ').collect();
        assert!(ids[0] == ids[1] && ids[1] == ids[2], "{out}");
        assert!(lines.all(|line| line.ends_with("\t0000000000000000")), "{out}");
        let error = program(c"/no/such", &[], &[], std::io::stdin().as_fd(), std::io::stdin().as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        let file = File::open("/etc/passwd").unwrap();
        let error = detached(file.as_fd(), &[c"x".to_owned()], &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
