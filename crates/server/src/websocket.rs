//! The server side of a websocket (RFC 6455), as far as attach needs it.
//!
//! Handshake, then frames: binary or text payload is the container's stdin, output goes out as one frame per read.
//! Fragments are passed on as they come, pings are answered, a close is answered and ends stdin. Invariants: every
//! frame of the client is masked and at most [`limits::WEBSOCKET_FRAME`] long; anything else ends the connection.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use model::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::limits;

/// What every server appends to the client's key.
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Output read at a time, and so the longest frame that is sent.
const OUTPUT_CHUNK: usize = 16 << 10;
/// Longest payload of ping, pong and close.
const CONTROL_PAYLOAD: usize = 125;

const OP_CONTINUATION: u8 = 0;
const OP_TEXT: u8 = 1;
const OP_BINARY: u8 = 2;
const OP_CLOSE: u8 = 8;
const OP_PING: u8 = 9;
const OP_PONG: u8 = 10;

/// An accepted handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    key: String,
    /// What the client wants to speak inside, which is repeated to it: browsers insist.
    protocol: Option<String>,
    /// Output goes out in binary frames; text frames below version 1.28.
    pub binary: bool,
}

impl Accept {
    /// Checks the fields of a handshake.
    pub fn new(headers: &HeaderMap, binary: bool) -> Result<Accept> {
        let is = |name, wanted: &str| {
            let value = headers.get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok());
            value.is_some_and(|value| value.eq_ignore_ascii_case(wanted))
        };
        if !is(UPGRADE, "websocket") {
            return Err(Error::invalid("not websocket protocol"));
        }
        if !is(SEC_WEBSOCKET_VERSION, "13") {
            return Err(Error::invalid("missing or bad WebSocket Version"));
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default();
        if key.is_empty() {
            return Err(Error::invalid("missing or bad WebSocket-Key"));
        }
        let protocol = headers.get(SEC_WEBSOCKET_PROTOCOL).map(|protocol| protocol.to_str().unwrap_or_default().trim());
        if protocol.is_some_and(|protocol| protocol.is_empty() || protocol.contains(',')) {
            return Err(Error::invalid("bad WebSocket protocol"));
        }
        Ok(Accept { key: key.to_owned(), protocol: protocol.map(str::to_owned), binary })
    }

    /// The answer to the handshake.
    pub fn head(&self) -> Vec<u8> {
        let text = format!("{}{ACCEPT_SUFFIX}", self.key);
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let accept = STANDARD.encode(digest);
        let protocol = self.protocol.as_ref().map(|protocol| format!("Sec-WebSocket-Protocol: {protocol}\r\n"));
        let protocol = protocol.unwrap_or_default();
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
        )
        .into_bytes()
    }
}

/// Carries frames of the client to `near` and its bytes back, until both directions ended.
pub async fn bridge<S: AsyncRead + AsyncWrite + Unpin>(stream: S, ahead: Vec<u8>, near: UnixStream, binary: bool) {
    let (reader, writer) = tokio::io::split(stream);
    let reader = std::io::Cursor::new(ahead).chain(reader);
    let writer = Mutex::new(writer);
    let (mut output, mut input) = near.into_split();
    let incoming = async {
        let ended = receive(reader, &mut input, &writer).await;
        // The end of the client's frames is the end of stdin.
        let _ = input.shutdown().await;
        ended
    };
    let outgoing = async {
        let sent = send_all(&mut output, &writer, if binary { OP_BINARY } else { OP_TEXT }).await;
        let mut writer = writer.lock().await;
        let _ = writer.write_all(&frame(OP_CLOSE, &1000u16.to_be_bytes())).await;
        let _ = writer.shutdown().await;
        sent
    };
    // When the output has ended nobody reads stdin any more: the client is not waited for.
    tokio::pin!(incoming, outgoing);
    tokio::select! {
        _ = &mut outgoing => {}
        ended = &mut incoming => if ended.is_ok() { let _ = outgoing.await; },
    }
}

/// A frame of the server: whole, not masked.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => bytes.push(length as u8),
        length @ 126..=0xffff => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

async fn send_all<R, W>(output: &mut R, writer: &Mutex<W>, opcode: u8) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; OUTPUT_CHUNK];
    loop {
        let count = output.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        writer.lock().await.write_all(&frame(opcode, &buffer[..count])).await?;
    }
}

