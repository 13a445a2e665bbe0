//! Asking the running daemon over its control socket: one request, one answer, blocking.
//!
//! HTTP/1.0 is spoken on purpose: the answer then ends with the connection and is never cut into chunks. What has no end that
//! could be told beforehand is sent and taken in the chunks of HTTP/1.1, which say whether it is whole.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{Error, Kind, Result};
use serde::Deserialize;

/// Longest answer, head included.
const ANSWER: u64 = 64 << 20;
/// Longest line of a head, or in front of a chunk.
const LINE: u64 = 16 << 10;
/// Bytes sent at once.
const CHUNK: usize = 256 << 10;

/// What a command was called with that asks a daemon.
#[derive(Clone, Copy)]
pub struct Asked<'c> {
    /// Of the daemon that is meant.
    pub exec_root: &'c Path,
    /// As many as the command needs, or takes.
    pub operands: &'c [String],
    /// The command's own that were given.
    pub switches: &'c [String],
}

impl Asked<'_> {
    /// Whether a switch was given.
    pub fn has(&self, switch: &str) -> bool {
        self.switches.iter().any(|given| given == switch)
    }
}

/// Where the daemon with this exec root listens for its own commands.
pub fn socket(exec_root: &Path) -> PathBuf {
    exec_root.join("control.sock")
}

/// The body of the daemon's answer to `GET path`. Silence longer than `patience` ends the waiting.
///
/// Errors: `Unavailable` when no daemon runs; else what the daemon refused with, by its status.
pub fn get(socket: &Path, path: &str, patience: Duration) -> Result<Vec<u8>> {
    ask(socket, &format!("GET {path} HTTP/1.0\r\nHost: gantryd\r\n\r\n"), patience)
}

/// The same to `POST path` with a JSON body.
pub fn post(socket: &Path, path: &str, body: &str, patience: Duration) -> Result<Vec<u8>> {
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: gantryd\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    ask(socket, &(head + body), patience)
}

/// The same to `DELETE path`, without a body.
pub fn delete(socket: &Path, path: &str, patience: Duration) -> Result<Vec<u8>> {
    ask(socket, &format!("DELETE {path} HTTP/1.0\r\nHost: gantryd\r\n\r\n"), patience)
}

/// Writes the body of the daemon's answer to `GET path`, however long it is, to `out`.
///
/// Errors: as [`get`]; also when the answer breaks off.
pub fn download(socket: &Path, path: &str, out: &mut dyn Write) -> Result<()> {
    let mut stream = UnixStream::connect(socket).map_err(|error| unreachable(socket, error))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: gantryd\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = BufReader::with_capacity(CHUNK, stream);
    let status = head(&mut answer)?;
    let mut body = io::BufWriter::with_capacity(CHUNK, out);
    if status == 200 {
        while copy_chunk(&mut answer, &mut body)? > 0 {}
        return Ok(body.flush()?);
    }
    drop(body);
    let mut told = Vec::new();
    answer.take(ANSWER).read_to_end(&mut told)?;
    Err(refusal(status, &told))
}

/// Sends `POST path` with what `body` holds; the body of the answer.
pub fn upload(socket: &Path, path: &str, body: &mut dyn Read) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).map_err(|error| unreachable(socket, error))?;
    let head = "Host: gantryd\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut sent = stream.write_all(format!("POST {path} HTTP/1.1\r\n{head}").as_bytes());
    let mut buffer = vec![0; CHUNK];
    while sent.is_ok() {
        let n = body.read(&mut buffer).map_err(|error| Error::from(error).prefix("reading the standard input"))?;
        sent = write!(stream, "{n:x}\r\n").and_then(|()| stream.write_all(&buffer[..n]));
        sent = sent.and_then(|()| stream.write_all(b"\r\n"));
        if n == 0 {
            break;
        }
    }
    // A daemon that refuses does not read on: its answer says why.
    let mut answer = Vec::new();
    let read = stream.take(ANSWER).read_to_end(&mut answer);
    let (status, body) = taken_apart(&answer).ok_or_else(|| match sent.and(read.map(drop)) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Error::from(error).prefix("asking the daemon")
        }
        _ => broken(),
    })?;
    if (200..300).contains(&status) { Ok(body.to_vec()) } else { Err(refusal(status, body)) }
}

/// Reads a head; the status.
fn head(answer: &mut impl BufRead) -> Result<u16> {
    let first = line(answer)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    while !line(answer)?.is_empty() {}
    Ok(status)
}

