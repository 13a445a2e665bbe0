//! The last stretch, common to a container's first process and to an exec: from inside the container to its program.
//!
//! Order matters. Everything that needs privileges comes before they are dropped; the seccomp filter is loaded as late as
//! it can be (after it only capset, prctl and execve are called), because the profile need not allow what Gantry does; no
//! program is looked for before the process is who it will be. Before the first path of the specification is used all
//! descriptors of the host are closed, and the working directory is checked besides (CVE-2024-21626).

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sys::capability::{self, Set, Sets};
use sys::process::{self, Image};
use sys::rooted::Rooted;

use super::report::parent_lives;
use crate::error::{At, Stage, StartError};
use crate::{Stdio, oci, seccomp, user};

/// Exit code of a process whose program the kernel would not execute after all (as the reference: 255).
const EXIT_NOT_EXECUTED: i32 = 255;
const SYS_ADMIN: u64 = 1 << 21;
const DEFAULT_PATH: &str = "PATH=";

/// Where the standard streams come from.
pub(super) enum Streams {
    Pipes(Stdio),
    /// The terminal's peer end.
    Terminal(OwnedFd),
    /// They are in their places already.
    Inherited,
}

/// Who the process will be, in numbers.
struct Identity {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    sets: Sets,
    bounding: Option<Set>,
    ambient: Set,
}

/// A program about to be executed, with all of it found out that needs no membership in the PID namespace.
pub(super) struct Program<'a> {
    process: &'a oci::Process,
    seccomp: &'a seccomp::Program,
    identity: Identity,
    env: Vec<String>,
    image: Image,
}

impl<'a> Program<'a> {
    /// In the container's root and namespaces, but perhaps not yet in its PID namespace. The streams are at 0, 1 and 2
    /// afterwards.
    pub(super) fn prepare(
        process: &'a oci::Process,
        seccomp: &'a seccomp::Program,
        streams: Streams,
    ) -> Result<Program<'a>, StartError> {
        let (identity, home) = identify(process)?;
        let env = environment(process, home);
        let image = Image::new(&process.args, &env).at(|| exec_stage(process), "")?;
        connect(streams)?;
        if identity.uid != 0 {
            hand_over(identity.uid)?;
        }
        Ok(Program { process, seccomp, identity, env, image })
    }

    /// Executes it, as the leader of a session. Comes back only with an error; a refused execve ends the process. `line`
    /// leads to the parent.
    pub(super) fn run(self, line: BorrowedFd<'_>) -> Result<(), StartError> {
        let Program { process: p, seccomp, identity, env, image } = self;
        if p.terminal {
            sys::pty::make_controlling(rustix::stdio::stdin()).at(|| Stage::Console, "TIOCSCTTY")?;
        }
        // From here on no path, neither the working directory nor the program, can lead through a descriptor of the host.
        process::close_all_but(&[line]).at(|| Stage::Clone, "close_range")?;
        rustix::process::umask(Mode::from_raw_mode(p.user.umask.unwrap_or(0o022)));
        let entered = enter_directory(&p.cwd);
        limits(p)?;
        assume(&identity)?;
        if entered.is_err() {
            // Perhaps only the user may enter it (a FUSE or NFS mount).
            enter_directory(&p.cwd)?;
        }
        let filtered = !seccomp.instructions.is_empty();
        let late_privilege = filtered && !p.no_new_privileges;
        restrict(&identity, late_privilege)?;
        let path = find_program(&p.args, &env)?;
        let path = CString::new(path).map_err(|_| StartError::new(exec_stage(p), 0, ""))?;
        process::die_with_parent().at(|| Stage::Clone, "prctl")?;
        if !parent_lives(line) {
            process::exit_now(EXIT_NOT_EXECUTED);
        }
        if p.no_new_privileges {
            process::set_no_new_privs().at(|| Stage::Seccomp, "no_new_privs")?;
        }
        if filtered {
            sys::seccomp::load(&seccomp.instructions, seccomp.flags).at(|| Stage::Seccomp, "")?;
        }
        if late_privilege {
            capability::set(identity.sets).at(|| Stage::Capabilities, "capset")?;
        }
        if identity.ambient != Set::default() {
            capability::set_ambient(identity.ambient).at(|| Stage::Capabilities, "ambient")?;
        }
        let error = image.execute(&path);
        give_up(&path, &error)
    }
}