/// The head of a client's frame.
struct FrameHead {
    opcode: u8,
    length: usize,
    mask: [u8; 4],
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

async fn read_head<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<FrameHead> {
    let mut start = [0; 2];
    reader.read_exact(&mut start).await?;
    let [first, second] = start;
    if first & 0x70 != 0 {
        return Err(broken("reserved bits are set"));
    }
    if second & 0x80 == 0 {
        return Err(broken("a client's frame has to be masked"));
    }
    let length = match second & 0x7f {
        126 => u64::from(reader.read_u16().await?),
        127 => reader.read_u64().await?,
        short => u64::from(short),
    };
    let opcode = first & 0x0f;
    let bound = if opcode >= OP_CLOSE { CONTROL_PAYLOAD } else { limits::WEBSOCKET_FRAME };
    let length =
        usize::try_from(length).ok().filter(|length| *length <= bound).ok_or_else(|| broken("frame too long"))?;
    let mut mask = [0; 4];
    reader.read_exact(&mut mask).await?;
    Ok(FrameHead { opcode, length, mask })
}

/// Passes payload on until the client closes; an error means that the connection is of no more use.
async fn receive<R, I, W>(mut reader: R, input: &mut I, writer: &Mutex<W>) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    I: AsyncWrite + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let head = read_head(&mut reader).await?;
        let mut payload = vec![0; head.length];
        reader.read_exact(&mut payload).await?;
        for (at, byte) in payload.iter_mut().enumerate() {
            *byte ^= head.mask[at % 4];
        }
        match head.opcode {
            // Input that nobody takes any more is dropped; the output still goes on.
            OP_CONTINUATION | OP_TEXT | OP_BINARY => drop(input.write_all(&payload).await),
            OP_PING => writer.lock().await.write_all(&frame(OP_PONG, &payload)).await?,
            OP_PONG => {}
            OP_CLOSE => return Ok(()),
            _ => return Err(broken("unknown kind of frame")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn handshake() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        headers
    }

    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(opcode, payload);
        bytes[1] |= 0x80;
        let start = bytes.len() - payload.len();
        let mask = [1, 2, 3, 4];
        for (at, byte) in bytes[start..].iter_mut().enumerate() {
            *byte ^= mask[at % 4];
        }
        bytes.splice(start..start, mask);
        bytes
    }

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn the_key_is_answered() {
        let head = Accept::new(&handshake(), true).expect("valid").head();
        assert!(String::from_utf8_lossy(&head).contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    }

    #[test]
    fn a_handshake_needs_its_fields() {
        for name in [UPGRADE, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_KEY] {
            let mut headers = handshake();
            headers.remove(&name);
            assert!(Accept::new(&headers, true).is_err(), "{name}");
        }
    }

    #[test]
    fn the_protocol_inside_is_repeated() {
        let accept = |protocol: &'static str| {
            let mut headers = handshake();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
            Accept::new(&headers, true)
        };
        let head = String::from_utf8(accept("tty").expect("valid").head()).expect("text");
        assert!(head.ends_with("\r\nSec-WebSocket-Protocol: tty\r\n\r\n"), "{head}");
        assert_eq!(accept("a, b").expect_err("two").message(), "bad WebSocket protocol");
    }

    #[test]
    fn frames_have_three_lengths() {
        assert_eq!(frame(OP_BINARY, b"ab"), [0x82, 2, b'a', b'b']);
        assert_eq!(frame(OP_BINARY, &[0; 126])[..4], [0x82, 126, 0, 126]);
        assert_eq!(frame(OP_TEXT, &[0; 65536])[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[tokio::test]
    async fn payload_goes_both_ways_and_a_close_ends_stdin() {
        let (mut client, server) = tokio::io::duplex(4096);
        let (near, mut far) = UnixStream::pair().expect("pair");
        let ahead = masked(OP_TEXT, b"in ");
        let bridge = tokio::spawn(bridge(server, ahead, near, true));
        client.write_all(&masked(OP_PING, b"p")).await.expect("written");
        client.write_all(&masked(OP_BINARY, b"put")).await.expect("written");
        client.write_all(&masked(OP_CLOSE, b"")).await.expect("written");
        let mut input = String::new();
        far.read_to_string(&mut input).await.expect("read");
        assert_eq!(input, "in put");
        far.write_all(b"out").await.expect("written");
        drop(far);
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).await.expect("read");
        let mut expected = frame(OP_PONG, b"p");
        expected.extend(frame(OP_BINARY, b"out"));
        expected.extend(frame(OP_CLOSE, &1000u16.to_be_bytes()));
        assert_eq!(seen, expected);
        bridge.await.expect("ended");
    }

    #[tokio::test]
    async fn frames_that_break_the_rules_are_refused() {
        for bad in
            [frame(OP_BINARY, b"unmasked"), vec![0xf2, 0x80, 0, 0, 0, 0], [&[0x82, 0xff][..], &[0xff; 12]].concat()]
        {
            assert!(read_head(&mut bad.as_slice()).await.is_err());
        }
    }
}
