//! Networks.

use std::sync::Arc;

use hyper::StatusCode;
use model::Result;

use super::{State, done, ok, versioned};
use crate::request::Request;
use crate::routes::Outcome;

/// `GET /networks`
pub async fn list(state: Arc<State>, request: Request) -> Result<Outcome> {
    let networks = engine::network::list(&state.engine.networks, &request.query.filters()?)?;
    Ok(versioned(&networks, request.version, 52, api::version::network_list).into())
}

/// `GET /networks/{id}`
pub async fn inspect(state: Arc<State>, request: Request) -> Result<Outcome> {
    let network = engine::network::inspect(
        &state.engine.networks,
        &state.engine.containers,
        (request.name(), request.query.text("scope")),
    )?;
    Ok(versioned(&network, request.version, 52, api::version::network_inspect).into())
}

/// `POST /networks/prune`
pub async fn prune(state: Arc<State>, request: Request) -> Result<Outcome> {
    ok(&engine::network::prune(&state.engine.events, &state.engine.disk.pruning, &request.query.filters()?)?)
}

/// `DELETE /networks/{id}`
pub async fn remove(state: Arc<State>, request: Request) -> Result<Outcome> {
    engine::network::remove(&state.engine.networks, request.name())?;
    done(StatusCode::NO_CONTENT)
}
