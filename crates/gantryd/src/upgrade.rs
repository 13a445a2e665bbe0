//! Another executable in the place of this one: the same process, the same sockets.
//!
//! The daemon ends as it does for its service manager, except that containers and sockets stay, and executes the new program
//! itself (execve(2)). Listening sockets are never closed: who connects meanwhile waits in their queues. A new program that cannot
//! start hands over to the old one, whose file was kept open. See `docs/design/0033-upgrade.md`.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use blocking::Blocking;
use model::{Context, Error, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// In the environment of the new program: the process's id, then `name=descriptor`, a line each.
const SOCKETS: &str = "GANTRY_SOCKETS";
/// The same: the old program's file, as `descriptor`, behind the process's id; with `-` before it, of one that has taken over
/// again and does not need it.
const PREVIOUS: &str = "GANTRY_PREVIOUS";
/// The running program's file.
const OWN: &str = "/proc/self/exe";

/// Sockets by the names of their addresses.
#[derive(Default)]
pub struct Sockets(BTreeMap<String, OwnedFd>);

impl Sockets {
    /// Takes the socket of this name.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.0.remove(name)
    }

    /// Keeps another reference to a socket.
    pub fn keep(&mut self, name: String, socket: impl AsFd) -> Result<()> {
        let socket = socket.as_fd().try_clone_to_owned().context("keeping a socket")?;
        self.0.insert(name, socket);
        Ok(())
    }

    fn try_clone(&self) -> Result<Sockets> {
        let mut copy = Sockets::default();
        self.0.iter().try_for_each(|(name, socket)| copy.keep(name.clone(), socket))?;
        Ok(copy)
    }
}

/// What the program before this one in the same process has left.
#[derive(Default)]
pub struct Inherited {
    sockets: Sockets,
    /// Its file, should this one not start.
    previous: Option<OwnedFd>,
    /// This one has taken over again from a program that could not start.
    pub fell_back: bool,
    /// This process was a daemon before.
    pub is_upgrade: bool,
    /// The processes that it has started: this one's children now.
    children: Vec<OwnedFd>,
}

impl Inherited {
    /// Reads the environment. To be called once, before anything opens descriptors.
    pub fn take() -> Inherited {
        let (mut inherited, own) = (Inherited::default(), std::process::id().to_string());
        let mine = |name: &str| std::env::var(name).ok()?.strip_prefix(&own)?.strip_prefix('\n').map(str::to_owned);
        let Some(sockets) = mine(SOCKETS) else { return inherited };
        inherited.is_upgrade = true;
        for (name, number) in sockets.lines().filter_map(|line| line.rsplit_once('=')) {
            match number.parse().ok().map(sys::spawn::inherited) {
                Some(Ok(socket)) => drop(inherited.sockets.0.insert(name.to_owned(), socket)),
                _ => eprintln!("the socket {name} was not handed over"),
            }
        }
        inherited.children = children();
        let previous = mine(PREVIOUS).unwrap_or_default();
        let take = |number: &str| sys::spawn::inherited(number.parse().ok()?).ok();
        match previous.strip_prefix('-') {
            Some(own) => {
                inherited.fell_back = true;
                drop(take(own));
            }
            None => inherited.previous = take(&previous),
        }
        inherited
    }

    /// The daemon runs: nothing of the program before is needed any more.
    pub fn let_go(&mut self) {
        self.sockets = Sockets::default();
        self.previous = None;
    }

    /// Has the children of the program before reaped when they end. To be called on the runtime.
    pub fn reap_children(&mut self) {
        self.children.drain(..).for_each(run::link::reap);
    }

    /// The sockets, which this keeps as well until the daemon runs.
    pub fn sockets(&self) -> Result<Sockets> {
        self.sockets.try_clone()
    }

    /// The daemon could not start: the program before takes over again. Returns where there is none.
    pub fn fall_back(self, arguments: &[String]) {
        let Some(previous) = self.previous else { return };
        tracing::error!("the program before this one takes over again");
        let error = match bequeathed(self.sockets, None) {
            Ok(environment) => sys::spawn::bequeath(previous).map(|number| {
                let program = PathBuf::from(format!("/proc/self/fd/{number}"));
                execute(&program, arguments, environment)
            }),
            Err(error) => return tracing::error!(%error, "it cannot"),
        };
        match error {
            Ok(error) | Err(error) => tracing::error!(%error, "it cannot"),
        }
    }
}

/// The children of this process: proc(5), the fourth field of `stat`.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
fn children() -> Vec<OwnedFd> {
    let own = std::process::id().to_string();
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name before it may have blanks and brackets.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
        fields.split_whitespace().nth(1) == Some(own.as_str())
    };
    let open = |pid| pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_child).filter_map(open).collect()
}

/// What is to be executed when everything has ended.
pub struct Upgrade {
    executable: PathBuf,
    sockets: Sockets,
}

impl Upgrade {
    /// By this program, with these sockets.
    pub fn new(executable: PathBuf, sockets: Sockets) -> Upgrade {
        Upgrade { executable, sockets }
    }

    /// Does not return unless neither the new program nor this one again can be executed.
    #[expect(clippy::disallowed_methods, reason = "when nobody is served any more")]
    pub fn execute(self, arguments: &[String], _on: &Blocking) -> Error {
        let own = match File::open(OWN).map_err(Error::from) {
            Ok(own) => own,
            Err(error) => return error.prefix("opening the running program"),
        };
        let environment = match bequeathed(self.sockets, Some(own.into())) {
            Ok(environment) => environment,
            Err(error) => return error,
        };
        let error = execute(&self.executable, arguments, environment.clone());
        tracing::error!(%error, program = %self.executable.display(), "it cannot be executed: this one goes on");
        let mut again = environment;
        if let Some(previous) = again.get_mut(PREVIOUS) {
            *previous = previous.replace('\n', "\n-");
        }
        Error::from(execute(Path::new(OWN), arguments, again)).prefix("executing this program again")
    }
}

type Environment = BTreeMap<&'static str, String>;

/// Leaves descriptors open over the execution; what tells the program of them.
fn bequeathed(sockets: Sockets, own: Option<OwnedFd>) -> Result<Environment> {
    let process = std::process::id();
    let mut lines = process.to_string();
    for (name, socket) in sockets.0 {
        let number = sys::spawn::bequeath(socket).context("handing a socket over")?;
        lines.push_str(&format!("\n{name}={number}"));
    }
    let previous = match own.map(sys::spawn::bequeath).transpose().context("handing the program over")? {
        Some(number) => number.to_string(),
        None => "-".to_owned(),
    };
    // A lone id has no line behind it, and is read all the same.
    lines.push('\n');
    Ok([(SOCKETS, lines), (PREVIOUS, format!("{process}\n{previous}"))].into())
}

fn execute(program: &Path, arguments: &[String], environment: Environment) -> std::io::Error {
    let own_name = std::env::args_os().next().unwrap_or_default();
    Command::new(program).arg0(own_name).args(arguments).envs(environment).exec()
}
