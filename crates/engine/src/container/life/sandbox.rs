//! The sandbox of a container that runs, while its places in networks or its published ports change: what the verbs have in
//! common. What may block is a job of the actor, which hears the monitor's answers meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blocking::Blocking;
use model::id::{ContainerId, NetworkId};
use model::{Error, Result};
use monitor::proto::{Bound, Request};
use network::endpoint::Sockets;
use network::networks::Owner;
use network::{Changed, Endpoint};
use sys::clone::Flags;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::actor::{Actor, Done, redefine};
use super::{files, resolver};
use crate::container::definition::Definition;
use crate::container::definition::places::Places;
use crate::container::registry::command::{Reply, answer};

/// Bound ports in one message to the monitor, well below its limit.
const BOUND_PER_MESSAGE: usize = 1000;

/// How long a monitor may take to close the sockets of published ports.
const CLOSING_WAIT: Duration = Duration::from_secs(10);

/// The networks that a row names.
pub(super) type Named = BTreeMap<String, api::EndpointSettings>;

/// What a row said of its places before a change.
pub(super) struct Before {
    endpoints: Vec<Endpoint>,
    definition: Arc<Definition>,
}

/// The networks of a container that runs.
pub(super) struct Sandbox<'a> {
    /// Whose container it is.
    pub actor: &'a mut Actor,
}

