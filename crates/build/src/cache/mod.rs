//! The build cache for other daemons: results of steps with their layers, exported to a registry, to a directory of the client or into
//! the image itself, and imported from there.
//!
//! The documents are BuildKit's (`application/vnd.buildkit.cacheconfig.v0`); a record is named after this solver's key of a step
//! ([`crate::key`]), so a cache that another builder has made is read and gives no hits. What is imported is trusted for what a step's
//! result is, as whoever names the cache trusts it; each layer has to be what its digests say.

mod document;
mod export;
mod import;
mod request;
mod select;

pub use document::Config;
pub use export::{export, inline};
pub use import::import;
pub use request::{Export, Import, Mode, Place};
pub use select::{Selected, select};
