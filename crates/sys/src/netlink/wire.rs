//! Netlink's wire format: messages of nested, 4-byte aligned attributes in the machine's byte order.
//!
//! Writing appends to one buffer that is sent as it is. Reading is bounds-checked: a short or lying length ends the
//! iteration, it never panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of an attribute's header (`struct nlattr`).
const ATTRIBUTE: usize = 4;
/// Marks an attribute that contains attributes.
const NESTED: u16 = libc::NLA_F_NESTED as u16;
/// The flags that share an attribute's type field.
const TYPE_MASK: u16 = !((libc::NLA_F_NESTED | libc::NLA_F_NET_BYTEORDER) as u16);

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Requests that are sent together. Each carries a label that errors name.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Start of each message in `bytes`, and what it does.
    messages: Vec<(usize, &'static str)>,
}

impl Batch {
    pub fn new() -> Batch {
        Batch { bytes: Vec::with_capacity(1024), messages: Vec::new() }
    }

    /// Appends one message; `body` writes what follows the netlink header.
    pub fn push(&mut self, label: &'static str, kind: u16, flags: u16, body: impl FnOnce(&mut Writer<'_>)) {
        let start = self.bytes.len();
        let mut writer = Writer { bytes: &mut self.bytes };
        writer.put(&0u32.to_ne_bytes());
        writer.put(&kind.to_ne_bytes());
        writer.put(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        writer.put(&0u32.to_ne_bytes());
        writer.put(&0u32.to_ne_bytes());
        body(&mut writer);
        writer.pad();
        let length = u32::try_from(self.bytes.len() - start).expect("a message is far below 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.messages.push((start, label));
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// What message `index` does.
    pub fn label(&self, index: usize) -> &'static str {
        self.messages.get(index).map_or("unknown message", |m| m.1)
    }

    /// Numbers the messages from `first` on, asks for an acknowledgement of message `acknowledged`, and gives the bytes.
    pub(crate) fn finish(&mut self, first: u32, acknowledged: usize) -> &[u8] {
        for (index, (start, _)) in self.messages.iter().enumerate() {
            let sequence = first.wrapping_add(index as u32);
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
            if index == acknowledged {
                let flags = u16::from_ne_bytes([self.bytes[start + 6], self.bytes[start + 7]]);
                let flags = flags | libc::NLM_F_ACK as u16;
                self.bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
            }
        }
        &self.bytes
    }
}

/// Appends fields and attributes to a message.
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// Raw bytes, not padded: the fixed part of a message.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn pad(&mut self) {
        let length = aligned(self.bytes.len());
        self.bytes.resize(length, 0);
    }

    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |w| w.put(value));
    }

    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Network byte order, as nf_tables wants its numbers.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub fn ip(&mut self, kind: u16, value: IpAddr) {
        match value {
            IpAddr::V4(address) => self.bytes(kind, &address.octets()),
            IpAddr::V6(address) => self.bytes(kind, &address.octets()),
        }
    }

    /// With the terminating zero.
    pub fn string(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |w| {
            w.put(value.as_bytes());
            w.put(&[0]);
        });
    }

    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Writer<'_>)) {
        self.attribute(kind | NESTED, body);
    }

    fn attribute(&mut self, kind: u16, body: impl FnOnce(&mut Writer<'_>)) {
        let start = self.bytes.len();
        self.put(&0u16.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        body(self);
        let length = u16::try_from(self.bytes.len() - start).expect("callers keep an attribute below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// Netlink address (`nlmsg_pid`) of the socket whose request the message belongs to; 0 = the kernel itself.
    pub sender: u32,
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes after a fixed part of `skip` bytes.
    pub fn attributes(&self, skip: usize) -> Attributes<'a> {
        Attributes { rest: self.payload.get(aligned(skip)..).unwrap_or_default() }
    }
}

/// The messages in one received buffer.
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub fn new(buffer: &'a [u8]) -> Messages<'a> {
        Messages { rest: buffer }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = read_u32(self.rest)? as usize;
        let message = self.rest.get(..length).filter(|m| m.len() >= HEADER)?;
        self.rest = self.rest.get(aligned(length)..).unwrap_or_default();
        Some(Message {
            kind: read_u16(&message[4..])?,
            flags: read_u16(&message[6..])?,
            sequence: read_u32(&message[8..])?,
            sender: read_u32(&message[12..])?,
            payload: &message[HEADER..],
        })
    }
}

/// The attributes in a message or in a nested attribute: (type without flags, value).
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub fn new(buffer: &'a [u8]) -> Attributes<'a> {
        Attributes { rest: buffer }
    }

    /// The value of the first attribute of this type.
    pub fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(k, value)| (k == kind).then_some(value))
    }

    /// The attributes inside the first attribute of this type; empty when there is none.
    pub fn inside(self, kind: u16) -> Attributes<'a> {
        Attributes::new(self.find(kind).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = read_u16(self.rest)? as usize;
        let attribute = self.rest.get(..length).filter(|a| a.len() >= ATTRIBUTE)?;
        self.rest = self.rest.get(aligned(length)..).unwrap_or_default();
        Some((read_u16(&attribute[2..])? & TYPE_MASK, &attribute[ATTRIBUTE..]))
    }
}

/// The first two bytes as a number of the machine's order.
pub fn read_u16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?))
}

/// The first four bytes as a number of the machine's order.
pub fn read_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// The first four bytes as a number of network order.
pub fn read_be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// An address, whose length (4 or 16 bytes) tells its family.
pub fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))))
}

/// Text up to the first zero byte.
pub fn read_string(bytes: &[u8]) -> String {
    let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut batch = Batch::new();
        batch.push("one", 16, 0x400, |w| {
            w.put(&[0; 16]);
            w.string(3, "eth0");
            w.nested(18, |w| {
                w.u8(1, 7);
                w.u32(2, 0xdead_beef);
            });
        });
        batch.push("two", 20, 0, |w| w.be32(9, 5));
        let bytes = batch.finish(40, 1).to_vec();
        let messages: Vec<_> = Messages::new(&bytes).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].kind, messages[0].sequence), (16, 40));
        assert_eq!(messages[0].flags & libc::NLM_F_ACK as u16, 0);
        assert_eq!(messages[1].flags & libc::NLM_F_ACK as u16, libc::NLM_F_ACK as u16);
        let attributes = messages[0].attributes(16);
        assert_eq!(read_string(attributes.find(3).unwrap()), "eth0");
        assert_eq!(attributes.inside(18).find(1), Some(&[7u8][..]));
        assert_eq!(attributes.inside(18).find(2).and_then(read_u32), Some(0xdead_beef));
        assert_eq!(messages[1].attributes(0).find(9).and_then(read_be32), Some(5));
    }

    #[test]
    fn lying_lengths_end_the_iteration() {
        let mut batch = Batch::new();
        batch.push("one", 16, 0, |w| w.u32(1, 1));
        let good = batch.finish(1, 0).to_vec();
        for cut in 0..good.len() {
            for message in Messages::new(&good[..cut]) {
                message.attributes(0).for_each(drop);
            }
        }
        for at in 0..good.len() {
            for value in [0, 1, 3, 255] {
                let mut bad = good.clone();
                bad[at] = value;
                for message in Messages::new(&bad) {
                    message.attributes(0).for_each(drop);
                    message.attributes(64).for_each(drop);
                }
            }
        }
    }
}
