//! The control socket's routes: what the commands of `gantryd` itself ask of the running daemon.
//!
//! They go through the same frame as the API but are no part of it: only root reaches them, no client but the commands
//! of the same executable knows them, and they may change with every version.

use std::sync::Arc;

use engine::container::read::users::users;
use model::Result;

use super::{State, blocking, networks, ok};
use crate::request::Request;
use crate::routes::{Handler, Outcome, Route, Running};

/// Everything that the socket serves.
pub const ROUTES: &[Route<State>] = &[
    get("/check", |state, _| Box::pin(check(state))),
    get("/images/{name}/why", |state, request| Box::pin(why(state, request))),
    get("/reach", |state, request| Box::pin(reach(state, request))),
    get("/tables", |state, _| Box::pin(tables(state))),
    Route {
        method: "POST",
        path: "/containers/{name}/ports",
        since: 0,
        handler: Handler::Run(|state, request| Box::pin(networks::change_ports(state, request))),
    },
];

const fn get(path: &'static str, run: fn(Arc<State>, Request) -> Running) -> Route<State> {
    Route { method: "GET", path, since: 0, handler: Handler::Run(run) }
}

/// The store against the disk, while everything goes on.
async fn check(state: Arc<State>) -> Result<Outcome> {
    let checks = state.checks.clone();
    ok(&checks.run(move |on| engine::check::live(on, &state.engine)).await?)
}

/// Why an image, or content of images, is kept.
async fn why(state: Arc<State>, request: Request) -> Result<Outcome> {
    let name = request.name().to_owned();
    ok(&blocking(&state, &state.reads, move |engine| {
        image::why(&engine.images, &users(&engine.images, &engine.containers)?, &name)
    })
    .await?)
}

/// Who can reach which container, or one.
async fn reach(state: Arc<State>, request: Request) -> Result<Outcome> {
    let name = Some(request.query.text("container")).filter(|name| !name.is_empty());
    ok(&engine::reach::reach(&state.engine.networks, &state.engine.containers, name)?)
}

/// How large the daemon's tables are.
async fn tables(state: Arc<State>) -> Result<Outcome> {
    ok(&engine::tables::sizes(&state.engine))
}
