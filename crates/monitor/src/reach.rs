//! Probes that need no program of the container: a connection, or a request of HTTP, from inside its network. One thread polls
//! them like everything else; a server that accepts and says nothing costs its time only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use model::health::NO_EXIT_CODE;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use crate::clock;
use crate::proto::{Probed, ReachSpec};

/// Bytes of a status line at most.
const LINE_BYTES: usize = 1024;
/// Statuses that pass.
const PASSES: std::ops::Range<u16> = 200..400;

/// A probe under way.
#[derive(Debug)]
pub struct Reach {
    spec: ReachSpec,
    /// Addresses that are still to be tried.
    left: Vec<SocketAddr>,
    phase: Phase,
    /// Why the last address failed.
    failure: String,
    started_at: i64,
    deadline: Instant,
}

#[derive(Debug)]
enum Phase {
    Connecting(OwnedFd),
    /// So many bytes of the request are sent.
    Sending(OwnedFd, usize),
    /// What has come of the answer.
    Reading(OwnedFd, Vec<u8>),
    Over(i32, String),
}

impl Reach {
    /// Begins to connect; `open` makes a socket in the sandbox.
    pub fn begin(spec: ReachSpec, mut open: impl FnMut(AddressFamily) -> io::Result<OwnedFd>) -> Reach {
        let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let addresses: Vec<IpAddr> = spec.address.map_or(both.to_vec(), |one| vec![one]);
        let left = addresses.into_iter().rev().map(|address| SocketAddr::new(address, spec.port)).collect();
        let deadline = Instant::now() + Duration::from_millis(spec.timeout.into());
        let phase = Phase::Over(NO_EXIT_CODE, String::new());
        let mut reach = Reach { spec, left, phase, failure: String::new(), started_at: clock::now(), deadline };
        reach.next(&mut open);
        reach
    }

    /// Its number.
    pub fn id(&self) -> &str {
        &self.spec.id
    }

    /// When it was started, in unix nanoseconds.
    pub fn started_at(&self) -> i64 {
        self.started_at
    }

    /// When it is given up.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What to poll.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.phase {
            Phase::Connecting(socket) | Phase::Sending(socket, _) => Some((socket.as_fd(), PollFlags::OUT)),
            Phase::Reading(socket, _) => Some((socket.as_fd(), PollFlags::IN)),
            Phase::Over(..) => None,
        }
    }

    /// Tries the next address.
    fn next(&mut self, open: &mut dyn FnMut(AddressFamily) -> io::Result<OwnedFd>) {
        while let Some(target) = self.left.pop() {
            let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = match open(family) {
                Ok(socket) => socket,
                Err(error) => {
                    self.failed(&format!("{target}: {}", model::io_text(&error)));
                    continue;
                }
            };
            match rustix::net::connect(&socket, &target) {
                Ok(()) | Err(Errno::INPROGRESS) => return self.phase = Phase::Connecting(socket),
                Err(errno) => self.failed(&format!("{target}: {}", model::io_text(&errno.into()))),
            }
        }
        self.phase = Phase::Over(1, std::mem::take(&mut self.failure));
    }

    fn failed(&mut self, text: &str) {
        if !self.failure.is_empty() {
            self.failure.push_str("; ");
        }
        self.failure.push_str(text);
    }

    /// Goes on after its socket was found ready.
    pub fn advance(&mut self, mut open: impl FnMut(AddressFamily) -> io::Result<OwnedFd>) {
        let over = || Phase::Over(NO_EXIT_CODE, String::new());
        self.phase = match std::mem::replace(&mut self.phase, over()) {
            Phase::Connecting(socket) => match rustix::net::sockopt::socket_error(&socket) {
                Ok(Ok(())) if self.spec.path.is_none() => Phase::Over(0, String::new()),
                Ok(Ok(())) => Phase::Sending(socket, 0),
                Ok(Err(errno)) | Err(errno) => {
                    self.failed(&format!("connect: {}", model::io_text(&errno.into())));
                    return self.next(&mut open);
                }
            },
            Phase::Sending(socket, sent) => self.send(socket, sent),
            Phase::Reading(socket, answer) => read(socket, answer),
            over @ Phase::Over(..) => over,
        };
    }

    fn send(&self, socket: OwnedFd, sent: usize) -> Phase {
        let request = request(&self.spec);
        match rustix::net::send(&socket, &request[sent..], SendFlags::NOSIGNAL) {
            Ok(more) if sent + more >= request.len() => Phase::Reading(socket, Vec::new()),
            Ok(more) => Phase::Sending(socket, sent + more),
            Err(Errno::AGAIN | Errno::INTR) => Phase::Sending(socket, sent),
            Err(errno) => Phase::Over(1, format!("sending the request: {}", model::io_text(&errno.into()))),
        }
    }

    /// The result, once there is one.
    pub fn result(&mut self, now: Instant) -> Option<Probed> {
        let is_late = now >= self.deadline;
        let (code, text) = match &mut self.phase {
            Phase::Over(code, text) => (*code, std::mem::take(text)),
            _ if is_late => (NO_EXIT_CODE, std::mem::take(&mut self.failure)),
            _ => return None,
        };
        let mut output = text.into_bytes();
        output.truncate(model::health::OUTPUT_BYTES);
        Some(Probed {
            id: self.spec.id.clone(),
            code,
            is_late: code == NO_EXIT_CODE,
            output,
            started_at: self.started_at,
            ended_at: clock::now(),
        })
    }
}

