//! The endpoints: one thin function each. Parse, call one verb of the engine, encode.
//!
//! Rules of older versions that change what a request means stand beside the handler that reads it; those that change
//! an answer are conversions of `api::version`.

pub mod archive;
mod build_sessions;
pub mod buildkit;
pub mod builds;
pub mod containers;
pub mod control;
pub mod create;
pub mod debug;
pub mod distribution;
pub mod events;
pub mod exec;
pub mod images;
pub mod import;
pub mod networks;
pub mod plugins;
pub mod progress;
pub mod secrets;
pub mod snapshots;
pub mod streams;
mod swarm;
pub mod system;
pub mod table;
pub mod volumes;

use std::path::PathBuf;
use std::sync::Arc;

use api::ApiVersion;
use blocking::{Class, Work};
use engine::Engine;
use engine::metrics::Metrics;
use hyper::StatusCode;
use model::Result;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::response::{self, Response};
use crate::routes::Outcome;
use crate::transfer::Transfers;
use crate::waiting::Waiting;
use crate::window::Windows;

/// What the daemon says to whoever wants it to go on as another executable, and the wish for it.
#[derive(Default)]
pub struct Successor {
    /// What the daemon says of itself, as JSON.
    pub running: Value,
    /// The executable that is wished for.
    pub wished: watch::Sender<Option<PathBuf>>,
}

/// What all handlers share.
pub struct State {
    /// The engine whose verbs they call.
    pub engine: Arc<Engine>,
    /// Exports, saves, loads, imports.
    pub transfers: Transfers,
    /// What streamed answers have on their way.
    pub windows: Windows,
    /// Places of clients that wait.
    pub waiting: Waiting,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// BuildKit's API.
    pub buildkit: ::buildkit::Buildkit,
    /// As what the daemon goes on.
    pub successor: Arc<Successor>,
    /// For verbs that read.
    reads: Class,
    /// For verbs that change names and images.
    changes: Class,
    /// For the check of the store against the disk.
    checks: Class,
    /// For verbs that wait for plugins of networks.
    plugins: Class,
}

impl State {
    /// Around an engine.
    pub fn new(engine: Arc<Engine>, metrics: Arc<Metrics>, successor: Arc<Successor>) -> State {
        let [reads, changes, checks, plugins] =
            [Work::Reads, Work::Changes, Work::Checks, Work::Plugins].map(Class::new);
        let (transfers, windows, waiting) = Default::default();
        let buildkit = ::buildkit::Buildkit::new(Arc::new(buildkit::Host(engine.clone())));
        State { engine, transfers, windows, waiting, metrics, buildkit, successor, reads, changes, checks, plugins }
    }
}

/// Runs a verb that blocks on a thread of the class.
async fn blocking<T: Send + 'static>(
    state: &State,
    class: &Class,
    verb: impl FnOnce(&Engine) -> Result<T> + Send + 'static,
) -> Result<T> {
    let engine = state.engine.clone();
    class.run(move |_| verb(&engine)).await
}

/// A 200 with a JSON value.
fn ok<T: Serialize + ?Sized>(value: &T) -> Result<Outcome> {
    Ok(response::json(StatusCode::OK, value).into())
}

/// A 201 with a JSON value.
fn created<T: Serialize + ?Sized>(value: &T) -> Result<Outcome> {
    Ok(response::json(StatusCode::CREATED, value).into())
}

/// An answer without a body.
fn done(status: StatusCode) -> Result<Outcome> {
    Ok(response::empty(status).into())
}

/// A 200 whose value looks different below version 1.`since`.
fn versioned<T: Serialize + ?Sized>(
    value: &T,
    version: ApiVersion,
    since: u32,
    convert: impl FnOnce(ApiVersion, &mut Value),
) -> Response {
    if !version.before(since) {
        return response::json(StatusCode::OK, value);
    }
    let mut shown = serde_json::to_value(value).expect("wire types are plain data");
    convert(version, &mut shown);
    response::json(StatusCode::OK, &shown)
}
