//! The life of a container: the actor that alone changes it, what it starts and ends, and how a new daemon takes it up.

pub mod actor;
pub mod clients;
pub mod connect;
pub mod donors;
pub mod durable;
mod egress;
pub mod environment;
pub mod execs;
pub mod exit;
pub mod files;
pub mod health;
pub mod kill;
pub mod launch;
pub mod links;
pub mod order;
pub mod place;
pub mod plan;
pub mod ports;
pub mod procedure;
pub mod publish;
pub mod recover;
pub mod remove;
pub mod rename;
pub mod resolver;
pub mod runtime_spec;
mod sandbox;
#[cfg(test)]
mod simulation;
pub mod sources;
pub mod start;
pub mod step;
pub mod stop;
pub mod stuck;
pub mod timers;
pub mod told;
pub mod update;
pub mod watch;
