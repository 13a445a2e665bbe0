//! `POST /networks/{id}/connect` and `/disconnect`: of a container that runs its sandbox is joined to the network or
//! leaves it, of another one its row says so.

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
use network::row::NetworkRow;
use network::{Changed, Endpoint};
use sys::clone::Flags;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::actor::{Actor, Done, redefine};
use super::environment::Environment;
use super::ports::{self, Published};
use super::{files, resolver};
use crate::container::definition::network::{self as network_request, publish_specs as specs};
use crate::container::definition::places::Places;
use crate::container::definition::{Definition, places};
use crate::container::registry::arguments::{Force, Place};
use crate::container::registry::command::{Reply, answer};
use crate::container::validate::network::check_endpoint;

/// A running container's sandbox has joined a network, or could not.
pub struct Plugged {
    place: Place,
    changed: Changed<Endpoint>,
    reply: Reply,
}

/// A running container's sandbox has left a network, or could not.
pub struct Unplugged {
    /// The row's places before.
    before: Before,
    changed: Changed<Option<Endpoint>>,
    reply: Reply,
}

/// The networks that a row names.
type Named = BTreeMap<String, api::EndpointSettings>;

/// What a row said of its places before a change.
struct Before {
    endpoints: Vec<Endpoint>,
    definition: Arc<Definition>,
}

/// A container that runs, while its places in networks change.
struct Hot<'a> {
    actor: &'a mut Actor,
}

/// How long a monitor may take to close the sockets of published ports.
const CLOSING_WAIT: Duration = Duration::from_secs(10);

