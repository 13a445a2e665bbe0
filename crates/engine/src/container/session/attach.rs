//! Attach: a client's connection becomes part of the container's stdio.
//!
//! The daemon checks, answers the HTTP head and then gives the client's own socket to the monitor; no byte of the stream
//! passes through the daemon, and an attached client survives it. A container that does not run yet keeps its waiting
//! sockets in the actor until the start (B-io-5). Recorded output (`logs=1`) is replayed before the socket moves on.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::{Error, Result};
use run::Attached;
use run::link::register;
use rustix::net::{SendFlags, send};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::Engine;
use crate::container::read::logs::{self, LogsArgs};
use crate::container::registry::command::Command;
use crate::container::registry::readers::Readers;
use crate::container::{Containers, Handle, publish};
use crate::settings::Roots;

/// The query of an attach call.
#[derive(Clone, Debug, Default)]
pub struct AttachArgs {
    /// Feed the container's stdin.
    pub stdin: bool,
    /// Receive stdout.
    pub stdout: bool,
    /// Receive stderr.
    pub stderr: bool,
    /// Replay the log first.
    pub logs: bool,
    /// Stay attached.
    pub stream: bool,
    /// The keys that detach from a terminal; `None` for the default ctrl-p,ctrl-q.
    pub detach_keys: Option<String>,
    /// Frame stdout and stderr unless there is a terminal.
    pub multiplex: bool,
}

/// A checked attach call, ready for its socket.
pub struct Attachment {
    /// The container has a terminal: the stream is raw.
    pub tty: bool,
    handle: Handle,
    args: AttachArgs,
    detach_keys: Vec<u8>,
    arrival: oneshot::Sender<Attached>,
    place: OwnedSemaphorePermit,
}

/// Checks an attach call; 409 in states that have no streams. `place` is kept as long as the client waits for the start.
pub async fn attach(
    containers: &Containers,
    name: &str,
    args: AttachArgs,
    place: OwnedSemaphorePermit,
) -> Result<Attachment> {
    let handle = containers.find(name)?;
    let view = handle.view();
    let detach_keys = detach_keys(args.detach_keys.as_deref())?;
    if view.row.state.is_paused() {
        return Err(Error::conflict(format!("container {name} is paused, unpause the container before attach")));
    }
    if view.row.state.is_restarting() {
        return Err(Error::conflict(format!("container {name} is restarting, wait until the container is running")));
    }
    let tty = view.row.config.tty;
    let (arrival, arriving) = oneshot::channel();
    if args.stream {
        // Before the client hears of it: a start that it asks for next waits for its socket (B-io-5).
        handle.send(Command::Expect(arriving)).await?;
    }
    Ok(Attachment { tty, handle, args, detach_keys, arrival, place })
}

/// Lets go of all clients that wait for a start and have left meanwhile.
pub async fn let_go(containers: &Containers) {
    for handle in containers.all() {
        // A container that went away has let go of everything.
        drop(handle.send(Command::LetGo).await);
    }
}

impl Attachment {
    /// Takes over the client's socket; `prefix` is what it sent behind the request's head.
    pub async fn connect(self, engine: &Engine, socket: OwnedFd, prefix: Vec<u8>) {
        let view = self.handle.view();
        if self.args.logs && self.replay(&engine.containers.logs, &engine.settings().roots, &socket).await.is_err() {
            return;
        }
        publish(&engine.events, &view.row, "attach", []);
        if !self.args.stream {
            return;
        }
        let attached = Attached {
            socket,
            prefix,
            stdin: self.args.stdin && view.row.config.open_stdin,
            stdout: self.args.stdout,
            stderr: self.args.stderr,
            multiplex: self.args.multiplex && !self.tty,
            detach_keys: if self.tty { self.detach_keys } else { Vec::new() },
            place: Some(self.place),
        };
        // A container that went away closes the socket by dropping it.
        drop(attached.with_streams().map(|attached| self.arrival.send(attached)));
    }

    /// Writes what the log holds to the client; an error means the client left.
    async fn replay(&self, readers: &Readers, roots: &Roots, socket: &OwnedFd) -> Result<()> {
        let shape = (!self.args.multiplex).then_some(::logs::Shape::Raw);
        let args = LogsArgs { stdout: self.args.stdout, stderr: self.args.stderr, shape, ..LogsArgs::default() };
        let mut stream = match logs::open(readers, roots, &self.handle, args) {
            Ok(stream) => stream,
            // A log driver that cannot be read replays nothing.
            Err(_) => return Ok(()),
        };
        let client = register(socket.as_fd(), Interest::WRITABLE)?;
        while let Some(chunk) = stream.next().await {
            write_all(&client, &chunk?).await?;
        }
        Ok(())
    }
}

/// Writes to a non-blocking socket as fast as the client takes it.
async fn write_all(client: &AsyncFd<BorrowedFd<'_>>, mut bytes: &[u8]) -> std::io::Result<()> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    while !bytes.is_empty() {
        let mut ready = client.writable().await?;
        match ready.try_io(|client| Ok(send(client.get_ref(), bytes, flags)?)) {
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(sent) => bytes = &bytes[sent?..],
            Err(_would_block) => {}
        }
    }
    Ok(())
}

/// Key names as the reference reads them: single characters or `ctrl-<char>`, comma-separated.
pub fn detach_keys(text: Option<&str>) -> Result<Vec<u8>> {
    const DEFAULT: &[u8] = &[16, 17];
    let Some(text) = text.filter(|t| !t.is_empty()) else {
        return Ok(DEFAULT.to_vec());
    };
    text.split(',').map(|key| key_code(key).ok_or_else(|| invalid_keys(text))).collect()
}

fn invalid_keys(text: &str) -> Error {
    Error::invalid(format!("Invalid detach keys ({text}) provided"))
}

fn key_code(key: &str) -> Option<u8> {
    if let [single] = key.as_bytes() {
        return Some(*single);
    }
    match key.strip_prefix("ctrl-")?.as_bytes() {
        [c @ b'a'..=b'z'] => Some(c - b'a' + 1),
        [b'@'] => Some(0),
        [b'['] => Some(27),
        [b'\\'] => Some(28),
        [b']'] => Some(29),
        [b'^'] => Some(30),
        [b'_'] => Some(31),
        _ => None,
    }
}

/// Writes one frame of text to a client and lets it go: how errors of a stream already begun are told.
pub fn tell(socket: OwnedFd, multiplex: bool, text: &str) {
    let mut bytes = Vec::with_capacity(text.len() + 10);
    if multiplex {
        bytes.extend_from_slice(&[1, 0, 0, 0]);
        bytes.extend_from_slice(&(text.len() as u32 + 2).to_be_bytes());
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    // The client may have left; there is nobody else to tell.
    drop(std::fs::File::from(socket).write_all(&bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B-io-4: default and custom detach keys.
    #[test]
    fn detach_keys_parse() {
        assert_eq!(detach_keys(None).expect("default"), [16, 17]);
        assert_eq!(detach_keys(Some("ctrl-a,x")).expect("custom"), [1, b'x']);
        assert_eq!(detach_keys(Some("ctrl-@,ctrl-[")).expect("controls"), [0, 27]);
        assert!(detach_keys(Some("ctrl-")).is_err());
        assert!(detach_keys(Some("wrong")).is_err());
    }
}
