//! `POST /networks/{id}/connect` and `/disconnect`: of a container that runs its sandbox is joined to the network or
//! leaves it, of another one its row says so.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use model::{Error, Result};
use monitor::proto::Request;
use network::networks::Owner;
use sys::clone::Flags;

use super::actor::{Actor, Done, Reply, answer, redefine};
use super::places::Places;
use super::start::network_event;
use super::{files, places};
use crate::container::create::network as network_request;

/// A place that a container is to get, or to lose.
#[derive(Clone, Debug)]
pub struct Place {
    /// Name or id, as the client wrote it.
    pub network: String,
    /// What it asks for.
    pub settings: api::EndpointSettings,
}

/// A running container's sandbox has joined a network, or could not.
pub struct Plugged {
    place: Place,
    outcome: Result<network::Joined>,
    reply: Reply,
}

/// A running container's sandbox has left a network, or could not.
pub struct Unplugged {
    /// The network's name.
    network: String,
    outcome: Result<Option<network::Endpoint>>,
    reply: Reply,
}

/// Joins a network, now or at the next start.
#[expect(clippy::disallowed_methods, reason = "not yet on a thread of a class")]
pub(super) async fn connect(actor: &mut Actor, place: Place, reply: Reply) {
    match begin_connect(actor, &place) {
        Err(error) => answer(reply, Err(error)),
        Ok(None) => {
            let outcome = keep_place(actor, place).await;
            answer(reply, outcome);
        }
        Ok(Some((netns, spec, ports))) => {
            let (engine, id, name) = (actor.engine.clone(), actor.row.id.clone(), actor.row.name.clone());
            actor.jobs.spawn_blocking(move || {
                let outcome = engine.networks.plug(Owner { container: &id, name: &name }, netns, &spec, &ports);
                Done::Plugged(Box::new(Plugged { place, outcome, reply }))
            });
        }
    }
}

/// What a running container is joined with; `None`: it does not run.
fn begin_connect(actor: &Actor, place: &Place) -> Result<Option<Plug>> {
    refuse_removal(actor)?;
    let network = actor.engine.networks.look_up(&place.network);
    let runs = actor.row.state.pid().is_some();
    let network = match network {
        Ok(network) => network,
        // The start will look for it.
        Err(_) if !runs => return Ok(None),
        Err(error) => return Err(error),
    };
    places::check_addresses(&network, &place.settings)?;
    Places::of(&actor.row).refuse_beside(&actor.engine.networks, &network)?;
    if !runs {
        return Ok(None);
    }
    let netns = network_namespace(actor)?;
    let spec = Places::of(&actor.row).endpoint(&network, &place.settings)?;
    Ok(Some((netns, spec, network_request::publish_specs(&actor.row.config, &actor.row.host_config)?)))
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
fn network_namespace(actor: &Actor) -> Result<OwnedFd> {
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
    record_places(actor, named).await
}

/// The sandbox has joined: record, show, tell, answer.
pub(super) async fn plugged(actor: &mut Actor, plugged: Plugged) {
    let Plugged { place, outcome, reply } = plugged;
    let joined = match outcome {
        Ok(joined) => joined,
        Err(error) => return answer(reply, Err(error)),
    };
    let endpoint = joined.endpoint;
    if actor.exit.is_some() || actor.row.state.pid().is_none() {
        let_go(actor).await;
        return answer(reply, Err(Error::conflict(format!("container {} is not running", actor.row.id))));
    }
    actor.row.endpoints.push(endpoint.clone());
    if let Err(error) = keep_place(actor, place).await {
        actor.row.endpoints.pop();
        unplug_again(actor, &endpoint).await;
        return answer(reply, Err(error));
    }
    hand_over(actor, &joined.ports).await;
    if let Err(error) = files::add_addresses(&dir(actor), &actor.row.config, &endpoint) {
        tracing::warn!(container = actor.row.id.short(), %error, "the hosts file lacks an address");
    }
    network_event(actor, "connect", &endpoint);
    answer(reply, Ok(()));
}

/// Frees what was joined after the run had let everything go.
#[expect(clippy::disallowed_methods, reason = "not yet on a thread of a class")]
async fn let_go(actor: &Actor) {
    let (engine, id) = (actor.engine.clone(), actor.row.id.clone());
    let released = tokio::task::spawn_blocking(move || engine.networks.release(&id)).await;
    if let Ok(Err(error)) = released {
        tracing::warn!(container = actor.row.id.short(), %error, "releasing a network");
    }
}

#[expect(clippy::disallowed_methods, reason = "not yet on a thread of a class")]
async fn unplug_again(actor: &Actor, endpoint: &network::Endpoint) {
    let Ok(netns) = network_namespace(actor) else { return };
    let (engine, id, network) = (actor.engine.clone(), actor.row.id.clone(), endpoint.network.clone());
    let left = tokio::task::spawn_blocking(move || engine.networks.unplug(&id, &network, &netns)).await;
    if let Ok(Err(error)) = left {
        tracing::warn!(container = actor.row.id.short(), %error, "leaving a network that could not be recorded");
    }
}

/// Gives the monitor the sockets of ports that are published now.
async fn hand_over(actor: &mut Actor, sockets: &network::endpoint::Sockets) {
    let Some(link) = actor.link.as_mut().filter(|_| !sockets.is_empty()) else { return };
    let (ports, fds) = run::ports::proxied(sockets);
    let chunks = ports.chunks(run::ports::PORTS_PER_MESSAGE).zip(fds.chunks(run::ports::PORTS_PER_MESSAGE));
    for (ports, fds) in chunks {
        if let Err(error) = link.send(&Request::Ports(ports.to_vec()), fds).await {
            return tracing::warn!(%error, "published ports have no proxy");
        }
    }
}

/// Leaves a network, now or before the next start; `force`: also one that is not there any more.
#[expect(clippy::disallowed_methods, reason = "not yet on a thread of a class")]
pub(super) async fn disconnect(actor: &mut Actor, network: String, force: Force, reply: Reply) {
    match begin_disconnect(actor, &network, force) {
        Err(error) => answer(reply, Err(error)),
        Ok(None) => {
            let name = actor.engine.networks.look_up(&network).map_or(network, |row| row.name.clone());
            let outcome = lose_place(actor, &name).await;
            answer(reply, outcome);
        }
        Ok(Some((netns, row))) => {
            let (engine, id) = (actor.engine.clone(), actor.row.id.clone());
            actor.jobs.spawn_blocking(move || {
                let outcome = engine.networks.unplug(&id, &row.id, &netns);
                Done::Unplugged(Box::new(Unplugged { network: row.name.clone(), outcome, reply }))
            });
        }
    }
}

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
    if !actor.row.endpoints.iter().any(|endpoint| endpoint.network == row.id) {
        let text = format!("container {} is not connected to network {}", actor.row.id, row.name);
        return Err(Error::system(text));
    }
    Ok(Some((network_namespace(actor)?, row)))
}

