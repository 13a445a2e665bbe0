//! Messages: a query is read in place, an answer is written behind a copy of its question, what a server says is checked and
//! passed on as it is.
//!
//! Nothing here trusts a byte: every offset is checked, names end after 255 bytes, and a compressed name is skipped without
//! following its pointer, so there is nothing to loop in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of the fixed header.
pub const HEADER: usize = 12;
/// Longest name on the wire (RFC 1035, 2.3.4).
const MAX_NAME: usize = 255;
/// Bytes of a datagram whose sender says nothing of larger ones.
pub const PLAIN_SIZE: usize = 512;
/// Largest message (RFC 1035, 4.2.2).
pub const MAX_MESSAGE: usize = 65_535;
/// Largest datagram over IPv4.
pub const MAX_DATAGRAM: usize = 65_507;
/// Seconds that a container's name may be remembered; the reference's value.
pub const NAME_TTL: u32 = 600;
/// What an answer of our own says of the datagrams that we take.
const OWN_SIZE: u16 = 4096;
/// A pointer to the question's name, which always stands behind the header.
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER as u8];

/// Types and classes of records.
pub mod kind {
    /// IPv4 addresses.
    pub const A: u16 = 1;
    /// Where a zone begins, with how long it may be remembered that a name is not there.
    pub const SOA: u16 = 6;
    /// The name of an address.
    pub const PTR: u16 = 12;
    /// IPv6 addresses.
    pub const AAAA: u16 = 28;
    /// What EDNS says of the message (RFC 6891).
    pub const OPT: u16 = 41;
    /// Whatever there is.
    pub const ANY: u16 = 255;
    /// The class of the internet.
    pub const INTERNET: u16 = 1;
}

/// Response codes.
pub mod rcode {
    /// An answer, perhaps with no record.
    pub const NO_ERROR: u8 = 0;
    /// The query is malformed.
    pub const FORMAT_ERROR: u8 = 1;
    /// Nobody has answered.
    pub const SERVER_FAILURE: u8 = 2;
    /// The name does not exist.
    pub const NO_SUCH_NAME: u8 = 3;
    /// Not a kind of query that is answered.
    pub const NOT_IMPLEMENTED: u8 = 4;
    /// There are too many queries.
    pub const REFUSED: u8 = 5;
}

// The second 16 bits of the header.
const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const CHECKING_DISABLED: u16 = 0x0010;
const RCODE: u16 = 0x000f;

/// What a query says of EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Bytes of the largest datagram that its sender takes.
    pub size: u16,
    /// DNSSEC records are wanted.
    pub dnssec: bool,
    /// There are options, which may be meant for one server.
    pub has_options: bool,
}

/// A question.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    bytes: &'a [u8],
    name: Name,
    /// Type of the records that are asked for.
    pub kind: u16,
    /// Their class.
    pub class: u16,
    question_end: usize,
    /// What it says of EDNS, if anything.
    pub edns: Option<Edns>,
}

/// Why a message is no query that can be dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Not to be answered: too short for a header, or itself an answer.
    Silent,
    /// To be answered with this code.
    Code(u8),
}

/// A name in lower case without a last dot, at most 253 bytes.
#[derive(Clone)]
pub struct Name {
    text: [u8; MAX_NAME],
    length: u8,
    is_plain: bool,
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.text()))
    }
}

impl Name {
    /// Labels with dots between them.
    pub fn text(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }

    /// No label has a dot in it: the text means one name only.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The name at `at`, which must not be compressed, and where it ends.
    fn read(bytes: &[u8], mut at: usize) -> Option<(Name, usize)> {
        let mut name = Name { text: [0; MAX_NAME], length: 0, is_plain: true };
        let mut length = 0;
        loop {
            let size = usize::from(*bytes.get(at)?);
            at += 1;
            if size == 0 {
                break;
            }
            let label = bytes.get(at..at + size).filter(|_| size < 64)?;
            at += size;
            if length + size + 2 > MAX_NAME {
                return None;
            }
            if length > 0 {
                name.text[length] = b'.';
                length += 1;
            }
            name.is_plain &= !label.contains(&b'.');
            for byte in label {
                name.text[length] = byte.to_ascii_lowercase();
                length += 1;
            }
        }
        name.length = length as u8;
        Some((name, at))
    }

