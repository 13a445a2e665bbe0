//! Images. The engine's verbs block (disk, hashing), so each runs on a thread for blocking work.

use std::sync::Arc;

use engine::Engine;
use engine::container::read::users::{running, users};
use hyper::StatusCode;
use image::{AttestationArgs, ListArgs, RemoveArgs};
use model::platform::Platform;
use model::{Error, Result};

use tokio::sync::mpsc;

use super::{State, blocking, distribution, done, import, ok, progress, versioned};
use crate::limits;
use crate::query::Query;
use crate::request::Request;
use crate::response;
use crate::routes::Outcome;

/// A platform as the OCI writes it: `{"os": "linux", "architecture": "amd64"}`.
pub(super) fn platform(json: &str) -> Result<Platform> {
    let given: api::Platform = api::decode::from_slice(json.as_bytes())
        .map_err(|error| Error::invalid(format!("failed to parse platform: {error}")))?;
    let optional = !given.variant.is_empty() || !given.os_version.is_empty() || !given.os_features.is_empty();
    if given.os.is_empty() && given.architecture.is_empty() && optional {
        return Err(Error::invalid("optional platform fields provided, but OS and Architecture are missing"));
    }
    if given.os.is_empty() || given.architecture.is_empty() {
        return Err(Error::invalid("both OS and Architecture must be provided"));
    }
    Ok(Platform::new(&given.os, &given.architecture, &given.variant))
}

/// The `platform` parameter of versions that have it.
fn platform_since(request: &Request, since: u32) -> Result<Option<Platform>> {
    let text = request.query.text("platform");
    if text.is_empty() || request.version.before(since) { Ok(None) } else { platform(text).map(Some) }
}

/// The query of the list.
fn list_args(request: &Request) -> Result<ListArgs> {
    let (query, version) = (&request.query, request.version);
    let mut filters = query.filters()?;
    let old = query.text("filter");
    if version.before(25) && !filters.contains("reference") && !old.is_empty() {
        filters.add("reference", old);
    }
    let manifests = !version.before(47) && query.flag("manifests");
    if !version.before(54) && query.flag("identity") && !manifests {
        return Err(Error::invalid("conflicting options: identity requires manifests=1"));
    }
    let shared_size = !version.before(42) && query.flag("shared-size");
    Ok(ListArgs { filters, all: query.flag("all"), shared_size, manifests, ..ListArgs::default() })
}

/// `GET /images/json`
pub async fn list(state: Arc<State>, request: Request) -> Result<Outcome> {
    let mut args = list_args(&request)?;
    let images = blocking(&state, &state.reads, move |engine| {
        args.containers = users(&engine.images, &engine.containers)?;
        image::list(&engine.images, &args)
    });
    let images = images.await?;
    Ok(versioned(&images, request.version, 51, api::version::image_list).into())
}

/// `GET /images/{name}/json`
pub async fn inspect(state: Arc<State>, request: Request) -> Result<Outcome> {
    let platform = platform_since(&request, 49)?;
    let manifests = !request.version.before(48) && request.query.flag("manifests");
    if manifests && platform.is_some() {
        return Err(Error::invalid("conflicting options: manifests and platform options cannot both be set"));
    }
    let name = request.name().to_owned();
    let mut inspect = blocking(&state, &state.reads, move |engine| {
        image::inspect(&engine.images, &name, platform.as_ref(), manifests)
    })
    .await?;
    if !request.version.before(52) {
        // A snapshotter is no graph driver.
        inspect.graph_driver = None;
    }
    Ok(versioned(&inspect, request.version, 52, api::version::image_inspect).into())
}

/// `GET /images/{name}/history`
pub async fn history(state: Arc<State>, request: Request) -> Result<Outcome> {
    let platform = platform_since(&request, 48)?;
    let name = request.name().to_owned();
    ok(&blocking(&state, &state.reads, move |engine| image::history(&engine.images, &name, platform.as_ref())).await?)
}

/// `GET /images/{name}/attestations`
pub async fn attestations(state: Arc<State>, request: Request) -> Result<Outcome> {
    let (name, query) = (request.name().to_owned(), &request.query);
    let mut given = query.all("platform");
    let first = given.next().unwrap_or_default();
    if given.next().is_some() {
        return Err(Error::invalid("only one platform value is currently supported"));
    }
    let types = query.all("type").map(str::trim).filter(|kind| !kind.is_empty());
    let args = AttestationArgs {
        platform: if first.is_empty() { None } else { Some(platform(first)?) },
        types: types.map(str::to_owned).collect(),
        statement: query.flag("statement"),
    };
    ok(&blocking(&state, &state.reads, move |engine| image::attestations(&engine.images, &name, &args)).await?)
}

/// `POST /images/{name}/tag`
pub async fn tag(state: Arc<State>, request: Request) -> Result<Outcome> {
    let name = request.name().to_owned();
    let (repo, tag) = (request.query.text("repo").to_owned(), request.query.text("tag").to_owned());
    blocking(&state, &state.changes, move |engine| image::tag(&engine.images, &engine.events, &name, &repo, &tag))
        .await?;
    done(StatusCode::CREATED)
}

