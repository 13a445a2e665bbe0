//! `POST /containers/{id}/rename`.

use model::{Error, Result};

use super::actor::{Actor, Command, Reply, answer};
use crate::container::Containers;

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

impl Actor {
    /// The new name is reserved before anything changes, and here: of two callers who wish for the same one, the second
    /// must not free it for the first.
    pub(super) async fn rename(&mut self, new: String, reply: Reply) {
        if new == self.row.name {
            return answer(reply, Err(same_name()));
        }
        if let Err(error) = self.engine.containers.reserve(&new, &self.row.id) {
            return answer(reply, Err(not_allocated(error)));
        }
        let before = (self.row.endpoints.clone(), self.row.networks.clone());
        let old = std::mem::replace(&mut self.row.name, new);
        // Its name is the first of its names in networks that users made.
        let settings = self.row.networks.values_mut().filter_map(|settings| settings.dns_names.as_mut());
        for names in self.row.endpoints.iter_mut().map(|endpoint| &mut endpoint.dns_names).chain(settings) {
            network::endpoint::rename(names, &old, &self.row.name);
        }
        if let Err(error) = self.persist().await {
            (self.row.endpoints, self.row.networks) = before;
            let new = std::mem::replace(&mut self.row.name, old);
            self.engine.containers.release(&new, &self.row.id);
            return answer(reply, Err(error));
        }
        self.engine.networks.rename(&self.row.id, &old, &self.row.name);
        self.publish();
        self.engine.containers.release(&old, &self.row.id);
        self.event("rename", [("oldName", format!("/{old}"))]);
        answer(reply, Ok(()));
    }
}
