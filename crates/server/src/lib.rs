//! The API on its sockets: listeners, the routing table, the version gate, streams, and one thin handler per endpoint.
//!
//! Layers inside: [`listener`] accepts, [`connection`] speaks HTTP/1.1 and gives hijacked connections away, [`http2`] those of gRPC to BuildKit's API, [`frame`]
//! routes and answers, the handlers parse, call one verb of the engine and encode. Nothing here decides what a
//! container is; nothing below here knows what HTTP is.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod accept;
pub mod budget;
pub mod calls;
pub mod connection;
pub mod error;
pub mod fields;
pub mod frame;
pub mod handler;
pub mod hijack;
pub mod http2;
pub mod limits;
pub mod listener;
pub mod media_type;
pub mod metrics;
pub mod path;
pub mod peer;
pub mod phase;
pub mod policy;
pub mod query;
pub mod request;
pub mod response;
pub mod routes;
pub mod stream;
pub mod target;
pub mod transfer;
pub mod waiting;
pub mod websocket;
pub mod window;

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

pub use frame::{Config, Frame};
pub use handler::{State, Successor};
pub use listener::Listener;
pub use phase::Phase;

/// The API around an engine.
pub fn frame(config: Config, state: Arc<State>) -> Arc<Frame<State>> {
    let policies = policies(&state);
    let calls = Arc::new(calls::Builds(state.buildkit.clone()));
    Arc::new(Frame::new(config, handler::table::ROUTES, state, policies).with_calls(calls))
}

/// What the control socket serves around an engine.
pub fn control_frame(config: Config, state: Arc<State>) -> Arc<Frame<State>> {
    let policies = policies(&state);
    Arc::new(Frame::new(config, handler::control::ROUTES, state, policies))
}

/// What the listener for metrics serves.
pub fn metrics_frame(config: Config, state: Arc<State>) -> Arc<Frame<State>> {
    let policies = policies(&state);
    Arc::new(Frame::new(config, metrics::ROUTES, state, policies))
}

/// What is asked about every request.
fn policies(state: &State) -> policy::Policies {
    let meter = metrics::Meter(state.metrics.clone());
    Arc::new([Arc::new(policy::Audit) as Arc<dyn policy::Policy>, Arc::new(meter)])
}

/// Serves one listener until its phase says otherwise, then lets open requests finish.
pub async fn serve(listener: Listener, frame: Arc<Frame<State>>, phase: watch::Receiver<Phase>) -> io::Result<()> {
    listener::serve(listener, frame, phase).await
}

#[cfg(test)]
mod tests;
