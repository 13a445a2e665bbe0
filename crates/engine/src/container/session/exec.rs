//! Exec: further processes in a running container.
//!
//! A session is made (`create`), started once, and stays known for some minutes after its end ([`KEPT_FOR`], B-io-7) or
//! until its container is removed. One that has not ended is gone with the run it was made in. Sessions are not persisted:
//! the processes live in the monitor, which tells a new daemon of those that still run.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use events::Events;
use model::{Error, Kind, Result};
use run::Attached;

use super::{attach, user};
use crate::container::life::execs::check_running;
use crate::container::registry::arguments::ExecStart;
use crate::container::registry::command::Command;
use crate::container::registry::exec_bounds;
use crate::container::registry::exec_session::{Phase, Session};
use crate::container::{Containers, Handle, publish};

/// How long a resize waits for the session's start (B-io-10).
const RESIZE_WAIT: Duration = Duration::from_secs(10);
/// How long an inspect of a running session waits for the actor to hear what the monitor has said: an actor that waits
/// for a slow disk has not heard it yet.
const DRAIN_WAIT: Duration = Duration::from_secs(5);

/// When the user of an exec is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookUp {
    AtCreate,
    /// One that is not there is told of in the stream.
    AtStart,
}

/// Makes a session in a running container.
///
/// Errors: `NotFound`, `Conflict` by the container's state, `InvalidParameter` for a command, user or keys that cannot be.
pub async fn create(
    containers: &Containers,
    events: &Events,
    name: &str,
    config: api::ExecConfig,
    users: LookUp,
) -> Result<String> {
    let handle = containers.find(name)?;
    let view = handle.view();
    if config.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::invalid("No exec command specified"));
    }
    check_running(&view.row, name)?;
    if users == LookUp::AtCreate {
        user::check(&containers.threads, &view, &config.user).await?;
    }
    let _ = own_detach_keys(&config)?;
    let session = containers.execs.make((handle.id.clone(), view.exits), config);
    let (id, action) = (session.id.clone(), format!("exec_create: {}", session.command_line()));
    publish(events, &view.row, &action, [("execID", id.clone())]);
    Ok(id)
}

/// The keys that detach from the session; empty for the usual ones.
fn own_detach_keys(config: &api::ExecConfig) -> Result<Vec<u8>> {
    let keys = config.detach_keys.as_str();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    attach::detach_keys(Some(keys)).map_err(|_| Error::system(format!("Invalid escape keys ({keys}) provided")))
}

/// A session and its container.
fn find(containers: &Containers, id: &str) -> Result<(Arc<Session>, Handle)> {
    let session = containers.execs.find(id)?;
    let handle = containers.find(session.container.as_str())?;
    if session.is_gone(handle.view().exits) { Err(exec_bounds::no_such(id)) } else { Ok((session, handle)) }
}

/// The body of an exec start call.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExecStartArgs {
    /// Do not attach.
    pub detach: bool,
    /// Height and width of the terminal.
    pub console_size: Option<[u16; 2]>,
    /// Frame stdout and stderr; the session may have a terminal that this client does not speak of.
    pub multiplex: bool,
}

/// How an exec start call goes on.
pub enum ExecSession {
    /// Started detached; there is no stream.
    Detached,
    /// Waits for the client's socket.
    Attached(ExecAttachment),
}

/// A checked exec start call, ready for its socket.
pub struct ExecAttachment {
    handle: Handle,
    session: Arc<Session>,
    args: ExecStartArgs,
}

/// Starts a session. Attached, the process starts when the socket is there, and errors are told in the stream from then
/// on.
pub async fn start(containers: &Containers, events: &Events, id: &str, args: ExecStartArgs) -> Result<ExecSession> {
    let (session, handle) = find(containers, id)?;
    check_running(&handle.view().row, handle.id.as_str())?;
    let attachment = ExecAttachment { handle, session, args };
    if args.detach {
        attachment.run(events, None).await?;
        return Ok(ExecSession::Detached);
    }
    Ok(ExecSession::Attached(attachment))
}