/// `DELETE /images/{name}`
pub async fn remove(state: Arc<State>, request: Request) -> Result<Outcome> {
    let name = request.name().to_owned();
    if name.trim().is_empty() {
        return Err(Error::invalid("image name cannot be blank"));
    }
    let given = if request.version.before(50) { None } else { Some(request.query.all("platforms")) };
    let platforms = given.into_iter().flatten().map(platform).collect::<Result<_>>()?;
    let (force, prune) = (request.query.flag("force"), !request.query.flag("noprune"));
    let args = RemoveArgs { force, prune, platforms, running: running(&state.engine.containers) };
    ok(&blocking(&state, &state.changes, move |engine| image::remove(&engine.images, &engine.events, &name, args))
        .await?)
}

/// `POST /images/prune`
pub async fn prune(state: Arc<State>, request: Request) -> Result<Outcome> {
    let filters = request.query.filters()?;
    let verb = move |engine: &Engine| {
        image::prune(&engine.images, &engine.events, &users(&engine.images, &engine.containers)?, &filters)
    };
    ok(&blocking(&state, &state.changes, verb).await?)
}

/// Whether `POST /images/create` pulls or imports, and what.
#[derive(Debug, PartialEq)]
enum Source {
    /// From a registry.
    Pull,
    /// A tar in the request's body.
    Body,
    /// A tar somewhere else.
    Url(String),
}

impl Source {
    fn of(query: &Query) -> Source {
        match (query.text("fromImage"), query.text("fromSrc")) {
            ("", "-") => Source::Body,
            ("", source) => Source::Url(source.to_owned()),
            _ => Source::Pull,
        }
    }
}

/// `POST /images/create`
pub async fn create(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    match Source::of(&request.query) {
        Source::Body => import::from_body(state, &mut request).await,
        Source::Pull => distribution::pull(state, &request).await,
        Source::Url(address) => import::from_address(state, &request, &address).await,
    }
}

/// The `platform` parameters of save and load: one from 1.48 on, several from 1.52 on.
fn platforms(request: &Request) -> Result<Vec<Platform>> {
    if request.version.before(48) {
        return Ok(Vec::new());
    }
    let given: Vec<&str> = request.query.all("platform").collect();
    if request.version.before(52) && given.len() > 1 {
        return Err(Error::invalid(
            "multiple platform parameters are not supported in this API version; use API version 1.52 or later",
        ));
    }
    given.into_iter().map(platform).collect()
}

/// `POST /images/load`: 200 whatever happens; a failure is told in the stream.
pub async fn load(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let platforms = platforms(&request)?;
    let body = request.upload();
    let (sender, messages) = mpsc::channel(limits::STREAM_QUEUE);
    let engine = state.engine.clone();
    let place = state.transfers.place().await;
    let running = place.run(move |client| {
        let mut body = body.from(&client);
        // A client that left hears nothing more; what it sent is loaded all the same.
        let mut tell = |message| drop(client.send(&sender, Ok(message)));
        if let Err(error) = image::load(&engine.images, &engine.events, &mut body, &platforms, &mut tell) {
            drop(client.send(&sender, Err(error)));
        }
    });
    running.begun()?;
    Ok(progress::answer_at_once(messages).into())
}

/// `GET /images/{name}/get`
pub async fn save_one(state: Arc<State>, request: Request) -> Result<Outcome> {
    let name = request.name().to_owned();
    save(&state, &request, vec![name]).await
}

/// `GET /images/get`
pub async fn save_several(state: Arc<State>, request: Request) -> Result<Outcome> {
    let names = request.query.all("names").map(str::to_owned).collect();
    save(&state, &request, names).await
}

async fn save(state: &Arc<State>, request: &Request, names: Vec<String>) -> Result<Outcome> {
    let (platforms, engine) = (platforms(request)?, state.engine.clone());
    let archive = response::download(&state.transfers, response::TAR, move |sink| {
        image::save(&engine.images, &engine.events, &names, &platforms, sink)
    });
    Ok(archive.await?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_checked() {
        let text = |json| platform(json).expect_err(json).message().to_owned();
        assert_eq!(platform(r#"{"os":"linux","architecture":"amd64"}"#).expect("valid").os, "linux");
        assert_eq!(text(r#"{"os":"linux"}"#), "both OS and Architecture must be provided");
        assert_eq!(
            text(r#"{"variant":"v7"}"#),
            "optional platform fields provided, but OS and Architecture are missing"
        );
        assert_eq!(text("x"), "failed to parse platform: invalid character 'x' looking for beginning of value");
    }

    #[test]
    fn create_pulls_or_imports() {
        let source = |query| Source::of(&Query::parse(query).expect("valid query"));
        assert_eq!(source("fromImage=alpine&tag=3"), Source::Pull);
        assert_eq!(source("fromSrc=-&repo=a"), Source::Body);
        assert_eq!(source("fromSrc=http://x"), Source::Url("http://x".to_owned()));
    }
}
