//! The target of a request as people write it: `curl '…/json?filters={"status":["running"]}'`.
//!
//! Go takes any byte of a target that ends no word; hyper refuses some that a URL would have escaped. [`Targets`] sits
//! under hyper and escapes those on their way in. It looks at the first line of a request only, and only when it knows
//! that one comes: at the beginning of a connection and after each request without a body.
//!
//! It counts what it reads, too: long heads come out of a budget of all connections.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;

use crate::budget::Share;
use crate::limits;

/// The body of the request has not come in full.
const BODY: u8 = 1;
/// The request is not answered.
const ANSWER: u8 = 2;

/// What the connection and its task tell each other about the request that is being read.
#[derive(Clone, Debug)]
pub struct Begins(Arc<Progress>);

#[derive(Debug)]
struct Progress {
    /// The next bytes begin a request.
    begins: AtomicBool,
    /// What is left before the next head begins: [`BODY`], [`ANSWER`].
    left: AtomicU8,
    /// Bytes read of the request.
    bytes: AtomicUsize,
    /// A head was too long for what was left of the budget.
    refused: AtomicBool,
}

impl Begins {
    fn new() -> Begins {
        Begins(Arc::new(Progress {
            begins: AtomicBool::new(true),
            left: AtomicU8::new(0),
            bytes: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
        }))
    }

    /// The next bytes begin a request, or go on with one.
    pub fn set(&self, begins: bool) {
        self.0.begins.store(begins, Ordering::Relaxed);
    }

    /// A head has come in full. `bare`: it has no body.
    pub fn head_ended(&self, bare: bool) {
        self.set(false);
        self.0.left.store(if bare { ANSWER } else { BODY | ANSWER }, Ordering::Relaxed);
    }

    /// The body has come in full.
    pub fn body_ended(&self) {
        self.over(BODY);
    }

    /// A request is answered. `bare`: it had no body, so that the next one begins with the next bytes. Gives whether it was
    /// so large that the connection shall not be kept.
    pub fn answered(&self, bare: bool) -> bool {
        self.set(bare);
        let large = self.0.bytes.load(Ordering::Relaxed) > limits::LARGE_REQUEST;
        self.over(ANSWER);
        large
    }

    fn over(&self, part: u8) {
        if self.0.left.fetch_and(!part, Ordering::Relaxed) == part {
            self.0.bytes.store(0, Ordering::Relaxed);
        }
    }

    /// Whether a head was refused.
    pub fn is_refused(&self) -> bool {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Counts bytes that were read; false when the head has become too long.
    fn count(&self, bytes: usize, share: &mut Share) -> bool {
        let read = self.0.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let in_head = self.0.left.load(Ordering::Relaxed) == 0;
        let fits = !in_head || share.grow_to(read);
        self.0.refused.fetch_or(!fits, Ordering::Relaxed);
        fits
    }
}

/// A connection whose requests have clean targets.
pub struct Targets<T> {
    stream: T,
    begins: Begins,
    /// What its longest head has taken of the budget.
    share: Share,
    /// In the target, behind the method.
    inside: bool,
    /// What did not fit the reader's buffer after it had grown.
    left: Vec<u8>,
}

impl<T> Targets<T> {
    /// Around a connection of which `ahead` has been read, less than what a head may have for nothing.
    pub fn new((ahead, stream): (Vec<u8>, T), heads: &Arc<Semaphore>) -> Targets<T> {
        let (begins, share) = (Begins::new(), Share::new(heads, limits::HEAD_FREE));
        let mut targets = Targets { stream, begins, share, inside: false, left: Vec::new() };
        targets.begins.count(ahead.len(), &mut targets.share);
        targets.left = targets.escape(&ahead).unwrap_or(ahead);
        targets
    }

    /// What its task tells it.
    pub fn begins(&self) -> Begins {
        self.begins.clone()
    }

    /// The connection, when nobody speaks HTTP on it any more, and what was read ahead.
    pub fn into_parts(self) -> (T, Vec<u8>) {
        (self.stream, self.left)
    }

