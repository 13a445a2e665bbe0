//! Requests that are huge, slow or no requests at all: refused or closed, in bounded time and memory.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use testkit::{Daemon, process};

use crate::calls;
use crate::with_busybox;

/// Longest time until the daemon has refused. Shorter than it waits for a body that does not come.
const SOON: Duration = Duration::from_secs(50);
/// The daemon's memory, whatever comes.
const MEMORY_KIB: u64 = 40 << 10;

/// Sends pieces until there are none or the daemon does not want more; the first line of what it says.
fn send(d: &Daemon, pieces: impl Iterator<Item = Vec<u8>>) -> String {
    let begin = Instant::now();
    let mut stream = UnixStream::connect(d.socket()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    let mut sent = 0;
    for piece in pieces {
        sent += piece.len();
        if stream.write_all(&piece).is_err() {
            break;
        }
    }
    let mut said = vec![0; 4096];
    let count = stream.read(&mut said).unwrap_or(0);
    assert!(begin.elapsed() < SOON, "no end after {sent} bytes and {:?}", begin.elapsed());
    String::from_utf8_lossy(&said[..count]).lines().next().unwrap_or_default().to_string()
}

#[track_caller]
fn refused(d: &Daemon, what: &str, pieces: impl Iterator<Item = Vec<u8>>) {
    let said = send(d, pieces);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{what}: {said:?}");
    let rss = process::memory_kib(d.pid(), "status", "RssAnon").unwrap();
    assert!(rss < MEMORY_KIB, "{what}: the daemon has {rss} KiB");
    calls::prompt(d, &[]);
}

fn create_head(more: &str) -> Vec<u8> {
    format!("POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n{more}\r\n\r\n")
        .into_bytes()
}

#[test]
fn too_large() {
    let d = with_busybox();
    let megabyte = vec![b'x'; 1 << 20];
    let head = std::iter::once(create_head("Content-Length: 104857600"));
    let start = std::iter::once(br#"{"Image":""#.to_vec());
    refused(&d, "100 MB of JSON", head.chain(start).chain(std::iter::repeat_n(megabyte.clone(), 100)));
    let chunk = [format!("{:x}\r\n", megabyte.len()).into_bytes(), megabyte.clone(), b"\r\n".to_vec()].concat();
    let head = std::iter::once(create_head("Transfer-Encoding: chunked"));
    refused(&d, "chunks without end", head.chain(std::iter::repeat_n(chunk, 200)));
    let header = b"GET /_ping HTTP/1.1\r\nHost: d\r\nX-Long: ".to_vec();
    refused(&d, "a field of 1 MB", [header.clone(), megabyte.clone(), b"\r\n\r\n".to_vec()].into_iter());
    let fields: Vec<u8> = (0..20_000).flat_map(|n| format!("X-{n}: {n}\r\n").into_bytes()).collect();
    refused(&d, "20000 fields", [b"GET /_ping HTTP/1.1\r\n".to_vec(), fields, b"\r\n".to_vec()].into_iter());
    refused(
        &d,
        "a path of 1 MB",
        [b"GET /".to_vec(), megabyte.clone(), b" HTTP/1.1\r\nHost: d\r\n\r\n".to_vec()].into_iter(),
    );
    d.finish();
}

#[test]
fn too_deep() {
    let d = with_busybox();
    for (what, text) in [
        ("arrays", "[".repeat(3 << 20)),
        ("objects", r#"{"a":"#.repeat(700_000)),
        ("labels", format!(r#"{{"Labels":{}"#, r#"{"a":"#.repeat(500_000))),
        ("an unknown key", format!(r#"{{"zz":{}{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20))),
    ] {
        let answer = d.http("POST", "/containers/create", &text);
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
    }
    let nested = format!(r#"{{"label":{}}}"#, "[".repeat(50_000));
    let answer = d.http("GET", &format!("/containers/json?filters={nested}"), "");
    assert_eq!(answer.status, 400, "{}", answer.text());
    calls::prompt(&d, &[]);
    d.finish();
}

#[test]
fn no_http() {
    let d = with_busybox();
    let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let bodies: [(&str, Vec<u8>); 10] = [
        ("noise", noise),
        ("zeros", vec![0; 100_000]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(100)),
        ("a bad version", b"GET /_ping HTTP/9.9\r\n\r\n".to_vec()),
        ("a negative length", create_head("Content-Length: -1")),
        ("two lengths", create_head("Content-Length: 5\r\nContent-Length: 6")),
        ("a huge length", create_head("Content-Length: 99999999999999999999999")),
        ("a huge chunk", [create_head("Transfer-Encoding: chunked"), b"FFFFFFFFFFFFFFFFF\r\n".to_vec()].concat()),
        ("a chunk of no size", [create_head("Transfer-Encoding: chunked"), b"zz\r\n".to_vec()].concat()),
        ("bytes in the path", b"GET /containers/%00%ff%fe/json HTTP/1.1\r\nHost: d\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in bodies {
        refused(&d, what, std::iter::once(bytes));
    }
    d.finish();
}

/// Clients that send a byte now and then keep nobody else from being served, and cost little.
#[test]
fn too_slow() {
    let d = with_busybox();
    let before = process::descriptors(d.pid()).len();
    let mut slow: Vec<UnixStream> = (0..200).map(|_| UnixStream::connect(d.socket()).unwrap()).collect();
    for (n, stream) in slow.iter_mut().enumerate() {
        let request = if n % 2 == 0 {
            b"GET /_ping HTTP/1.1\r\nHost: d\r\nX-Slow: ".to_vec()
        } else {
            [create_head("Content-Length: 1000000"), br#"{"Image":"#.to_vec()].concat()
        };
        stream.write_all(&request).unwrap();
    }
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        slow.iter_mut().for_each(|stream| drop(stream.write_all(b"x")));
        calls::prompt(&d, &[]);
    }
    let rss = process::memory_kib(d.pid(), "status", "RssAnon").unwrap();
    assert!(rss < MEMORY_KIB, "the daemon has {rss} KiB");
    drop(slow);
    let gone = testkit::command::eventually(SOON, || process::descriptors(d.pid()).len() <= before);
    assert!(gone, "{} descriptors, {before} before", process::descriptors(d.pid()).len());
    d.finish();
}

/// Bodies of the largest allowed size, several at once.
#[test]
fn large_and_allowed() {
    let d = with_busybox();
    let mut body = calls::script("true");
    body["Env"] = (0..30_000).map(|n| format!("VARIABLE_{n}={}", "v".repeat(60))).collect::<Vec<_>>().into();
    let text = body.to_string();
    assert!(text.len() > 2 << 20);
    calls::create(&d, "large", &body);
    // As with the reference's runtime the program's own error stream tells.
    calls::start(&d, "large");
    calls::until(&d, "large", "exited", 255);
    let said = d.http("GET", "/containers/large/logs?stderr=1", "").expect(200).text();
    assert!(said.contains("argument list too long"), "{said}");
    calls::prompt(&d, &["large"]);
    calls::remove(&d, "large");
    let clients: Vec<_> = (0..4)
        .map(|n| {
            let (socket, text) = (d.socket(), text.clone());
            std::thread::spawn(move || {
                let mut connection = testkit::Connection::open(&socket).unwrap();
                connection.request("POST", &format!("/containers/create?name=many-{n}"), &text).expect(201)
            })
        })
        .collect();
    clients.into_iter().for_each(|client| drop(client.join().unwrap()));
    d.remove_containers();
    d.finish();
}
