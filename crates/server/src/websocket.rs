//! The server side of a websocket (RFC 6455), as far as attach needs it.
//!
//! Handshake, then frames, whose heads `tungstenite` reads and writes: binary or text payload is the container's stdin, output goes out as one frame per read.
//! Fragments are passed on as they come, pings are answered, a close is answered and ends stdin. Invariants: every
//! frame of the client is masked and at most [`limits::WEBSOCKET_FRAME`] long; anything else ends the connection.

use std::io::{self, Cursor};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use model::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::limits;

/// What every server appends to the client's key.
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Output read at a time, and so the longest frame that is sent.
const OUTPUT_CHUNK: usize = 16 << 10;
/// Input read at a time; longer payload is read into its own place.
const INPUT_CHUNK: usize = 4 << 10;
/// Longest payload of ping, pong and close (RFC 6455, 5.5).
const CONTROL_PAYLOAD: usize = 125;
/// Bytes of the longest head of a frame (RFC 6455, 5.2).
const FRAME_HEAD: usize = 14;

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
    let reader = BufReader::with_capacity(INPUT_CHUNK, Cursor::new(ahead).chain(reader));
    let writer = Mutex::new(writer);
    let (mut output, mut input) = near.into_split();
    let incoming = async {
        let ended = receive(reader, &mut input, &writer).await;
        // The end of the client's frames is the end of stdin.
        let _ = input.shutdown().await;
        ended
    };
    let outgoing = async {
        let sent = send_all(&mut output, &writer, if binary { Data::Binary } else { Data::Text }).await;
        let mut writer = writer.lock().await;
        let _ = writer.write_all(&frame(OpCode::Control(Control::Close), &normal_closure())).await;
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

/// What a close says of an end without trouble.
fn normal_closure() -> [u8; 2] {
    u16::from(CloseCode::Normal).to_be_bytes()
}

/// A frame of the server: whole, not masked.
fn frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_HEAD + payload.len());
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(payload.len() as u64, &mut bytes).expect("a vector takes every byte");
    bytes.extend_from_slice(payload);
    bytes
}

async fn send_all<R, W>(output: &mut R, writer: &Mutex<W>, kind: Data) -> io::Result<()>
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
        writer.lock().await.write_all(&frame(OpCode::Data(kind), &buffer[..count])).await?;
    }
}

/// The head of a client's frame.
struct FrameHead {
    opcode: OpCode,
    length: usize,
    mask: [u8; 4],
}

