//! Exec sessions as their container's actor has them: it has the monitor start them and hears what becomes of them.

use std::time::Instant;

use model::{Error, Result, signal};
use monitor::proto::Request;
use run::Attached;
use runtime::Scope;
use tokio::sync::oneshot;

use super::actor::{Actor, not_running};
use super::environment::Environment;
use super::{donors, runtime_spec};
use crate::container::registry::arguments::ExecStart;
use crate::container::registry::command::answer;
use crate::container::registry::exec_bounds;
use crate::container::registry::exec_session::Phase;
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
    let process = runtime_spec::exec_process(&actor.engine, &actor.row, config, start.console_size)?;
    actor.engine.host.faults.pass("exec", "process")?;
    let exec = monitor::proto::Exec {
        id: start.session.id.clone(),
        open_stdin: config.attach_stdin,
        attach: start.client.as_ref().map(Attached::request),
        probe: 0,
    };
    let link = actor.link.as_mut().ok_or_else(|| not_running(&actor.row))?;
    link.exec(&exec, &process, start.client.as_ref().map(|c| &c.socket)).await.map(drop)
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
    start.session.set(Phase::Ended(code, 0, Instant::now()));
    answer(start.reply, Err(error));
}

/// The session's process has ended.
pub(super) fn ended<E: Environment>(actor: &mut Actor<E>, id: &str, code: i32) {
    let Ok(session) = actor.engine.containers().execs.find(id) else {
        return;
    };
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
