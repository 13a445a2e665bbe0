//! `POST /containers/{id}/rename`.

use std::sync::Arc;

use model::{Error, Result};

use super::actor::{Actor, Command, Reply, answer};
use crate::Engine;

/// Gives the container another name; the new one is reserved before anything changes.
pub async fn rename(engine: &Arc<Engine>, name: &str, new: &str) -> Result<()> {
    let new = new.trim();
    let new = new.strip_prefix('/').unwrap_or(new).to_string();
    if name.is_empty() || new.is_empty() {
        return Err(Error::invalid("Neither old nor new names may be empty"));
    }
    let handle = engine.containers.find(name)?;
    if new == handle.view().row.name {
        return Err(same_name());
    }
    model::name::validate(&format!("/{new}"))
        .and_then(|()| engine.containers.reserve(&new, &handle.id))
        .map_err(|e| e.prefix("Error when allocating new name"))?;
    let renamed = handle.ask(|reply| Command::Rename { new: new.clone(), reply }).await;
    if renamed.is_err() && handle.view().row.name != new {
        engine.containers.release(&new, &handle.id);
    }
    renamed
}

fn same_name() -> Error {
    Error::invalid("Renaming a container with the same name as its current name")
}

impl Actor {
    pub(super) async fn rename(&mut self, new: String, reply: Reply) {
        // Two clients may have wanted the same at the same time.
        if new == self.row.name {
            return answer(reply, Err(same_name()));
        }
        let old = std::mem::replace(&mut self.row.name, new);
        if let Err(error) = self.persist().await {
            self.row.name = old;
            return answer(reply, Err(error));
        }
        self.publish();
        self.engine.containers.release(&old, &self.row.id);
        self.event("rename", [("oldName", format!("/{old}"))]);
        answer(reply, Ok(()));
    }
}
