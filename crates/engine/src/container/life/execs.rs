//! Exec sessions as their container's actor has them: it has the monitor start them and hears what becomes of them.

use std::time::Instant;

use model::{Error, Result, signal};
use monitor::proto::{ExecState, Request};
use run::Attached;
use runtime::Scope;
use tokio::sync::oneshot;

use super::actor::{Actor, not_running};
use super::environment::Environment;
use super::{donors, exec_notes, runtime_spec};
use crate::container::registry::arguments::ExecStart;
use crate::container::registry::command::answer;
use crate::container::registry::exec_bounds;
use crate::container::registry::exec_session::{Phase, Session};
use crate::container::row::ContainerRow;

/// Refuses what cannot run another process; a paused container is called what the client calls it.
pub(in crate::container) fn check_running(row: &ContainerRow, name: &str) -> Result<()> {
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

/// Has the monitor start a session; its answer comes as an event.
pub(super) async fn begin(actor: &mut Actor, start: ExecStart) {
    let id = start.session.id.clone();
    if let Err(error) = check_limit(actor, &start) {
        return answer(start.reply, Err(error));
    }
    match send(actor, &start).await {
        Ok(()) => drop(actor.waiting.execs.insert(id, start)),
        Err(error) => {
            start.session.set(Phase::Ended(126, 0, Instant::now()));
            answer(start.reply, Err(error));
        }
    }
}

/// Refuses one more than may run at once; its client may start it when another has ended. The session itself counts as
/// one that is on its way.
fn check_limit(actor: &Actor, start: &ExecStart) -> Result<()> {
    if actor.engine.containers.execs.running_in(&actor.row.id) <= exec_bounds::AT_ONCE {
        return Ok(());
    }
    start.session.set(Phase::Created);
    Err(exec_bounds::too_many(&actor.row.id))
}

async fn send(actor: &mut Actor, start: &ExecStart) -> Result<()> {
    actor.engine.containers.refuse_new()?;
    if start.session.run != actor.exits {
        return Err(exec_bounds::no_such(&start.session.id));
    }
    check_running(&actor.row, actor.row.id.as_str())?;
    let config = &start.session.config;
    let process = runtime_spec::exec_process(&actor.engine, &actor.row, config, start.console_size)?;
    actor.engine.host.faults.pass("exec", "process")?;
    let exec = monitor::proto::Exec {
        id: start.session.id.clone(),
        open_stdin: config.attach_stdin,
        attach: start.client.as_ref().map(Attached::request),
        probe: 0,
    };
    let run_dir = actor.engine.run_dir(&actor.row);
    let link = actor.link.as_mut().ok_or_else(|| not_running(&actor.row))?;
    exec_notes::write(&run_dir, &exec.id, config);
    let sent = match actor.engine.host.faults.pass("exec", "note") {
        Ok(()) => link.exec(&exec, &process, start.client.as_ref().map(|c| &c.socket)).await,
        Err(error) => Err(error),
    };
    sent.map(drop).inspect_err(|_| exec_notes::remove(&run_dir, &exec.id))
}

/// Takes up the sessions of an earlier daemon that the monitor tells of: those that run, and those whose end that daemon has not
/// heard of.
pub(super) fn take_up<E: Environment>(actor: &mut Actor<E>, found: Vec<ExecState>) {
    let run_dir = actor.engine.run_dir(&actor.row);
    for ExecState { id, pid, exit } in found {
        let Some(config) = exec_notes::read(&run_dir, &id) else { continue };
        let run = (actor.row.id.clone(), actor.exits);
        let is_new = actor.engine.containers().execs.take_up(|number| {
            let session = Session::new(id.clone(), run, config, number);
            session.set(Phase::Running(pid));
            session
        });
        if !is_new {
            continue;
        }
        if let Some(exit) = exit {
            ended(actor, &id, exit.code);
        }
    }
}

/// The session's process runs.
pub(super) async fn started<E: Environment>(actor: &mut Actor<E>, id: &str, pid: i32) {
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
pub(super) fn failed<E: Environment>(actor: &mut Actor<E>, id: &str, error: &runtime::StartError) {
    let Some(start) = actor.waiting.execs.remove(id) else {
        return;
    };
    let (error, code) = error.to_error(runtime::What::Exec);
    exec_notes::remove(&actor.engine.run_dir(&actor.row), id);
    start.session.set(Phase::Ended(code, 0, Instant::now()));
    answer(start.reply, Err(error));
}

/// The session's process has ended.
pub(super) fn ended<E: Environment>(actor: &mut Actor<E>, id: &str, code: i32) {
    let Ok(session) = actor.engine.containers().execs.find(id) else {
        return;
    };
    exec_notes::remove(&actor.engine.run_dir(&actor.row), id);
    let pid = if let Phase::Running(pid) = session.phase() { pid } else { 0 };
    session.set(Phase::Ended(code, pid, Instant::now()));
    actor.publish();
    actor.event("exec_die", [("execID", id.to_string()), ("exitCode", code.to_string())]);
}

/// The container's end is the end of all its sessions.
pub(super) fn end_all<E: Environment>(actor: &mut Actor<E>, code: i32) {
    for (_, start) in actor.waiting.execs.drain() {
        start.session.set(Phase::Ended(code, 0, Instant::now()));
        answer(start.reply, Err(not_running(&actor.row)));
    }
    actor.engine.containers().execs.end_all(&actor.row.id, code);
}