    /// The address that a name of a reverse zone stands for (RFC 1035 3.5, RFC 3596 2.5).
    pub fn reverse(&self) -> Option<IpAddr> {
        let text = std::str::from_utf8(self.text()).ok()?;
        if let Some(digits) = text.strip_suffix(".in-addr.arpa") {
            let mut parts = digits.split('.').map(|part| part.parse::<u8>().ok().filter(|_| part.len() <= 3));
            let mut next = || parts.next().flatten();
            let (d, c, b, a) = (next()?, next()?, next()?, next()?);
            return parts.next().is_none().then_some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
        }
        let digits = text.strip_suffix(".ip6.arpa")?;
        let mut bits = 0u128;
        let mut count = 0;
        for part in digits.split('.') {
            let digit = part.bytes().next().filter(|_| part.len() == 1)?;
            let digit = (digit as char).to_digit(16)?;
            bits = bits >> 4 | u128::from(digit) << 124;
            count += 1;
        }
        (count == 32).then(|| IpAddr::V6(Ipv6Addr::from(bits)))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The number that pairs a query with its answer; 0 for less than a header.
pub fn id(message: &[u8]) -> u16 {
    word(message, 0).unwrap_or(0)
}

/// Gives a message another number.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

impl<'a> Query<'a> {
    /// Reads a query of one question.
    pub fn parse(bytes: &'a [u8]) -> Result<Query<'a>, Invalid> {
        let flags = word(bytes, 2).filter(|_| bytes.len() >= HEADER).ok_or(Invalid::Silent)?;
        if flags & RESPONSE != 0 {
            return Err(Invalid::Silent);
        }
        if flags & OPCODE != 0 {
            return Err(Invalid::Code(rcode::NOT_IMPLEMENTED));
        }
        let malformed = Invalid::Code(rcode::FORMAT_ERROR);
        if word(bytes, 4) != Some(1) {
            return Err(malformed);
        }
        let (name, end) = Name::read(bytes, HEADER).ok_or(malformed)?;
        let (kind, class) = word(bytes, end).zip(word(bytes, end + 2)).ok_or(malformed)?;
        let mut query = Query { bytes, name, kind, class, question_end: end + 4, edns: None };
        for record in Records::behind(bytes, query.question_end) {
            let record = record.ok_or(malformed)?;
            if record.kind == kind::OPT {
                let dnssec = record.ttl & 0x8000 != 0;
                query.edns = Some(Edns { size: record.class, dnssec, has_options: record.data_length > 0 });
            }
        }
        Ok(query)
    }

    /// As it arrived.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What is asked about.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Bytes of an answer by datagram.
    pub fn datagram_size(&self) -> usize {
        let size = self.edns.map_or(PLAIN_SIZE, |edns| usize::from(edns.size));
        size.clamp(PLAIN_SIZE, MAX_DATAGRAM)
    }

    /// What two queries have in common that the same answer serves: name, type, class, and the flags that servers look at.
    pub fn key(&self, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.name.text());
        key.extend_from_slice(&[0, u8::from(self.name.is_plain)]);
        key.extend_from_slice(&self.kind.to_be_bytes());
        key.extend_from_slice(&self.class.to_be_bytes());
        let flags = word(self.bytes, 2).unwrap_or(0) & (RECURSION_DESIRED | CHECKING_DISABLED | 0x20);
        let edns = self.edns.map_or(0, |edns| 1 + u8::from(edns.dnssec));
        key.extend_from_slice(&flags.to_be_bytes());
        key.push(edns);
    }

    fn question(&self) -> &'a [u8] {
        &self.bytes[HEADER..self.question_end]
    }
}

/// An answer with nothing but a code to a message that may be no query; empty when it is not even a header.
pub fn refusal(message: &[u8], code: u8, out: &mut Vec<u8>) {
    out.clear();
    let Some(flags) = word(message, 2) else { return };
    out.extend_from_slice(&message[..2]);
    let flags = RESPONSE | RECURSION_AVAILABLE | flags & (OPCODE | RECURSION_DESIRED) | u16::from(code);
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
}

/// An answer that is being written.
pub struct Answer<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
    answers: u16,
    /// Bytes of the record of EDNS that comes last.
    reserve: usize,
    is_full: bool,
}

impl<'a> Answer<'a> {
    /// Begins an answer of at most `limit` bytes.
    pub fn begin(query: &Query<'_>, code: u8, limit: usize, out: &'a mut Vec<u8>) -> Answer<'a> {
        out.clear();
        out.extend_from_slice(&query.bytes[..2]);
        let asked = word(query.bytes, 2).unwrap_or(0) & (RECURSION_DESIRED | CHECKING_DISABLED);
        out.extend_from_slice(&(RESPONSE | RECURSION_AVAILABLE | asked | u16::from(code)).to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(query.question());
        let reserve = if query.edns.is_some() { 11 } else { 0 };
        Answer { out, limit, answers: 0, reserve, is_full: false }
    }