fn exec_stage(p: &oci::Process) -> Stage {
    Stage::Exec { argv0: p.args.first().cloned().unwrap_or_default(), lookup: false }
}

/// The kernel refuses a file that looked executable (no interpreter, wrong format). The reference's runtime has reported
/// success by then, so that the text goes to the container's own error stream.
fn give_up(path: &CString, error: &std::io::Error) -> ! {
    let text = crate::error::errno_text(error.raw_os_error().unwrap_or(0));
    let message = format!("exec {}: {text}\n", path.to_string_lossy());
    let _ = rustix::io::write(rustix::stdio::stderr(), message.as_bytes());
    process::exit_now(EXIT_NOT_EXECUTED)
}

fn identify(p: &oci::Process) -> Result<(Identity, Option<String>), StartError> {
    let root = &Rooted::open_dir("/").at(|| Stage::Rootfs, "open /")?;
    let has_home = has_home(&p.env);
    let wanted = p.capabilities.as_ref();
    let set = |names: &dyn Fn(&oci::Capabilities) -> &Vec<String>| wanted.map(|c| Set::from_names(names(c)));
    let present = match wanted {
        Some(_) => Sets::default(),
        None => capability::get().at(|| Stage::Capabilities, "capget")?,
    };
    let mut sets = Sets {
        effective: set(&|c| &c.effective).unwrap_or(present.effective),
        permitted: set(&|c| &c.permitted).unwrap_or(present.permitted),
        inheritable: set(&|c| &c.inheritable).unwrap_or(present.inheritable),
    };
    let bounding = set(&|c| &c.bounding);
    let ambient = set(&|c| &c.ambient).unwrap_or_default();
    let (uid, gid, groups, home) = match &p.user.username {
        None => {
            let home = (!has_home).then(|| user::home_of(root, p.user.uid));
            (p.user.uid, p.user.gid, p.user.additional_gids.clone(), home)
        }
        Some(name) => {
            let resolved = user::resolve(root, name, &p.user.groups)?;
            if resolved.uid != 0 {
                // What execve would do anyway; the specification was written before the number was known.
                sets.effective = ambient;
                sets.permitted = ambient;
            }
            (resolved.uid, resolved.gid, resolved.groups, (!has_home).then_some(resolved.home))
        }
    };
    Ok((Identity { uid, gid, groups, sets, bounding, ambient }, home))
}

/// What names the home directory in an environment.
const HOME: &str = "HOME=";

/// Whether the environment names a home directory: an empty one is none.
fn has_home(env: &[String]) -> bool {
    env.iter().rev().find_map(|entry| entry.strip_prefix(HOME)).is_some_and(|home| !home.is_empty())
}

/// The environment, with `HOME` if it was missing or empty.
fn environment(p: &oci::Process, home: Option<String>) -> Vec<String> {
    let Some(home) = home else { return p.env.clone() };
    let others = p.env.iter().filter(|entry| !entry.starts_with(HOME)).cloned();
    others.chain([format!("{HOME}{home}")]).collect()
}

/// Puts the streams at 0, 1 and 2.
pub(super) fn connect(streams: Streams) -> Result<(), StartError> {
    match streams {
        Streams::Inherited => {}
        Streams::Terminal(peer) => duplicate(peer.as_fd(), peer.as_fd(), peer.as_fd())?,
        Streams::Pipes(io) => {
            let missing = io.stdin.is_none() || io.stdout.is_none() || io.stderr.is_none();
            let null = if missing { Some(null_device()?) } else { None };
            let pick = [io.stdin.as_ref(), io.stdout.as_ref(), io.stderr.as_ref()].map(|fd| fd.or(null.as_ref()));
            if let [Some(stdin), Some(stdout), Some(stderr)] = pick {
                duplicate(stdin.as_fd(), stdout.as_fd(), stderr.as_fd())?;
            }
        }
    }
    Ok(())
}