/// A socket that does not block.
pub fn socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?)
}

/// The request (RFC 9112); its path holds printable characters only ([`model::health::Target`]).
fn request(spec: &ReachSpec) -> Vec<u8> {
    let host = match spec.address {
        None => "localhost".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("[{address}]"),
    };
    let (path, port) = (spec.path.as_deref().unwrap_or("/"), spec.port);
    let path = path.split('#').next().unwrap_or(path);
    format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: gantry-health\r\nAccept: */*\r\nConnection: close\r\n\r\n")
        .into_bytes()
}

fn read(socket: OwnedFd, mut answer: Vec<u8>) -> Phase {
    let mut buffer = [0; LINE_BYTES];
    let room = LINE_BYTES - answer.len();
    match rustix::net::recv(&socket, &mut buffer[..room], RecvFlags::empty()) {
        Ok((0, _)) => Phase::Over(1, "the server closed the connection before it answered".into()),
        Ok((n, _)) => {
            answer.extend_from_slice(&buffer[..n]);
            match status_line(&answer) {
                Line::Partial if answer.len() < LINE_BYTES => Phase::Reading(socket, answer),
                Line::Partial | Line::Other => Phase::Over(1, "the answer is not one of HTTP/1".into()),
                Line::Status(status, text) => Phase::Over(if PASSES.contains(&status) { 0 } else { 1 }, text),
            }
        }
        Err(Errno::AGAIN | Errno::INTR) => Phase::Reading(socket, answer),
        Err(errno) => Phase::Over(1, format!("reading the answer: {}", model::io_text(&errno.into()))),
    }
}

/// What the beginning of an answer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// More has to come.
    Partial,
    /// None of HTTP/1.
    Other,
    /// The status, and the line for people.
    Status(u16, String),
}

/// Reads the status line (RFC 9112, 4) of an answer of which this has come.
pub fn status_line(answer: &[u8]) -> Line {
    const VERSION: &[u8] = b"HTTP/1.";
    let Some(end) = answer.iter().position(|byte| *byte == b'\n') else {
        let begun = answer.len().min(VERSION.len());
        return if answer[..begun] == VERSION[..begun] { Line::Partial } else { Line::Other };
    };
    let line = answer[..end].strip_suffix(b"\r").unwrap_or(&answer[..end]);
    // A digit, a blank, three digits, and the reason behind another blank, if there is one.
    let status = match line.strip_prefix(VERSION) {
        Some([minor, b' ', a, b, c, rest @ ..]) if [minor, a, b, c].iter().all(|byte| byte.is_ascii_digit()) => {
            let number = [a, b, c].iter().fold(0, |number, digit| number * 10 + u16::from(**digit - b'0'));
            (matches!(rest, [] | [b' ', ..]) && number >= 100).then_some(number)
        }
        _ => None,
    };
    status.map_or(Line::Other, |status| Line::Status(status, String::from_utf8_lossy(line).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use proptest::prelude::*;
    use rustix::event::{PollFd, Timespec, poll};

    use super::*;

    #[test]
    fn status_lines_are_read() {
        let ready = |text: &str| Line::Status(200, text.into());
        assert_eq!(status_line(b"HTTP/1.1 200 OK\r\nX: y"), ready("HTTP/1.1 200 OK"));
        assert_eq!(status_line(b"HTTP/1.0 200\n"), ready("HTTP/1.0 200"));
        assert_eq!(status_line(b"HTTP/1.1 200 O"), Line::Partial);
        assert_eq!(status_line(b"HTT"), Line::Partial);
        for other in [
            &b"SSH-2.0-x"[..],
            b"\n",
            b"HTTP/1.1 2000 OK\n",
            b"HTTP/1.1 20 OK\n",
            b"HTTP/2 200\n",
            b"HTTP/1.x 200\n",
            b"HTTP/1.1 099 x\n",
            b"HTTP/1.1  200\n",
        ] {
            assert_eq!(status_line(other), Line::Other, "{}", String::from_utf8_lossy(other));
        }
    }

    proptest! {
        /// However an answer comes in pieces, what is said of it does not change once it is said.
        #[test]
        fn pieces_of_an_answer_do_not_change_what_it_is(bytes in proptest::collection::vec(any::<u8>(), 0..60), at in 0_usize..60) {
            let answers = [bytes.clone(), [b"HTTP/1.1 20", &bytes[..]].concat()];
            for answer in answers {
                let part = status_line(&answer[..at.min(answer.len())]);
                prop_assert!(part == Line::Partial || part == status_line(&answer));
            }
        }
    }

    /// Polls until there is a result.
    fn finish(mut reach: Reach) -> (i32, String) {
        loop {
            let now = Instant::now();
            if let Some(result) = reach.result(now) {
                return (result.code, String::from_utf8(result.output).unwrap());
            }
            if let Some((fd, flags)) = reach.interest() {
                let left = reach.deadline().saturating_duration_since(now);
                let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
                if poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&left)).unwrap() == 0 {
                    continue;
                }
            }
            reach.advance(socket);
        }
    }

    fn probe(port: u16, path: Option<&str>, timeout: u32) -> Reach {
        let spec = ReachSpec { id: "p".into(), address: None, port, path: path.map(str::to_owned), timeout };
        Reach::begin(spec, socket)
    }

    /// A server that says this to one client, the bytes one after the other, and holds the connection open.
    fn server(answer: &'static str) -> (u16, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let n = client.read(&mut request).unwrap();
            for byte in answer.bytes() {
                client.set_nodelay(true).unwrap();
                // The client leaves when it has heard enough.
                if client.write_all(&[byte]).is_err() {
                    break;
                }
            }
            let _ = client.read(&mut [0; 1]);
            String::from_utf8(request[..n].to_vec()).unwrap()
        });
        (port, thread)
    }

    const LONG: u32 = 60_000;

    #[test]
    fn answers_decide() {
        for (answer, code, text) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", 0, "HTTP/1.1 204 No Content"),
            ("HTTP/1.1 302 Found\r\n", 0, "HTTP/1.1 302 Found"),
            ("HTTP/1.1 503 Busy\r\n", 1, "HTTP/1.1 503 Busy"),
            ("220 mail\r\n", 1, "the answer is not one of HTTP/1"),
        ] {
            let (port, server) = server(answer);
            assert_eq!(finish(probe(port, Some("/ready?x#y"), LONG)), (code, text.to_owned()));
            let request = server.join().unwrap();
            let head = format!("GET /ready?x HTTP/1.1\r\nHost: localhost:{port}\r\n");
            assert!(request.starts_with(&head) && request.ends_with("\r\n\r\n"), "{request}");
        }
    }

    #[test]
    fn connections_decide_where_no_path_is_given() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(finish(probe(port, None, LONG)).0, 0);
        drop(listener);
        let (code, text) = finish(probe(port, None, LONG));
        assert!(code == 1 && text.contains("refused"), "{text}");
    }

    /// A server that never answers, or has no end of its line, is given up.
    #[test]
    fn servers_that_do_not_answer_are_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (code, text) = finish(probe(port, Some("/"), 50));
        assert_eq!((code, text.as_str()), (NO_EXIT_CODE, ""));
        let endless: &str = Box::leak(format!("HTTP/1.1 200 {}", "x".repeat(1 << 16)).into_boxed_str());
        let (port, server) = server(endless);
        assert_eq!(finish(probe(port, Some("/"), LONG)).0, 1);
        server.join().unwrap();
    }
}
