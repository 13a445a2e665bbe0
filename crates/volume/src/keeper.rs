//! The process that keeps the mounts of volumes: `gantry-volumes`.
//!
//! Volumes with a file system of their own (`type=tmpfs`, `nfs`, …) are mounted in its mount namespace, which holds
//! nothing else: `/<volume>` each. So the host's mount table never changes, all users of a volume get copies of one mount
//! (one superblock), and both outlive the daemon. It is there only as long as something is mounted.
//!
//! It is found again by a file of the exec root, which it keeps locked (flock(2)) as long as it lives, with its number in
//! it.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use model::lock::{Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use sys::clone::Flags;
use sys::mount::{Propagation, Reach, set_root_propagation};
use sys::ns;
use sys::rooted::Rooted;

use crate::mounted::COPY;

/// What the process is called.
pub const NAME: &str = "gantry-volumes";
/// How long it may take to be ready.
const READY: Duration = Duration::from_secs(10);
/// How long its end may take.
const END: Duration = Duration::from_secs(10);
/// Descriptor of the locked file in the process.
const LOCK_FD: i32 = 3;
/// Descriptor on which it tells that it is ready.
const READY_FD: i32 = 4;
/// Bytes of a number at most.
const NUMBER: usize = 16;
/// Bytes of the stack of a thread that goes into the namespace.
const STACK: usize = 256 << 10;

/// The daemon's side.
#[derive(Debug)]
pub struct Keeper {
    /// The file by which the process is found.
    file: PathBuf,
    /// Gantry's own program.
    program: Arc<OwnedFd>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    process: Option<Arc<Process>>,
    /// What is mounted in it.
    mounted: HashSet<String>,
}

#[derive(Debug)]
struct Process {
    pidfd: OwnedFd,
    namespace: OwnedFd,
}

/// A volume's mount in the process's namespace.
#[derive(Debug)]
pub struct Kept {
    process: Arc<Process>,
    name: String,
}

impl Keeper {
    /// Finds the process that an earlier daemon has left, if there is one.
    pub fn open(file: PathBuf, program: Arc<OwnedFd>) -> io::Result<Keeper> {
        let process = find(&file)?;
        let mounted = process.as_ref().map(|process| process.mounted()).transpose()?.unwrap_or_default();
        let state = State { process: process.map(Arc::new), mounted };
        Ok(Keeper { file, program, state: Mutex::new(state) })
    }

    /// The names of what is mounted.
    pub fn mounted(&self) -> Vec<String> {
        self.state().mounted.iter().cloned().collect()
    }

    /// The volume's mount; if there is none, `make` makes one.
    pub fn mount<E: From<io::Error>>(&self, name: &str, make: impl FnOnce() -> Result<OwnedFd, E>) -> Result<Kept, E> {
        let known = {
            let mut state = self.state();
            state.forget_dead();
            state.process.clone().filter(|_| state.mounted.contains(name))
        };
        if let Some(process) = known {
            return Ok(Kept { process, name: name.to_owned() });
        }
        // Without the lock: a server that does not answer holds up no other volume.
        let tree = make()?;
        let mut state = self.state();
        state.forget_dead();
        let process = match &state.process {
            Some(process) => process.clone(),
            None => Arc::new(self.start()?),
        };
        state.process = Some(process.clone());
        process.attach(name, &tree)?;
        state.mounted.insert(name.to_owned());
        Ok(Kept { process, name: name.to_owned() })
    }

