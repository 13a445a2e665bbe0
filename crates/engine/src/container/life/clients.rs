//! Clients that wait for the container to run, and those that come while it does.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use monitor::proto::Request;
use run::Attached;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::actor::Actor;
use super::environment::Environment;
use crate::container::registry::command::Command;

/// How long a start waits for a client whose attach call was accepted before it. Longer than the server waits for the
/// client to take the head of the answer.
const ARRIVAL_WAIT: Duration = Duration::from_secs(10);

/// Clients that wait for the container to run.
#[derive(Default)]
pub struct Clients {
    /// Those that are here.
    pub here: Vec<Attached>,
    /// Those that are on their way.
    pub expected: Vec<oneshot::Receiver<Attached>>,
}

impl Clients {
    /// Waits for the clients that are on their way, each for a moment only.
    pub async fn gather(self) -> Vec<Attached> {
        let Clients { mut here, expected } = self;
        for arriving in expected {
            if let Ok(Ok(client)) = tokio::time::timeout(ARRIVAL_WAIT, arriving).await {
                here.push(client);
            }
        }
        here
    }

    /// Lets go of those that have left.
    pub fn release_left(&mut self) {
        for mut arriving in std::mem::take(&mut self.expected) {
            match arriving.try_recv() {
                Ok(client) => self.here.push(client),
                Err(TryRecvError::Empty) => self.expected.push(arriving),
                Err(TryRecvError::Closed) => {}
            }
        }
        self.here.retain(|waiting| !has_left(&waiting.socket));
    }
}

/// A client will come: before the start it is waited for, later it is let in as it comes.
pub(super) fn expect<E: Environment>(actor: &mut Actor<E>, arriving: oneshot::Receiver<Attached>) {
    match actor.link {
        None => {
            actor.clients.release_left();
            actor.clients.expected.push(arriving);
        }
        Some(_) => let_in(actor, arriving),
    }
}

/// Brings a client to this actor once it is there.
pub(super) fn let_in<E: Environment>(actor: &Actor<E>, arriving: oneshot::Receiver<Attached>) {
    let Ok(handle) = actor.engine.containers().find(actor.row.id.as_str()) else {
        return;
    };
    tokio::spawn(async move {
        if let Ok(client) = arriving.await {
            drop(handle.send(Command::Attach(client)).await);
        }
    });
}

/// Hands a client to the monitor; before the start it waits here.
pub(super) async fn hand_over<E: Environment>(actor: &mut Actor<E>, client: Attached) {
    let Some(link) = actor.link.as_mut() else {
        actor.clients.release_left();
        return actor.clients.here.push(client);
    };
    let request = Request::Attach(client.request());
    if let Err(error) = link.send(&request, &[client.socket.as_fd()]).await {
        tracing::warn!(container = actor.row.id.short(), %error, "client not attached");
    }
}

/// Whether the other end of the socket is closed.
fn has_left(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
}
