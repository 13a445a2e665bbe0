//! How much of a streamed answer may be on its way to its client.
//!
//! A chunk counts from its making until the connection has written it. Each stream may always have one; more of them come
//! out of what all streams of the daemon share, by their size, so that a thousand clients that have stopped reading cost a thousand chunks
//! and a bounded rest, while a client that reads keeps a full pipe.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// The chunks that streams share.
pub struct Windows(Arc<Semaphore>);

impl Default for Windows {
    fn default() -> Windows {
        Windows(Arc::new(Semaphore::new(limits::SHARED_CHUNKS)))
    }
}

impl Windows {
    /// For one stream.
    pub fn open(&self) -> Window {
        Window { own: Arc::new(Semaphore::new(1)), shared: self.0.clone() }
    }
}

/// What one stream may have on its way.
pub struct Window {
    own: Arc<Semaphore>,
    shared: Arc<Semaphore>,
}

/// A chunk on its way; its place is free again when it is dropped.
struct Admitted {
    chunk: Bytes,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Admitted {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

impl Window {
    /// Waits for a place; the chunk keeps it until its last byte has been written.
    pub async fn admit(&self, chunk: Bytes) -> Bytes {
        let places = u32::try_from(chunk.len().div_ceil(limits::SHARED_CHUNK)).unwrap_or(u32::MAX).max(1);
        let own = self.own.clone().try_acquire_owned();
        let free = own.or_else(|_| self.shared.clone().try_acquire_many_owned(places));
        let place = match free {
            Ok(place) => place,
            Err(_) => self.own.clone().acquire_owned().await.expect("the semaphore is never closed"),
        };
        Bytes::from_owner(Admitted { chunk, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn at_once(window: &Window) -> Option<Bytes> {
        let chunk = pin!(window.admit(Bytes::from_static(b"x")));
        match chunk.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(chunk) => Some(chunk),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_stalled_stream_leaves_every_other_its_own_place() {
        let windows = Windows::default();
        let (stalled, other) = (windows.open(), windows.open());
        let held: Vec<Bytes> = std::iter::from_fn(|| at_once(&stalled)).collect();
        assert_eq!(held.len(), limits::SHARED_CHUNKS + 1);
        for _ in 0..3 {
            let chunk = at_once(&other).expect("its own place");
            assert_eq!(chunk, "x");
            assert!(at_once(&other).is_none());
        }
        drop(held);
        assert_eq!((0..5).filter_map(|_| at_once(&other)).count(), 5);
    }
}
