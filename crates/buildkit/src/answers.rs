//! Streams of answers to a client.

use std::pin::Pin;

use tokio::sync::mpsc;
use tonic::Status;
use tonic::codegen::tokio_stream::Stream;

use crate::inputs::bytes::Queue;

/// Messages that wait for a client.
const QUEUE: usize = 16;

/// A stream of answers.
pub(crate) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A stream of answers, and where they are put.
pub(crate) fn answers<T: Send + 'static>() -> (mpsc::Sender<Result<T, Status>>, Messages<T>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (sender, Box::pin(Queue(receiver)))
}
