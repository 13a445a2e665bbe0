//! What must hold of bytes that strangers wrote: one function per reader, for any input whatever.
//!
//! A function takes the bytes and panics when the property does not hold. The fuzz targets (`fuzz/`) and the tests of
//! this crate call the same functions: the first for hours, the second over the committed seeds and what proptest makes.
#![forbid(unsafe_code)]

mod archive;
mod bus_messages;
mod cache;
mod dns;
mod dockerfile;
mod documents;
mod hosts;
mod http;
mod json;
mod layer;
mod log;
mod monitor_packets;
mod netlink;
mod policy;
mod ps_output;
mod reference;
mod runtime;
mod seccomp;
mod signatures;
mod websocket;

pub use archive::archive;
pub use bus_messages::bus_messages;
pub use cache::cache_description;
pub use dns::dns_messages;
pub use dockerfile::{definition, dockerfile, ignore_file, words};
pub use documents::documents;
pub use hosts::hosts_toml;
pub use http::http;
pub use json::json;
pub use layer::{extraction, layer};
pub use log::log;
pub use monitor_packets::monitor_packets;
pub use netlink::netlink;
pub use policy::source_policy;
pub use ps_output::ps_output;
pub use reference::reference;
pub use seccomp::seccomp_profile;
pub use signatures::signatures;
pub use websocket::websocket;
