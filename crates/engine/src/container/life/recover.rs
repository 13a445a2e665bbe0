//! What a new daemon takes up: every container by what its probe tells, and what no row owns.
//!
//! The row decides. A start that was not committed was not acknowledged either: its container is ended, and the row stays
//! what it was. A container whose row says that it runs, and whose monitor lives, is not touched. Nothing of a container
//! happens before the networks know which of them live ([`Recovered::live`]).

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use events::now;
use model::id::ContainerId;
use model::lifecycle::{self, Found};
use model::time::Timestamp;
use monitor::client::EXIT_RECORD;
use monitor::proto::{self, ExecState, Exit, ProbeState};
use run::link::{self, Link, Probe};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::actor::Actor;
use super::environment::Environment;
use super::exit::{self, KILLED, killed_with_monitor};
use super::sandbox::Sandbox;
use super::{execs, health, kill, place};
use crate::Engine;
use crate::container::definition::places::Places;
use crate::container::registry::command::Command;
use crate::container::row::ContainerRow;
use crate::ending::LastEnd;
use crate::quarantine::Quarantine;
use crate::settings::Settings;

/// Recorded when nobody knows how a container ended (B-st-1).
const UNKNOWN_EXIT: i32 = 255;

/// A container taken up, whose life has yet to go on.
pub struct Recovered {
    actor: Actor,
    commands: mpsc::Receiver<Command>,
    exit: Option<Exit>,
}

impl Recovered {
    /// Its connections, if it runs.
    pub fn endpoints(&self) -> &[network::Endpoint] {
        &self.actor.row.endpoints
    }

    /// Who it is and the volumes that it has mounted, if it runs.
    pub fn uses_volumes(&self) -> Option<(String, Vec<String>)> {
        let row = &self.actor.row;
        row.state.pid()?;
        Some((row.id.as_str().to_owned(), row.volumes().map(|mount| mount.name.clone()).collect()))
    }

    /// Lets it go on.
    pub fn live(mut self) {
        tokio::spawn(async move {
            if let Some(exit) = self.exit {
                exit::ended(&mut self.actor, exit).await;
            } else {
                link_namespace(&self.actor.row);
                Sandbox { actor: &mut self.actor }.mend(None).await;
                if self.actor.link.is_some() && Places::of(&self.actor.row).has_resolver(&self.actor.engine.networks) {
                    // The last daemon may have been killed before it could.
                    Sandbox { actor: &mut self.actor }.tell_resolver().await;
                }
            }
            self.actor.live(self.commands).await;
        });
    }
}

/// A container that an earlier version has started gets the path of its network namespace now.
fn link_namespace(row: &ContainerRow) {
    let (Some(pid), Some(place)) = (row.state.pid(), &row.run.place) else { return };
    // Without endpoints it has joined another's.
    if !row.endpoints.is_empty()
        && let Err(error) = run::place::link_namespace_again(&place.dir, pid)
    {
        tracing::warn!(container = row.id.short(), %error, "its network namespace has no path");
    }
}

/// What is left of a container's run, and what is known of its end.
struct Remains {
    found: Found,
    /// The line to its monitor, if it lives.
    link: Option<Link>,
    /// The monitor has told its end, which goes the usual way.
    exit: Option<Exit>,
    /// The end that the row is to have; `None` where nobody knows it.
    ended: Option<Exit>,
    /// What is found of the run's memory.
    oom: bool,
    /// Where the last daemon died with the sockets.
    unsettled_link: Option<String>,
    /// A probe of its health check is under way.
    probe: Option<ProbeState>,
    /// Sessions and probes of its monitor.
    execs: Vec<ExecState>,
}

impl Remains {
    fn alive(link: Link) -> Remains {
        let (found, link) = (Found::Silent, Some(link));
        let (exit, ended, oom, unsettled_link, probe, execs) = Default::default();
        Remains { found, link, exit, ended, oom, unsettled_link, probe, execs }
    }

    fn gone(row: &ContainerRow, ended: Option<Exit>) -> Remains {
        let of_unknown_run = ended.as_ref().is_some_and(|exit| exit.at != row.run.finished_at.unix_nanos());
        Remains {
            found: Found::Gone { of_unknown_run },
            link: None,
            exit: None,
            ended,
            oom: false,
            unsettled_link: None,
            probe: None,
            execs: Vec::new(),
        }
    }
}

