//! The API on its sockets: listeners, the routing table, the version gate, streams, and one thin handler per endpoint.
//!
//! Layers inside: [`listener`] accepts, [`connection`] speaks HTTP/1.1 and gives hijacked connections away, [`frame`]
//! routes and answers, the handlers parse, call one verb of the engine and encode. Nothing here decides what a
//! container is; nothing below here knows what HTTP is.
#![forbid(unsafe_code)]

pub mod connection;
pub mod error;
pub mod frame;
pub mod hijack;
pub mod limits;
pub mod listener;
pub mod query;
pub mod request;
pub mod response;
pub mod routes;
pub mod stream;
pub mod websocket;

#[cfg(test)]
mod tests;
