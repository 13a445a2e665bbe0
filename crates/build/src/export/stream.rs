//! Bytes that a thread makes and a client takes.

use std::io::{self, Write};
use std::sync::Arc;

use model::{Error, Result};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::client::Bytes;
use crate::builder::Builder;
use crate::cancel::{Cancel, cancelled};

/// Pieces that wait for the client, and bytes of one.
const QUEUE: usize = 4;
const PIECE: usize = 128 << 10;

/// Has `write` write to a client, on a thread of its own: it is as slow as the client, and nobody else waits for it. It waits for
/// one of the places that builds have for this.
pub(super) fn begin(
    builder: &Arc<Builder>,
    cancel: &Cancel,
    write: impl FnOnce(&mut dyn Write) -> Result<()> + Send + 'static,
) -> Bytes {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (streams, cancel, handle) = (builder.streams.clone(), cancel.clone(), Handle::current());
    tokio::spawn(async move {
        let Ok(place) = streams.acquire_owned().await else { return };
        let own = sender.clone();
        let work = move || {
            let mut pieces = Pieces { sender: own, handle, cancel, piece: Vec::with_capacity(PIECE) };
            let outcome = write(&mut pieces).and_then(|()| pieces.send().map_err(failed));
            if let Err(error) = outcome {
                pieces.give(Err(error));
            }
            drop(place);
        };
        let begun = std::thread::Builder::new().name("export".into()).spawn(work);
        if let Err(error) = begun {
            drop(sender.send(Err(Error::from(error).prefix("starting an export"))).await);
        }
    });
    receiver
}

/// Collects bytes to pieces.
struct Pieces {
    sender: mpsc::Sender<Result<Vec<u8>>>,
    handle: Handle,
    cancel: Cancel,
    piece: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        match self.give(Ok(piece)) {
            true => Ok(()),
            false if self.cancel.is_cancelled() => Err(io::Error::other(cancelled())),
            false => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client takes no more")),
        }
    }

    /// Waits for a client that is slow, until it leaves or the build is cancelled.
    fn give(&self, piece: Result<Vec<u8>>) -> bool {
        self.handle.block_on(async {
            tokio::select! {
                sent = self.sender.send(piece) => sent.is_ok(),
                () = self.cancel.cancelled() => false,
            }
        })
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE {
            self.send()?;
        }
        let n = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writing to a client failed.
pub(super) fn failed(error: io::Error) -> Error {
    Error::from(error).prefix("sending the result")
}
