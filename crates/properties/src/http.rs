//! Requests of HTTP, from the bytes of a connection to its end.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use server::connection;
use server::frame::{Config, Frame};
use server::peer::Peer;
use server::phase::Phase;
use server::stream::Socket;

/// Longest wait for an answer: none of these requests waits for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// A client that sends anything and closes its side is answered in HTTP or not at all, and its connection ends.
pub fn http(bytes: &[u8]) {
    let (mut client, daemon) = UnixStream::pair().expect("a socket pair");
    client.set_read_timeout(Some(LIMIT)).expect("a timeout");
    daemon.set_nonblocking(true).expect("a socket");
    let bytes = bytes.to_vec();
    let sending = std::thread::spawn(move || {
        // The daemon may have closed the connection on a request that it refused.
        let _ = client.write_all(&bytes);
        let _ = client.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let ended = client.read_to_end(&mut answer);
        assert!(!ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "the connection goes on");
        answer
    });
    crate::runtime::runtime().block_on(async {
        let socket = Socket::Unix(tokio::net::UnixStream::from_std(daemon).expect("on the runtime"));
        let frame: Arc<Frame<()>> = Arc::new(Frame::new(Config::default(), &[], Arc::new(()), Arc::new([])));
        let (_phase, serving) = tokio::sync::watch::channel(Phase::Serving);
        connection::serve(frame, socket, Peer::Process { uid: 0, gid: 0, pid: None }, None, serving).await;
    });
    let answer = sending.join().expect("the client");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer));
}
