//! Streams of messages with bytes, as readers and writers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Status, Streaming};

/// Bytes between a stream and its reader or writer.
const BUFFER: usize = 256 << 10;
/// Bytes of a message.
const PIECE: usize = 32 << 10;
/// Messages that wait to be sent.
const QUEUE: usize = 4;

/// What comes over a stream. An error of the stream is its early end.
pub(crate) fn incoming<M: Send + 'static>(
    messages: Streaming<M>,
    data: impl Fn(M) -> Vec<u8> + Send + 'static,
) -> DuplexStream {
    answered(async { Ok(messages) }, data)
}

/// The same of a call that may be answered only when something was sent.
pub(super) fn answered<M: Send + 'static>(
    call: impl Future<Output = Result<Streaming<M>, Status>> + Send + 'static,
    data: impl Fn(M) -> Vec<u8> + Send + 'static,
) -> DuplexStream {
    let (near, mut far) = tokio::io::duplex(BUFFER);
    tokio::spawn(async move {
        let Ok(mut messages) = call.await else { return };
        while let Ok(Some(message)) = messages.message().await {
            if far.write_all(&data(message)).await.is_err() {
                return;
            }
        }
    });
    near
}

/// A writer, and the messages that its bytes become.
pub(crate) fn outgoing<M: Send + 'static>(message: impl Fn(Vec<u8>) -> M + Send + 'static) -> (DuplexStream, Queue<M>) {
    let (near, mut far) = tokio::io::duplex(BUFFER);
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = tokio::select! {
                read = far.read_buf(&mut piece) => read,
                () = sender.closed() => return,
            };
            if !matches!(read, Ok(1..)) || sender.send(message(piece)).await.is_err() {
                return;
            }
        }
    });
    (near, Queue(receiver))
}

/// Messages of a queue, as a stream.
pub(crate) struct Queue<M>(pub(crate) mpsc::Receiver<M>);

impl<M> Stream for Queue<M> {
    type Item = M;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<M>> {
        self.0.poll_recv(context)
    }
}

/// A reader that keeps something for as long as it is read.
pub(crate) struct Holding<R, T> {
    pub(crate) _held: T,
    pub(crate) read: R,
}

impl<R: AsyncRead + Unpin, T: Unpin> AsyncRead for Holding<R, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(context, buffer)
    }
}
