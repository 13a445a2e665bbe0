//! Exec: further processes in a running container.
//!
//! A session is made (`create`), started once, and stays known for some minutes after its end ([`KEPT_FOR`], B-io-7) or
//! until its container is removed. One that has not ended is gone with the run it was made in. Sessions are not persisted:
//! the processes live in the monitor, which tells a new daemon of those that still run.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::id::ContainerId;
use model::{Error, Kind, Result, signal};
use monitor::proto::Request;
use run::Attached;
use runtime::Scope;
use tokio::sync::oneshot;

use super::attach;
use super::exec_bounds::{self, Expired};
pub use super::exec_session::{Phase, Session};
use crate::container::life::actor::{Actor, Command, answer, not_running};
use crate::container::life::environment::Environment;
use crate::container::life::{donors, facts};
use crate::container::row::ContainerRow;
use crate::container::{Containers, Handle, publish};
use crate::events::Events;

/// How long an ended session can be inspected.
pub const KEPT_FOR: Duration = Duration::from_secs(300);
/// How long a resize waits for the session's start (B-io-10).
const RESIZE_WAIT: Duration = Duration::from_secs(10);
/// How long an inspect of a running session waits for the actor to hear what the monitor has said: an actor that waits
/// for a slow disk has not heard it yet.
const HEAR_WAIT: Duration = Duration::from_secs(5);

/// All sessions of all containers.
#[derive(Default)]
pub struct Execs {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    made: AtomicU64,
    expired: Mutex<Expired>,
}

impl Execs {
    /// How many sessions are remembered.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Finds by full id or unique prefix.
    pub fn find(&self, key: &str) -> Result<Arc<Session>> {
        let sessions = self.lock();
        if let Some(session) = sessions.get(key) {
            return Ok(session.clone());
        }
        let mut matching = sessions.values().filter(|s| !key.is_empty() && s.id.starts_with(key));
        match (matching.next(), matching.next()) {
            (Some(session), None) => Ok(session.clone()),
            _ => Err(self.expired().no_such(key)),
        }
    }

