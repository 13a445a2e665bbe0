//! The control socket's routes: what the commands of `gantryd` itself ask of the running daemon.
//!
//! They go through the same frame as the API but are no part of it: only root reaches them, no client but the commands
//! of the same executable knows them, and they may change with every version.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blocking::Blocking;
use engine::container::read::users::users;
use engine::secrets::Kind;
use model::{Error, Result};

use super::{State, blocking, networks, ok, secrets, snapshots};
use crate::request::Request;
use crate::routes::{Handler, Outcome, Route, Running};

/// Everything that the socket serves.
pub const ROUTES: &[Route<State>] = &[
    get("/check", |state, _| Box::pin(check(state))),
    get("/images/{name}/why", |state, request| Box::pin(why(state, request))),
    get("/order", |state, _| Box::pin(order(state))),
    get("/reach", |state, request| Box::pin(reach(state, request))),
    get("/tables", |state, _| Box::pin(tables(state))),
    get("/upgrade", |state, _| Box::pin(async move { ok(&state.successor.running) })),
    Route {
        method: "POST",
        path: "/upgrade",
        since: 0,
        handler: Handler::Run(|state, request| Box::pin(upgrade(state, request))),
    },
    post("/containers/{name}/ports", |state, request| Box::pin(networks::change_ports(state, request))),
    post("/volumes/{name}/snapshots", |state, request| Box::pin(snapshots::take(state, request))),
    get("/volumes/{name}/export", |state, request| Box::pin(snapshots::export_volume(state, request))),
    post("/volumes/{name}/import", |state, request| Box::pin(snapshots::import(state, request))),
    get("/volume-snapshots", |state, request| Box::pin(snapshots::list(state, request))),
    get("/volume-snapshots/{name}/export", |state, request| Box::pin(snapshots::export_snapshot(state, request))),
    post("/volume-snapshots/{name}/clone", |state, request| Box::pin(snapshots::clone(state, request))),
    delete("/volume-snapshots/{name}", |state, request| Box::pin(snapshots::remove(state, request))),
    get("/secrets", |state, request| Box::pin(secrets::list(state, request, Kind::Secret))),
    post("/secrets/create", |state, request| Box::pin(secrets::create(state, request, Kind::Secret))),
    delete("/secrets/{id}", |state, request| Box::pin(secrets::remove(state, request, Kind::Secret))),
    get("/configs", |state, request| Box::pin(secrets::list(state, request, Kind::Config))),
    post("/configs/create", |state, request| Box::pin(secrets::create(state, request, Kind::Config))),
    delete("/configs/{id}", |state, request| Box::pin(secrets::remove(state, request, Kind::Config))),
];

const fn get(path: &'static str, run: fn(Arc<State>, Request) -> Running) -> Route<State> {
    Route { method: "GET", path, since: 0, handler: Handler::Run(run) }
}

const fn post(path: &'static str, run: fn(Arc<State>, Request) -> Running) -> Route<State> {
    Route { method: "POST", path, since: 0, handler: Handler::Run(run) }
}

const fn delete(path: &'static str, run: fn(Arc<State>, Request) -> Running) -> Route<State> {
    Route { method: "DELETE", path, since: 0, handler: Handler::Run(run) }
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

/// In which order containers are started.
async fn order(state: Arc<State>) -> Result<Outcome> {
    ok(&engine::container::life::order::show(&state.engine.containers))
}

/// Who can reach which container, or one.
async fn reach(state: Arc<State>, request: Request) -> Result<Outcome> {
    let name = Some(request.query.text("container")).filter(|name| !name.is_empty());
    ok(&engine::reach::reach(&state.engine.networks, &state.engine.containers, name)?)
}

#[derive(Default, serde::Deserialize)]
struct Executable {
    executable: PathBuf,
}

/// The daemon goes on as another executable, which whoever asks has looked at.
async fn upgrade(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let Executable { executable } = request.json().await?;
    let (looked_at, shown) = (executable.clone(), executable.display().to_string());
    let is_executable = state.reads.run(move |on| Ok(is_executable(&looked_at, on)));
    if !executable.is_absolute() || !is_executable.await? {
        return Err(Error::invalid(format!("{shown} is no absolute path of an executable file")));
    }
    tracing::info!(executable = shown, "the daemon will go on as another executable");
    state.successor.wished.send_replace(Some(executable));
    ok(&serde_json::json!({}))
}

#[expect(clippy::disallowed_methods, reason = "on a thread of the readers")]
fn is_executable(path: &Path, _on: &Blocking) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// How large the daemon's tables are.
async fn tables(state: Arc<State>) -> Result<Outcome> {
    ok(&engine::tables::sizes(&state.engine))
}
