//! Snapshots, clones, exports and imports of volumes: routes of Gantry's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{VolumeCloneRequest, VolumeSnapshotList, VolumeSnapshotRequest};
use engine::volume::copies::{self, Export, Import, Measure, SnapshotArgs};
use hyper::StatusCode;
use model::{Error, Result};

use super::{State, created, done, ok};
use crate::request::Request;
use crate::response;
use crate::routes::Outcome;

/// What an export is.
const ZSTD: &str = "application/zstd";

/// `POST /volumes/{name}/snapshots`
pub async fn take(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let body: VolumeSnapshotRequest = request.json().await?;
    created(&copies::take(&state.engine, SnapshotArgs::of(request.name(), body)).await?)
}

/// `GET /volume-snapshots`
pub async fn list(state: Arc<State>, request: Request) -> Result<Outcome> {
    let measure = if request.query.flag("size") { Measure::Content } else { Measure::Nothing };
    let snapshots =
        copies::list(&state.engine.volumes, &state.engine.disk, request.query.text("volume"), measure).await?;
    ok(&VolumeSnapshotList { snapshots })
}

/// `DELETE /volume-snapshots/{name}`
pub async fn remove(state: Arc<State>, request: Request) -> Result<Outcome> {
    copies::remove(&state.engine.volumes, &state.engine.disk, &state.engine.events, request.name()).await?;
    done(StatusCode::NO_CONTENT)
}

/// `POST /volume-snapshots/{name}/clone`
pub async fn clone(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let body: VolumeCloneRequest = request.json().await?;
    created(&copies::clone(&state.engine, request.name(), body).await?)
}

/// `GET /volumes/{name}/export`
pub async fn export_volume(state: Arc<State>, request: Request) -> Result<Outcome> {
    let export = Export::of_volume(&state.engine.volumes, &state.engine.events, request.name()).await?;
    Ok(response::download(&state.transfers, ZSTD, move |sink| export.write(sink)).await?.into())
}

/// `GET /volume-snapshots/{name}/export`
pub async fn export_snapshot(state: Arc<State>, request: Request) -> Result<Outcome> {
    let export =
        Export::of_snapshot(&state.engine.volumes, &state.engine.disk, &state.engine.events, request.name()).await?;
    Ok(response::download(&state.transfers, ZSTD, move |sink| export.write(sink)).await?.into())
}

/// `POST /volumes/{name}/import`
pub async fn import(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let labels: Option<BTreeMap<String, String>> = match request.query.text("labels") {
        "" => None,
        text => Some(serde_json::from_str(text).map_err(|error| Error::invalid(format!("invalid labels: {error}")))?),
    };
    let import = Import::begin(&state.engine.volumes, request.name(), labels).await?;
    let body = request.upload();
    let running = state.transfers.place().await.run(move |client| import.unpack(body.from(&client)));
    let unpacked = running.outcome().await??;
    created(&Import::finish(&state.engine.volumes, &state.engine.events, unpacked).await?)
}
