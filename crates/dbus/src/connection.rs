//! A connection to a bus: the handshake, calls, signals.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::address::Address;
use crate::message::{self, Call, HEAD, Kind, Malformed, Message, Value};

/// The bus itself, as a service.
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
/// Longest line of the handshake, bytes.
const MAX_LINE: usize = 1024;
/// Signals that are kept while the reply to a call is waited for; later ones are dropped.
const MAX_KEPT: usize = 64;

/// Why a call failed.
#[derive(Debug)]
pub enum Error {
    /// The connection is of no use any more.
    Io(io::Error),
    /// The connection is of no use any more.
    Malformed(Malformed),
    /// The service, or the bus for it, answered with an error.
    Refused {
        /// Of the error.
        name: String,
        /// Its first argument.
        text: String,
    },
}

impl Error {
    /// Whether the connection can be used again.
    pub fn is_answer(&self) -> bool {
        matches!(self, Error::Refused { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => write!(out, "{error}"),
            Error::Malformed(Malformed(what)) => write!(out, "the bus sent {what}"),
            // Some services send all that they were about to do after the first line.
            Error::Refused { name, text } => write!(out, "{name}: {}", text.lines().next().unwrap_or_default()),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Error {
        Error::Malformed(malformed)
    }
}

/// A connection that the bus has given a name. Blocking; every call ends within the limit of time.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    serial: u32,
    patience: Duration,
    signals: VecDeque<Message>,
}

impl Connection {
    /// Connects to the first of these addresses where a bus listens; `patience` is the limit of this and of each call.
    pub fn open(addresses: &[Address], patience: Duration) -> Result<Connection, Error> {
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses {
            match connect(address, patience) {
                Ok(stream) => {
                    let signals = VecDeque::new();
                    let mut connection = Connection { stream, serial: 0, patience, signals };
                    connection.authenticate()?;
                    connection.ask_bus("Hello", &[])?;
                    return Ok(connection);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed.into())
    }

    /// Calls a method; the values of its reply.
    pub fn call(&mut self, call: &Call<'_>) -> Result<Vec<Value>, Error> {
        let deadline = Instant::now() + self.patience;
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        self.send(&message::encode(call, self.serial), deadline)?;
        loop {
            let message = self.receive(deadline)?;
            match message.kind {
                Kind::Signal if self.signals.len() < MAX_KEPT => self.signals.push_back(message),
                Kind::Return if message.reply_to == Some(self.serial) => return Ok(message.body),
                Kind::Error if message.reply_to == Some(self.serial) => return Err(refused(message)),
                // Calls of others, replies that came too late, and what later versions have.
                _ => (),
            }
        }
    }

    /// Whether somebody has a name on the bus.
    pub fn has_owner(&mut self, name: &str) -> Result<bool, Error> {
        Ok(self.ask_bus("NameHasOwner", &[Value::text(name)])?.first() == Some(&Value::Bool(true)))
    }

    /// From now on signals that match a rule (D-Bus Specification, "Match Rules") are sent to this connection.
    pub fn subscribe(&mut self, rule: &str) -> Result<(), Error> {
        self.ask_bus("AddMatch", &[Value::text(rule)]).map(drop)
    }

    /// A signal that came before the reply to a call, or the message whose first bytes have come now; `None`: that is no
    /// signal.
    pub fn read_signal(&mut self) -> Result<Option<Message>, Error> {
        if let Some(kept) = self.signals.pop_front() {
            return Ok(Some(kept));
        }
        let message = self.receive(Instant::now() + self.patience)?;
        Ok(Some(message).filter(|message| message.kind == Kind::Signal))
    }

    fn ask_bus(&mut self, member: &str, body: &[Value]) -> Result<Vec<Value>, Error> {
        self.call(&Call { destination: BUS, path: BUS_PATH, interface: BUS, member, body })
    }

    /// SASL EXTERNAL: the bus knows from the socket who this is.
    fn authenticate(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + self.patience;
        let user = rustix::process::geteuid().as_raw().to_string();
        let user: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.send(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes(), deadline)?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() == MAX_LINE {
                return Err(Malformed("a handshake without end").into());
            }
            let mut byte = [0];
            self.fill(&mut byte, deadline)?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the bus refused this user").into());
        }
        self.send(b"BEGIN\r\n", deadline)
    }

    fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Error> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.stream.set_write_timeout(Some(left(deadline)?))?;
            match self.stream.write(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, Error> {
        let mut head = [0; HEAD];
        self.fill(&mut head, deadline)?;
        let mut bytes = head.to_vec();
        bytes.resize(message::length(&head)?, 0);
        self.fill(&mut bytes[HEAD..], deadline)?;
        Ok(message::decode(&bytes)?)
    }

    fn fill(&mut self, mut rest: &mut [u8], deadline: Instant) -> Result<(), Error> {
        while !rest.is_empty() {
            self.stream.set_read_timeout(Some(left(deadline)?))?;
            match self.stream.read(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => rest = &mut rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A bus that accepts nobody is not waited for without end either.
fn connect(address: &Address, patience: Duration) -> io::Result<UnixStream> {
    let address = match address {
        Address::Path(path) => SocketAddrUnix::new(path),
        Address::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
    }?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

/// Never nothing: that would mean no limit.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn refused(message: Message) -> Error {
    let text = message.body.into_iter().find_map(|value| match value {
        Value::Text(text) => Some(text),
        _ => None,
    });
    Error::Refused { name: message.error.unwrap_or_default(), text: text.unwrap_or_default() }
}
