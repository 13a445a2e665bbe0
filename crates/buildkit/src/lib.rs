//! BuildKit's API: sessions, and the services that its clients call over HTTP/2.
//!
//! A connection that speaks HTTP/2 is served by [`serve`], whatever it came from: an upgrade, the API's socket, or the standard
//! streams of a container. A client offers services of its own over a second connection, its session ([`Sessions`]): files,
//! secrets, credentials. What a build uses of the daemon is a trait ([`Daemon`]); this crate knows no containers.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod account;
mod ahead;
mod answers;
mod bridge;
mod build;
mod builds;
mod connection;
mod containers;
mod content;
mod control;
mod daemon;
mod direct;
mod error;
mod export;
mod exports;
mod files;
mod gateway;
mod health;
mod inputs;
mod metadata;
mod outcome;
mod processes;
mod progress;
mod scope;
mod serve;
mod session;
pub mod sync;
mod time;
mod traces;
mod uploads;
mod wanted;
mod worker;

pub use connection::connection;
pub use daemon::Daemon;
pub use direct::{Going, Wanted};
pub use serve::{Buildkit, refused, serve};
pub use session::{Offer, Sessions};
pub use tonic::body::Body;
pub use uploads::Uploads;
