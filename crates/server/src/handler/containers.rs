//! Containers: everything but create and the streams.

use std::sync::Arc;

use api::{CommitResponse, ContainerPruneReport, UpdateConfig};
use blocking::Blocking;
use engine::container::life::{kill, remove, rename, start, stop, update};
use engine::container::read::commit::{self, CommitArgs};
use engine::container::read::list::{self, ListArgs};
use engine::container::read::{export, inspect, top};
use engine::container::registry::arguments::{RemoveArgs, StopArgs};
use engine::container::session::resize;
use hyper::StatusCode;
use model::{Error, Result};
use serde_json::Value;

use super::{State, created, done, ok, versioned};
use crate::request::Request;
use crate::response;
use crate::routes::Outcome;

/// Bytes of the longest body of `start` that cannot be an object with a field.
const EMPTY_BODY: u64 = 7;

/// `GET /containers/json`
pub async fn list(state: Arc<State>, request: Request) -> Result<Outcome> {
    let query = &request.query;
    let args = ListArgs {
        filters: query.filters()?,
        all: query.flag("all"),
        size: query.flag("size"),
        limit: query.integer("limit")?.unwrap_or(0),
    };
    let summaries = list::list(&state.engine, args).await?;
    Ok(versioned(&summaries, request.version, 52, api::version::container_list).into())
}

/// `GET /containers/{name}/json`
pub async fn inspect(state: Arc<State>, request: Request) -> Result<Outcome> {
    let (inspect, mac) = inspect::inspect(&state.engine, request.name(), request.query.flag("size")).await?;
    let convert = |version, shown: &mut Value| {
        api::version::container_inspect(version, shown);
        if !mac.is_empty() {
            shown["Config"]["MacAddress"] = mac.as_str().into();
        }
    };
    Ok(versioned(&inspect, request.version, 52, convert).into())
}

/// `GET /containers/{name}/top`
pub async fn top(state: Arc<State>, request: Request) -> Result<Outcome> {
    let (engine, arguments) = (&state.engine, request.query.text("ps_args"));
    let host = (&engine.host, &*engine.settings());
    ok(&top::top(&engine.containers, &engine.events, host, request.name(), arguments).await?)
}

/// `POST /containers/{name}/update`
pub async fn update(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let mut change: UpdateConfig = request.json().await?;
    let version = request.version;
    change.pids_limit = change.pids_limit.filter(|_| !version.before(40)).map(|limit| limit.max(0));
    if version.before(55) {
        change.blkio_weight_device = None;
        let throttles = [
            &mut change.blkio_device_read_bps,
            &mut change.blkio_device_write_bps,
            &mut change.blkio_device_read_iops,
            &mut change.blkio_device_write_iops,
        ];
        throttles.into_iter().for_each(|list| *list = None);
    }
    let (engine, settings) = (&state.engine, state.engine.settings());
    ok(&update::update(&engine.containers, &engine.host, &settings.containers, request.name(), change).await?)
}