/// Finds out what became of a container and brings its record in line; a run that its policy wants is due from then on.
pub async fn recover(engine: Arc<Engine>, mut row: ContainerRow, last: LastEnd) -> Recovered {
    let before = (row.state.at_rest(), row.run.oom_killed, row.run.restart_count);
    let settings = engine.settings();
    let run_dir = place::run_dir(&settings.roots, &row);
    if run_dir != settings.roots.run(row.id.as_str()) {
        end_uncommitted(&settings.roots.run(row.id.as_str())).await;
    }
    let remains = look(&engine, &row, &run_dir).await;
    let Remains { found, link, exit, ended, oom, unsettled_link, probe, execs } = remains;
    note(&mut row, found, ended);
    row.run.oom_killed |= oom;
    row.unsettled_link = row.unsettled_link.or(unsettled_link);
    exit::consider(&mut row, last);
    let changed = (row.state, row.run.oom_killed, row.run.restart_count) != before;
    let (mut actor, commands) = Actor::new(&engine, row);
    actor.link = link;
    // Of a run of an earlier daemon the wall clock tells.
    let lasted = actor.row.run.started_at.after(now());
    actor.began = actor.began.checked_sub(lasted).unwrap_or(actor.began);
    if changed {
        drop(actor.record().await);
    }
    kill::thaw_left_behind(&mut actor).await;
    (health::Prober { actor: &mut actor }).take_up();
    (health::Prober { actor: &mut actor }).found(probe);
    execs::take_up(&mut actor, execs);
    if actor.link.is_none() && !actor.unrecorded {
        // Only now: until the end is recorded, what tells of it must stay.
        drop(run::place::remove_dir(&run_dir));
    }
    actor.publish();
    Recovered { actor, commands, exit }
}

/// Looks for a container's run, and ends what its record does not know of.
async fn look(engine: &Arc<Engine>, row: &ContainerRow, run_dir: &Path) -> Remains {
    match link::probe(run_dir).await {
        Probe::Connected(link, state) if is_committed(row, &state) => Remains {
            found: Found::Alive { frozen: state.paused },
            exit: state.exit,
            oom: state.memory_has_run_out,
            unsettled_link: lost_ports(&row.endpoints, state.ports),
            probe: state.probe,
            execs: state.execs,
            ..Remains::alive(link)
        },
        Probe::Silent(link) if row.state.pid().is_some() => {
            tracing::warn!(container = row.id.short(), "the container's monitor is slow to answer");
            Remains::alive(link)
        }
        Probe::Connected(link, state) if state.started_at == row.run.started_at.unix_nanos() => {
            // Of a run whose end is known already.
            end(link, row.id.as_str()).await;
            engine.clear_cgroup(row).await;
            Remains::gone(row, None)
        }
        Probe::Connected(link, _) | Probe::Silent(link) => {
            tracing::info!(container = row.id.short(), "ending a run that was not committed");
            end(link, row.id.as_str()).await;
            engine.clear_cgroup(row).await;
            Remains::gone(row, Some(ended_uncommitted()))
        }
        Probe::Ended(exit) => {
            engine.clear_cgroup(row).await;
            Remains::gone(row, Some(exit))
        }
        Probe::Killed => {
            link::kill_monitor(row.id.as_str());
            engine.clear_cgroup(row).await;
            let unreadable = unreadable_end(&engine.host.quarantine, row, run_dir);
            // A monitor tells of its container's birth before anything of it runs.
            Remains::gone(row, unreadable.or_else(|| row.state.pid().map(|_| killed_with_monitor())))
        }
        Probe::Gone => {
            if row.state.pid().is_some() {
                engine.clear_cgroup(row).await;
            }
            Remains::gone(row, None)
        }
    }
}

/// Brings a record in line with what was found. One that takes its run for running, or due, gets the end of that run: the
/// daemon died between starting and recording it, and the policy is asked again.
fn note(row: &mut ContainerRow, found: Found, ended: Option<Exit>) {
    let before = row.state.at_rest();
    row.state = lifecycle::recover(row.state, found);
    if row.state.pid().is_none() {
        health::suspend(row);
        row.endpoints.clear();
        row.unsettled_link = None;
    }
    if row.state == before || row.state.pid().is_some() {
        return;
    }
    let unknown = || Exit { code: UNKNOWN_EXIT, at: now().unix_nanos(), ..Exit::default() };
    let exit = ended.unwrap_or_else(unknown);
    row.run.finished_at = Timestamp::from_unix_nanos(exit.at);
    row.run.exit_code = exit.code;
    row.run.oom_killed |= exit.oom;
    row.run.error = exit.error;
}

