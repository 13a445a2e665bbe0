//! An upgrade to HTTP/2 in the clear (RFC 7540, 3.2, as BuildKit's clients use it: behind the 101 comes the preface).

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use model::Result;

use super::{LIMIT, Seen, Server, parts, segment};
use crate::hijack::{Head, Hijack};
use crate::request::Request;
use crate::routes::Outcome;

/// The connection preface of a client (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;

/// A frame on stream 0 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    [&[0, 0, length, kind, flags, 0, 0, 0, 0][..], payload].concat()
}

/// Type, flags and payload of the next frame.
fn read_frame(stream: &mut UnixStream) -> std::io::Result<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let mut payload = vec![0; usize::from(head[2])];
    stream.read_exact(&mut payload)?;
    Ok((head[3], head[4], payload))
}

/// The handler: what comes behind the upgrade is given to a server of HTTP/2.
pub async fn session(_: Arc<Seen>, request: Request) -> Result<Outcome> {
    let protocol = request.offered_protocol(&["h2c"])?;
    Ok(Outcome::Hijack(Hijack::new(Head::Protocol(protocol), |socket, ahead| async move {
        let served = tokio::task::spawn_blocking(move || http2(socket, ahead)).await;
        served.expect("no panic").expect("no error");
    })))
}

/// Greets a client and answers its pings until it closes its side.
fn http2(socket: OwnedFd, ahead: Vec<u8>) -> std::io::Result<()> {
    let mut stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.write_all(&frame(SETTINGS, 0, &[]))?;
    let mut preface = ahead;
    let came = preface.len();
    assert!(came <= PREFACE.len(), "no frame is sent before the 101");
    preface.resize(PREFACE.len(), 0);
    stream.read_exact(&mut preface[came..])?;
    assert_eq!(preface, PREFACE);
    while let Ok((kind, flags, payload)) = read_frame(&mut stream) {
        match (kind, flags) {
            (SETTINGS, 0) => stream.write_all(&frame(SETTINGS, ACK, &[]))?,
            (PING, 0) => stream.write_all(&frame(PING, ACK, &payload))?,
            _ => {}
        }
    }
    Ok(())
}

fn upgrade(offer: &str) -> String {
    format!("POST /v1.45/session HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: {offer}\r\n\r\n")
}

/// Speaks HTTP/2 with the server; `early` bytes of the preface come with the request.
fn speak(early: usize) {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(&[upgrade("h2c").as_bytes(), &PREFACE[..early]].concat()).expect("written");
    let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&segment(&mut stream)), String::from_utf8_lossy(head));
    stream.write_all(&PREFACE[early..]).expect("preface");
    stream.write_all(&frame(SETTINGS, 0, &[])).expect("settings");
    stream.write_all(&frame(PING, 0, b"12345678")).expect("ping");
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(read_frame(&mut stream).expect("frame"));
    }
    assert_eq!(seen, [(SETTINGS, 0, vec![]), (SETTINGS, ACK, vec![]), (PING, ACK, b"12345678".to_vec())]);
    stream.shutdown(std::net::Shutdown::Write).expect("half-closed");
    assert_eq!(stream.read(&mut [0; 1]).expect("end"), 0);
}

#[test]
fn a_connection_goes_on_as_http2() {
    speak(0);
}

/// A client that does not wait for the 101 loses nothing.
#[test]
fn a_preface_that_came_ahead_is_not_lost() {
    for early in [1, 16, PREFACE.len()] {
        speak(early);
    }
}

#[test]
fn other_protocols_are_refused_by_name() {
    let server = Server::start();
    let ask = |fields: &str| {
        let (status, _, body) = parts(&server.ask(&format!("POST /session HTTP/1.1\nContent-Length: 0{fields}")));
        (status, body)
    };
    let refusal = |text: &str| ("HTTP/1.1 400 Bad Request".to_owned(), format!("{{\"message\":\"{text}\"}}\n"));
    assert_eq!(ask(""), refusal("no upgrade proto in request"));
    assert_eq!(ask("\nUpgrade: tcp"), refusal("protocol tcp not supported"));
    // Of several the first that is known counts, in any case of letters.
    let mut stream = server.connect();
    stream.set_read_timeout(Some(LIMIT)).expect("timeout");
    stream.write_all(upgrade("tls/1.0, H2C").as_bytes()).expect("written");
    assert!(segment(&mut stream).ends_with(b"\r\nUpgrade: h2c\r\n\r\n"));
    stream.write_all(PREFACE).expect("preface");
}
