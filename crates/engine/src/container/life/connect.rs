//! `POST /networks/{id}/connect` and `/disconnect`: of a container that runs its sandbox is joined to the network or
//! leaves it, of another one its row says so.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use model::{Error, Result};
use network::networks::Owner;
use network::row::NetworkRow;
use network::{Changed, Endpoint};

use super::actor::{Actor, Done};
use super::environment::Environment;
use super::files;
use super::sandbox::{Before, Owed, Sandbox, may_move};
use crate::container::definition::modes::NetworkMode;
use crate::container::definition::places::{self, Places};
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

/// Joins a network, now or at the next start.
pub(super) async fn connect(actor: &mut Actor, place: Place, reply: Reply) {
    match (Sandbox { actor }).begin_connect(&place) {
        Err(error) => answer(reply, Err(error)),
        Ok(None) => {
            let outcome = (Sandbox { actor }).keep_place(place).await;
            answer(reply, outcome);
        }
        Ok(Some(plug)) => match (Sandbox { actor }).note_link(plug.link.clone(), None, "connect").await {
            Err(error) => answer(reply, Err(error)),
            Ok(()) => begin_plug(actor, place, plug, reply).await,
        },
    }
}

async fn begin_plug(actor: &mut Actor, place: Place, plug: Plug, reply: Reply) {
    let Plug { netns, spec, ports, link: _ } = plug;
    let moves = actor.engine.networks.would_publish(&actor.row.id, &spec).unwrap_or(false);
    let closing = if moves { Some((Sandbox { actor }).close_all().await) } else { None };
    let (engine, id, name) = (actor.engine.clone(), actor.row.id.clone(), actor.row.name.clone());
    (Sandbox { actor }).begin_job(closing, move |closed| {
        let owner = Owner { container: &id, name: &name };
        let ports = closed.is_some_and(|closed| may_move(&id, &closed)).then_some(ports);
        let changed = engine.networks.plug(owner, netns, &spec, ports.as_deref());
        Done::Plugged(Box::new(Plugged { place, changed, reply }))
    });
}

/// The sandbox has joined: record, show, tell, answer.
pub(super) async fn plugged(actor: &mut Actor, plugged: Plugged) {
    let Plugged { place, changed: Changed { outcome, ports }, reply } = plugged;
    let endpoint = match outcome {
        Ok(endpoint) => endpoint,
        Err(error) => {
            actor.row.unsettled_link = None;
            drop(actor.record().await);
            (Sandbox { actor }).hand_over(&ports).await;
            return answer(reply, Err(error));
        }
    };
    if (Sandbox { actor }).has_ended() {
        let error = Error::conflict(format!("container {} is not running", actor.row.id));
        return (Sandbox { actor }).begin_release(Owed { reply, outcome: Err(error) });
    }
    let before = (Sandbox { actor }).before();
    let faults = actor.engine.host.faults.clone();
    // Before the row says that all is settled: a daemon that dies in between has a successor that looks.
    (Sandbox { actor }).hand_over(&ports).await;
    let kept = match faults.pass("connect", "plug") {
        Ok(()) => {
            actor.row.endpoints = actor.engine.networks.endpoints_of(&actor.row.id);
            actor.row.unsettled_link = None;
            (Sandbox { actor }).keep_place(place).await.and_then(|()| faults.pass("connect", "commit"))
        }
        failed => failed,
    };
    if let Err(error) = kept {
        // Their numbers are free for those that were published before.
        let closing = if ports.is_empty() { None } else { Some((Sandbox { actor }).close_all().await) };
        drop(ports);
        (Sandbox { actor }).put_back(before).await;
        return (Sandbox { actor }).begin_unplug_again(endpoint.network, closing, Owed { reply, outcome: Err(error) });
    }
    (Sandbox { actor }).tell_resolver().await;
    let (config, added) = (actor.row.definition.clone(), endpoint.clone());
    (Sandbox { actor }).change_hosts(move |on, dir| files::add_addresses(on, dir, &config.config, &added)).await;
    let told = actor.engine.network_draft(&actor.row, "connect", &endpoint);
    actor.engine.events.publish_all(told.into_iter().collect());
    answer(reply, Ok(()));
}

