//! Accepting clients: listeners come bound and are served until shutdown.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::connection;
use crate::frame::Frame;
use crate::limits;
use crate::peer::Peer;
use crate::phase::Phase;
use crate::stream::Socket;

/// The one user whom the control socket serves.
const ROOT: u32 = 0;

/// A bound socket to accept from.
pub enum Listener {
    /// A unix stream socket.
    Unix(StdUnixListener),
    /// A unix stream socket on which root alone is served, whatever the socket's mode.
    Control(StdUnixListener),
    /// Plain TCP.
    Tcp(StdTcpListener),
    /// TCP with TLS.
    Tls(StdTcpListener, Arc<ServerConfig>),
}

enum Bound {
    Unix(UnixListener),
    Control(UnixListener),
    Tcp(TcpListener),
}

impl Bound {
    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Bound::Unix(listener) => process(listener.accept().await?.0),
            Bound::Control(listener) => loop {
                let (socket, peer) = process(listener.accept().await?.0)?;
                match peer {
                    Peer::Process { uid: ROOT, .. } => return Ok((socket, peer)),
                    other => tracing::warn!(peer = %other, "refused on the control socket: not root"),
                }
            },
            Bound::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Socket::Tcp(stream), Peer::Address { address, subject: None }))
            }
        }
    }
}

/// A unix connection and the process that made it.
fn process(stream: UnixStream) -> io::Result<(Socket, Peer)> {
    let credentials = stream.peer_cred()?;
    let peer = Peer::Process { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() };
    Ok((Socket::Unix(stream), peer))
}

impl Listener {
    fn bind(self) -> io::Result<(Bound, Option<TlsAcceptor>)> {
        let tcp = |listener: StdTcpListener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener).map(Bound::Tcp)
        };
        let unix = |listener: StdUnixListener| {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        };
        match self {
            Listener::Unix(listener) => Ok((Bound::Unix(unix(listener)?), None)),
            Listener::Control(listener) => Ok((Bound::Control(unix(listener)?), None)),
            Listener::Tcp(listener) => Ok((tcp(listener)?, None)),
            Listener::Tls(listener, config) => Ok((tcp(listener)?, Some(TlsAcceptor::from(config)))),
        }
    }
}

/// Serves a listener until the phase is [`Phase::Closing`], then lets open requests finish. A client that waits for what
/// the end brings about (the exit of a container) hears of it before [`Phase::Draining`].
///
/// Hijacked connections that a monitor holds are no longer the server's and are not waited for.
pub async fn serve<S: Send + Sync + 'static>(
    listener: Listener,
    frame: Arc<Frame<S>>,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let (listener, tls) = listener.bind()?;
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = phase.wait_for(|phase| *phase >= Phase::Closing) => break,
            Some(_) = clients.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((place, (socket, peer))) = accepted else { continue };
        let connection = connection::serve(frame.clone(), socket, peer, tls.clone(), phase.clone());
        clients.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    let deadline = async {
        // A sender that is gone is as good as one that says so.
        let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
        tokio::time::sleep(limits::DRAIN_TIME).await;
    };
    let finished = async { while clients.join_next().await.is_some() {} };
    let cut = tokio::select! {
        () = finished => false,
        () = deadline => true,
    };
    if cut {
        tracing::warn!(open = clients.len(), "connections are cut at shutdown");
    }
    Ok(())
}

/// One client and its place; `None` when accepting failed (the client left). It waits while descriptors are short: those that are left
/// are for what is under way.
async fn accept(listener: &Bound, places: &Arc<Semaphore>) -> Option<(OwnedSemaphorePermit, (Socket, Peer))> {
    let place = places.clone().acquire_owned().await.ok()?;
    while sys::descriptors::are_short(sys::descriptors::KEPT_FROM_CLIENTS) {
        tokio::time::sleep(limits::ACCEPT_PAUSE).await;
    }
    match listener.accept().await {
        Ok(client) => Some((place, client)),
        Err(error) => {
            tracing::warn!(%error, "accepting a client failed");
            tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            None
        }
    }
}
