//! Programs of the host that speak to servers for a build (git): without privileges, in namespaces of their own, with a fixed
//! environment, one directory to write to, and nothing else of the host's to change.
//!
//! The daemon executes itself under [`NAME`]: a process with one thread that makes the namespaces, gives its privileges up and
//! becomes the program. The program is PID 1 of a namespace, so that nothing of it outlives it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use model::{Context as _, Error, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use sys::clone::{Flags, Side};
use sys::mount::{Attr, Propagation, Reach};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::net::unix::pipe;

use crate::job::Job;

/// The name by which the executable is this program.
pub const NAME: &str = "gantry-sandbox";
/// Where a program has its directory.
pub const PLACE: &str = "/tmp";
/// Who programs run as (`nobody`, `nogroup`).
pub const NOBODY: u32 = 65534;
/// How long one may take.
const DEADLINE: Duration = Duration::from_secs(30 * 60);
/// Bytes of one file that one may write.
const FILE: u64 = 16 << 30;
/// Bytes of what one may print; the rest is not kept.
const PRINTED: u64 = 8 << 20;
/// Bytes of what it printed that an error shows.
const SHOWN: usize = 4 << 10;
/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Exit code of a program that could not be started.
const NOT_STARTED: u8 = 127;

/// What a program has done.
pub(super) struct Done {
    pub code: Option<i32>,
    pub output: Vec<u8>,
    pub errors: Vec<u8>,
}

impl Done {
    /// What it printed to tell why it failed.
    pub(super) fn told(&self) -> String {
        let text = String::from_utf8_lossy(&self.errors).trim().to_owned();
        let mut from = text.len().saturating_sub(SHOWN);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        text[from..].to_owned()
    }
}

/// Finds a program of the host. Blocks.
///
/// Errors: `NotFound`, in the words of the reference.
pub(super) fn find(name: &str) -> Result<PathBuf> {
    let missing =
        || Error::not_found(format!("exec: {name:?}: executable file not found in $PATH: this host has no {name}"));
    PATH.split(':').map(|dir| Path::new(dir).join(name)).find(|path| path.is_file()).ok_or_else(missing)
}

/// Runs a program with these variables in a directory, which it sees as [`PLACE`].
///
/// Errors: it could not be started; it took too long; `context canceled`. A code other than 0 is none.
pub(super) async fn run(job: &Job, dir: &Path, words: &[OsString], env: &[(String, String)]) -> Result<Done> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).arg(dir).args(words).env_clear().env("PATH", PATH);
    command.envs(env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let spawn = move |_: &_| command.spawn().context("starting a program of the host");
    let mut child = job.builder.threads.run(spawn).await?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
    let pid = pid.ok_or_else(|| Error::system("a program without a number"))?;
    let opened = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK);
    let pidfd = watch(opened.map_err(io::Error::from)?).context("watching a program")?;
    let printed = (child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from));
    let work = async {
        let (output, errors) = tokio::join!(read(printed.0), read(printed.1));
        drop(pidfd.readable().await);
        (output, errors)
    };
    let ended = tokio::select! {
        ended = work => Ok(ended),
        () = job.cancel.cancelled() => Err(crate::cancel::cancelled()),
        () = tokio::time::sleep(DEADLINE) => Err(Error::system("the program has taken too long")),
    };
    if ended.is_err() {
        // What it has started dies with it: it is the first of its namespace.
        drop(sys::process::signal(pidfd.get_ref(), rustix::process::Signal::KILL.as_raw()));
        drop(pidfd.readable().await);
    }
    let status = child.wait().context("waiting for a program")?;
    let (output, errors) = ended?;
    Ok(Done { code: status.code(), output, errors })
}

#[expect(deprecated, reason = "the successor is unsafe for wrappers that change their descriptor; this is none")]
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// What is printed, up to a bound; the rest is read and dropped.
async fn read(from: Option<OwnedFd>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut from) = from.and_then(|fd| pipe::Receiver::from_owned_fd(fd).ok()) else { return kept };
    let take = async |from: &mut (dyn AsyncRead + Send + Unpin), kept: &mut Vec<u8>| -> io::Result<u64> {
        from.take(PRINTED).read_to_end(kept).await?;
        tokio::io::copy(from, &mut tokio::io::sink()).await
    };
    if let Err(error) = take(&mut from, &mut kept).await {
        tracing::debug!(%error, "what a program prints cannot be read");
    }
    kept
}

/// Becomes the program: `gantry-sandbox <directory> <program> <arguments>`.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match words.split_first() {
        Some((dir, words)) if !words.is_empty() => apart(Path::new(dir), words),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{NAME}: {error}");
            ExitCode::from(NOT_STARTED)
        }
    }
}

/// Runs the program in namespaces of its own, as the first of its processes.
fn apart(dir: &Path, words: &[OsString]) -> io::Result<u8> {
    let mut flags = Flags::NEWNS;
    for more in [Flags::NEWPID, Flags::NEWIPC, Flags::NEWUTS] {
        flags.insert(more);
    }
    match sys::clone::clone3(flags, None)? {
        Side::Parent { pidfd, .. } => {
            let status = sys::process::wait(pidfd.as_fd(), sys::process::Block::Yes)?.unwrap_or_default();
            Ok(u8::try_from(status).unwrap_or(u8::MAX))
        }
        Side::Child => Err(become_program(dir, words)),
    }
}

/// Only returns when it fails.
fn become_program(dir: &Path, words: &[OsString]) -> io::Error {
    let prepared = mounts(dir).and_then(|()| {
        for (name, limit) in [("RLIMIT_FSIZE", FILE), ("RLIMIT_CORE", 0)] {
            if let Some(number) = sys::process::rlimit_number(name) {
                sys::process::set_rlimit(number, limit, limit)?;
            }
        }
        rustix::process::umask(Mode::from_raw_mode(0o022));
        sys::process::set_ids(NOBODY, NOBODY, &[])?;
        // Behind the change of user, which takes it back (prctl(2)).
        sys::process::die_with_parent()?;
        sys::process::set_no_new_privs()?;
        std::env::set_current_dir(PLACE)
    });
    match prepared {
        Ok(()) => Command::new(&words[0]).args(&words[1..]).exec(),
        Err(error) => error,
    }
}

/// Everything can be read only, but the directory, which stands in the place of [`PLACE`]; `/proc` is that of the namespace.
fn mounts(dir: &Path) -> io::Result<()> {
    sys::mount::set_root_propagation(Reach::Tree, Propagation::Private)?;
    let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let own = open_tree(CWD, dir, copy)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty())?;
    sys::mount::set_attr(root.as_fd(), Reach::Tree, Attr::RDONLY, Attr::default(), None)?;
    let options = Attr::NOSUID | Attr::NODEV;
    sys::mount::set_attr(own.as_fd(), Reach::Mount, options, Attr::RDONLY, None)?;
    move_mount(&own, "", CWD, PLACE, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let flags =
        rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV | rustix::mount::MountFlags::NOEXEC;
    rustix::mount::mount("proc", "/proc", "proc", flags, None::<&std::ffi::CStr>)?;
    Ok(())
}
