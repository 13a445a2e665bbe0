//! The target of a request as people write it: `curl '…/json?filters={"status":["running"]}'`.
//!
//! Go takes any byte of a target that ends no word; hyper refuses some that a URL would have escaped. [`Targets`] sits
//! under hyper and escapes those on their way in. It looks at the first line of a request only, and only when it knows
//! that one comes: at the beginning of a connection and after each request without a body.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Told when the next bytes of the client begin a request.
#[derive(Clone, Debug)]
pub struct Begins(Arc<AtomicBool>);

impl Begins {
    /// The next bytes begin a request, or go on with one.
    pub fn set(&self, begins: bool) {
        self.0.store(begins, Ordering::Relaxed);
    }
}

/// A connection whose requests have clean targets.
pub struct Targets<T> {
    stream: T,
    begins: Begins,
    /// In the target, behind the method.
    inside: bool,
    /// What did not fit the reader's buffer after it had grown.
    left: Vec<u8>,
}

impl<T> Targets<T> {
    /// Around a connection on which nothing has been read.
    pub fn new(stream: T) -> (Targets<T>, Begins) {
        let begins = Begins(Arc::new(AtomicBool::new(true)));
        (Targets { stream, begins: begins.clone(), inside: false, left: Vec::new() }, begins)
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
            if !self.begins.0.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            let Some(escaped) = self.escape(&buffer.filled()[start..]) else { return Poll::Ready(Ok(())) };
            buffer.set_filled(start);
            self.left = escaped;
        }
        let fits = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left[..fits]);
        self.left.drain(..fits);
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

    /// What hyper reads, `piece` bytes at a time.
    async fn read(sent: &[u8], piece: usize) -> Vec<u8> {
        let (mut targets, _begins) = Targets::new(sent);
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
        let (mut targets, begins) = Targets::new(&b"GET / HTTP/1.1\n\nGET /\" HTTP/1.1\n\n"[..]);
        let mut first = [0; 16];
        let _ = targets.read_exact(&mut first).await.expect("the first");
        begins.set(true);
        let mut second = String::new();
        let _ = targets.read_to_string(&mut second).await.expect("the second");
        assert_eq!(second, "GET /%22 HTTP/1.1\n\n");
    }
}