impl Sandbox<'_> {
    /// What the row says of its places.
    pub(super) fn before(&self) -> Before {
        Before { endpoints: self.actor.row.endpoints.clone(), definition: self.actor.row.definition.clone() }
    }

    /// The row says of its places what it said before. One that cannot be recorded names fewer networks after a restart.
    pub(super) async fn put_back(&mut self, before: Before) {
        let row = &mut self.actor.row;
        row.endpoints = before.endpoints;
        row.unsettled_link = None;
        if Arc::ptr_eq(&row.definition, &before.definition) {
            return;
        }
        let definition = (*before.definition).clone();
        if let Err(error) = redefine(self.actor, |changed| *changed = definition).await {
            tracing::warn!(container = self.actor.row.id.short(), %error, "its networks cannot be recorded");
            self.actor.row.definition = before.definition;
        }
    }

    /// The row names these networks from now on, or what it named when that cannot be recorded.
    pub(super) async fn record_places(&mut self, named: Named) -> Result<()> {
        let actor = &mut *self.actor;
        redefine(actor, |definition| (definition.networks, definition.networks_named) = (named, true)).await?;
        actor.publish();
        Ok(())
    }

    /// The row tells which link is about to be made or taken away, and which networks it names from then on: a daemon that
    /// dies before it is settled has a successor that looks.
    pub(super) async fn note_link(&mut self, link: String, named: Option<Named>, operation: &str) -> Result<()> {
        let actor = &mut *self.actor;
        actor.row.unsettled_link = Some(link);
        let noted = match named {
            None => actor.commit(actor.row.clone()).await,
            Some(named) => {
                redefine(actor, |definition| (definition.networks, definition.networks_named) = (named, true)).await
            }
        };
        let noted = noted.and_then(|()| actor.engine.host.faults.pass(operation, "record"));
        if noted.is_err() {
            actor.row.unsettled_link = None;
            drop(actor.record().await);
        }
        noted
    }

    /// Gives the monitor the sockets of ports that are published now.
    pub(super) async fn hand_over(&mut self, sockets: &Sockets) {
        let Some(link) = self.actor.link.as_mut().filter(|_| !sockets.is_empty()) else { return };
        for (ports, queue) in run::ports::parked(sockets) {
            if let Err(error) = link.send(&Request::ParkedPorts(ports), &[queue]).await {
                return tracing::warn!(%error, "published ports have no proxy");
            }
        }
        let (ports, fds) = run::ports::proxied(sockets);
        let chunks = ports.chunks(run::ports::PORTS_PER_MESSAGE).zip(fds.chunks(run::ports::PORTS_PER_MESSAGE));
        for (ports, fds) in chunks {
            if let Err(error) = link.send(&Request::Ports(ports.to_vec()), fds).await {
                return tracing::warn!(%error, "published ports have no proxy");
            }
        }
    }

    /// The row's endpoints are what stands: record, show, serve their ports.
    pub(super) async fn record_endpoints(&mut self, ports: &Sockets) {
        self.hand_over(ports).await;
        let actor = &mut *self.actor;
        actor.row.endpoints = actor.engine.networks.endpoints_of(&actor.row.id);
        actor.row.unsettled_link = None;
        drop(actor.record().await);
        actor.publish();
    }

    /// Asks the monitor to close the sockets of all published ports.
    pub(super) async fn close_all(&mut self) -> Closing {
        Closing(vec![self.ask_to_close(Vec::new()).await])
    }

    /// Asks the monitor to close the sockets of these ports.
    pub(super) async fn close(&mut self, ports: &[network::BoundPort]) -> Closing {
        let bound = ports.iter().filter(|port| port.host_port != 0).map(|port| Bound {
            protocol: port.protocol.number(),
            address: SocketAddr::new(port.host_ip, port.host_port),
        });
        let mut answers = Vec::new();
        for part in bound.collect::<Vec<_>>().chunks(BOUND_PER_MESSAGE) {
            answers.push(self.ask_to_close(part.to_vec()).await);
        }
        Closing(answers)
    }

    async fn ask_to_close(&mut self, ports: Vec<Bound>) -> oneshot::Receiver<Result<()>> {
        let (reply, answer) = oneshot::channel();
        self.actor.request(&Request::Unpublish(ports), reply).await;
        answer
    }

    /// Brings the sandbox of a container that runs in line with its row: where the last daemon died while that changed, and where
    /// a change has failed in its middle.
    pub(super) async fn mend(&mut self, owed: Option<Owed>) {
        let ready = self.actor.row.unsettled_link.clone().zip(self.namespace_and_ports());
        let Some((link, (netns, ports))) = ready else { return Owed::pay(owed) };
        let closing = Some(self.close_all().await);
        let (engine, id, name) = (self.actor.engine.clone(), self.actor.row.id.clone(), self.actor.row.name.clone());
        self.begin_job(closing, move |closed| {
            // One that does not answer keeps its sockets, which then count as taken.
            drop(closed);
            let changed = engine.networks.bring_in_line(Owner { container: &id, name: &name }, &netns, &link, &ports);
            Done::Restored(Box::new(Restored { changed, owed }))
        });
    }

    /// Takes back what was joined and could not be recorded; the ports are published where they were.
    pub(super) fn begin_unplug_again(&mut self, network: NetworkId, closing: Option<Closing>, owed: Owed) {
        let rounds = if self.actor.engine.host.faults.is_armed() { 2 } else { 1 };
        let Some((netns, specs)) = self.namespace_and_ports() else { return Owed::pay(Some(owed)) };
        let (engine, id, name) = (self.actor.engine.clone(), self.actor.row.id.clone(), self.actor.row.name.clone());
        self.begin_job(closing, move |_| {
            let mut all = Changed { outcome: Ok(()), ports: Sockets::default() };
            for _ in 0..rounds {
                let left = engine.networks.unplug(Owner { container: &id, name: &name }, &network, &netns, &specs);
                all.outcome = left.outcome.map(drop);
                all.ports.append(left.ports);
            }
            Done::Restored(Box::new(Restored { changed: all, owed: Some(owed) }))
        });
    }

    /// Frees what was joined after the run had let everything go.
    pub(super) fn begin_release(&mut self, owed: Owed) {
        let (engine, id) = (self.actor.engine.clone(), self.actor.row.id.clone());
        self.begin_job(None, move |_| {
            let changed = Changed { outcome: engine.networks.release(&id), ports: Sockets::default() };
            Done::Restored(Box::new(Restored { changed, owed: Some(owed) }))
        });
    }

    /// Record, show, serve the ports, answer.
    pub(super) async fn restored(&mut self, restored: Restored) {
        let Restored { changed: Changed { outcome, ports }, owed } = restored;
        if let Err(error) = outcome {
            tracing::error!(container = self.actor.row.id.short(), %error, "the container's networks are not what its row says");
        }
        if !self.has_ended() {
            self.record_endpoints(&ports).await;
        }
        Owed::pay(owed);
    }

    /// A container that is half removed changes no more.
    pub(super) fn refuse_removal(&self) -> Result<()> {
        if self.actor.row.state.is_dead() {
            return Err(Error::system(format!(
                "Container {} is marked for removal and cannot be connected or disconnected to the network",
                self.actor.row.id
            )));
        }
        Ok(())
    }

    /// Nothing runs of the container, or its end is under way.
    pub(super) fn has_ended(&self) -> bool {
        self.actor.end.is_some() || self.actor.row.state.pid().is_none()
    }

    /// The namespace of the container's first process.
    pub(super) fn namespace(&self) -> Result<OwnedFd> {
        let init = self.actor.link.as_ref().and_then(run::link::Link::init);
        let gone = || Error::conflict(format!("container {} is not running", self.actor.row.id));
        let init = init.ok_or_else(gone)?;
        sys::ns::of_process(init.as_fd(), Flags::NEWNET).map_err(|error| gone().with_source(error))
    }

    /// The namespace of a container that runs, and what it publishes.
    fn namespace_and_ports(&self) -> Option<(OwnedFd, Vec<network::PublishSpec>)> {
        Some((self.namespace().ok()?, self.actor.row.parsed().ports().ok()?.to_vec()))
    }

    /// The container's directory.
    fn dir(&self) -> PathBuf {
        self.actor.engine.settings().roots.container(self.actor.row.id.as_str())
    }

    /// Changes the hosts file of a container that runs.
    pub(super) async fn change_hosts(&self, change: impl FnOnce(&Blocking, &Path) -> Result<()> + Send + 'static) {
        let dir = self.dir();
        if let Err(error) = self.actor.engine.containers.threads.background.run(move |on| change(on, &dir)).await {
            tracing::warn!(container = self.actor.row.id.short(), %error, "the hosts file does not say what its networks are");
        }
    }

    /// Tells the monitor of a running container what its resolver knows from now on. One that gets its first network of a
    /// user's gets a resolver and asks it, unless somebody has edited its `resolv.conf`; it keeps it when it leaves the last.
    pub(super) async fn tell_resolver(&mut self) {
        let (engine, settings) = (self.actor.engine.clone(), self.actor.engine.settings());
        let spec =
            resolver::spec(&engine.networks, &settings, Places::of(&self.actor.row), &self.actor.row.host_config);
        let needs_one = Places::of(&self.actor.row).has_resolver(&engine.networks);
        let namespace = self.namespace().ok().filter(|_| needs_one);
        let Some(link) = self.actor.link.as_mut() else { return };
        let sent = link.send(&Request::Resolver(spec), namespace.as_ref().map(AsFd::as_fd).as_slice()).await;
        let files = files::of(&engine.networks, &settings, &self.actor.row);
        let started = self.actor.row.run.started_at;
        let written = match (sent, files) {
            (Ok(_), Ok(Some(files))) if needs_one => {
                engine.containers.threads.background.run(move |on| files::embed(on, &files, started)).await
            }
            (sent, files) => sent.and(files).map(drop),
        };
        if let Err(error) = written {
            tracing::warn!(container = self.actor.row.id.short(), %error, "the resolver of a container does not know its networks");
        }
    }

    /// Begins a job on a thread of the networks. It begins when the monitor has answered, is told what, and ends as a [`Done`].
    pub(super) fn begin_job(
        &mut self,
        closing: Option<Closing>,
        job: impl FnOnce(Option<Result<()>>) -> Done + Send + 'static,
    ) {
        let networks = self.actor.engine.containers.threads.networks.clone();
        self.actor.jobs.spawn(async move {
            let closed = match closing {
                Some(closing) => Some(closing.closed().await),
                None => None,
            };
            match networks.turn().await.begin(move |_| job(closed)).await {
                Ok(done) => done,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        });
    }
}