    /// Unmounts a volume; absent is fine. The process ends behind the last one.
    pub fn unmount(&self, name: &str) -> io::Result<()> {
        let process = {
            let mut state = self.state();
            state.forget_dead();
            state.process.clone().filter(|_| state.mounted.contains(name))
        };
        let Some(process) = process else { return Ok(()) };
        process.detach(name)?;
        let mut state = self.state();
        state.mounted.remove(name);
        if state.mounted.is_empty() {
            state.process = None;
            process.end();
            drop(std::fs::remove_file(&self.file));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn start(&self) -> io::Result<Process> {
        let lock = File::options().create(true).truncate(true).read(true).write(true).open(&self.file)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let (ours, theirs) = sys::fdpass::pair()?;
        let argv = [CString::new(NAME).expect("a name has no zero byte")];
        let child = sys::spawn::detached(self.program.as_fd(), &argv, &[lock.as_fd(), theirs.as_fd()])?;
        drop((lock, theirs));
        let mut ready = [0];
        let said = await_input(ours.as_fd(), READY) && rustix::io::read(&ours, &mut ready).is_ok_and(|n| n == 1);
        let namespace = if said { ns::of_process(child.pidfd.as_fd(), Flags::NEWNS) } else { Err(not_ready()) };
        match namespace {
            Ok(namespace) => Ok(Process { pidfd: child.pidfd, namespace }),
            Err(error) => {
                end(&child.pidfd);
                Err(error)
            }
        }
    }
}

fn not_ready() -> io::Error {
    io::Error::other("the process that keeps the mounts of volumes did not start")
}

impl State {
    /// One that has ended has taken all mounts along.
    fn forget_dead(&mut self) {
        if self.process.as_ref().is_some_and(|process| await_input(process.pidfd.as_fd(), Duration::ZERO)) {
            tracing::warn!("the process that keeps the mounts of volumes has ended");
            self.process.take().inspect(|process| reap(&process.pidfd));
            self.mounted.clear();
        }
    }
}

impl Kept {
    /// A detached copy of the mount, or of the part of it that is at a path in it; no link on the way may lead out.
    pub fn copy(&self, part: &str) -> io::Result<OwnedFd> {
        self.process.inside(|| {
            let place = Rooted::open_dir(place(&self.name))?.locate_beneath(part)?;
            Ok(open_tree(place, "", COPY | OpenTreeFlags::AT_RECURSIVE)?)
        })
    }
}

impl Process {
    fn attach(&self, name: &str, tree: &OwnedFd) -> io::Result<()> {
        self.inside(|| {
            match rustix::fs::mkdirat(CWD, place(name), Mode::RWXU) {
                Err(rustix::io::Errno::EXIST) => {}
                made => made?,
            }
            Ok(move_mount(tree, "", CWD, place(name), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
        })
    }

    fn detach(&self, name: &str) -> io::Result<()> {
        self.inside(|| {
            match unmount(place(name), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                // It is no mount point (any more).
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
                done => done?,
            }
            drop(std::fs::remove_dir(place(name)));
            Ok(())
        })
    }

    /// What is mounted, from the process's mount table (proc_pid_mountinfo(5)).
    fn mounted(&self) -> io::Result<HashSet<String>> {
        let text = std::fs::read_to_string(format!("/proc/{}/mountinfo", sys::process::number(self.pidfd.as_fd())?))?;
        let point = |line: &str| line.split(' ').nth(4).and_then(|point| point.strip_prefix('/')).map(str::to_owned);
        Ok(text.lines().filter_map(point).filter(|name| !name.is_empty() && !name.contains('/')).collect())
    }

    /// Works in the process's mount namespace, on a thread that ends: it must serve nobody else.
    fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let namespace = self.namespace.as_fd();
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("volumes".into()).stack_size(STACK);
            let thread = thread.spawn_scoped(scope, || {
                // Only a thread that shares its root and working directory with no other can go elsewhere.
                ns::unshare(Flags::NEWNS)?;
                ns::join(namespace, Flags::NEWNS)?;
                work()
            })?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("working on the mounts of volumes broke off")))
        })
    }

    fn end(&self) {
        end(&self.pidfd);
    }
}

fn place(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

/// Whether a descriptor becomes readable in time.
fn await_input(fd: BorrowedFd<'_>, wait: Duration) -> bool {
    let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: i64::from(wait.subsec_nanos()) };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&wait)).is_ok_and(|ready| ready > 0)
}

fn end(pidfd: &OwnedFd) {
    // It may have ended by itself.
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    await_input(pidfd.as_fd(), END);
    reap(pidfd);
}

/// One of an earlier daemon is the system's to reap.
fn reap(pidfd: &OwnedFd) {
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

/// The process that an earlier daemon has started.
fn find(path: &Path) -> io::Result<Option<Process>> {
    let file = match File::options().read(true).write(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let is_held = || flock(&file, FlockOperation::NonBlockingLockExclusive).is_err();
    let deadline = std::time::Instant::now() + READY;
    while is_held() {
        // The number is written first thing.
        if let Some(pidfd) = number_in(&file).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            && let Ok(namespace) = ns::of_process(pidfd.as_fd(), Flags::NEWNS)
            && is_held()
        {
            return Ok(Some(Process { pidfd, namespace }));
        }
        if std::time::Instant::now() >= deadline {
            return Err(io::Error::other(format!("{} is locked by a process that is not known", path.display())));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::remove_file(path)?;
    Ok(None)
}

fn number_in(file: &File) -> Option<Pid> {
    let mut bytes = [0; NUMBER];
    let read = file.read_at(&mut bytes, 0).ok()?;
    let text = std::str::from_utf8(&bytes[..read]).ok()?.strip_suffix('\n')?;
    Pid::from_raw(text.parse().ok()?)
}

/// The process itself: makes its namespace and waits for its end.
pub fn main() -> ExitCode {
    let _ = sys::spawn::unblock_signals();
    let _ = rustix::thread::set_name(c"gantry-volumes");
    match keep() {
        // Locked as long as it is open.
        Ok(_lock) => loop {
            std::thread::park();
        },
        Err(error) => {
            // The daemon's log.
            let _ = writeln!(io::stderr(), "{NAME}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn keep() -> io::Result<File> {
    let [lock, ready] = [LOCK_FD, READY_FD].map(sys::spawn::inherited);
    let (lock, mut ready) = (File::from(lock?), File::from(ready?));
    lock.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)?;
    rustix::process::setsid()?;
    ns::unshare(Flags::NEWNS)?;
    set_root_propagation(Reach::Tree, Propagation::Private)?;
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "0700")?;
    fsconfig_create(&context)?;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let old = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&root, "", &old, "", flags)?;
    rustix::process::fchdir(&root)?;
    // The old root lands on top of the new one.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    ready.write_all(b"r")?;
    Ok(lock)
}
