//! Bytes in, bytes out: nothing between the test and the socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use testkit::Daemon;

/// Longest silence of the server within one answer.
const SILENCE: Duration = Duration::from_secs(120);

/// A connection of its own.
#[track_caller]
pub fn connect(d: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(d.socket()).expect("the daemon's socket accepts");
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    stream
}

/// Sends bytes and reads until the server closes.
#[track_caller]
pub fn exchange(d: &Daemon, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(d);
    stream.write_all(request).unwrap();
    to_end(&mut stream)
}

/// Reads until the server closes; a reset or silence is told in the bytes.
pub fn to_end(stream: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => all.extend(b"<<RST>>"),
        Err(_) => all.extend(b"<<open>>"),
    }
    all
}

/// What one read gives: at most what the server sent up to now.
#[track_caller]
pub fn segment(stream: &mut UnixStream) -> Vec<u8> {
    let mut buffer = vec![0; 64 << 10];
    let count = stream.read(&mut buffer).expect("the server sends");
    buffer.truncate(count);
    buffer
}

/// As many bytes as `wanted` has, in however many pieces they come.
#[track_caller]
pub fn expect(stream: &mut UnixStream, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    stream.read_exact(&mut got).expect("the server sends as much");
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(wanted));
}

/// Reads until what has come ends with this.
#[track_caller]
pub fn until(stream: &mut UnixStream, end: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while !all.ends_with(end) {
        let piece = segment(stream);
        assert_ne!(piece, b"", "the server has closed after {:?}", String::from_utf8_lossy(&all));
        all.extend(piece);
    }
    all
}

/// Splits an answer into head lines and body.
#[track_caller]
pub fn split(answer: &[u8]) -> (Vec<String>, Vec<u8>) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(answer)));
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    (head.split("\r\n").map(str::to_string).collect(), answer[end + 4..].to_vec())
}

/// Joins the chunks of a body that must end properly.
#[track_caller]
pub fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").expect("a chunk's size");
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).expect("a chunk's size in hexadecimal");
        let (chunk, rest) = body[end + 2..].split_at(size);
        assert_eq!(&rest[..2], b"\r\n", "a chunk ends with a newline");
        all.extend(chunk);
        body = &rest[2..];
        if size == 0 {
            assert_eq!(body, b"", "something follows the last chunk");
            return all;
        }
    }
}