/// No link, but something to settle: published ports of which the monitor serves none.
fn lost_ports(endpoints: &[network::Endpoint], served: u32) -> Option<String> {
    let publishes = endpoints.iter().any(|endpoint| !endpoint.ports.is_empty());
    (publishes && served == 0).then(String::new)
}

/// Whether the row knows of this run.
fn is_committed(row: &ContainerRow, state: &proto::State) -> bool {
    row.state.pid() == Some(state.pid) && row.run.started_at.unix_nanos() == state.started_at
}

/// The end of a run whose record cannot be read; the record is set aside.
fn unreadable_end(quarantine: &Quarantine, row: &ContainerRow, run_dir: &Path) -> Option<Exit> {
    let error = link::read_exit_record(run_dir).err()?;
    let why = format!("how container {} ended: {error}", row.id.short());
    if let Err(error) = quarantine.set_file_aside(&run_dir.join(EXIT_RECORD), "exits", &why) {
        tracing::warn!(container = row.id.short(), %error, "the record of its end is not kept");
    }
    let error = "the record of the container's end cannot be read".to_owned();
    Some(Exit { code: UNKNOWN_EXIT, at: now().unix_nanos(), error, ..Exit::default() })
}

/// The end of a run that no row knows: this daemon kills it.
fn ended_uncommitted() -> Exit {
    Exit { code: KILLED, signal: Some(9), at: now().unix_nanos(), ..Exit::default() }
}

/// Ends a run that an earlier daemon began here, when the last one that was committed has its place elsewhere.
#[expect(clippy::disallowed_methods, reason = "before anybody is served")]
async fn end_uncommitted(run_dir: &Path) {
    if !run_dir.exists() {
        return;
    }
    if let Probe::Connected(link, _) | Probe::Silent(link) = link::probe(run_dir).await
        // By its line alone: the id is also that of the monitor elsewhere.
        && !link::end(link).await
    {
        tracing::warn!(path = %run_dir.display(), "the monitor of a run that was not committed does not end");
        return;
    }
    remove(run_dir);
}

/// Ends the container of a monitor, by force if it does not listen.
async fn end(link: Link, id: &str) {
    if !link::end(link).await {
        link::kill_monitor(id);
    }
}

/// Ends and removes what no row owns: leftovers of a create or remove that a crash cut short. What cannot be removed is
/// told and stays.
pub async fn sweep(engine: &Arc<Engine>, known: &HashSet<String>) {
    let settings = engine.settings();
    let mut ends = JoinSet::new();
    for id in unowned(&settings.roots.exec, known) {
        let (engine, settings) = (engine.clone(), settings.clone());
        ends.spawn(async move { end_unowned(&engine, &settings, &id).await });
    }
    while ends.join_next().await.is_some() {}
    run::place::sweep_namespaces(&settings.roots.exec);
    for id in unowned(&settings.roots.data.join("containers"), known) {
        remove(&settings.roots.container(&id));
    }
}

/// The containers' directories here that belong to none.
#[expect(clippy::disallowed_methods, reason = "before anybody is served")]
fn unowned(root: &Path, known: &HashSet<String>) -> Vec<String> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| ContainerId::parse(name).is_some() && !known.contains(name)).collect()
}

async fn end_unowned(engine: &Arc<Engine>, settings: &Settings, id: &str) {
    let run_dir = settings.roots.run(id);
    if let Probe::Connected(link, _) | Probe::Silent(link) = link::probe(&run_dir).await {
        tracing::warn!(container = id, "ending a container that nobody knows");
        end(link, id).await;
    }
    link::kill_monitor(id);
    // A parent of its own is not known without the row; its monitor has removed such a cgroup.
    let cgroup = engine.host.cgroups.at(&place::cgroups_path(&settings.containers, "", id));
    let cleared = engine.containers.threads.ends.run(move |_| Ok(run::place::clear(&cgroup?)?));
    if let Err(error) = cleared.await {
        tracing::warn!(container = id, %error, "clearing a cgroup");
    }
    remove(&run_dir);
}

#[expect(clippy::disallowed_methods, reason = "before anybody is served")]
fn remove(path: &Path) {
    tracing::info!(path = %path.display(), "removing what no container owns");
    // A name that was not synced may be a file after a power cut, where there is no journal.
    let is_dir = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "it stays");
    }
}