    /// Adds an address of the name that was asked for.
    pub fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.record(kind::A, &v4.octets()),
            IpAddr::V6(v6) => self.record(kind::AAAA, &v6.octets()),
        }
    }

    /// Adds the name of the address that was asked for; one that is no name of DNS is left out.
    pub fn pointer(&mut self, name: &str) {
        let mut data = Vec::with_capacity(name.len() + 2);
        for label in name.split('.').filter(|label| !label.is_empty()) {
            if label.len() > 63 || data.len() + label.len() + 2 > MAX_NAME {
                return;
            }
            data.push(label.len() as u8);
            data.extend_from_slice(label.as_bytes());
        }
        data.push(0);
        self.record(kind::PTR, &data);
    }

    /// A record that does not fit makes the answer a truncated one.
    fn record(&mut self, kind: u16, data: &[u8]) {
        let size = QUESTION_NAME.len() + 10 + data.len();
        if self.is_full || self.out.len() + size + self.reserve > self.limit {
            self.is_full = true;
            return;
        }
        self.out.extend_from_slice(&QUESTION_NAME);
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&kind::INTERNET.to_be_bytes());
        self.out.extend_from_slice(&NAME_TTL.to_be_bytes());
        self.out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        self.out.extend_from_slice(data);
        self.answers += 1;
    }

    /// Completes the answer.
    pub fn end(self) {
        self.out[6..8].copy_from_slice(&self.answers.to_be_bytes());
        if self.is_full {
            self.out[2] |= (TRUNCATED >> 8) as u8;
        }
        if self.reserve > 0 {
            self.out[11] = 1;
            self.out.push(0);
            self.out.extend_from_slice(&kind::OPT.to_be_bytes());
            self.out.extend_from_slice(&OWN_SIZE.to_be_bytes());
            self.out.extend_from_slice(&[0; 6]);
        }
    }
}

/// A record of a message, its name skipped.
#[derive(Clone, Copy, Debug)]
struct Record {
    kind: u16,
    class: u16,
    ttl: u32,
    ttl_at: usize,
    data_at: usize,
    data_length: usize,
    section: Section,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Answer,
    Authority,
    Additional,
}

/// The records behind the question; `None` once the message is malformed, then nothing more.
struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    left: [u16; 3],
}

impl<'a> Records<'a> {
    fn behind(bytes: &'a [u8], at: usize) -> Records<'a> {
        let count = |at| word(bytes, at).unwrap_or(0);
        Records { bytes, at, left: [count(6), count(8), count(10)] }
    }

    fn read(&mut self, section: Section) -> Option<Record> {
        let bytes = self.bytes;
        let at = skip_name(bytes, self.at)?;
        let data_length = usize::from(word(bytes, at + 8)?);
        let data_at = at + 10;
        bytes.get(data_at..data_at + data_length)?;
        self.at = data_at + data_length;
        let (kind, class, ttl) = (word(bytes, at)?, word(bytes, at + 2)?, long(bytes, at + 4)?);
        Some(Record { kind, class, ttl, ttl_at: at + 4, data_at, data_length, section })
    }
}

impl Iterator for Records<'_> {
    type Item = Option<Record>;

    fn next(&mut self) -> Option<Option<Record>> {
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        let index = self.left.iter().position(|left| *left > 0)?;
        self.left[index] -= 1;
        let record = self.read(sections[index]);
        if record.is_none() {
            self.left = [0; 3];
        }
        Some(record)
    }
}

/// Where a name ends, compressed or not; its pointer is not followed.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    loop {
        let size = *bytes.get(at)?;
        match size {
            0 => return Some(at + 1),
            1..=63 => at += 1 + usize::from(size),
            192..=255 => return bytes.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
        if at - start > MAX_NAME {
            return None;
        }
    }
}

/// What a server has said to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is no answer to this query: whoever sent it, it is ignored.
    Foreign,
    /// The server cannot or will not answer: another one may.
    Failed,
    /// An answer; `is_negative`: there is no such name, or nothing of this type.
    Answered { is_negative: bool },
}

/// Whether `response` answers `query`, which was sent with its number: the number, the kind of message and the question,
/// whose letters a server may have changed in case, have to be the query's.
pub fn judge(query: &[u8], response: &[u8]) -> Verdict {
    let Ok(asked) = Query::parse(query) else { return Verdict::Foreign };
    let Some(flags) = word(response, 2).filter(|_| response.len() >= HEADER) else { return Verdict::Foreign };
    if id(response) != id(query) || flags & RESPONSE == 0 || flags & OPCODE != 0 {
        return Verdict::Foreign;
    }
    let code = (flags & RCODE) as u8;
    let fails = !matches!(code, rcode::NO_ERROR | rcode::NO_SUCH_NAME);
    // Servers that do not understand a query may not repeat it.
    if fails && word(response, 4) == Some(0) {
        return Verdict::Failed;
    }
    let question = response.get(HEADER..asked.question_end);
    let is_same = question.is_some_and(|question| question.eq_ignore_ascii_case(asked.question()));
    if word(response, 4) != Some(1) || !is_same {
        return Verdict::Foreign;
    }
    match fails {
        true if matches!(code, rcode::SERVER_FAILURE | rcode::REFUSED) => Verdict::Failed,
        _ => Verdict::Answered { is_negative: code == rcode::NO_SUCH_NAME || word(response, 6) == Some(0) },
    }
}