/// Leaves a network, now or before the next start; `force`: also one that is not there any more.
pub(super) async fn disconnect(actor: &mut Actor, network: String, force: Force, reply: Reply) {
    match (Sandbox { actor }).begin_disconnect(&network, force) {
        Err(error) => answer(reply, Err(error)),
        Ok(None) => {
            let name = actor.engine.networks.look_up(&network).map_or(network, |row| row.name.clone());
            let outcome = (Sandbox { actor }).lose_place(&name).await;
            answer(reply, outcome);
        }
        Ok(Some(unplug)) => begin_unplug(actor, unplug, reply).await,
    }
}

/// The row first: the next daemon removes a link that no row names.
async fn begin_unplug(actor: &mut Actor, unplug: Unplug, reply: Reply) {
    let Unplug { netns, network, link, publishes, ports } = unplug;
    let before = (Sandbox { actor }).before();
    actor.row.endpoints.retain(|endpoint| endpoint.network != network.id);
    let mut named = Places::of(&actor.row).wanted();
    named.retain(|name, _| !names(&network, name));
    if let Err(error) = (Sandbox { actor }).note_link(link, Some(named), "disconnect").await {
        (Sandbox { actor }).put_back(before).await;
        drop(actor.record().await);
        return answer(reply, Err(error));
    }
    let closing = if publishes { Some((Sandbox { actor }).close_all().await) } else { None };
    let (engine, id, name) = (actor.engine.clone(), actor.row.id.clone(), actor.row.name.clone());
    (Sandbox { actor }).begin_job(closing, move |closed| {
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

/// The sandbox has left, which is recorded already: show, tell, answer.
pub(super) async fn unplugged(actor: &mut Actor, unplugged: Unplugged) {
    let Unplugged { before, changed: Changed { outcome, ports }, reply } = unplugged;
    if (Sandbox { actor }).has_ended() {
        return answer(reply, outcome.map(drop));
    }
    let endpoint = match outcome {
        Ok(endpoint) => endpoint,
        Err(error) => {
            (Sandbox { actor }).put_back(before).await;
            (Sandbox { actor }).record_endpoints(&ports).await;
            return answer(reply, Err(error));
        }
    };
    (Sandbox { actor }).record_endpoints(&ports).await;
    (Sandbox { actor }).tell_resolver().await;
    if let Some(endpoint) = endpoint {
        let removed = endpoint.clone();
        (Sandbox { actor }).change_hosts(move |on, dir| files::remove_addresses(on, dir, &removed)).await;
        let told = actor.engine.network_draft(&actor.row, "disconnect", &endpoint);
        actor.engine.events.publish_all(told.into_iter().collect());
    }
    answer(reply, Ok(()));
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

impl Sandbox<'_> {
    /// What a running container is joined with; `None`: it does not run.
    fn begin_connect(&self, place: &Place) -> Result<Option<Plug>> {
        let actor = &*self.actor;
        self.refuse_removal()?;
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
        let netns = self.namespace()?;
        let mut spec = Places::of(&actor.row).endpoint(&network, &place.settings)?;
        let link = actor.engine.networks.link_of(&actor.row.id, &spec)?;
        spec.link = Some(link.clone());
        Ok(Some(Plug { netns, spec, ports: actor.row.parsed().ports()?.to_vec(), link }))
    }

    /// The row names the network from now on.
    async fn keep_place(&mut self, place: Place) -> Result<()> {
        let mut named = Places::of(&self.actor.row).wanted();
        let network = self.actor.engine.networks.look_up(&place.network);
        let name = network.as_ref().map_or(place.network, |network| network.name.clone());
        let mut settings = place.settings;
        if let Ok(network) = &network {
            let names = Places::of(&self.actor.row).dns_names(network, settings.aliases.as_deref().unwrap_or_default());
            settings.dns_names = Some(names).filter(|names| !names.is_empty());
        }
        named.entry(name).or_insert(settings);
        self.record_places(named).await
    }

    /// What a running container leaves; `None`: it does not run, or the network is not there any more.
    fn begin_disconnect(&self, network: &str, force: Force) -> Result<Option<Unplug>> {
        let actor = &*self.actor;
        self.refuse_removal()?;
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
        if row.driver == "host" && *actor.row.network_mode() == NetworkMode::Host {
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
            netns: self.namespace()?,
            network: row,
            link,
            publishes,
            ports: actor.row.parsed().ports()?.to_vec(),
        }))
    }

    async fn lose_place(&mut self, name: &str) -> Result<()> {
        let mut named = Places::of(&self.actor.row).wanted();
        named.remove(name);
        self.record_places(named).await
    }
}
