//! `POST /containers/{id}/start`, and what a launch's end means: also for restarts by policy and at the daemon's start.

use std::time::Duration;

use model::Result;
use model::lifecycle::{Effect, Input};
use run::{Failed, Link, Place, Running, link};

use super::actor::{Actor, Command, Reply, answer};
use super::exit;
use super::launch;
use super::places::Places;
use crate::container::{Containers, publish};

/// Starts a container; `Kind::NotModified` when it runs already.
pub async fn start(containers: &Containers, name: &str) -> Result<()> {
    containers.find(name)?.ask(|reply| Command::Start { reply }).await
}

impl Actor {
    pub(super) async fn start(&mut self, reply: Reply) {
        if let Err(error) = self.engine.containers.ending.refuse() {
            return answer(reply, Err(error));
        }
        let Some((effects, reply)) = self.step(Input::Start, reply) else {
            return;
        };
        self.waiting.starts.push(reply);
        self.launch_by_hand(&effects);
    }

    /// A start by hand begins the policy's counting anew (B-rs-1).
    pub(super) fn launch_by_hand(&mut self, effects: &[Effect]) {
        self.row.run.restart_count = 0;
        self.backoff = Duration::ZERO;
        self.perform_launch(effects);
    }

    pub(super) fn perform_launch(&mut self, effects: &[Effect]) {
        if effects.contains(&Effect::Launch) {
            self.begin_launch();
        }
    }

    /// The program runs, and its row says so: show, tell, answer.
    pub(super) async fn launched(&mut self, running: Running, place: Place) {
        let Running { client, monitor, process } = running;
        self.end_launch();
        link::reap(monitor);
        match Link::new(client) {
            Ok(link) => self.link = Some(link),
            Err(error) => tracing::error!(container = self.row.id.short(), %error, "no line to the monitor"),
        }
        self.happened(Input::Launched { pid: process.pid });
        launch::note_run(&mut self.row, &process, place);
        self.unrecorded = None;
        self.publish();
        for endpoint in self.row.endpoints.clone() {
            network_event(self, "connect", &endpoint);
        }
        for mount in self.row.volumes() {
            let attributes = [
                ("container", self.row.id.as_str().to_string()),
                ("destination", mount.destination.clone()),
                ("driver", mount.driver.clone()),
                ("propagation", mount.propagation.clone()),
                ("read/write", mount.writable.to_string()),
            ];
            self.engine.events.publish("volume", "mount", &mount.name, attributes);
        }
        self.event("start", []);
        self.answer_starts(|| Ok(()));
        for client in std::mem::take(&mut self.clients) {
            self.attach(client).await;
        }
        for arriving in std::mem::take(&mut self.expected) {
            self.let_in(arriving);
        }
    }

    /// The launch took everything back; what is left is to say so (B-st-1). A run that the policy began and nobody could
    /// record has ended like any other: the policy goes on, while a client that asked for it is told.
    pub(super) async fn launch_failed(&mut self, failed: Failed) {
        let Failed { error, exit_code, ran } = failed;
        self.end_launch();
        let by_policy = self.waiting.starts.is_empty() && self.waiting.restarts.is_empty();
        let restart = ran && by_policy && self.count_restart(exit::KILLED, Duration::ZERO);
        let effects = self.happened(Input::LaunchFailed { restart });
        self.row.run.exit_code = exit_code;
        self.row.run.error = error.message().to_string();
        self.row.run.start_failed = true;
        drop(self.record().await);
        self.publish();
        let (kind, text) = (error.kind(), error.message().to_string());
        self.answer_starts(|| Err(model::Error::new(kind, text.clone())));
        self.go_on(&effects).await;
    }

    fn answer_starts(&mut self, outcome: impl Fn() -> Result<()>) {
        for reply in self.waiting.starts.drain(..) {
            answer(reply, outcome());
        }
        for reply in self.waiting.restarts.drain(..) {
            if outcome().is_ok() {
                publish(&self.engine.events, &self.row, "restart", []);
            }
            answer(reply, outcome());
        }
    }

    /// The container's volumes are free again.
    pub(super) fn unmount_events(&self) {
        for mount in self.row.volumes() {
            let attributes = [("container", self.row.id.as_str().to_string()), ("driver", mount.driver.clone())];
            self.engine.events.publish("volume", "unmount", &mount.name, attributes);
        }
    }
}

/// `network connect` and `disconnect`: the network is the actor, the container an attribute.
pub(super) fn network_event(actor: &Actor, action: &str, endpoint: &network::Endpoint) {
    if Places::of(&actor.row).has_no_network(&actor.engine.networks) && endpoint.addresses.is_empty() {
        return;
    }
    let Ok(network) = actor.engine.networks.row(&endpoint.network) else {
        return;
    };
    let (name, driver) = (network.name.clone(), network.driver.clone());
    let attributes = [("container", actor.row.id.as_str().to_string()), ("name", name), ("type", driver)];
    actor.engine.events.publish("network", action, endpoint.network.as_str(), attributes);
}
