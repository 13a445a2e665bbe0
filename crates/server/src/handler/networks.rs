//! Networks.

use std::sync::Arc;

use api::network::{ConnectRequest, DisconnectRequest, NetworkCreateRequest};
use hyper::StatusCode;
use model::Result;

use super::{State, blocking, created, done, ok, versioned};
use crate::request::Request;
use crate::routes::Outcome;

/// `GET /networks`
pub async fn list(state: Arc<State>, request: Request) -> Result<Outcome> {
    let networks = engine::network::list(&state.engine.networks, &request.query.filters()?)?;
    Ok(versioned(&networks, request.version, 52, api::version::network_list).into())
}

/// `POST /networks/create`: `EnableIPv4` came with 1.48.
pub async fn create(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let mut body: NetworkCreateRequest = request.json().await?;
    if request.version.before(48) {
        body.enable_ipv4 = None;
    }
    let remote = engine::network::asks_plugins(&body);
    let made = blocking(&state, threads(&state, remote), move |engine| {
        engine::network::create(&engine.networks, &engine.events, &engine.settings(), body)
    });
    created(&made.await?)
}

/// A plugin that hangs holds up nobody who asks none.
fn threads(state: &State, asks_plugins: bool) -> &blocking::Class {
    if asks_plugins { &state.plugins } else { &state.changes }
}

/// `POST /networks/{id}/connect`: `MacAddress` came with 1.54.
pub async fn connect(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let body: ConnectRequest = request.json().await?;
    let mut settings = body.endpoint_config.unwrap_or_default();
    if request.version.before(54) {
        settings.mac_address.clear();
    }
    engine::network::connect(&state.engine.containers, request.name(), &body.container, settings).await?;
    done(StatusCode::OK)
}

/// `POST /containers/{id}/ports`, a route of Gantry's own.
pub async fn change_ports(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let change: api::PortsChange = request.json().await?;
    ok(&engine::network::change_ports(&state.engine.networks, &state.engine.containers, request.name(), change).await?)
}

/// `POST /networks/{id}/disconnect`
pub async fn disconnect(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let body: DisconnectRequest = request.json().await?;
    let (networks, containers) = (&state.engine.networks, &state.engine.containers);
    engine::network::disconnect(networks, containers, request.name(), &body.container, body.force).await?;
    done(StatusCode::OK)
}

/// `GET /networks/{id}`
pub async fn inspect(state: Arc<State>, request: Request) -> Result<Outcome> {
    let (networks, containers) = (&state.engine.networks, &state.engine.containers);
    let scope = request.query.text("scope");
    let network = engine::network::inspect(networks, containers, request.name(), scope)?;
    Ok(versioned(&network, request.version, 52, api::version::network_inspect).into())
}

/// `POST /networks/prune`
pub async fn prune(state: Arc<State>, request: Request) -> Result<Outcome> {
    let filters = request.query.filters()?;
    let pruned = blocking(&state, &state.changes, move |engine| {
        engine::network::prune(&engine.networks, &engine.containers, &engine.events, &engine.disk.pruning, &filters)
    });
    ok(&pruned.await?)
}

/// `DELETE /networks/{id}`
pub async fn remove(state: Arc<State>, request: Request) -> Result<Outcome> {
    let name = request.name().to_owned();
    let threads = threads(&state, engine::network::is_of_plugins(&state.engine.networks, &name));
    blocking(&state, threads, move |engine| engine::network::remove(&engine.networks, &engine.events, &name)).await?;
    done(StatusCode::NO_CONTENT)
}