/// One line without its end.
fn line(answer: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    answer.by_ref().take(LINE).read_line(&mut line)?;
    Ok(line.strip_suffix('\n').ok_or_else(broken)?.trim_end_matches('\r').to_owned())
}

/// Copies one chunk; its bytes, 0 at the end (RFC 9112, section 7.1).
fn copy_chunk(answer: &mut impl BufRead, out: &mut dyn Write) -> Result<u64> {
    let size = line(answer)?;
    let size = u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).map_err(|_| broken())?;
    if io::copy(&mut answer.by_ref().take(size), out)? != size || !line(answer)?.is_empty() {
        return Err(broken());
    }
    Ok(size)
}

fn ask(socket: &Path, request: &str, patience: Duration) -> Result<Vec<u8>> {
    let stream = UnixStream::connect(socket).map_err(|error| unreachable(socket, error))?;
    let answer = exchange(stream, request, patience).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => broken(),
        _ => Error::from(error).prefix("asking the daemon"),
    })?;
    let (status, body) = taken_apart(&answer).ok_or_else(broken)?;
    if (200..300).contains(&status) { Ok(body.to_vec()) } else { Err(refusal(status, body)) }
}

fn exchange(mut stream: UnixStream, request: &str, patience: Duration) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

/// A daemon that ends may have been met.
fn broken() -> Error {
    Error::unavailable("the daemon ended the connection without a whole answer")
}

fn unreachable(socket: &Path, error: io::Error) -> Error {
    let text = format!("cannot reach a daemon at {}", socket.display());
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Error::unavailable(format!("{text}: none is running there"))
        }
        io::ErrorKind::PermissionDenied => Error::forbidden(format!("{text}: only root may")),
        _ => Error::from(error).prefix(text),
    }
}

/// Status and body. A body shorter than announced is none.
fn taken_apart(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&answer[..end]).ok()?, &answer[end + 4..]);
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let announced = match length {
        Some((_, value)) => value.trim().parse().ok()?,
        None => body.len(),
    };
    if body.len() == announced { Some((status, body)) } else { None }
}

fn refusal(status: u16, body: &[u8]) -> Error {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    let message = match serde_json::from_slice::<Refusal>(body) {
        Ok(told) => told.message,
        Err(_) => format!("the daemon answered with status {status}"),
    };
    let kind = match status {
        400 => Kind::InvalidParameter,
        404 => Kind::NotFound,
        409 => Kind::Conflict,
        501 => Kind::NotImplemented,
        503 => Kind::Unavailable,
        _ => Kind::System,
    };
    Error::new(kind, message)
}

/// A text as one or several segments of a path.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'/' | b':' | b'@' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let whole = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(taken_apart(whole), Some((200, &b"{}"[..])));
        assert_eq!(taken_apart(&whole[..whole.len() - 1]), None);
        assert_eq!(taken_apart(b"HTTP/1.0 404 Not Found\r\n\r\nx"), Some((404, &b"x"[..])));
        assert_eq!(taken_apart(b"nonsense"), None);
    }

    #[test]
    fn refusals_keep_their_kind_and_text() {
        let error = refusal(404, br#"{"message":"No such image: x:latest"}"#);
        assert_eq!((error.kind(), error.message()), (Kind::NotFound, "No such image: x:latest"));
        assert_eq!(refusal(500, b"").message(), "the daemon answered with status 500");
    }

    #[test]
    fn chunks_say_whether_they_are_all() {
        let read = |mut bytes: &[u8]| -> Result<Vec<u8>> {
            let mut out = Vec::new();
            assert_eq!(head(&mut bytes)?, 200);
            while copy_chunk(&mut bytes, &mut out)? > 0 {}
            Ok(out)
        };
        let whole = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n";
        assert_eq!(read(whole).unwrap(), b"abcd");
        for length in 17..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
        assert!(read(b"HTTP/1.1 200 OK\r\n\r\nx\r\n").is_err());
    }

    #[test]
    fn nobody_there_is_said_plainly() {
        let dir = tempfile::tempdir().unwrap();
        let error = get(&socket(dir.path()), "/", Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.message().ends_with("control.sock: none is running there"), "{}", error.message());
    }

    #[test]
    fn names_become_paths() {
        assert_eq!(escaped("localhost:5000/a/b:1"), "localhost:5000/a/b:1");
        assert_eq!(escaped("a b?c"), "a%20b%3Fc");
    }
}
