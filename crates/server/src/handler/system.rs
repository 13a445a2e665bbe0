//! The daemon itself: ping, version, info.

use std::sync::Arc;

use engine::disk::usage::{self, Kinds};
use hyper::{Method, StatusCode};
use model::{Error, Result};

use super::{State, done, ok, versioned};
use crate::query::Query;
use crate::request::Request;
use crate::response;
use crate::routes::Outcome;

/// The builder that clients are told to use: BuildKit, or the one before it (feature `buildkit`).
const BUILDERS: [&str; 2] = ["1", "2"];

/// `GET /_ping` and `HEAD /_ping`
pub async fn ping(state: Arc<State>, request: Request) -> Result<Outcome> {
    let mut answer = response::text(StatusCode::OK, if request.method == Method::HEAD { "" } else { "OK" });
    if request.method == Method::HEAD {
        answer = response::with_header(answer, "content-length", "0");
    }
    for (name, value) in [
        ("builder-version", BUILDERS[usize::from(state.engine.settings().daemon.buildkit)]),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        ("swarm", "inactive"),
    ] {
        answer = response::with_header(answer, name, value);
    }
    Ok(answer.into())
}

/// `OPTIONS` of any path
pub async fn options(_: Arc<State>, _: Request) -> Result<Outcome> {
    done(StatusCode::OK)
}

/// `GET /version`
pub async fn version(state: Arc<State>, _: Request) -> Result<Outcome> {
    ok(&engine::system::version(&state.engine.host, state.engine.settings().daemon.experimental))
}

/// `GET /info`
pub async fn info(state: Arc<State>, request: Request) -> Result<Outcome> {
    let info = engine::system::info(&state.engine);
    Ok(versioned(&info, request.version, 50, api::version::info).into())
}

/// `GET /system/df`
pub async fn disk_usage(state: Arc<State>, request: Request) -> Result<Outcome> {
    let version = request.version;
    let kinds = if version.before(42) { Kinds::ALL } else { kinds(&request.query)? };
    let usage = usage::usage(&state.engine, kinds).await?;
    let mut shown = serde_json::to_value(&usage).expect("wire types are plain data");
    api::version::disk_usage(version, request.query.flag("verbose"), &mut shown);
    ok(&shown)
}

/// The kinds that a query names; all, when it names none.
fn kinds(query: &Query) -> Result<Kinds> {
    if !query.has("type") {
        return Ok(Kinds::ALL);
    }
    let mut kinds = Kinds::default();
    for kind in query.all("type") {
        match kind {
            "container" => kinds.containers = true,
            "image" => kinds.images = true,
            "volume" => kinds.volumes = true,
            "build-cache" => kinds.build_cache = true,
            other => return Err(Error::invalid(format!("unknown object type: {other}"))),
        }
    }
    Ok(kinds)
}

/// `POST /build/prune`
pub async fn prune_builds(state: Arc<State>, request: Request) -> Result<Outcome> {
    let sizes: &[&str] = match request.version.before(48) {
        true => &["keep-storage"],
        false => &["reserved-space", "keep-storage", "max-used-space", "min-free-space"],
    };
    let mut given = Vec::new();
    for name in sizes {
        let read = request.query.integer(name).map_err(|error| {
            let given = request.query.text(name);
            Error::invalid(format!("{name} is in bytes and expects an integer, got {given}: {}", error.message()))
        })?;
        given.push((*name, read.unwrap_or(0).max(0).unsigned_abs()));
    }
    if let Some((name, _)) = given.iter().find(|(name, bytes)| *name == "min-free-space" && *bytes > 0) {
        return Err(Error::not_implemented(format!("{name} is not supported by this builder: max-used-space is")));
    }
    let keep = given.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    let args = engine::build::PruneArgs { filters: request.query.filters()?, all: request.query.flag("all"), keep };
    ok(&engine::build::prune(&state.engine, args).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_one_by_one() {
        let of = |query| kinds(&Query::parse(query).expect("valid query"));
        assert_eq!(of("").expect("all"), Kinds::ALL);
        let two = Kinds { images: true, volumes: true, ..Kinds::default() };
        assert_eq!(of("type=image&type=volume").expect("two"), two);
        assert_eq!(of("type=zz").expect_err("unknown").message(), "unknown object type: zz");
        assert_eq!(of("type=").expect_err("empty").message(), "unknown object type: ");
    }
}
