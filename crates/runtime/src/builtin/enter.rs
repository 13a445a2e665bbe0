//! Into a PID namespace in which others may watch: an exec, or a start that shares a container's PID namespace.
//!
//! Whoever may trace processes there sees everything of a new one from its first moment on: its root, its working directory,
//! its descriptors, its program and its memory. So the process is made by a *stage*, a process outside of that namespace:
//! a fresh image of Gantry's sealed executable ([`main`]) that is told no more than the one process to make. It joins all
//! other namespaces, puts the streams in their places, closes everything else, the line to its parent included, and only
//! then has a child in the PID namespace, which becomes its own parent's child (`CLONE_PARENT`). What is visible has the
//! container's root, the streams, and the end of a pipe for an error. The child's number is left in a [`sys::note`].
//!
//! A procfs is that of the PID namespace of whoever opens its context (fsopen(2)). For a container that shares one, a member
//! with an empty root does no more than that: the context is taken from it, and the mount, in which nothing is masked yet, is
//! made outside.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, UnmountFlags, fsopen, unmount};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, WaitId, WaitIdOptions, pidfd_getfd, pidfd_open, waitid};
use serde::{Deserialize, Serialize};
use sys::clone::{Flags, Side, clone3};
use sys::fdpass;
use sys::mount::{Attr, Propagation, Reach, set_root_propagation};
use sys::note::{Note, Pen};
use sys::ns;
use sys::process::{self, Block, Dumpable, Image};
use sys::rooted::Rooted;

use super::program::{Program, Streams};
use super::report::{Reporter, Status};
use super::tree::{self, Fd, keep};
use super::{devices, leave, run_child};
use crate::error::{At, Stage, StartError};
use crate::pending::SIGKILL;
use crate::{Stdio, oci, seccomp};

/// The name by which `main` of the executable knows that it is a stage.
pub const NAME: &str = "gantry-enter";
/// Bytes of a job; its process comes beside it.
const MAX_JOB: usize = 16 * 1024;
/// Bytes of a process with its filter.
const MAX_PROCESS: u64 = 32 << 20;

fn stage() -> Stage {
    Stage::Clone
}

/// What a stage does. Descriptors travel beside it: where it reports, the PID namespace (or a process in it), and those
/// named here.
#[derive(Debug, Serialize, Deserialize)]
enum Job {
    /// Makes a process. Descriptors: a memfd with the filter and then the process as JSON; the host's `/proc`; the writing
    /// end of the process's [`Status`]; the note for its number; the streams.
    Program(Place),
    /// Has a process open the context of a procfs. Descriptor: the note for its number.
    Procfs,
}

/// Where the process comes to be.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Place {
    /// The container's id.
    pub(super) container: String,
    /// Namespaces to be joined first, those of the process that the second descriptor is.
    pub(super) join: u64,
    /// Whether the PID namespace is another than the stage's.
    pub(super) other_pid_namespace: bool,
    pub(super) given: Given,
    /// Bytes of the seccomp program, and its flags.
    pub(super) filter: (u64, u32),
}

/// Where the streams come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Given {
    /// They are the stage's own.
    Inherited,
    /// A new terminal of the container's.
    Terminal,
    /// Standard input, output and error, those that are there.
    Pipes([bool; 3]),
}

/// What a process is made of, on the side of whoever orders it.
pub(super) struct Order<'a> {
    pub(super) place: Place,
    pub(super) process: &'a oci::Process,
    pub(super) seccomp: &'a seccomp::Program,
    pub(super) reporter: &'a Reporter,
    /// The PID namespace, or a process in it.
    pub(super) namespace: BorrowedFd<'a>,
    /// The host's `/proc`.
    pub(super) proc: BorrowedFd<'a>,
    pub(super) line: &'a Line,
    pub(super) io: &'a Stdio,
}

/// What a stage and its child leave for the parent.
pub(super) struct Line {
    status: OwnedFd,
    note: OwnedFd,
}

impl Line {
    /// With the parent's ends.
    pub(super) fn new() -> Result<(Line, Status, Note), StartError> {
        let (heard, status) = Status::new()?;
        let note = Note::new().at(stage, "memfd_create")?;
        let line = Line { status, note: note.as_fd().try_clone_to_owned().at(stage, "dup")? };
        Ok((line, heard, note))
    }
}