    /// What these bytes are to hyper; `None` when they are that already.
    fn escape(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut escaped: Option<Vec<u8>> = None;
        for (at, &byte) in bytes.iter().enumerate() {
            if byte == b'\n' || (byte == b' ' && self.inside) {
                self.inside = false;
                self.begins.set(false);
                if let Some(escaped) = &mut escaped {
                    escaped.extend_from_slice(&bytes[at..]);
                }
                break;
            }
            self.inside |= byte == b' ';
            if self.inside && (matches!(byte, b'"' | b'<' | b'>') || !byte.is_ascii()) {
                let escaped = escaped.get_or_insert_with(|| bytes[..at].to_vec());
                escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
            } else if let Some(escaped) = &mut escaped {
                escaped.push(byte);
            }
        }
        escaped
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Targets<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left.is_empty() {
            let start = buffer.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
            let read = buffer.filled().len() - start;
            let Targets { begins, share, .. } = &mut *self;
            if !begins.count(read, share) {
                buffer.set_filled(start);
                return Poll::Ready(Err(io::Error::other("too many long heads of requests at once")));
            }
            if !self.begins.0.begins.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            let Some(escaped) = self.escape(&buffer.filled()[start..]) else { return Poll::Ready(Ok(())) };
            buffer.set_filled(start);
            self.left = escaped;
        }
        let fits = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left[..fits]);
        self.left.drain(..fits);
        if self.left.is_empty() {
            self.left = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Targets<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn plenty() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(1000))
    }

    #[tokio::test]
    async fn long_heads_come_out_of_the_budget_and_bodies_do_not() {
        let heads = Arc::new(Semaphore::new(2));
        let long = vec![b'x'; limits::LARGE_REQUEST + 1];
        let mut refused = Targets::new((Vec::new(), &long[..]), &heads);
        let begins = refused.begins();
        assert!(refused.read_to_end(&mut Vec::new()).await.is_err());
        assert!(begins.is_refused());
        drop(refused);
        assert_eq!(heads.available_permits(), 2);
        let mut with_body = Targets::new((Vec::new(), &long[..]), &heads);
        let begins = with_body.begins();
        let mut head = vec![0; limits::HEAD_FREE + 1024];
        let _ = with_body.read_exact(&mut head).await.expect("within the budget");
        assert_eq!(heads.available_permits(), 1);
        begins.head_ended(false);
        assert!(!begins.answered(false));
        let _ = with_body.read_to_end(&mut Vec::new()).await.expect("a body");
        begins.body_ended();
        begins.head_ended(true);
        assert!(!begins.answered(true) && !begins.is_refused());
        drop(with_body);
        assert_eq!(heads.available_permits(), 2);
    }

    /// What hyper reads, `piece` bytes at a time.
    async fn read(sent: &[u8], piece: usize) -> Vec<u8> {
        // Some of it has been read before.
        let (ahead, sent) = sent.split_at(sent.len().min(piece / 2));
        let mut targets = Targets::new((ahead.to_vec(), sent), &plenty());
        let (mut all, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            match targets.read(&mut buffer).await.expect("a slice") {
                0 => return all,
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
    }

    #[tokio::test]
    async fn only_the_target_is_escaped() {
        for piece in [1, 7, 4096] {
            let sent = b"GET /a<?f={\"k\":[\"\xff\"]} HTTP/1.1\r\nX: \"<\"\r\n\r\n\"body\"";
            let wanted = b"GET /a%3C?f={%22k%22:[%22%FF%22]} HTTP/1.1\r\nX: \"<\"\r\n\r\n\"body\"";
            assert_eq!(read(sent, piece).await, wanted, "{piece}");
            let plain = b"GET /_ping HTTP/1.1\r\n\r\nGET /\"";
            assert_eq!(read(plain, piece).await, plain, "{piece}");
            assert_eq!(read(b"\"\n\"", piece).await, b"\"\n\"", "{piece}");
        }
    }

    #[tokio::test]
    async fn a_later_request_is_looked_at_when_it_is_announced() {
        let mut targets = Targets::new((Vec::new(), &b"GET / HTTP/1.1\n\nGET /\" HTTP/1.1\n\n"[..]), &plenty());
        let begins = targets.begins();
        let mut first = [0; 16];
        let _ = targets.read_exact(&mut first).await.expect("the first");
        begins.set(true);
        let mut second = String::new();
        let _ = targets.read_to_string(&mut second).await.expect("the second");
        assert_eq!(second, "GET /%22 HTTP/1.1\n\n");
    }
}
