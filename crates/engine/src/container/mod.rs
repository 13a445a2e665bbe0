//! Containers, in folders that import in one direction only (`cargo xtask tidy` checks it), the lowest first:
//!
//! - `definition`: what a container is; beside it `row`, how it is stored, `unloaded`, what cannot be read, and `view`, what is
//!   published of it;
//! - `validate`: what a request may say;
//! - `registry`: all containers by id and name, the commands that their actors take, and what they share;
//! - `life`: the actors, each of which alone changes its container;
//! - `read`: what only looks; `session`: clients at the streams; `archive`: the files; `create`: makes a container.
//!
//! One file per verb.

pub mod archive;
pub mod create;
pub mod definition;
pub mod life;
pub mod read;
pub mod registry;
pub mod row;
pub mod session;
pub mod unloaded;
pub mod validate;
pub mod view;

pub(in crate::container) use self::registry::publish;
pub use self::registry::{Containers, Handle, no_such};
