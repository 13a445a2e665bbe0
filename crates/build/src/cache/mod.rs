//! The build cache for other daemons: results of steps with their layers, exported to a registry, to a directory of the client or into
//! the image itself, and imported from there.
//!
//! The documents are BuildKit's (`application/vnd.buildkit.cacheconfig.v0`). Steps are found in two ways: by records that are named
//! after this solver's keys ([`crate::key`]), and by BuildKit's ([`keys`]), so that caches are exchanged with it in both directions.
//! What is imported is trusted for what a step's result is, as whoever names the cache trusts it; each layer has to be what its
//! digests say.

mod document;
mod export;
mod import;
mod keys;
mod records;
mod request;
mod select;

pub use document::Config;
pub use export::{export, inline};
pub use import::import;
pub use request::{Export, Import, Mode, Place};
pub use select::{Selected, select};
