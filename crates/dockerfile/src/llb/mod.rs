//! The low-level build graph (LLB): vertices, what they take from one another, and their form in BuildKit's protobuf.

mod action;
mod exec;
mod graph;
mod input;
mod source;
mod state;

use prost::Message as _;

pub use bollard_buildkit_proto::pb::Definition;

pub use action::{Action, CopyAction, MakeDirectory, Owner};
pub use exec::{CacheMount, Exec, ExecMount, Holder, SecretMount, SshMount};
pub use graph::{About, Graph, Imported, Vertex, name};
pub use input::Output;
pub use source::{git, http, image, layout, local, platform};
pub use state::State;

/// Reads a definition in its protobuf form; `None`: it is none.
pub fn decode(bytes: &[u8]) -> Option<Definition> {
    Definition::decode(bytes).ok()
}
