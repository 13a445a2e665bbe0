//! Containers that are in the store and are not loaded, because a row of them cannot be read.
//!
//! What may be theirs is left alone: their directories, layers and volumes, and what of them runs.

use model::id::ContainerId;

/// One of them.
#[derive(Clone, Debug)]
pub struct Unloaded {
    /// Its id.
    pub id: ContainerId,
    /// Its name, if the definition can be read.
    pub name: Option<String>,
    /// Its connections, if the run record can be read.
    pub endpoints: Vec<network::Endpoint>,
    /// Its definition as it lies in the store, or in JSON.
    pub definition: Vec<u8>,
}

impl Unloaded {
    /// Whether it may use the volume or network of this name. A definition that is cut short may use any.
    pub fn may_use(&self, name: &str) -> bool {
        let quoted = format!("\"{name}\"");
        !self.definition.ends_with(b"}") || self.definition.windows(quoted.len()).any(|part| part == quoted.as_bytes())
    }
}
