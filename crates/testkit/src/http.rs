//! A small HTTP/1.1 client over a unix socket: raw, kept alive, able to take over the connection.
//!
//! It exists to see exactly what the server sends (order of headers, chunk borders, closes), which a library would hide.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest silence of the server.
const SILENCE: Duration = Duration::from_secs(180);

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Words after the code.
    pub reason: String,
    /// Headers in order, as sent.
    pub headers: Vec<(String, String)>,
    /// The whole body, chunks joined.
    pub body: Vec<u8>,
}

impl Response {
    /// First header of that name, case ignored.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics when it is none.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{} {:?} is no JSON: {e}", self.status, self.text()))
    }

    /// The error's message.
    #[track_caller]
    #[must_use]
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_string()
    }

    /// Asserts the status and gives itself back.
    #[track_caller]
    #[must_use]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// A connection that may carry many requests.
pub struct Connection {
    reader: BufReader<UnixStream>,
    /// Lets the daemon's owner count the open ones.
    _counted: Option<Arc<()>>,
}

impl Connection {
    /// Connects to a socket.
    pub fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(Self { reader: BufReader::new(stream), _counted: None })
    }

    /// Connects, and holds `token` as long as the connection lives.
    pub fn open_counted(socket: &Path, token: &Arc<()>) -> io::Result<Self> {
        Ok(Self { _counted: Some(Arc::clone(token)), ..Self::open(socket)? })
    }

    /// Sends a request with a JSON body (none when empty) and reads the whole answer.
    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, body: &str) -> Response {
        self.try_request(method, path, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Like `request`, with errors handed out.
    pub fn try_request(&mut self, method: &str, path: &str, body: &str) -> io::Result<Response> {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: docker\r\n{kind}Content-Length: {}\r\n\r\n", body.len());
        self.send(&[head.as_bytes(), body.as_bytes()].concat())?;
        let mut response = self.head()?;
        if method != "HEAD" {
            response.body = self.body(&response)?;
        }
        Ok(response)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Reads status line and headers.
    pub fn head(&mut self) -> io::Result<Response> {
        let first = self.line()?;
        let mut words = first.splitn(3, ' ');
        let status = words.nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {first:?}")))?;
        let mut response = Response { status, reason: words.next().unwrap_or("").to_string(), ..Response::default() };
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                Some((name, value)) => response.headers.push((name.to_string(), value.trim().to_string())),
                None => return Ok(response),
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_string())
    }

    /// Reads a body by its length, its chunks, or to the end of the connection.
    pub fn body(&mut self, head: &Response) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if matches!(head.status, 204 | 304) {
            return Ok(body);
        }
        if head.header("Transfer-Encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            while let Some(chunk) = self.chunk()? {
                body.extend(chunk);
            }
        } else if let Some(length) = head.header("Content-Length").and_then(|v| v.parse().ok()) {
            body.resize(length, 0);
            self.reader.read_exact(&mut body)?;
        } else {
            self.reader.read_to_end(&mut body)?;
        }
        Ok(body)
    }

    /// One chunk; `None` after the last.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = self.line()?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; size];
        self.reader.read_exact(&mut chunk)?;
        self.line()?;
        Ok((size > 0).then_some(chunk))
    }

    /// Sends a request that takes over the connection; gives the head. The connection is then a raw stream.
    #[track_caller]
    pub fn upgrade(&mut self, path: &str, body: &str) -> Response {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.send(head.as_bytes()).and_then(|()| self.head()).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Reads raw bytes until the server closes.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        self.reader.read_to_end(&mut all)?;
        Ok(all)
    }

    /// Reads exactly `n` raw bytes.
    pub fn exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; n];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Ends the writing half.
    pub fn half_close(&mut self) -> io::Result<()> {
        self.reader.get_ref().shutdown(std::net::Shutdown::Write)
    }

    /// Sets the longest silence.
    pub fn patience(&mut self, limit: Duration) {
        let _ = self.reader.get_ref().set_read_timeout(Some(limit));
    }
}

/// Splits a multiplexed stream into (stream number, payload) frames.
#[must_use]
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let [stream, 0, 0, 0, a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (payload, tail) = rest.split_at(length.min(rest.len()));
        found.push((*stream, payload.to_vec()));
        bytes = tail;
    }
    found
}

/// Joins the payloads of one stream.
#[must_use]
pub fn stream_text(bytes: &[u8], stream: u8) -> String {
    let joined: Vec<u8> = frames(bytes).into_iter().filter(|(s, _)| *s == stream).flat_map(|(_, p)| p).collect();
    String::from_utf8_lossy(&joined).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_split() {
        let bytes = [&[1, 0, 0, 0, 0, 0, 0, 2][..], b"ab", &[2, 0, 0, 0, 0, 0, 0, 1], b"c"].concat();
        assert_eq!(frames(&bytes), [(1, b"ab".to_vec()), (2, b"c".to_vec())]);
        assert_eq!(stream_text(&bytes, 2), "c");
    }
}