async fn lose_place(actor: &mut Actor, name: &str) -> Result<()> {
    let mut named = Places::of(&actor.row).wanted();
    named.remove(name);
    record_places(actor, named).await
}

/// The row names these networks from now on, or what it named when that cannot be recorded.
async fn record_places(actor: &mut Actor, named: BTreeMap<String, api::EndpointSettings>) -> Result<()> {
    redefine(actor, |definition| (definition.networks, definition.networks_named) = (named, true)).await?;
    actor.publish();
    Ok(())
}

/// The sandbox has left: record, show, tell, answer.
pub(super) async fn unplugged(actor: &mut Actor, unplugged: Unplugged) {
    let Unplugged { network, outcome, reply } = unplugged;
    let endpoint = match outcome {
        Ok(Some(endpoint)) => endpoint,
        // The run has let it go meanwhile.
        Ok(None) => return answer(reply, lose_place(actor, &network).await),
        Err(error) => return answer(reply, Err(error)),
    };
    actor.row.endpoints.retain(|other| other.id != endpoint.id);
    // It has left, whatever the store says: a next daemon finds no link and lets the address go.
    let kept = lose_place(actor, &network).await;
    if let Err(error) = files::remove_addresses(&dir(actor), &endpoint) {
        tracing::warn!(container = actor.row.id.short(), %error, "the hosts file has an address too many");
    }
    network_event(actor, "disconnect", &endpoint);
    answer(reply, kept);
}

/// The container's directory.
fn dir(actor: &Actor) -> PathBuf {
    actor.engine.settings().roots.container(actor.row.id.as_str())
}

/// Whether a place is given up though its network is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    Yes,
    No,
}

/// What a running container is joined with: its namespace, the place, the ports to publish.
type Plug = (OwnedFd, network::EndpointSpec, Vec<network::PublishSpec>);
/// What it leaves: its namespace and the network.
type Unplug = (OwnedFd, std::sync::Arc<network::row::NetworkRow>);
