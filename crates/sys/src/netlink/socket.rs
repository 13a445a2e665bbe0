//! A netlink socket: batches of requests with their answers, and dumps.
//!
//! The kernel answers while `sendmsg` runs, so answers are read without waiting: an empty queue means that everything
//! was said. A socket is used by one caller at a time (`&mut self`).

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::wire::{Attributes, Batch, Message, Messages, Writer, read_string, read_u32};

/// Room for one received datagram; the kernel fits dumps to it.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Batches above this size need a larger send buffer than the default of 208 KiB.
const LARGE_BATCH: usize = 128 * 1024;
/// The longest batch that is sent.
const MAX_BATCH: usize = 64 * 1024 * 1024;
/// How often a dump that was interrupted by a change is started again.
const DUMP_RETRIES: usize = 10;
/// The kernel's own words in an answer.
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;
const NLM_F_DUMP: u16 = libc::NLM_F_DUMP as u16;
/// Flags of an answer: it carries attributes; the message that it answers is not echoed; the dump is inconsistent.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// A request that the kernel refused, or a socket that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Index in the batch.
    pub index: usize,
    /// What the message was to do.
    pub label: &'static str,
    pub errno: Errno,
    /// The kernel's explanation; often empty.
    pub text: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.label, io::Error::from(self.errno))?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::new(io::Error::from(error.errno).kind(), error)
    }
}