/// Whether the rest has to be fetched by TCP.
#[cfg(test)]
fn is_truncated(response: &[u8]) -> bool {
    word(response, 2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// Makes an answer that is too large for its client's datagrams an empty, truncated one.
pub fn truncate(query: &Query<'_>, response: &[u8], out: &mut Vec<u8>) {
    let code = word(response, 2).unwrap_or(0) & RCODE;
    Answer { is_full: true, ..Answer::begin(query, code as u8, PLAIN_SIZE, out) }.end();
}

/// The addresses that a response gives, and for how many seconds: the least that its answers say.
pub fn addresses(response: &[u8]) -> (Vec<IpAddr>, u32) {
    let (mut found, mut least) = (Vec::new(), u32::MAX);
    let Some(end) = skip_name(response, HEADER).filter(|_| word(response, 4) == Some(1)) else { return (found, 0) };
    for record in Records::behind(response, end + 4).flatten().filter(|record| record.section == Section::Answer) {
        // A time with its highest bit set is none (RFC 2181, 8).
        least = least.min(if record.ttl > i32::MAX as u32 { 0 } else { record.ttl });
        let data = &response[record.data_at..record.data_at + record.data_length];
        match (record.class, record.kind) {
            (kind::INTERNET, kind::A) => found.extend(<[u8; 4]>::try_from(data).ok().map(IpAddr::from)),
            (kind::INTERNET, kind::AAAA) => found.extend(<[u8; 16]>::try_from(data).ok().map(IpAddr::from)),
            _ => {}
        }
    }
    let seconds = if found.is_empty() { 0 } else { least };
    (found, seconds)
}

/// For how many seconds a response may be kept: the least that its records say, for a negative one what its SOA record
/// says (RFC 2308); `None`: it is not to be kept.
pub fn lifetime(response: &[u8]) -> Option<u32> {
    let flags = word(response, 2)?;
    let code = (flags & RCODE) as u8;
    if flags & TRUNCATED != 0 || !matches!(code, rcode::NO_ERROR | rcode::NO_SUCH_NAME) || word(response, 4)? != 1 {
        return None;
    }
    let (mut least, mut negative) = (None::<u32>, None);
    for record in Records::behind(response, skip_name(response, HEADER)? + 4) {
        let record = record?;
        let lasts = if record.ttl > i32::MAX as u32 { 0 } else { record.ttl };
        match (record.section, record.kind) {
            (_, kind::OPT) => {}
            (Section::Answer, _) => least = Some(least.map_or(lasts, |least| least.min(lasts))),
            (Section::Authority, kind::SOA) if record.data_length >= 4 => {
                let minimum = long(response, record.data_at + record.data_length - 4)?;
                negative = Some(minimum.min(lasts));
            }
            _ => {}
        }
    }
    match word(response, 6)? {
        0 => negative,
        // An alias that leads to nothing is as good as its SOA record.
        _ if code == rcode::NO_SUCH_NAME => least.zip(negative).map(|(least, negative)| least.min(negative)),
        _ => least,
    }
}

/// Takes the seconds that a kept response has lain from what its records say.
pub fn age(response: &mut [u8], seconds: u32) {
    let Some(question_end) = skip_name(response, HEADER).map(|end| end + 4) else { return };
    let places = |bytes: &[u8]| -> Vec<(usize, u32)> {
        let records = Records::behind(bytes, question_end).map_while(|record| record);
        records.filter(|record| record.kind != kind::OPT).map(|record| (record.ttl_at, record.ttl)).collect()
    };
    for (at, ttl) in places(response) {
        response[at..at + 4].copy_from_slice(&ttl.saturating_sub(seconds).to_be_bytes());
    }
}

/// Puts the number and the letters of the question that a client asked into a kept response.
pub fn address_to(query: &Query<'_>, response: &mut [u8]) {
    set_id(response, id(query.bytes));
    let question = query.question();
    if let Some(place) = response.get_mut(HEADER..HEADER + question.len()) {
        place.copy_from_slice(question);
    }
}

/// A query as a client would write it; for tests and measurements.
pub fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + name.len() + 6);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len().min(63) as u8);
        out.extend_from_slice(&label.as_bytes()[..label.len().min(63)]);
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&kind::INTERNET.to_be_bytes());
    out
}

#[cfg(test)]
mod tests;
