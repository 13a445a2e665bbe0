//! The engine: what the daemon can do, one verb a function.
//!
//! `Engine` is a record of services and has no verbs: a verb takes the services it uses. It never sees HTTP; it speaks
//! `api` types because inspect must echo them. Facts travel upward as published views and events, calls go downward only.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod abilities;
pub mod apparmor;
pub mod boot;
pub mod build;
#[allow(clippy::disallowed_methods, reason = "on the thread of the checks, or in a command")]
pub mod check;
pub mod container;
pub mod disk;
pub mod dump;
pub mod emulation;
pub mod ending;
pub mod formats;
mod held;
pub mod host;
pub mod metrics;
pub mod network;
pub mod paths;
pub mod quarantine;
pub mod reach;
mod root;
pub mod secrets;
pub mod services;
pub mod settings;
pub mod stored;
pub mod system;
pub mod tables;
pub mod volume;

pub use self::container::life::order::START_WAIT;
pub use self::services::Engine;