/// The container's own `/dev/null`, unless it is something else: a descriptor of the host's would let root in the container
/// change the mode of the host's node.
fn null_device() -> Result<OwnedFd, StartError> {
    let stage = || Stage::Clone;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, "/dev/null", flags, Mode::empty()).at(stage, "open /dev/null")?;
    let stat = rustix::fs::fstat(&fd).at(stage, "fstat")?;
    if is_null(&stat) { Ok(fd) } else { Err(Errno::NODEV).at(stage, "/dev/null is not the null device") }
}

fn is_null(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3)
}

/// None of the three is below 3, since the monitor keeps 0 to 2 for itself.
fn duplicate(stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>) -> Result<(), StartError> {
    let stage = || Stage::Clone;
    rustix::stdio::dup2_stdin(stdin).at(stage, "dup2")?;
    rustix::stdio::dup2_stdout(stdout).at(stage, "dup2")?;
    rustix::stdio::dup2_stderr(stderr).at(stage, "dup2")
}

/// Pipes and terminals become the user's, so that `/dev/stdout` can be opened; the null device stays root's. Failures (read-only or foreign file systems) are
/// no reason not to start.
fn hand_over(uid: u32) -> Result<(), StartError> {
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let stat = rustix::fs::fstat(fd).at(|| Stage::Clone, "fstat")?;
        if !is_null(&stat) && stat.st_uid != uid {
            let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
    Ok(())
}

fn limits(p: &oci::Process) -> Result<(), StartError> {
    for limit in &p.rlimits {
        let number = process::rlimit_number(&limit.kind);
        let number = number.ok_or_else(|| StartError::new(Stage::Rlimit, 0, format!("invalid type {}", limit.kind)))?;
        let detail = format!("error setting rlimit type {number}");
        process::set_rlimit(number, limit.soft, limit.hard).at(|| Stage::Rlimit, &detail)?;
    }
    Ok(())
}

/// chdir, and proof that the directory is below the container's root: a working directory like `/proc/self/fd/7` must not
/// lead out through a descriptor that the host had open.
fn enter_directory(path: &str) -> Result<(), StartError> {
    let stage = || Stage::Cwd { path: path.to_owned() };
    let path = if path.is_empty() { "/" } else { path };
    rustix::process::chdir(path).at(stage, "")?;
    let inside = rustix::process::getcwd(Vec::new()).is_ok_and(|cwd| cwd.as_bytes().first() == Some(&b'/'));
    if inside {
        return Ok(());
    }
    let text = "current working directory is outside of container mount namespace root -- possible container breakout";
    rustix::process::chdir("/").at(stage, "")?;
    Err(StartError::new(stage(), 0, text))
}

/// Changes user and groups, keeping the permitted capabilities for the steps that still need them.
fn assume(identity: &Identity) -> Result<(), StartError> {
    if let Some(bounding) = identity.bounding {
        capability::limit_bounding(bounding).at(|| Stage::Capabilities, "bounding set")?;
    }
    process::keep_capabilities(true).at(|| Stage::Capabilities, "keepcaps")?;
    process::set_ids(identity.uid, identity.gid, &identity.groups).at(|| Stage::Capabilities, "setresuid")
}

/// The final sets, or, if the filter is still to be loaded without no_new_privs, the final sets plus what that needs.
fn restrict(identity: &Identity, late_privilege: bool) -> Result<(), StartError> {
    let mut sets = identity.sets;
    if late_privilege {
        sets.effective.0 |= SYS_ADMIN;
        sets.permitted.0 |= SYS_ADMIN;
    }
    capability::set(sets).at(|| Stage::Capabilities, "capset")
}

/// Finds the program as the reference does (Go's `exec.LookPath`), as the user it will run as.
fn find_program(args: &[String], env: &[String]) -> Result<String, StartError> {
    let name = args.first().map(String::as_str).unwrap_or_default();
    let stage = |lookup| Stage::Exec { argv0: name.to_owned(), lookup };
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(e) => Err(e).at(|| stage(false), ""),
        };
    }
    let path = env.iter().rev().find_map(|e| e.strip_prefix(DEFAULT_PATH)).unwrap_or_default();
    for dir in path.split(':').filter(|_| !name.is_empty()) {
        let candidate = if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") };
        if executable(&candidate).is_ok() {
            return Ok(candidate);
        }
    }
    Err(Errno::NOENT).at(|| stage(true), "")
}

fn executable(path: &str) -> rustix::io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Err(Errno::ISDIR);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}
