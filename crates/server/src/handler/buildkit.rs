//! `POST /grpc` and `POST /session`: connections that leave HTTP/1 for BuildKit's API, and what that uses of the engine.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use build::Builder;
use build::job::{Answer, Event, Inputs, Job};
use buildkit::{Daemon, Offer};
use engine::Engine;
use events::Events;
use model::Result;
use model::platform::Platform;
use tokio::sync::mpsc;

use super::State;
use crate::hijack::{Head, Hijack};
use crate::request::Request;
use crate::routes::Outcome;
use crate::stream::{Io, Socket};

/// The protocol of both.
const PROTOCOLS: &[&str] = &["h2c"];

/// `POST /grpc`: the client calls.
pub async fn grpc(state: Arc<State>, request: Request) -> Result<Outcome> {
    let protocol = request.offered_protocol(PROTOCOLS)?;
    Ok(Outcome::Hijack(Hijack::new(Head::Protocol(protocol), |socket, ahead| async move {
        match adopt(socket) {
            Ok(io) => {
                let engine = state.engine.clone();
                let ending = async move { engine.containers.ending.begun().await };
                buildkit::serve(state.buildkit.clone(), (ahead, io), ending).await;
            }
            Err(error) => tracing::warn!(%error, "a connection is not taken over"),
        }
    })))
}

/// `POST /session`: the client is called.
pub async fn session(state: Arc<State>, request: Request) -> Result<Outcome> {
    let protocol = request.offered_protocol(PROTOCOLS)?;
    let text = |name: &str| request.header(name).unwrap_or_default().to_owned();
    let methods = request.headers.get_all("x-docker-expose-session-grpc-method");
    let offer = Offer {
        id: text("x-docker-expose-session-uuid"),
        name: text("x-docker-expose-session-name"),
        shared_key: text("x-docker-expose-session-sharedkey"),
        methods: methods.iter().filter_map(|value| Some(value.to_str().ok()?.to_owned())).collect(),
    };
    state.buildkit.sessions.check(&offer)?;
    Ok(Outcome::Hijack(Hijack::new(Head::Protocol(protocol), |socket, ahead| async move {
        let served = async {
            let io = adopt(socket).map_err(model::Error::from)?;
            state.buildkit.sessions.serve(offer, (ahead, io)).await
        };
        let served = tokio::select! {
            served = served => served,
            () = state.engine.containers.ending.begun() => Ok(()),
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a session ended");
        }
    })))
}

fn adopt(socket: OwnedFd) -> io::Result<Io> {
    Ok(Io(Arc::new(Socket::adopt(socket)?)))
}

/// The engine, as builds use it.
pub struct Host(pub Arc<Engine>);

impl Daemon for Host {
    fn builder(&self) -> &Arc<Builder> {
        &self.0.builder
    }

    fn job(&self, inputs: Arc<dyn Inputs>, events: mpsc::Sender<Event>) -> Job {
        engine::build::job(&self.0, inputs, events)
    }

    fn end(&self, job: Arc<Job>) -> Answer<'_, ()> {
        Box::pin(engine::build::end(&self.0, job))
    }

    fn bus(&self) -> Events {
        self.0.events.clone()
    }

    fn id(&self) -> String {
        self.0.host.engine_id.clone()
    }

    fn snapshotter(&self) -> String {
        engine::system::driver(&self.0).to_owned()
    }

    fn platforms(&self) -> Vec<Platform> {
        engine::emulation::platforms(&self.0.host.architecture)
    }

    fn host_gateway(&self) -> String {
        self.0.settings().containers.dns.host_gateway_ips.first().cloned().unwrap_or_default()
    }
}