impl Hot<'_> {
    fn begin_change(&self, asked: &api::PortsChange) -> Result<Change> {
        let actor = &*self.actor;
        refuse_removal(actor)?;
        let row = &actor.row;
        let mode = network_request::network_mode(row);
        if mode == "host" || mode == "none" || mode.starts_with("container:") {
            return Err(Error::invalid(format!("a container in network mode {mode} publishes no ports")));
        }
        let bindings = row.host_config.port_bindings.clone().unwrap_or_default();
        let after = ports::change(&bindings, asked)?;
        let of = |bindings: &api::PortMap| {
            let host_config = api::HostConfig { port_bindings: Some(bindings.clone()), ..api::HostConfig::default() };
            specs(&row.config, &host_config)
        };
        let standing: Vec<_> = row.endpoints.iter().flat_map(|endpoint| &endpoint.ports).copied().collect();
        let removed = ports::bound(&standing, &of(&after.removed)?, &of(&after.bindings)?);
        Ok(Change { removed, added: of(&after.added)?, after })
    }

    async fn record_ports(&mut self, after: &Published) -> Result<()> {
        let actor = &mut *self.actor;
        let bindings = after.bindings.clone();
        let exposed: Vec<_> = after.added.keys().cloned().collect();
        redefine(actor, |definition| {
            definition.host_config.port_bindings = Some(bindings);
            for port in exposed {
                definition.config.exposed_ports.entry(port).or_default();
            }
        })
        .await?;
        actor.publish();
        Ok(())
    }

    async fn lose_place(&mut self, name: &str) -> Result<()> {
        let actor = &mut *self.actor;
        let mut named = Places::of(&actor.row).wanted();
        named.remove(name);
        (Hot { actor }).record_places(named).await
    }

    /// The row names these networks from now on, or what it named when that cannot be recorded.
    async fn record_places(&mut self, named: Named) -> Result<()> {
        let actor = &mut *self.actor;
        redefine(actor, |definition| (definition.networks, definition.networks_named) = (named, true)).await?;
        actor.publish();
        Ok(())
    }

    fn before(&self) -> Before {
        Before { endpoints: self.actor.row.endpoints.clone(), definition: self.actor.row.definition.clone() }
    }

    /// The row says of its places what it said before. One that cannot be recorded names fewer networks after a restart.
    async fn put_back(&mut self, before: Before) {
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

    /// The row tells which link is about to be made or taken away, and which networks it names from then on: a daemon that
    /// dies before it is settled has a successor that looks.
    async fn note_link(&mut self, link: String, named: Option<Named>, operation: &str) -> Result<()> {
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
    async fn hand_over(&mut self, sockets: &Sockets) {
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
    async fn settle(&mut self, ports: &Sockets) {
        self.hand_over(ports).await;
        let actor = &mut *self.actor;
        actor.row.endpoints = actor.engine.networks.endpoints_of(&actor.row.id);
        actor.row.unsettled_link = None;
        drop(actor.record().await);
        actor.publish();
    }
}

/// Joins a network, now or at the next start.
pub(super) async fn connect(actor: &mut Actor, place: Place, reply: Reply) {
    match begin_connect(actor, &place) {
        Err(error) => answer(reply, Err(error)),
        Ok(None) => {
            let outcome = keep_place(actor, place).await;
            answer(reply, outcome);
        }
        Ok(Some(plug)) => match (Hot { actor }).note_link(plug.link.clone(), None, "connect").await {
            Err(error) => answer(reply, Err(error)),
            Ok(()) => begin_plug(actor, place, plug, reply).await,
        },
    }
}

async fn begin_plug(actor: &mut Actor, place: Place, plug: Plug, reply: Reply) {
    let Plug { netns, spec, ports, link: _ } = plug;
    let moves = actor.engine.networks.would_publish(&actor.row.id, &spec).unwrap_or(false);
    let closing = if moves { Some(Closing::all(actor).await) } else { None };
    let (engine, id, name) = (actor.engine.clone(), actor.row.id.clone(), actor.row.name.clone());
    begin_job(actor, closing, move |closed| {
        let owner = Owner { container: &id, name: &name };
        let ports = closed.is_some_and(|closed| may_move(&id, &closed)).then_some(ports);
        let changed = engine.networks.plug(owner, netns, &spec, ports.as_deref());
        Done::Plugged(Box::new(Plugged { place, changed, reply }))
    });
}

/// What a running container is joined with; `None`: it does not run.
fn begin_connect(actor: &Actor, place: &Place) -> Result<Option<Plug>> {
    refuse_removal(actor)?;
    let network = actor.engine.networks.look_up(&place.network);
    let runs = actor.row.state.pid().is_some();
    let network = match network {
        Ok(network) => network,
        // The start will look for it.
        Err(_) if !runs => return check_endpoint(&place.network, &place.settings).map(|()| None),
        Err(error) => return Err(error),
    };
    check_endpoint(&network.name, &place.settings)?;
    places::check_addresses(&network, &place.settings)?;
    Places::of(&actor.row).refuse_beside(&actor.engine.networks, &network)?;
    if !runs {
        return Ok(None);
    }
    if actor.row.endpoints.iter().any(|endpoint| endpoint.network == network.id) {
        let text = format!("endpoint with name {} already exists in network {}", actor.row.name, network.name);
        return Err(Error::forbidden(text));
    }
    let netns = network_namespace(actor)?;
    let mut spec = Places::of(&actor.row).endpoint(&network, &place.settings)?;
    let link = actor.engine.networks.link_of(&actor.row.id, &spec)?;
    spec.link = Some(link.clone());
    Ok(Some(Plug { netns, spec, ports: specs(&actor.row.config, &actor.row.host_config)?, link }))
}

fn refuse_removal(actor: &Actor) -> Result<()> {
    if actor.row.state.is_dead() {
        return Err(Error::system(format!(
            "Container {} is marked for removal and cannot be connected or disconnected to the network",
            actor.row.id
        )));
    }
    Ok(())
}

/// The namespace of the container's first process.
pub(super) fn network_namespace(actor: &Actor) -> Result<OwnedFd> {
    let init = actor.link.as_ref().and_then(run::link::Link::init);
    let gone = || Error::conflict(format!("container {} is not running", actor.row.id));
    let init = init.ok_or_else(gone)?;
    sys::ns::of_process(init.as_fd(), Flags::NEWNET).map_err(|error| gone().with_source(error))
}

/// The row names the network from now on.
async fn keep_place(actor: &mut Actor, place: Place) -> Result<()> {
    let mut named = Places::of(&actor.row).wanted();
    let network = actor.engine.networks.look_up(&place.network);
    let name = network.as_ref().map_or(place.network, |network| network.name.clone());
    let mut settings = place.settings;
    if let Ok(network) = &network {
        let names = Places::of(&actor.row).dns_names(network, settings.aliases.as_deref().unwrap_or_default());
        settings.dns_names = Some(names).filter(|names| !names.is_empty());
    }
    named.entry(name).or_insert(settings);
    (Hot { actor }).record_places(named).await
}

/// The sandbox has joined: record, show, tell, answer.
pub(super) async fn plugged(actor: &mut Actor, plugged: Plugged) {
    let Plugged { place, changed: Changed { outcome, ports }, reply } = plugged;
    let endpoint = match outcome {
        Ok(endpoint) => endpoint,
        Err(error) => {
            actor.row.unsettled_link = None;
            drop(actor.record().await);
            (Hot { actor }).hand_over(&ports).await;
            return answer(reply, Err(error));
        }
    };
    if has_ended(actor) {
        let error = Error::conflict(format!("container {} is not running", actor.row.id));
        return begin_release(actor, Owed { reply, outcome: Err(error) });
    }
    let before = (Hot { actor }).before();
    let faults = actor.engine.host.faults.clone();
    // Before the row says that all is settled: a daemon that dies in between has a successor that looks.
    (Hot { actor }).hand_over(&ports).await;
    let kept = match faults.pass("connect", "plug") {
        Ok(()) => {
            actor.row.endpoints = actor.engine.networks.endpoints_of(&actor.row.id);
            actor.row.unsettled_link = None;
            keep_place(actor, place).await.and_then(|()| faults.pass("connect", "commit"))
        }
        failed => failed,
    };
    if let Err(error) = kept {
        // Their numbers are free for those that were published before.
        let closing = if ports.is_empty() { None } else { Some(Closing::all(actor).await) };
        drop(ports);
        (Hot { actor }).put_back(before).await;
        return begin_unplug_again(actor, endpoint.network, closing, Owed { reply, outcome: Err(error) });
    }
    tell_resolver(actor).await;
    let (config, added) = (actor.row.definition.clone(), endpoint.clone());
    change_hosts(actor, move |on, dir| files::add_addresses(on, dir, &config.config, &added)).await;
    let told = actor.engine.network_draft(&actor.row, "connect", &endpoint);
    actor.engine.events.publish_all(told.into_iter().collect());
    answer(reply, Ok(()));
}

/// Leaves a network, now or before the next start; `force`: also one that is not there any more.
pub(super) async fn disconnect(actor: &mut Actor, network: String, force: Force, reply: Reply) {
    match begin_disconnect(actor, &network, force) {
        Err(error) => answer(reply, Err(error)),
        Ok(None) => {
            let name = actor.engine.networks.look_up(&network).map_or(network, |row| row.name.clone());
            let outcome = (Hot { actor }).lose_place(&name).await;
            answer(reply, outcome);
        }
        Ok(Some(unplug)) => begin_unplug(actor, unplug, reply).await,
    }
}

/// The row first: the next daemon removes a link that no row names.
async fn begin_unplug(actor: &mut Actor, unplug: Unplug, reply: Reply) {
    let Unplug { netns, network, link, publishes, ports } = unplug;
    let before = (Hot { actor }).before();
    actor.row.endpoints.retain(|endpoint| endpoint.network != network.id);
    let mut named = Places::of(&actor.row).wanted();
    named.retain(|name, _| !names(&network, name));
    if let Err(error) = (Hot { actor }).note_link(link, Some(named), "disconnect").await {
        (Hot { actor }).put_back(before).await;
        drop(actor.record().await);
        return answer(reply, Err(error));
    }
    let closing = if publishes { Some(Closing::all(actor).await) } else { None };
    let (engine, id, name) = (actor.engine.clone(), actor.row.id.clone(), actor.row.name.clone());
    begin_job(actor, closing, move |closed| {
        let owner = Owner { container: &id, name: &name };
        let moves = closed.is_some_and(|closed| may_move(&id, &closed));
        let ports = if moves { ports } else { Vec::new() };
        let mut changed = engine.networks.unplug(owner, &network.id, &netns, &ports);
        if let Ok(Some(endpoint)) = &changed.outcome
            && let Err(error) = engine.host.faults.pass("disconnect", "unplug")
        {
            let endpoint = endpoint.clone();
            drop(std::mem::take(&mut changed.ports));
            let again = engine.networks.plug_again(owner, netns, &endpoint, &ports);
            changed = Changed { outcome: again.outcome.and(Err(error)), ports: again.ports };
        }
        Done::Unplugged(Box::new(Unplugged { before, changed, reply }))
    });
}

/// Whether a container's row means this network.
fn names(network: &NetworkRow, name: &str) -> bool {
    name == network.name || name == network.id.as_str()
}

/// What a running container leaves; `None`: it does not run, or the network is not there any more.
fn begin_disconnect(actor: &Actor, network: &str, force: Force) -> Result<Option<Unplug>> {
    refuse_removal(actor)?;
    let found = actor.engine.networks.look_up(network);
    if actor.row.state.pid().is_none() || found.is_err() && force == Force::Yes {
        let name = found.map_or_else(|_| network.to_owned(), |row| row.name.clone());
        if !Places::of(&actor.row).wanted().contains_key(&name) {
            let text = format!("container {} is not connected to the network {name}", actor.row.id);
            return Err(Error::system(text));
        }
        return Ok(None);
    }
    let row = found?;
    if row.driver == "host" && network_request::network_mode(&actor.row) == "host" {
        return Err(Error::invalid(
            "cannot disconnect container from host network - container was created in host network mode",
        ));
    }
    let Some(endpoint) = actor.row.endpoints.iter().find(|endpoint| endpoint.network == row.id) else {
        let text = format!("container {} is not connected to network {}", actor.row.id, row.name);
        return Err(Error::system(text));
    };
    let (link, publishes) = (endpoint.link.clone(), !endpoint.ports.is_empty());
    Ok(Some(Unplug {
        netns: network_namespace(actor)?,
        network: row,
        link,
        publishes,
        ports: specs(&actor.row.config, &actor.row.host_config)?,
    }))
}

/// The sandbox has left, which is recorded already: show, tell, answer.
pub(super) async fn unplugged(actor: &mut Actor, unplugged: Unplugged) {
    let Unplugged { before, changed: Changed { outcome, ports }, reply } = unplugged;
    if has_ended(actor) {
        return answer(reply, outcome.map(drop));
    }
    let endpoint = match outcome {
        Ok(endpoint) => endpoint,
        Err(error) => {
            (Hot { actor }).put_back(before).await;
            (Hot { actor }).settle(&ports).await;
            return answer(reply, Err(error));
        }
    };
    (Hot { actor }).settle(&ports).await;
    tell_resolver(actor).await;
    if let Some(endpoint) = endpoint {
        let removed = endpoint.clone();
        change_hosts(actor, move |on, dir| files::remove_addresses(on, dir, &removed)).await;
        let told = actor.engine.network_draft(&actor.row, "disconnect", &endpoint);
        actor.engine.events.publish_all(told.into_iter().collect());
    }
    answer(reply, Ok(()));
}

/// Brings the sandbox of a container that runs in line with its row: where the last daemon died while that changed, and where
/// a change has failed in its middle.
pub(super) async fn mend(actor: &mut Actor, owed: Option<Owed>) {
    let ready = actor.row.unsettled_link.clone().zip(namespace_and_ports(actor));
    let Some((link, (netns, ports))) = ready else { return Owed::pay(owed) };
    let closing = Some(Closing::all(actor).await);
    let (engine, id, name) = (actor.engine.clone(), actor.row.id.clone(), actor.row.name.clone());
    begin_job(actor, closing, move |closed| {
        // One that does not answer keeps its sockets, which then count as taken.
        drop(closed);
        let changed = engine.networks.bring_in_line(Owner { container: &id, name: &name }, &netns, &link, &ports);
        Done::Settled(Box::new(Settled { changed, owed }))
    });
}

/// Takes back what was joined and could not be recorded; the ports are published where they were.
fn begin_unplug_again(actor: &mut Actor, network: NetworkId, closing: Option<Closing>, owed: Owed) {
    let rounds = if actor.engine.host.faults.is_armed() { 2 } else { 1 };
    let Some((netns, specs)) = namespace_and_ports(actor) else { return Owed::pay(Some(owed)) };
    let (engine, id, name) = (actor.engine.clone(), actor.row.id.clone(), actor.row.name.clone());
    begin_job(actor, closing, move |_| {
        let mut all = Changed { outcome: Ok(()), ports: Sockets::default() };
        for _ in 0..rounds {
            let left = engine.networks.unplug(Owner { container: &id, name: &name }, &network, &netns, &specs);
            all.outcome = left.outcome.map(drop);
            all.ports.append(left.ports);
        }
        Done::Settled(Box::new(Settled { changed: all, owed: Some(owed) }))
    });
}

/// Frees what was joined after the run had let everything go.
fn begin_release(actor: &mut Actor, owed: Owed) {
    let (engine, id) = (actor.engine.clone(), actor.row.id.clone());
    begin_job(actor, None, move |_| {
        let changed = Changed { outcome: engine.networks.release(&id), ports: Sockets::default() };
        Done::Settled(Box::new(Settled { changed, owed: Some(owed) }))
    });
}

/// A run's networks were put in order after a change that failed, or could not be.
pub struct Settled {
    changed: Changed<()>,
    owed: Option<Owed>,
}

/// The answer that a command gets when what it left behind is in order.
pub(super) struct Owed {
    reply: Reply,
    outcome: Result<()>,
}

impl Owed {
    fn pay(owed: Option<Owed>) {
        if let Some(Owed { reply, outcome }) = owed {
            answer(reply, outcome);
        }
    }
}

/// Record, show, serve the ports, answer.
pub(super) async fn settled(actor: &mut Actor, settled: Settled) {
    let Settled { changed: Changed { outcome, ports }, owed } = settled;
    if let Err(error) = outcome {
        tracing::error!(container = actor.row.id.short(), %error, "the container's networks are not what its row says");
    }
    if !has_ended(actor) {
        (Hot { actor }).settle(&ports).await;
    }
    Owed::pay(owed);
}

/// Nothing runs of the container, or its end is under way.
fn has_ended(actor: &Actor) -> bool {
    actor.end.is_some() || actor.row.state.pid().is_none()
}

/// The namespace of a container that runs, and what it publishes.
fn namespace_and_ports(actor: &Actor) -> Option<(OwnedFd, Vec<network::PublishSpec>)> {
    Some((network_namespace(actor).ok()?, specs(&actor.row.config, &actor.row.host_config).ok()?))
}

/// Changes the hosts file of a container that runs.
async fn change_hosts(actor: &Actor, change: impl FnOnce(&Blocking, &Path) -> Result<()> + Send + 'static) {
    let dir = dir(actor);
    if let Err(error) = actor.engine.containers.threads.background.run(move |on| change(on, &dir)).await {
        tracing::warn!(container = actor.row.id.short(), %error, "the hosts file does not say what its networks are");
    }
}

/// Sockets of published ports that the monitor was asked to close; its answers come as events of the actor.
struct Closing(Vec<oneshot::Receiver<Result<()>>>);

impl Closing {
    /// Those of all published ports.
    async fn all(actor: &mut Actor) -> Closing {
        Closing(vec![Closing::ask(actor, Vec::new()).await])
    }

    /// Those of these ports.
    async fn of(actor: &mut Actor, ports: &[network::BoundPort]) -> Closing {
        let bound = ports.iter().filter(|port| port.host_port != 0).map(|port| Bound {
            protocol: port.protocol.number(),
            address: SocketAddr::new(port.host_ip, port.host_port),
        });
        let mut answers = Vec::new();
        for part in bound.collect::<Vec<_>>().chunks(BOUND_PER_MESSAGE) {
            answers.push(Closing::ask(actor, part.to_vec()).await);
        }
        Closing(answers)
    }

    async fn ask(actor: &mut Actor, ports: Vec<Bound>) -> oneshot::Receiver<Result<()>> {
        let (reply, answer) = oneshot::channel();
        actor.request(&Request::Unpublish(ports), reply).await;
        answer
    }

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
fn may_move(id: &ContainerId, closed: &Result<()>) -> bool {
    if let Err(error) = closed {
        tracing::warn!(container = id.short(), %error, "published ports stay where they are");
    }
    closed.is_ok()
}

/// Begins a job on a thread of the networks. It begins when the monitor has answered, is told what, and ends as a [`Done`].
fn begin_job(
    actor: &mut Actor,
    closing: Option<Closing>,
    job: impl FnOnce(Option<Result<()>>) -> Done + Send + 'static,
) {
    let networks = actor.engine.containers.threads.networks.clone();
    actor.jobs.spawn(async move {
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

/// The container's directory.
fn dir(actor: &Actor) -> PathBuf {
    actor.engine.settings().roots.container(actor.row.id.as_str())
}

/// What a change of published ports needs of a container that runs.
struct Change {
    after: Published,
    removed: Vec<network::BoundPort>,
    added: Vec<network::PublishSpec>,
}

/// Published ports of a running container were changed, or could not be.
pub struct Republished {
    after: Published,
    /// An error: the monitor has not closed what goes, and nothing was changed.
    changed: Result<Changed<()>>,
    reply: Reply,
}

/// Bound ports in one message to the monitor, well below its limit.
const BOUND_PER_MESSAGE: usize = 1000;

/// Changes what the container publishes, at once when it runs. Connections that stand go on.
pub(super) async fn change_ports(actor: &mut Actor, asked: api::PortsChange, reply: Reply) {
    let Change { after, removed, added } = match (Hot { actor }).begin_change(&asked) {
        Ok(change) => change,
        Err(error) => return answer(reply, Err(error)),
    };
    if actor.row.state.pid().is_none() {
        let outcome = (Hot { actor }).record_ports(&after).await;
        return answer(reply, outcome);
    }
    // A daemon that dies meanwhile has a successor that publishes what the definition says.
    let noted = (Hot { actor }).note_link(String::new(), None, "ports").await;
    if let Err(error) = noted {
        return mend(actor, Some(Owed { reply, outcome: Err(error) })).await;
    }
    let closing = Some(Closing::of(actor, &removed).await);
    let (engine, id, name) = (actor.engine.clone(), actor.row.id.clone(), actor.row.name.clone());
    begin_job(actor, closing, move |closed| {
        let changed = closed
            .unwrap_or(Ok(()))
            .map(|()| engine.networks.change_published(Owner { container: &id, name: &name }, &removed, &added));
        Done::Republished(Box::new(Republished { after, changed, reply }))
    });
}

/// The ports are published: record, show, answer.
pub(super) async fn republished(actor: &mut Actor, republished: Republished) {
    let Republished { after, changed, reply } = republished;
    if has_ended(actor) {
        return answer(reply, Err(Error::conflict(format!("container {} is not running", actor.row.id))));
    }
    let Changed { outcome, ports } = match changed {
        Ok(changed) => changed,
        Err(error) => return mend(actor, Some(Owed { reply, outcome: Err(error) })).await,
    };
    let published = outcome.is_ok();
    let outcome = match outcome {
        Ok(()) => (Hot { actor }).record_ports(&after).await,
        failed => failed,
    };
    (Hot { actor }).settle(&ports).await;
    if outcome.is_ok() {
        actor.event("update", []);
    } else if published {
        // The definition has not changed: what it says is published.
        actor.row.unsettled_link.get_or_insert_default();
        return mend(actor, Some(Owed { reply, outcome })).await;
    }
    answer(reply, outcome);
}

/// What a running container is joined with.
struct Plug {
    netns: OwnedFd,
    spec: network::EndpointSpec,
    /// What it publishes.
    ports: Vec<network::PublishSpec>,
    link: String,
}

/// What it leaves.
struct Unplug {
    netns: OwnedFd,
    network: Arc<NetworkRow>,
    link: String,
    /// The endpoint has published ports.
    publishes: bool,
    /// What the container publishes.
    ports: Vec<network::PublishSpec>,
}

/// Tells the monitor of a running container what its resolver knows from now on. One that gets its first network of a
/// user's gets a resolver and asks it, unless somebody has edited its `resolv.conf`; it keeps it when it leaves the last.
pub(super) async fn tell_resolver(actor: &mut Actor) {
    let (engine, settings) = (actor.engine.clone(), actor.engine.settings());
    let spec = resolver::spec(&engine.networks, &settings, Places::of(&actor.row), &actor.row.host_config);
    let needs_one = Places::of(&actor.row).has_resolver(&engine.networks);
    let namespace = network_namespace(actor).ok().filter(|_| needs_one);
    let Some(link) = actor.link.as_mut() else { return };
    let sent = link.send(&Request::Resolver(spec), namespace.as_ref().map(AsFd::as_fd).as_slice()).await;
    let files = files::of(&engine.networks, &settings, &actor.row);
    let started = actor.row.run.started_at;
    let written = match (sent, files) {
        (Ok(_), Ok(Some(files))) if needs_one => {
            engine.containers.threads.background.run(move |on| files::embed(on, &files, started)).await
        }
        (sent, files) => sent.and(files).map(drop),
    };
    if let Err(error) = written {
        tracing::warn!(container = actor.row.id.short(), %error, "the resolver of a container does not know its networks");
    }
}