impl ExecAttachment {
    /// Takes over the client's socket and starts the process.
    pub async fn connect(self, events: &Events, socket: OwnedFd, prefix: Vec<u8>) {
        let config = &self.session.config;
        let multiplex = self.args.multiplex;
        let spare = socket.try_clone();
        let keys = attach::detach_keys(Some(config.detach_keys.as_str())).unwrap_or_default();
        let client = Attached {
            socket,
            prefix,
            stdin: config.attach_stdin,
            stdout: config.attach_stdout,
            stderr: config.attach_stderr,
            multiplex,
            detach_keys: if config.tty { keys } else { Vec::new() },
            place: None,
        };
        let client = client.with_streams();
        if let (Err(error), Ok(socket)) = (self.run(events, client).await, spare) {
            attach::tell(socket, multiplex, error.message());
        }
    }

    /// Claims the session and has the container's actor start it.
    async fn run(&self, events: &Events, client: Option<Attached>) -> Result<()> {
        let ExecAttachment { handle, session, args } = self;
        let view = handle.view();
        check_running(&view.row, handle.id.as_str())?;
        if !session.claim() {
            return Err(Error::conflict(format!("Error: Exec command {} has already run", session.id)));
        }
        // Told before its outcome is known, as the reference does.
        let action = format!("exec_start: {}", session.command_line());
        publish(events, &view.row, &action, [("execID", session.id.clone())]);
        // Who starts it without a size leaves it at the one that it was created with.
        let narrow = |size: u64| u16::try_from(size).unwrap_or(u16::MAX);
        let created = session.config.console_size.filter(|_| session.config.tty).map(|size| size.map(narrow));
        let (session, console_size) = (session.clone(), args.console_size.or(created));
        handle.ask(|reply| Command::Exec(Box::new(ExecStart { session, console_size, client, reply }))).await
    }
}

/// Resizes the session's terminal, waiting for its start if need be.
pub async fn resize(containers: &Containers, id: &str, (height, width): (u16, u16)) -> Result<()> {
    let (session, handle) = find(containers, id)?;
    check_running(&handle.view().row, handle.id.as_str())?;
    let mut phases = session.phase.subscribe();
    let started = phases.wait_for(|phase| matches!(phase, Phase::Running(_) | Phase::Ended(..)));
    match tokio::time::timeout(RESIZE_WAIT, started).await.map(|phase| phase.map(|phase| *phase)) {
        Ok(Ok(Phase::Ended(_, 0, _))) => return Err(Error::invalid("exec process is not started")),
        Ok(Ok(Phase::Ended(..))) => return Err(Error::not_found(format!("process does not exist {id}: not found"))),
        Ok(_) => {}
        Err(_) => return Err(Error::new(Kind::System, "timeout waiting for exec session ready")),
    }
    handle.ask(|reply| Command::Resize { exec: Some(session.id.clone()), height, width, reply }).await
}

/// What is known of a session.
///
/// A client asks as soon as its stream ends. The monitor told the end before it closed the stream; the wait is for the
/// actor to have heard it.
pub async fn inspect(containers: &Containers, id: &str) -> Result<api::ExecInspect> {
    // The reference answers for sessions that ended before their container stopped, too, but not of a removed one.
    let (session, handle) = find(containers, id)?;
    // Its start may not have been heard of either.
    if let Phase::Starting | Phase::Running(_) = session.phase() {
        let drained = handle.ask(|reply| Command::Drain { reply });
        drop(tokio::time::timeout(DRAIN_WAIT, drained).await);
    }
    let config = &session.config;
    let command = config.cmd.clone().unwrap_or_default();
    let (running, exit_code, pid) = match session.phase() {
        Phase::Created | Phase::Starting => (false, None, 0),
        Phase::Running(pid) => (true, None, pid),
        Phase::Ended(code, pid, _) => (false, Some(i64::from(code)), pid),
    };
    Ok(api::ExecInspect {
        id: session.id.clone(),
        running,
        exit_code,
        process_config: api::ExecProcessConfig {
            tty: config.tty,
            entrypoint: command.first().cloned().unwrap_or_default(),
            arguments: command.iter().skip(1).cloned().collect(),
            privileged: Some(config.privileged),
            user: config.user.clone(),
        },
        open_stdin: config.attach_stdin,
        open_stderr: config.attach_stderr,
        open_stdout: config.attach_stdout,
        can_remove: false,
        container_id: session.container.as_str().to_string(),
        detach_keys: STANDARD.encode(own_detach_keys(config)?),
        pid: i64::from(pid),
    })
}