/// `POST /containers/{name}/start`
pub async fn start(state: Arc<State>, request: Request) -> Result<Outcome> {
    if request.content_length().is_none_or(|length| length > EMPTY_BODY) {
        return Err(Error::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if !request.query.text("checkpoint").is_empty() {
        return Err(Error::not_implemented("Gantry does not implement starting from a checkpoint yet"));
    }
    start::start(&state.engine.containers, request.name()).await?;
    done(StatusCode::NO_CONTENT)
}

/// The query of stop and restart; the signal came with 1.42.
fn stop_args(request: &Request) -> Result<StopArgs> {
    let signal = request.query.text("signal");
    let has_signal = !signal.is_empty() && !request.version.before(42);
    Ok(StopArgs { timeout: request.query.integer("t")?, signal: has_signal.then(|| signal.to_owned()) })
}

/// `POST /containers/{name}/stop`
pub async fn stop(state: Arc<State>, request: Request) -> Result<Outcome> {
    let args = stop_args(&request).map_err(|error| error.with_kind(model::Kind::InvalidParameter))?;
    stop::stop(&state.engine.containers, &state.engine.settings().containers, request.name(), args).await?;
    done(StatusCode::NO_CONTENT)
}

/// `POST /containers/{name}/restart`
pub async fn restart(state: Arc<State>, request: Request) -> Result<Outcome> {
    stop::restart(&state.engine.containers, &state.engine.settings().containers, request.name(), stop_args(&request)?)
        .await?;
    done(StatusCode::NO_CONTENT)
}

/// `POST /containers/{name}/kill`
pub async fn kill(state: Arc<State>, request: Request) -> Result<Outcome> {
    let name = request.name();
    let killed = kill::kill(&state.engine.containers, name, request.query.text("signal")).await;
    killed.map_err(|error| kill_error(error, name))?;
    done(StatusCode::NO_CONTENT)
}

/// Every refusal of kill begins alike; the one of a container that does not run says it by itself.
fn kill_error(error: Error, name: &str) -> Error {
    const PREFIX: &str = "cannot kill container: ";
    if error.message().starts_with(PREFIX) { error } else { error.prefix(format!("{PREFIX}{name}")) }
}

/// `POST /containers/{name}/pause`
pub async fn pause(state: Arc<State>, request: Request) -> Result<Outcome> {
    kill::pause(&state.engine.containers, request.name()).await?;
    done(StatusCode::NO_CONTENT)
}

/// `POST /containers/{name}/unpause`
pub async fn unpause(state: Arc<State>, request: Request) -> Result<Outcome> {
    kill::unpause(&state.engine.containers, request.name()).await?;
    done(StatusCode::NO_CONTENT)
}

/// `POST /containers/{name}/rename`
pub async fn rename(state: Arc<State>, request: Request) -> Result<Outcome> {
    rename::rename(&state.engine.containers, request.name(), request.query.text("name")).await?;
    done(StatusCode::NO_CONTENT)
}

/// `GET /containers/{name}/changes`
pub async fn changes(state: Arc<State>, request: Request) -> Result<Outcome> {
    let (name, engine) = (request.name().to_owned(), state.engine.clone());
    let walk = move |_: &Blocking| export::changes(&engine.containers, &*engine.snapshots.roots, &name);
    ok(&state.engine.disk.walks.run(walk).await?)
}

/// `GET /containers/{name}/export`
pub async fn export(state: Arc<State>, request: Request) -> Result<Outcome> {
    let (name, engine) = (request.name().to_owned(), state.engine.clone());
    let archive = response::download(&state.transfers, response::BYTES, move |sink| {
        export::export(&engine.containers, &*engine.snapshots.roots, &engine.events, &name, sink)
    });
    Ok(archive.await?.into())
}

/// `POST /commit`
pub async fn commit(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let config = match request.json_bytes().await? {
        Some(bytes) => api::decode::commit_request(&bytes).map_err(crate::request::invalid_body)?,
        None => None,
    };
    let query = &request.query;
    let args = CommitArgs {
        container: query.text("container").to_owned(),
        name: image::repository_tag(query.text("repo"), query.text("tag"))?,
        comment: query.text("comment").to_owned(),
        author: query.text("author").to_owned(),
        no_pause: !query.flag_or("pause", true),
        changes: query.all("changes").map(str::to_owned).collect(),
        config,
    };
    created(&CommitResponse { id: commit::commit(&state.engine, args).await? })
}

/// Height and width of a terminal; the kernel counts in 16 bits.
pub(super) fn window(request: &Request) -> Result<(u16, u16)> {
    let height = request.query.size("h", "height")?;
    let width = request.query.size("w", "width")?;
    let narrow = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
    Ok((narrow(height), narrow(width)))
}

/// `POST /containers/{name}/resize`
pub async fn resize(state: Arc<State>, request: Request) -> Result<Outcome> {
    resize::resize(&state.engine.containers, &state.engine.events, request.name(), window(&request)?).await?;
    done(StatusCode::OK)
}

/// `DELETE /containers/{name}`
pub async fn remove(state: Arc<State>, request: Request) -> Result<Outcome> {
    let query = &request.query;
    let args = RemoveArgs { force: query.flag("force"), volumes: query.flag("v"), link: query.flag("link") };
    remove::remove(&state.engine.containers, request.name(), args).await?;
    done(StatusCode::NO_CONTENT)
}

/// `POST /containers/prune`
pub async fn prune(state: Arc<State>, request: Request) -> Result<Outcome> {
    let (engine, filters) = (&state.engine, request.query.filters()?);
    let pruned = remove::prune(&engine.containers, &engine.snapshots.roots, &engine.events, &engine.disk, &filters);
    let (removed, space_reclaimed) = pruned.await?;
    let containers_deleted = Some(removed).filter(|removed| !removed.is_empty());
    ok(&ContainerPruneReport { containers_deleted, space_reclaimed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_kill_begin_alike() {
        let text = |message: &str| kill_error(Error::conflict(message), "wf1").message().to_owned();
        assert_eq!(text("cannot kill container: wf1: x"), "cannot kill container: wf1: x");
        assert_eq!(text("No such container: wf1"), "cannot kill container: wf1: No such container: wf1");
    }
}