fn broken(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

async fn read_head<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<FrameHead> {
    let mut bytes = Vec::with_capacity(FRAME_HEAD);
    let (header, length) = loop {
        bytes.push(reader.read_u8().await?);
        if let Some(head) = FrameHeader::parse(&mut Cursor::new(&bytes)).map_err(broken)? {
            break head;
        }
    };
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(broken("reserved bits are set"));
    }
    let mask = header.mask.ok_or_else(|| broken("a client's frame has to be masked"))?;
    let bound = if matches!(header.opcode, OpCode::Control(_)) { CONTROL_PAYLOAD } else { limits::WEBSOCKET_FRAME };
    let length =
        usize::try_from(length).ok().filter(|length| *length <= bound).ok_or_else(|| broken("frame too long"))?;
    Ok(FrameHead { opcode: header.opcode, length, mask })
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
            OpCode::Data(_) => drop(input.write_all(&payload).await),
            OpCode::Control(Control::Ping) => {
                writer.lock().await.write_all(&frame(OpCode::Control(Control::Pong), &payload)).await?;
            }
            OpCode::Control(Control::Close) => return Ok(()),
            OpCode::Control(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    const BINARY: OpCode = OpCode::Data(Data::Binary);
    const TEXT: OpCode = OpCode::Data(Data::Text);
    const PING: OpCode = OpCode::Control(Control::Ping);
    const PONG: OpCode = OpCode::Control(Control::Pong);
    const CLOSE: OpCode = OpCode::Control(Control::Close);

    fn handshake() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        headers
    }

    fn masked(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
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
        assert_eq!(frame(BINARY, b"ab"), [0x82, 2, b'a', b'b']);
        assert_eq!(frame(BINARY, &[0; 126])[..4], [0x82, 126, 0, 126]);
        assert_eq!(frame(TEXT, &[0; 65536])[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[tokio::test]
    async fn payload_goes_both_ways_and_a_close_ends_stdin() {
        let (mut client, server) = tokio::io::duplex(4096);
        let (near, mut far) = UnixStream::pair().expect("pair");
        let ahead = masked(TEXT, b"in ");
        let bridge = tokio::spawn(bridge(server, ahead, near, true));
        client.write_all(&masked(PING, b"p")).await.expect("written");
        client.write_all(&masked(BINARY, b"put")).await.expect("written");
        client.write_all(&masked(CLOSE, b"")).await.expect("written");
        let mut input = String::new();
        far.read_to_string(&mut input).await.expect("read");
        assert_eq!(input, "in put");
        far.write_all(b"out").await.expect("written");
        drop(far);
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).await.expect("read");
        let mut expected = frame(PONG, b"p");
        expected.extend(frame(BINARY, b"out"));
        expected.extend(frame(CLOSE, &1000u16.to_be_bytes()));
        assert_eq!(seen, expected);
        bridge.await.expect("ended");
    }

    #[tokio::test]
    async fn frames_that_break_the_rules_are_refused() {
        let bad: [(&str, Vec<u8>); 7] = [
            ("reserved bits", vec![0xf2, 0x80, 0, 0, 0, 0]),
            ("masked", frame(BINARY, b"unmasked")),
            ("too long", [&[0x82, 0xff][..], &[0xff; 12]].concat()),
            ("too long", [&[0x89, 0xfe, 0, 126][..], &[0; 4]].concat()),
            ("opcode", vec![0x83, 0x80, 0, 0, 0, 0]),
            ("opcode", vec![0x8b, 0x80, 0, 0, 0, 0]),
            ("end of file", vec![0x82, 0xfe, 0]),
        ];
        for (why, bytes) in bad {
            let refused = read_head(&mut bytes.as_slice()).await.err().map(|error| error.to_string());
            assert!(refused.as_deref().is_some_and(|text| text.contains(why)), "{why}: {refused:?}");
        }
    }

    #[tokio::test]
    async fn a_frame_has_at_most_its_bound_and_no_byte_behind_its_head_is_taken() {
        let mut longest = masked(BINARY, &vec![7; limits::WEBSOCKET_FRAME]);
        let head = read_head(&mut longest.as_slice()).await.expect("at the bound");
        assert_eq!((head.opcode, head.length, head.mask), (BINARY, limits::WEBSOCKET_FRAME, [1, 2, 3, 4]));
        let length = (limits::WEBSOCKET_FRAME as u64 + 1).to_be_bytes();
        longest[2..10].copy_from_slice(&length);
        assert!(read_head(&mut longest.as_slice()).await.is_err());
        let short = masked(PING, b"ab");
        let mut rest = short.as_slice();
        assert_eq!(read_head(&mut rest).await.expect("a ping").length, 2);
        assert_eq!(rest, [b'a' ^ 1, b'b' ^ 2]);
    }

    #[tokio::test]
    async fn fragments_are_passed_on_as_they_come() {
        let (mut client, server) = tokio::io::duplex(4096);
        let (near, mut far) = UnixStream::pair().expect("pair");
        let bridge = tokio::spawn(bridge(server, Vec::new(), near, false));
        let mut first = masked(TEXT, b"\xc3");
        first[0] &= 0x7f;
        client.write_all(&first).await.expect("written");
        let mut byte = [0; 1];
        far.read_exact(&mut byte).await.expect("before the message is whole, and no UTF-8");
        assert_eq!(byte, *b"\xc3");
        client.write_all(&masked(OpCode::Data(Data::Continue), b"\xa9")).await.expect("written");
        far.read_exact(&mut byte).await.expect("the other fragment");
        assert_eq!(byte, *b"\xa9");
        drop((client, far));
        bridge.await.expect("ended");
    }
}