/// A netlink socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// For links, addresses and routes.
    pub fn route() -> io::Result<Socket> {
        // NETLINK_ROUTE is 0, the default protocol.
        Socket::open(None)
    }

    /// For nf_tables.
    pub fn netfilter() -> io::Result<Socket> {
        Socket::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Socket> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        set_option(&fd, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1)?;
        set_option(&fd, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)?;
        Ok(Socket { fd, sequence: 0, buffer: Vec::new() })
    }

    /// The socket's netlink address, by which notices name it as the sender.
    pub fn port(&self) -> io::Result<u32> {
        let address = rustix::net::getsockname(&self.fd)?;
        Ok(netlink::SocketAddrNetlink::try_from(address)?.pid())
    }

    /// Sends all messages at once and waits until the last is done. The first refusal is the error; messages after it
    /// may have been carried out.
    pub fn request(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let last = batch.len().saturating_sub(1);
        self.transact(batch, last, |_| ())
    }

    /// Sends the batch with an acknowledgement of message `last`; other answers go to `answer`.
    pub(crate) fn transact(
        &mut self,
        batch: &mut Batch,
        last: usize,
        mut answer: impl FnMut(Message<'_>),
    ) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let first = self.sequence.wrapping_add(1);
        let count = batch.len();
        self.sequence = self.sequence.wrapping_add(count as u32);
        let failed = |errno, text: &str| Error { index: 0, label: "netlink", errno, text: text.to_owned() };
        self.send(batch.finish(first, last)).map_err(|errno| failed(errno, "sending"))?;
        let mut refused: Option<Error> = None;
        let mut done = false;
        loop {
            let length = match self.receive() {
                Ok(length) => length,
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(failed(errno, "receiving")),
            };
            for message in Messages::new(&self.buffer[..length]) {
                let index = message.sequence.wrapping_sub(first) as usize;
                if index >= count {
                    continue; // The answer to a request of an earlier, failed call.
                }
                if message.kind != NLMSG_ERROR {
                    answer(message);
                    continue;
                }
                match refusal(&message) {
                    None => done |= index == last,
                    Some((errno, text)) if refused.is_none() => {
                        refused = Some(Error { index, label: batch.label(index), errno, text });
                    }
                    Some(_) => (),
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None if done => Ok(()),
            None => Err(failed(Errno::PROTO, "no answer to the last message")),
        }
    }

    /// Sends one dump request and gives every message of the answer to `each`; `clear` starts over after a change
    /// that interrupted the dump.
    pub fn dump<T>(
        &mut self,
        kind: u16,
        body: impl Fn(&mut Writer<'_>),
        each: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let failed = |errno: Errno, text: &str| Error { index: 0, label: "dump", errno, text: text.to_owned() };
        for _ in 0..DUMP_RETRIES {
            let mut batch = Batch::new();
            batch.push("dump", kind, NLM_F_DUMP, &body);
            self.sequence = self.sequence.wrapping_add(1);
            let sequence = self.sequence;
            self.send(batch.finish(sequence, usize::MAX)).map_err(|errno| failed(errno, "sending"))?;
            if let Some(found) = self.collect(sequence, &each)? {
                return Ok(found);
            }
        }
        Err(failed(Errno::AGAIN, "interrupted by changes again and again"))
    }

    /// As [`Socket::dump`], of a request whose head selects: without this the kernel reads no more of it than the family.
    pub(crate) fn dump_selected<T>(
        &mut self,
        kind: u16,
        body: impl Fn(&mut Writer<'_>),
        each: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let failed = |errno: Errno| Error { index: 0, label: "dump", errno, text: "selecting".to_owned() };
        set_option(&self.fd, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, 1).map_err(failed)?;
        let dumped = self.dump(kind, body, each);
        set_option(&self.fd, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, 0).map_err(failed)?;
        dumped
    }

    /// The dump's messages, or `None` when a change interrupted it.
    fn collect<T>(&mut self, sequence: u32, each: &impl Fn(Message<'_>) -> Option<T>) -> Result<Option<Vec<T>>, Error> {
        let failed = |errno: Errno, text: String| Error { index: 0, label: "dump", errno, text };
        let mut found = Vec::new();
        let mut interrupted = false;
        loop {
            let length = self.receive().map_err(|errno| failed(errno, "receiving".to_owned()))?;
            for message in Messages::new(&self.buffer[..length]).filter(|m| m.sequence == sequence) {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match refusal(&message) {
                            Some((Errno::INTR, _)) => Ok(None),
                            Some((errno, text)) => Err(failed(errno, text)),
                            None if interrupted => Ok(None),
                            None => Ok(Some(found)),
                        };
                    }
                    _ => found.extend(each(message)),
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() > MAX_BATCH {
            return Err(Errno::MSGSIZE);
        }
        if bytes.len() > LARGE_BATCH {
            let size = i32::try_from(bytes.len()).map_err(|_| Errno::MSGSIZE)?;
            set_option(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size)?;
        }
        loop {
            match rustix::net::send(&self.fd, bytes, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Receives one datagram into the buffer; `AGAIN` when there is none.
    fn receive(&mut self) -> Result<usize, Errno> {
        self.buffer.resize(RECEIVE_BUFFER, 0);
        loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => return Ok(length),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// The errno and explanation of an error message; `None` for an acknowledgement.
fn refusal(message: &Message<'_>) -> Option<(Errno, String)> {
    let code = read_u32(message.payload)? as i32;
    if code == 0 || message.kind == NLMSG_DONE && code > 0 {
        return None;
    }
    let mut text = String::new();
    if message.flags & NLM_F_ACK_TLVS != 0 && message.kind == NLMSG_ERROR {
        // The code, then the header of the refused message, then (unless capped) the rest of it.
        let echoed = if message.flags & NLM_F_CAPPED != 0 { 16 } else { read_u32(&message.payload[4..])? as usize };
        let attributes = message.payload.get(4 + echoed.next_multiple_of(4)..).unwrap_or_default();
        text = Attributes::new(attributes).find(NLMSGERR_ATTR_MSG).map(read_string).unwrap_or_default();
    }
    Some((Errno::from_raw_os_error(-code), text))
}

pub(super) fn set_option(fd: &OwnedFd, level: i32, option: i32, value: i32) -> Result<(), Errno> {
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` is a live i32 and `size` is its size; the descriptor is open for the whole call.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)) }
}
