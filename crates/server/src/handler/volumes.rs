//! Volumes.

use std::sync::Arc;

use api::{VolumeCreateRequest, VolumeListResponse, VolumePruneReport};
use engine::volume;
use hyper::StatusCode;
use model::{Error, Result};

use super::{State, created, done, ok};
use crate::frame::NO_SWARM;
use crate::request::Request;
use crate::routes::Outcome;

/// `GET /volumes`
pub async fn list(state: Arc<State>, request: Request) -> Result<Outcome> {
    let filters = request.query.filters().map_err(|error| error.prefix("error reading volume filters"))?;
    let listed = volume::list(&state.engine.volumes, &state.engine.containers, &filters);
    let (volumes, warnings) = listed.await?;
    ok(&VolumeListResponse { volumes, warnings: Some(warnings).filter(|warnings| !warnings.is_empty()) })
}

/// `GET /volumes/{name}`
pub async fn inspect(state: Arc<State>, request: Request) -> Result<Outcome> {
    ok(&volume::inspect(&state.engine.volumes, request.name()).await?)
}

/// `POST /volumes/create`
pub async fn create(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let body: VolumeCreateRequest = request.json().await?;
    if body.cluster_volume_spec.is_some() && !request.version.before(42) {
        return Err(Error::unavailable(NO_SWARM));
    }
    created(&volume::create(&state.engine.volumes, &state.engine.events, body).await?)
}

/// `PUT /volumes/{name}`: cluster volumes only.
pub async fn update(_: Arc<State>, _: Request) -> Result<Outcome> {
    Err(Error::unavailable("volume update only valid for cluster volumes, but swarm is unavailable"))
}

/// `DELETE /volumes/{name}`
pub async fn remove(state: Arc<State>, request: Request) -> Result<Outcome> {
    let (engine, force) = (&state.engine, request.query.flag("force"));
    volume::remove(&engine.volumes, &engine.containers, &engine.events, request.name(), force).await?;
    done(StatusCode::NO_CONTENT)
}

/// `POST /volumes/prune`: below 1.42 named volumes went too.
pub async fn prune(state: Arc<State>, request: Request) -> Result<Outcome> {
    let mut filters = request.query.filters()?;
    if request.version.before(42) {
        filters.add("all", "true");
    }
    let engine = &state.engine;
    let pruned = volume::prune(&engine.volumes, &engine.containers, &engine.events, &engine.disk, &filters);
    let (volumes_deleted, space_reclaimed) = pruned.await?;
    ok(&VolumePruneReport { volumes_deleted, space_reclaimed })
}
