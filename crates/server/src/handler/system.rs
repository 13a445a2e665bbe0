//! The daemon itself: ping, version, info.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use model::Result;

use super::{State, done, ok, versioned};
use crate::request::Request;
use crate::response;
use crate::routes::Outcome;

/// The builder that clients are told to use.
const BUILDER_VERSION: &str = "2";

/// `GET /_ping` and `HEAD /_ping`
pub async fn ping(_: Arc<State>, request: Request) -> Result<Outcome> {
    let mut answer = response::text(StatusCode::OK, if request.method == Method::HEAD { "" } else { "OK" });
    if request.method == Method::HEAD {
        answer = response::with_header(answer, "content-length", "0");
    }
    for (name, value) in [
        ("builder-version", BUILDER_VERSION),
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
    ok(&engine::system::version(&state.engine))
}

/// `GET /info`
pub async fn info(state: Arc<State>, request: Request) -> Result<Outcome> {
    let info = engine::system::info(&state.engine);
    Ok(versioned(&info, request.version, 50, api::version::info).into())
}