/// A run's networks were put in order after a change that failed, or could not be.
pub struct Restored {
    changed: Changed<()>,
    owed: Option<Owed>,
}

/// The answer that a command gets when what it left behind is in order.
pub(super) struct Owed {
    pub reply: Reply,
    pub outcome: Result<()>,
}

impl Owed {
    /// Gives it.
    pub fn pay(owed: Option<Owed>) {
        if let Some(Owed { reply, outcome }) = owed {
            answer(reply, outcome);
        }
    }
}

/// Sockets of published ports that the monitor was asked to close; the answers come as events of the actor.
pub(super) struct Closing(Vec<oneshot::Receiver<Result<()>>>);

impl Closing {
    /// Waits until all are closed; an error when the monitor refuses, or does not answer in time.
    async fn closed(self) -> Result<()> {
        let deadline = Instant::now() + CLOSING_WAIT;
        for answer in self.0 {
            match timeout_at(deadline, answer).await {
                Ok(Ok(outcome)) => outcome?,
                _ => return Err(Error::unavailable("the container's monitor does not answer")),
            }
        }
        Ok(())
    }
}

/// Whether published ports can be bound anew: their sockets are closed. A monitor of an older daemon knows no such request.
pub(super) fn may_move(id: &ContainerId, closed: &Result<()>) -> bool {
    if let Err(error) = closed {
        tracing::warn!(container = id.short(), %error, "published ports stay where they are");
    }
    closed.is_ok()
}
