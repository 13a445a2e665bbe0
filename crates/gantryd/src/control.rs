//! Asking the running daemon over its control socket: one request, one answer, blocking.
//!
//! HTTP/1.0 is spoken on purpose: the answer then ends with the connection and is never cut into chunks.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{Error, Kind, Result};
use serde::Deserialize;

/// Longest answer, head included.
const ANSWER: u64 = 64 << 20;

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

fn ask(socket: &Path, request: &str, patience: Duration) -> Result<Vec<u8>> {
    let stream = UnixStream::connect(socket).map_err(|error| unreachable(socket, error))?;
    let answer = exchange(stream, request, patience).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => broken(),
        _ => Error::from(error).prefix("asking the daemon"),
    })?;
    let (status, body) = taken_apart(&answer).ok_or_else(broken)?;
    if status == 200 { Ok(body.to_vec()) } else { Err(refusal(status, body)) }
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
    struct Told {
        message: String,
    }
    let message = match serde_json::from_slice::<Told>(body) {
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
