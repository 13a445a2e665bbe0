//! Sessions: what clients offer to builds. A client opens a connection of its own and names its methods; the daemon calls them
//! over HTTP/2 on it.
//!
//! Invariants:
//! - a session is found from the moment its connection speaks HTTP/2 until that ends, or its client answers no health checks;
//! - there are a bounded number of sessions, and calls on one wait for nobody else's.

mod channel;
mod health;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use model::lock::{Mutex, MutexGuard};
use model::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub(crate) use channel::Channel;

use crate::ahead::Ahead;

/// Sessions at one time.
const SESSIONS: usize = 1024;
/// Methods that one names.
const METHODS: usize = 256;
/// Bytes of a session's id and names.
const NAME: usize = 4096;
/// How long a session is waited for that is not there yet.
const ARRIVAL: Duration = Duration::from_secs(5);
/// Bytes on their way to the daemon, on one stream and on all of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of the fields of an answer.
const FIELDS: u32 = 64 << 10;

/// What a client says of the session that it offers.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// By what it is found.
    pub id: String,
    /// For people.
    pub name: String,
    /// Of sessions with the same key the files are the same, but for what has changed.
    pub shared_key: String,
    /// `/moby.filesync.v1.FileSync/DiffCopy` and so on.
    pub methods: Vec<String>,
}

/// A session that goes on.
pub(crate) struct Session {
    pub(crate) offer: Offer,
    methods: HashSet<String>,
    channel: Channel,
    /// Turns true at its end.
    ended: watch::Receiver<bool>,
}

impl Session {
    /// Calls on it. A method that the client has not named is refused before anything is sent.
    ///
    /// Errors: `NotImplemented`; the text is the reference's.
    pub(crate) fn calling(&self, method: &str) -> Result<Channel> {
        if !self.methods.contains(&method.to_lowercase()) {
            return Err(Error::not_implemented(format!("method {method} not supported by the client")));
        }
        Ok(self.channel.clone())
    }

    /// Returns when it has ended.
    pub(crate) async fn ended(&self) {
        // A sender that is gone has ended it.
        drop(self.ended.clone().wait_for(|ended| *ended).await);
    }
}

/// All sessions of the daemon. Clones are the same.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Shared>);

#[derive(Default)]
struct Shared {
    all: Mutex<HashMap<String, Arc<Session>>>,
    arrived: watch::Sender<()>,
}

impl Sessions {
    /// Whether a session may be opened; to be asked before the connection is taken over.
    ///
    /// Errors: `InvalidParameter` for one without an id, or whose id is taken; `Unavailable` when there are too many.
    pub fn check(&self, offer: &Offer) -> Result<()> {
        if offer.id.is_empty() {
            return Err(Error::invalid("session id is missing"));
        }
        let names = [&offer.id, &offer.name, &offer.shared_key];
        let is_long = names.iter().any(|name| name.len() > NAME) || offer.methods.iter().any(|m| m.len() > NAME);
        if is_long || offer.methods.len() > METHODS {
            return Err(Error::invalid(format!("a session of more than {METHODS} methods, or a name of {NAME} bytes")));
        }
        let all = self.all();
        if all.contains_key(&offer.id) {
            return Err(Error::invalid(format!("session {} already exists", offer.id)));
        }
        if all.len() >= SESSIONS {
            return Err(Error::unavailable(format!("more than {SESSIONS} sessions at one time")));
        }
        Ok(())
    }

    /// Calls the client over a connection until either side has enough of it.
    /// `ahead`: what was read of it already.
    pub async fn serve(
        &self,
        offer: Offer,
        (ahead, io): (Vec<u8>, impl AsyncRead + AsyncWrite + Send + Unpin + 'static),
    ) -> Result<()> {
        let failed = |error: hyper::Error| Error::system("a session broke").with_source(error);
        let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(FIELDS)
            .handshake(TokioIo::new(Ahead { ahead, io }));
        let (sender, connection) = handshake.await.map_err(failed)?;
        let (tell_ended, ended) = watch::channel(false);
        let methods = offer.methods.iter().map(|method| method.to_lowercase()).collect();
        let session = Arc::new(Session { offer, methods, channel: Channel::new(sender), ended });
        let held = self.enter(&session)?;
        let outcome = tokio::select! {
            ended = connection => ended.map_err(failed),
            error = health::watch(session.calling(health::CHECK).ok()) => Err(error),
        };
        drop(held);
        tell_ended.send_replace(true);
        outcome
    }

    /// The session of this id, waited for until a while has gone.
    ///
    /// Errors: `NotFound` in the reference's words.
    pub(crate) async fn get(&self, id: &str) -> Result<Arc<Session>> {
        // A prefix says of what kind the client is.
        let id = id.rsplit_once(':').map_or(id, |(_, id)| id);
        let mut arrived = self.0.arrived.subscribe();
        let found = async {
            loop {
                arrived.borrow_and_update();
                if let Some(session) = self.all().get(id).cloned() {
                    return session;
                }
                if arrived.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let missing = || Error::not_found(format!("no active session for {id}: context deadline exceeded"));
        tokio::time::timeout(ARRIVAL, found).await.map_err(|_| missing())
    }

    fn enter(&self, session: &Arc<Session>) -> Result<Held> {
        self.check(&session.offer)?;
        self.all().insert(session.offer.id.clone(), session.clone());
        self.0.arrived.send_replace(());
        Ok(Held { sessions: self.clone(), id: session.offer.id.clone() })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.0.all.lock()
    }
}

/// A session is found as long as this lives.
struct Held {
    sessions: Sessions,
    id: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sessions.all().remove(&self.id);
    }
}