    /// Makes a session, forgetting those that ended long ago and those that are too many.
    fn make(&self, run: (ContainerId, u64), config: api::ExecConfig) -> Arc<Session> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(Session::new(crate::container::random_id(), run, config, number));
        let mut sessions = self.lock();
        sessions.retain(|_, s| !matches!(s.phase(), Phase::Ended(_, _, at) if at.elapsed() > KEPT_FOR));
        sessions.insert(session.id.clone(), session.clone());
        for surplus in exec_bounds::surplus(sessions.values(), &session) {
            sessions.remove(&surplus.id);
            self.expired().push(&surplus);
        }
        session
    }

    fn expired(&self) -> MutexGuard<'_, Expired> {
        self.expired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the sessions of a removed container.
    pub fn forget_container(&self, container: &ContainerId) {
        self.lock().retain(|_, s| s.container != *container);
    }

    /// Ends every session of a container that stopped, and forgets those that were never started.
    pub fn end_all(&self, container: &ContainerId, code: i32) {
        self.lock().retain(|_, session| {
            let own = session.container == *container;
            if let (true, Phase::Running(pid)) = (own, session.phase()) {
                session.set(Phase::Ended(code, pid, Instant::now()));
            }
            !own || session.phase() != Phase::Created
        });
    }

    /// Ids of the container's sessions that have not ended.
    pub fn live_of(&self, container: &ContainerId) -> Vec<String> {
        let live = |s: &&Arc<Session>| s.container == *container && !matches!(s.phase(), Phase::Ended(..));
        self.lock().values().filter(live).map(|s| s.id.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a session in a running container.
pub async fn create(containers: &Containers, events: &Events, name: &str, config: api::ExecConfig) -> Result<String> {
    let handle = containers.find(name)?;
    let view = handle.view();
    if config.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::invalid("No exec command specified"));
    }
    check_running(&view.row, name)?;
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

/// Refuses what cannot run another process; a paused container is called what the client calls it.
fn check_running(row: &ContainerRow, name: &str) -> Result<()> {
    if row.state.is_paused() {
        return Err(Error::conflict(format!("Container {name} is paused, unpause the container before exec")));
    }
    if row.state.is_restarting() {
        return Err(donors::restarting(row.id.as_str()));
    }
    if !row.state.is_running() {
        return Err(Error::conflict(format!("container {} is not running", row.id.as_str())));
    }
    Ok(())
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

/// What the actor needs to start a session.
pub struct ExecStart {
    /// The claimed session.
    pub session: Arc<Session>,
    /// Height and width of the terminal.
    pub console_size: Option<[u16; 2]>,
    /// The attached client.
    pub client: Option<Attached>,
    /// Answered when the process runs or could not.
    pub reply: oneshot::Sender<Result<()>>,
}

/// Has the monitor start a session; its answer comes as an event.
pub(in crate::container) async fn begin(actor: &mut Actor, start: ExecStart) {
    let id = start.session.id.clone();
    match send(actor, &start).await {
        Ok(()) => drop(actor.waiting.execs.insert(id, start)),
        Err(error) => {
            start.session.set(Phase::Ended(126, 0, Instant::now()));
            answer(start.reply, Err(error));
        }
    }
}

async fn send(actor: &mut Actor, start: &ExecStart) -> Result<()> {
    actor.engine.containers.ending.refuse()?;
    if start.session.run != actor.exits {
        return Err(exec_bounds::no_such(&start.session.id));
    }
    check_running(&actor.row, actor.row.id.as_str())?;
    let config = &start.session.config;
    let process = facts::exec_process(&actor.engine, &actor.row, config, start.console_size)?;
    actor.engine.host.faults.pass("exec", "process")?;
    let exec = monitor::proto::Exec {
        id: start.session.id.clone(),
        open_stdin: config.attach_stdin,
        attach: start.client.as_ref().map(Attached::request),
    };
    let link = actor.link.as_mut().ok_or_else(|| not_running(&actor.row))?;
    link.exec(&exec, &process, start.client.as_ref().map(|c| &c.socket)).await.map(drop)
}

/// The session's process runs.
pub(in crate::container) async fn started<E: Environment>(actor: &mut Actor<E>, id: &str, pid: i32) {
    let Some(start) = actor.waiting.execs.remove(id) else {
        return;
    };
    if let Err(error) = actor.engine.faults().pass("exec", "started") {
        let (reply, killed) = oneshot::channel();
        let kill = Request::Signal { exec: Some(id.to_owned()), signal: signal::KILL, scope: Scope::Process };
        actor.request(&kill, reply).await;
        // Its end comes as that of any other.
        tokio::spawn(async move {
            drop(killed.await);
            answer(start.reply, Err(error));
        });
        return;
    }
    start.session.set(Phase::Running(pid));
    actor.publish();
    answer(start.reply, Ok(()));
}

/// The session's process could not be started.
pub(in crate::container) fn failed<E: Environment>(actor: &mut Actor<E>, id: &str, error: &runtime::StartError) {
    let Some(start) = actor.waiting.execs.remove(id) else {
        return;
    };
    let (error, code) = error.to_error(runtime::What::Exec);
    start.session.set(Phase::Ended(code, 0, Instant::now()));
    answer(start.reply, Err(error));
}

/// The session's process has ended.
pub(in crate::container) fn ended<E: Environment>(actor: &mut Actor<E>, id: &str, code: i32) {
    let Ok(session) = actor.engine.containers().execs.find(id) else {
        return;
    };
    let pid = if let Phase::Running(pid) = session.phase() { pid } else { 0 };
    session.set(Phase::Ended(code, pid, Instant::now()));
    actor.publish();
    actor.event("exec_die", [("execID", id.to_string()), ("exitCode", code.to_string())]);
}

/// The container's end is the end of all its sessions.
pub(in crate::container) fn end_all<E: Environment>(actor: &mut Actor<E>, code: i32) {
    for (_, start) in actor.waiting.execs.drain() {
        start.session.set(Phase::Ended(code, 0, Instant::now()));
        answer(start.reply, Err(not_running(&actor.row)));
    }
    actor.engine.containers().execs.end_all(&actor.row.id, code);
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
        let heard = handle.ask(|reply| Command::Hear { reply });
        drop(tokio::time::timeout(HEAR_WAIT, heard).await);
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