impl Order<'_> {
    /// Puts the order down for the stage that gets the returned socket.
    pub(super) fn send(mut self) -> Result<OwnedFd, StartError> {
        self.place.filter = (self.seccomp.instructions.len() as u64, self.seccomp.flags);
        let memory = rustix::fs::memfd_create("gantry-process", MemfdFlags::CLOEXEC).at(stage, "memfd_create")?;
        let mut memory = File::from(memory);
        memory.write_all(&self.seccomp.instructions).at(stage, "write")?;
        serde_json::to_writer(&memory, self.process).map_err(std::io::Error::from).at(stage, "write")?;
        let mut fds = vec![self.reporter.as_fd(), self.namespace, memory.as_fd(), self.proc, self.line.status.as_fd()];
        fds.push(self.line.note.as_fd());
        fds.extend([&self.io.stdin, &self.io.stdout, &self.io.stderr].into_iter().flatten().map(AsFd::as_fd));
        order(&Job::Program(self.place), &fds)
    }
}

/// A socket with an order in it.
fn order(job: &Job, fds: &[BorrowedFd<'_>]) -> Result<OwnedFd, StartError> {
    let (ours, theirs) = fdpass::pair().at(stage, "socketpair")?;
    let job = serde_json::to_vec(job).map_err(std::io::Error::from).at(stage, "job")?;
    fdpass::send(&ours, &job, fds).at(stage, "send")?;
    Ok(theirs)
}

/// Becomes the stage that carries out the order. `executable`: [`sys::exe::own`]; nothing else survives but what the order
/// holds and the first three descriptors.
pub(super) fn become_stage(executable: BorrowedFd<'_>, order: OwnedFd) -> Result<(), StartError> {
    process::set_dumpable(Dumpable::No).at(stage, "prctl")?;
    let number = sys::spawn::bequeath(order).at(stage, "fcntl")?;
    let image = Image::new(&[NAME.to_owned(), number.to_string()], &[]).at(stage, "arguments")?;
    Err(image.execute_file(executable)).at(stage, "execveat")
}

/// A procfs of the PID namespace `namespace`, detached. For the child that builds a container's root.
pub(super) fn procfs(
    executable: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
    options: &[String],
    attr: Attr,
) -> Result<Fd, StartError> {
    let (ours, theirs) = fdpass::pair().at(stage, "socketpair")?;
    let (reporter, note) = (Reporter::from(theirs), Note::new().at(stage, "memfd_create")?);
    let order = order(&Job::Procfs, &[reporter.as_fd(), namespace, note.as_fd()])?;
    let stage_pidfd = match clone3(Flags::default(), None).at(stage, "clone3")? {
        Side::Child => run_child(|error| reporter.error(error), || become_stage(executable, order)),
        Side::Parent { pidfd, .. } => pidfd,
    };
    drop((reporter, order));
    // This process is given up by its parent when something takes too long.
    process::wait(stage_pidfd.as_fd(), Block::Yes).at(stage, "waitid")?;
    let Some(pid) = Pid::from_raw(note.read().at(stage, "pread")?.cast_signed()) else {
        return Err(super::report::last_word(&ours));
    };
    let member = pidfd_open(pid, PidfdFlags::empty()).at(stage, "pidfd_open")?;
    let context = take_from(&member);
    let _ = process::signal(&member, SIGKILL);
    process::wait(member.as_fd(), Block::Yes).at(stage, "waitid")?;
    let context = keep(context?);
    tree::configure(context, options).and_then(|()| tree::create(context, attr)).map(keep).at(stage, "fsmount")
}

/// What a member of the namespace offers as descriptor 0 when it has stopped; its exit code is an errno.
fn take_from(member: &OwnedFd) -> Result<OwnedFd, StartError> {
    let status =
        waitid(WaitId::PidFd(member.as_fd()), WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    match status.at(stage, "waitid")?.and_then(|status| status.exit_status()) {
        Some(errno) => Err(StartError::new(stage(), errno, "fsopen")),
        None => pidfd_getfd(member, 0, PidfdGetfdFlags::empty()).at(stage, "pidfd_getfd"),
    }
}

/// The whole life of a stage: `gantry-enter N`, descriptor N being a socket with an order in it.
pub fn main() -> ! {
    // Whoever calls the executable by this name by hand has no such socket.
    let number = std::env::args().nth(1).and_then(|number| number.parse().ok());
    let Some(order) = number.and_then(|number| sys::spawn::inherited(number).ok()) else { process::exit_now(1) };
    let _ = process::set_dumpable(Dumpable::No);
    let _ = rustix::thread::set_name(c"gantry-enter");
    let mut buffer = vec![0; MAX_JOB];
    let Ok((length, fds)) = fdpass::receive(&order, &mut buffer) else { process::exit_now(1) };
    drop(order);
    let mut fds = fds.into_iter();
    let (Some(reporter), Some(namespace)) = (fds.next().map(Reporter::from), fds.next()) else { process::exit_now(1) };
    let job = serde_json::from_slice::<Job>(&buffer[..length]).map_err(std::io::Error::from);
    drop(buffer);
    match job.at(stage, "job") {
        Ok(Job::Program(place)) => bear(&place, &reporter, namespace, fds),
        Ok(Job::Procfs) => {
            run_child(|error| reporter.error(error), || open_procfs(&namespace, &fds.next().ok_or_else(missing)?))
        }
        Err(error) => run_child(|error| reporter.error(error), || Err(error)),
    }
}

fn missing() -> StartError {
    StartError::new(stage(), 0, "a descriptor is missing")
}

/// Makes the process.
fn bear(place: &Place, reporter: &Reporter, namespace: OwnedFd, mut fds: impl Iterator<Item = OwnedFd>) -> ! {
    // As long as the line to the parent is there errors go that way, and through the pipe afterwards.
    let status = std::cell::OnceCell::new();
    let tell = |error: &StartError| match status.get() {
        None => reporter.error(error),
        Some(status) => Status::write(*status, error),
    };
    run_child(tell, || {
        let mut next = || fds.next().ok_or_else(missing);
        let (memory, proc, line, note) = (next()?, next()?, next()?, next()?);
        let (process, seccomp) = read(memory, place.filter)?;
        let io = match place.given {
            Given::Pipes(there) => {
                let [stdin, stdout, stderr] = there.map(|there| if there { next().map(Some) } else { Ok(None) });
                Stdio { stdin: stdin?, stdout: stdout?, stderr: stderr? }
            }
            _ => Stdio::default(),
        };
        let pen = Pen::new(note.as_fd()).at(stage, "mmap")?;
        super::write_attributes(&proc, &process)?;
        let streams = join(place, &namespace, (&process, io), reporter)?;
        let program = Program::prepare(&process, &seccomp, streams)?;
        if place.other_pid_namespace {
            ns::join(namespace.as_fd(), Flags::NEWPID).map_err(|e| refused(place, &e, "setns"))?;
        }
        // Nothing that is still open belongs to anybody.
        let line = keep(line);
        process::close_all_but(&[line]).at(stage, "close_range")?;
        let _ = status.set(line);
        match clone3(Flags::PARENT, None).map_err(|e| refused(place, &e, "clone3"))? {
            Side::Child => run_child(
                |error| Status::write(line, error),
                || {
                    rustix::process::setsid().at(stage, "setsid")?;
                    program.run(line)
                },
            ),
            Side::Parent { pid, .. } => {
                pen.write(pid.cast_unsigned());
                leave()
            }
        }
    })
}

/// Joins all namespaces but the PID namespace; the streams.
fn join(
    place: &Place,
    namespace: &OwnedFd,
    (process, io): (&oci::Process, Stdio),
    reporter: &Reporter,
) -> Result<Streams, StartError> {
    if place.join != 0 {
        super::new_keyring(&place.container)?;
        ns::join(namespace.as_fd(), Flags::from_bits(place.join)).map_err(|e| refused(place, &e, "setns"))?;
    }
    Ok(match place.given {
        Given::Pipes(_) => Streams::Pipes(io),
        Given::Terminal => Streams::Terminal(terminal(process, reporter)?),
        Given::Inherited => Streams::Inherited,
    })
}

/// The namespaces of a process that has ended cannot be joined (`ESRCH`), and a PID namespace whose init has ended takes no
/// new process (`ENOMEM`).
fn refused(place: &Place, error: &std::io::Error, call: &str) -> StartError {
    let errno = error.raw_os_error().unwrap_or(0);
    if [Errno::SRCH, Errno::NOMEM].iter().any(|gone| gone.raw_os_error() == errno) {
        let text = format!("container {} is not running", place.container);
        return StartError::new(Stage::NotRunning, errno, text);
    }
    StartError::new(if call == "setns" { Stage::Namespace } else { Stage::Clone }, errno, call)
}

/// The process and its seccomp program.
fn read(memory: OwnedFd, (filter, flags): (u64, u32)) -> Result<(oci::Process, seccomp::Program), StartError> {
    let mut memory = File::from(memory);
    memory.rewind().at(stage, "seek")?;
    let mut bytes = Vec::new();
    memory.take(MAX_PROCESS).read_to_end(&mut bytes).at(stage, "read")?;
    let (instructions, process) =
        usize::try_from(filter).ok().and_then(|n| bytes.split_at_checked(n)).ok_or_else(missing)?;
    let process = serde_json::from_slice(process).map_err(std::io::Error::from).at(stage, "process")?;
    Ok((process, seccomp::Program { instructions: instructions.to_vec(), flags }))
}

/// A new terminal of the container's, whose master end the parent keeps.
fn terminal(process: &oci::Process, reporter: &Reporter) -> Result<OwnedFd, StartError> {
    let root = Rooted::open_dir("/").at(|| Stage::Console, "open /")?;
    let pair = devices::terminal_in(&root)?;
    super::size_console(&pair, process)?;
    reporter.keep(Some(pair.master.as_fd()), None)?;
    Ok(pair.peer)
}

/// Has a member of the PID namespace open the context of a procfs. The member has nothing in sight and holds nothing else.
fn open_procfs(namespace: &OwnedFd, note: &OwnedFd) -> Result<(), StartError> {
    enter_nothing()?;
    let pen = Pen::new(note.as_fd()).at(stage, "mmap")?;
    ns::join(namespace.as_fd(), Flags::NEWPID).at(|| Stage::Namespace, "setns")?;
    process::close_all_but(&[]).at(stage, "close_range")?;
    process::close_streams();
    match clone3(Flags::PARENT, None).at(stage, "clone3")? {
        Side::Child => offer_procfs(),
        Side::Parent { pid, .. } => {
            pen.write(pid.cast_unsigned());
            leave()
        }
    }
}

/// The member: holds the context as descriptor 0 until it is killed. Its exit code is an errno.
fn offer_procfs() -> ! {
    let _ = process::die_with_parent();
    // With the streams closed the context may be descriptor 0 itself: it stays open in either case.
    let offer = || rustix::stdio::dup2_stdin(keep(fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?));
    match offer() {
        Err(errno) => process::exit_now(errno.raw_os_error()),
        Ok(()) => loop {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
        },
    }
}

/// An empty, unchangeable root in place of everything. Called where a container's root lies on top of the host's.
fn enter_nothing() -> Result<(), StartError> {
    let rootfs = || Stage::Rootfs;
    ns::unshare(Flags::NEWNS).at(rootfs, "unshare")?;
    set_root_propagation(Reach::Tree, Propagation::Private).at(rootfs, "mount propagation")?;
    unmount("/", UnmountFlags::DETACH).at(rootfs, "umount")?;
    let nothing = ["nr_blocks=1".to_owned(), "nr_inodes=1".to_owned()];
    let empty = tree::new("tmpfs", "tmpfs", &nothing, Attr::RDONLY).at(rootfs, "fsmount")?;
    let slash = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let slash = rustix::fs::openat(CWD, "/", slash, Mode::empty()).at(rootfs, "open")?;
    tree::attach(empty, &slash).at(rootfs, "move_mount")?;
    rustix::process::fchdir(empty).at(rootfs, "fchdir")?;
    rustix::process::pivot_root(".", ".").at(rootfs, "pivot_root")?;
    unmount(".", UnmountFlags::DETACH).at(rootfs, "umount")?;
    rustix::process::chdir("/").at(rootfs, "chdir")?;
    // Going up shows what lies on top of a root.
    let (empty, top) = (rustix::fs::fstat(empty), rustix::fs::stat(".."));
    match (empty.at(rootfs, "fstat")?, top.at(rootfs, "stat")?) {
        (empty, top) if (empty.st_dev, empty.st_ino) == (top.st_dev, top.st_ino) => Ok(()),
        _ => Err(StartError::new(rootfs(), 0, "something else is mounted on the root")),
    }
}
