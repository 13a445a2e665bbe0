//! Clients of gRPC that break the rules of HTTP/2 or stretch them: each is ended or answered, and the daemon stays small.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bollard_buildkit_proto::health::HealthCheckRequest;
use bollard_buildkit_proto::health::health_client::HealthClient;
use testkit::grpc::Channel;
use testkit::{Daemon, process};
use tonic::Code;

use crate::grpc::calling;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames (RFC 9113, 6) and their flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Longest wait for the server.
const SILENCE: Duration = Duration::from_secs(60);
/// Kilobytes by which an attack may make the daemon larger.
const GROWTH: u64 = 128 << 10;

struct Attacker(UnixStream);

impl Attacker {
    fn new(d: &Daemon) -> Attacker {
        let mut stream = UnixStream::connect(d.socket()).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        stream.set_write_timeout(Some(SILENCE)).unwrap();
        stream.write_all(PREFACE).unwrap();
        let mut attacker = Attacker(stream);
        attacker.send(SETTINGS, 0, 0, &[]).unwrap();
        attacker
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat())
    }

    /// Type and stream of the next frame.
    fn frame(&mut self) -> (u8, u32) {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).unwrap();
        let length = u64::from(u32::from_be_bytes([0, head[0], head[1], head[2]]));
        io::copy(&mut (&mut self.0).take(length), &mut io::sink()).unwrap();
        (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]))
    }

    /// Whether the server closes the connection, whatever it says before.
    fn is_ended(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }
}

/// Fields of a call in HPACK (RFC 7541), each as a literal.
fn call(path: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let kind = [&[0x0f, 0x10][..], &text("application/grpc")].concat();
    [&[0x83, 0x86, 0x04][..], &text(path), &[0x01], &text("d"), &kind, &[0x00], &text("te"), &text("trailers")].concat()
}

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

fn memory(d: &Daemon) -> u64 {
    process::memory_kib(d.pid(), "status", "VmRSS:").unwrap()
}

/// Another client is answered, and the daemon has not grown.
fn is_well(d: &Daemon, before: u64, attack: &str) {
    calling(d, async |channel| {
        let mut health = HealthClient::with_origin(channel, Channel::origin());
        health.check(HealthCheckRequest::default()).await.unwrap();
    });
    let now = memory(d);
    assert!(now < before + GROWTH, "{attack}: {before} kB before, {now} kB after");
}

#[test]
fn attacks_on_http2_end_with_their_connection() {
    let d = Daemon::start();
    let before = memory(&d);
    // Calls that are given up at once (CVE-2023-44487).
    let mut attacker = Attacker::new(&d);
    for stream in (1..40_000).step_by(2) {
        let begun = attacker.send(HEADERS, END_HEADERS, stream, &call(CHECK));
        if begun.and_then(|()| attacker.send(RESET, 0, stream, &[0, 0, 0, 8])).is_err() {
            break;
        }
    }
    drop(attacker);
    is_well(&d, before, "rapid reset");
    // Fields without an end.
    let mut attacker = Attacker::new(&d);
    let field = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x7e][..], &[b'y'; 16_000]].concat();
    let _ = attacker.send(HEADERS, 0, 1, &call(CHECK));
    let mut is_taken = true;
    for _ in 0..10_000 {
        is_taken = attacker.send(CONTINUATION, 0, 1, &field[..16_000]).is_ok();
        if !is_taken {
            break;
        }
    }
    assert!(!is_taken || attacker.is_ended(), "fields without an end are taken");
    is_well(&d, before, "fields without an end");
    // A frame that is larger than any may be.
    let mut attacker = Attacker::new(&d);
    let _ = attacker.send(HEADERS, END_HEADERS, 1, &vec![0; 1 << 20]);
    assert!(attacker.is_ended());
    is_well(&d, before, "a large frame");
    d.finish();
}

#[test]
fn calls_beyond_all_bounds_are_refused() {
    let d = Daemon::start();
    let before = memory(&d);
    // A message that says that it is of a gigabyte.
    let mut attacker = Attacker::new(&d);
    attacker.send(HEADERS, END_HEADERS, 1, &call(CHECK)).unwrap();
    attacker.send(DATA, 0, 1, &[0, 0x40, 0, 0, 0, 1, 2, 3]).unwrap();
    // The answer comes before the message has.
    while attacker.frame() != (HEADERS, 1) {}
    drop(attacker);
    let large = HealthCheckRequest { service: "x".repeat(8 << 20) };
    calling(&d, async |channel| {
        let mut health = HealthClient::with_origin(channel, Channel::origin());
        assert_eq!(health.check(large).await.unwrap_err().code(), Code::OutOfRange);
    });
    is_well(&d, before, "a large message");
    // More calls than one connection may have, whose answers nobody reads.
    let mut attacker = Attacker::new(&d);
    let request = [0, 0, 0, 0, 0];
    for stream in (1..20_001).step_by(2) {
        let begun = attacker.send(HEADERS, END_HEADERS, stream, &call(WATCH));
        if begun.and_then(|()| attacker.send(DATA, END_STREAM, stream, &request)).is_err() {
            break;
        }
    }
    is_well(&d, before, "many calls");
    drop(attacker);
    // Clients that leave in the middle of a frame, and of the preface.
    for cut in [3, 20, PREFACE.len(), PREFACE.len() + 5] {
        let mut stream = UnixStream::connect(d.socket()).unwrap();
        let all = [PREFACE, &[0, 0, 100, HEADERS, 0, 0, 0, 0, 1, 2, 3]].concat();
        stream.write_all(&all[..cut]).unwrap();
        drop(stream);
    }
    is_well(&d, before, "clients that leave");
    d.finish();
}
