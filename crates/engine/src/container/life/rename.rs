//! `POST /containers/{id}/rename`.

use std::sync::Arc;

use blocking::Class;
use model::id::ContainerId;
use model::{Error, Result};
use network::Networks;

use super::actor::Actor;
use crate::container::Containers;
use crate::container::definition::Definition;
use crate::container::registry::command::{Command, Reply, answer};
use crate::container::registry::draft;

/// Gives the container another name.
pub async fn rename(containers: &Containers, name: &str, new: &str) -> Result<()> {
    let new = new.trim();
    let new = new.strip_prefix('/').unwrap_or(new).to_string();
    if name.is_empty() || new.is_empty() {
        return Err(Error::invalid("Neither old nor new names may be empty"));
    }
    let handle = containers.find(name)?;
    if new == handle.view().row.name {
        return Err(same_name());
    }
    model::name::validate(&format!("/{new}")).map_err(not_allocated)?;
    handle.ask(|reply| Command::Rename { new, reply }).await
}

fn same_name() -> Error {
    Error::invalid("Renaming a container with the same name as its current name")
}

fn not_allocated(error: Error) -> Error {
    error.prefix("Error when allocating new name")
}

/// The new name is reserved before anything changes, and here: of two callers who wish for the same one, the second
/// must not free it for the first.
pub(super) async fn rename_to(actor: &mut Actor, new: String, reply: Reply) {
    if new == actor.row.name {
        return answer(reply, Err(same_name()));
    }
    if let Err(error) = actor.engine.containers.reserve(&new, &actor.row.id) {
        return answer(reply, Err(not_allocated(error)));
    }
    let (old, before) = (actor.row.name.clone(), actor.row.endpoints.clone());
    // Its name is the first of its names in networks that users made.
    for endpoint in &mut actor.row.endpoints {
        network::endpoint::rename(&mut endpoint.dns_names, &old, &new);
    }
    let change = |definition: &mut Definition| {
        for names in definition.networks.values_mut().filter_map(|settings| settings.dns_names.as_mut()) {
            network::endpoint::rename(names, &old, &new);
        }
        definition.name = new.clone();
    };
    let drafts = |row: &Definition| vec![draft(row, "rename", [("oldName", format!("/{old}"))])];
    let told = match actor.redefine_telling(change, drafts).await {
        Ok(told) => told,
        Err(error) => {
            actor.row.endpoints = before;
            actor.engine.containers.release(&new, &actor.row.id);
            return answer(reply, Err(error));
        }
    };
    actor.engine.networks.rename(&actor.row.id, &old, &actor.row.name);
    actor.publish();
    if !actor.row.endpoints.is_empty() {
        let engine = &actor.engine;
        publish_names(&engine.containers.threads.background, &engine.networks, &actor.row.id).await;
    }
    actor.engine.containers.release(&old, &actor.row.id);
    told.publish();
    answer(reply, Ok(()));
}

/// The resolvers of the container's networks know its names.
async fn publish_names(threads: &Class, networks: &Arc<Networks>, id: &ContainerId) {
    let (networks, own) = (networks.clone(), id.clone());
    let published = threads.run(move |_| {
        networks.publish_names_of(&own);
        Ok(())
    });
    if let Err(error) = published.await {
        tracing::warn!(container = id.short(), %error, "the networks do not know the new name");
    }
}
