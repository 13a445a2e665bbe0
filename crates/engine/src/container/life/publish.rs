//! `POST /containers/{id}/ports`: what a container publishes, at once when it runs. Connections that stand go on.

use model::{Error, Result};
use network::Changed;
use network::networks::Owner;

use super::actor::{Actor, Done, redefine};
use super::ports::{self, Published};
use super::sandbox::{Owed, Sandbox};
use crate::container::definition::modes::NetworkMode;
use crate::container::definition::network::publish_specs as specs;
use crate::container::registry::command::{Reply, answer};

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

/// Changes what the container publishes, at once when it runs. Connections that stand go on.
pub(super) async fn change_ports(actor: &mut Actor, asked: api::PortsChange, reply: Reply) {
    let Change { after, removed, added } = match (Sandbox { actor }).begin_change(&asked) {
        Ok(change) => change,
        Err(error) => return answer(reply, Err(error)),
    };
    if actor.row.state.pid().is_none() {
        let outcome = (Sandbox { actor }).record_ports(&after).await;
        return answer(reply, outcome);
    }
    // A daemon that dies meanwhile has a successor that publishes what the definition says.
    let noted = (Sandbox { actor }).note_link(String::new(), None, "ports").await;
    if let Err(error) = noted {
        return (Sandbox { actor }).mend(Some(Owed { reply, outcome: Err(error) })).await;
    }
    let closing = Some((Sandbox { actor }).close(&removed).await);
    let (engine, id, name) = (actor.engine.clone(), actor.row.id.clone(), actor.row.name.clone());
    (Sandbox { actor }).begin_job(closing, move |closed| {
        let changed = closed
            .unwrap_or(Ok(()))
            .map(|()| engine.networks.change_published(Owner { container: &id, name: &name }, &removed, &added));
        Done::Republished(Box::new(Republished { after, changed, reply }))
    });
}

/// The ports are published: record, show, answer.
pub(super) async fn republished(actor: &mut Actor, republished: Republished) {
    let Republished { after, changed, reply } = republished;
    if (Sandbox { actor }).has_ended() {
        return answer(reply, Err(Error::conflict(format!("container {} is not running", actor.row.id))));
    }
    let Changed { outcome, ports } = match changed {
        Ok(changed) => changed,
        Err(error) => return (Sandbox { actor }).mend(Some(Owed { reply, outcome: Err(error) })).await,
    };
    let published = outcome.is_ok();
    let outcome = match outcome {
        Ok(()) => (Sandbox { actor }).record_ports(&after).await,
        failed => failed,
    };
    (Sandbox { actor }).record_endpoints(&ports).await;
    if outcome.is_ok() {
        actor.event("update", []);
    } else if published {
        // The definition has not changed: what it says is published.
        actor.row.unsettled_link.get_or_insert_default();
        return (Sandbox { actor }).mend(Some(Owed { reply, outcome })).await;
    }
    answer(reply, outcome);
}

impl Sandbox<'_> {
    fn begin_change(&self, asked: &api::PortsChange) -> Result<Change> {
        let actor = &*self.actor;
        self.refuse_removal()?;
        let row = &actor.row;
        if !matches!(row.network_mode(), NetworkMode::Network(_)) {
            let mode = row.network_mode().network().unwrap_or(&row.host_config.network_mode);
            return Err(Error::invalid(format!("a container in network mode {mode} publishes no ports")));
        }
        let bindings = row.host_config.port_bindings.as_ref().map(api::PortBindings::to_map).unwrap_or_default();
        let after = ports::change(&bindings, asked)?;
        let of = |bindings: &api::PortMap| {
            let host_config =
                api::HostConfig { port_bindings: Some(bindings.clone().into()), ..api::HostConfig::default() };
            specs(&row.config, &host_config)
        };
        let standing: Vec<_> = row.endpoints.iter().flat_map(|endpoint| endpoint.ports.iter()).collect();
        let removed = ports::bound(&standing, &of(&after.removed)?, &of(&after.bindings)?);
        Ok(Change { removed, added: of(&after.added)?, after })
    }

    async fn record_ports(&mut self, after: &Published) -> Result<()> {
        let actor = &mut *self.actor;
        let bindings = api::PortBindings::from(after.bindings.clone());
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
}
