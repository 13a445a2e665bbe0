//! Frames of a websocket's client.

use std::io::Read;
use std::os::unix::net::UnixStream;

use tokio::io::AsyncWriteExt;

/// Frames give no more payload than they have bytes, and the bridge ends with its client.
pub fn websocket(bytes: &[u8]) {
    let (near, mut far) = UnixStream::pair().expect("a socket pair");
    near.set_nonblocking(true).expect("a socket");
    let reading = std::thread::spawn(move || {
        let mut payload = Vec::new();
        far.read_to_end(&mut payload).map(|_| payload)
    });
    let bytes = bytes.to_vec();
    let length = bytes.len();
    crate::runtime::runtime().block_on(async {
        let near = tokio::net::UnixStream::from_std(near).expect("on the runtime");
        let (mut client, daemon) = tokio::io::duplex(bytes.len() + 64);
        client.write_all(&bytes).await.expect("there is room");
        let answers = async {
            // Pongs and the close.
            client.shutdown().await.expect("closed");
            let mut rest = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut client, &mut rest).await;
        };
        tokio::join!(server::websocket::bridge(daemon, Vec::new(), near, true), answers);
    });
    let payload = reading.join().expect("the reader").expect("read");
    assert!(payload.len() <= length, "{} bytes of payload in {length}", payload.len());
}
