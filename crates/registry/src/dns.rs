//! DNS messages (RFC 1035): one question out, addresses in. Pure, bounded, never panics on what the network sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of the fixed header.
const HEADER: usize = 12;
/// Longest name, in its text form.
const NAME: usize = 253;
/// Compression pointers followed within one name.
const POINTERS: usize = 32;
/// Records looked at in an answer.
const RECORDS: usize = 256;
const CLASS_INTERNET: u16 = 1;
const CNAME: u16 = 5;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A = 1,
    /// IPv6 addresses.
    Aaaa = 28,
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Addresses, perhaps none: the name exists.
    Addresses(Vec<IpAddr>),
    /// The name does not exist.
    NoSuchName,
    /// It does not fit into a datagram: ask by TCP.
    Truncated,
    /// The server cannot or will not answer.
    Failed(u8),
}

/// A query; `None` when the name cannot be asked for.
pub fn query(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let name = name.trim_end_matches('.');
    if name.is_empty() || name.len() > NAME {
        return None;
    }
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    message.extend(id.to_be_bytes());
    // Recursion desired, one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend((kind as u16).to_be_bytes());
    message.extend(CLASS_INTERNET.to_be_bytes());
    Some(message)
}

/// Reads the answer to `query`; `None` when it is not one.
pub fn answer(query: &[u8], message: &[u8]) -> Option<Answer> {
    let header = message.get(..HEADER)?;
    let question = query.get(HEADER..)?;
    let is_reply = header[2] & 0x80 != 0;
    if header[..2] != query[..2] || !is_reply || header[4..6] != [0, 1] {
        return None;
    }
    // The question comes back, letters perhaps in another case.
    if !message.get(HEADER..HEADER + question.len())?.eq_ignore_ascii_case(question) {
        return None;
    }
    if header[2] & 0x02 != 0 {
        return Some(Answer::Truncated);
    }
    match header[3] & 0x0f {
        0 => {}
        3 => return Some(Answer::NoSuchName),
        code => return Some(Answer::Failed(code)),
    }
    let count = usize::from(u16::from_be_bytes([header[6], header[7]]));
    let (mut wanted, end) = name(message, HEADER)?;
    let kind = u16::from_be_bytes([message[end], message[end + 1]]);
    let mut at = end + 4;
    let mut found = Vec::new();
    for _ in 0..count.min(RECORDS) {
        let record = record(message, at)?;
        at = record.end;
        if record.class != CLASS_INTERNET || !record.owner.eq_ignore_ascii_case(&wanted) {
            continue;
        }
        if record.kind == CNAME {
            wanted = name(message, record.data)?.0;
        } else if record.kind == kind {
            found.extend(address(message.get(record.data..record.end)?));
        }
    }
    Some(Answer::Addresses(found))
}

struct Record {
    owner: String,
    kind: u16,
    class: u16,
    /// Where its data begins and ends.
    data: usize,
    end: usize,
}

fn record(message: &[u8], at: usize) -> Option<Record> {
    let (owner, at) = name(message, at)?;
    let head = message.get(at..at + 10)?;
    let number = |n: usize| u16::from_be_bytes([head[n], head[n + 1]]);
    let data = at + 10;
    let end = data + usize::from(number(8));
    (end <= message.len()).then_some(Record { owner, kind: number(0), class: number(2), data, end })
}

fn address(data: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(data) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    <[u8; 16]>::try_from(data).ok().map(|bytes| Ipv6Addr::from(bytes).into())
}

/// The name at a place, and where what follows it begins.
fn name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut text, mut at, mut end) = (String::new(), start, None);
    for _ in 0..POINTERS * 8 {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some((text, end.unwrap_or(at + 1))),
            0xc0.. => {
                let target = (length & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                end = end.or(Some(at + 2));
                // Pointers lead back only, so that they end.
                if target >= at {
                    return None;
                }
                at = target;
            }
            1..=63 => {
                let label = message.get(at + 1..at + 1 + length)?;
                if !text.is_empty() {
                    text.push('.');
                }
                text.extend(label.iter().map(|b| char::from(*b)));
                if text.len() > 2 * NAME {
                    return None;
                }
                at += 1 + length;
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reply(query: &[u8], code: u8, records: &[&[u8]]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2] |= 0x80;
        message[3] = code;
        message[7] = u8::try_from(records.len()).unwrap();
        message.extend(records.concat());
        message
    }

    fn addresses(query: &[u8], records: &[&[u8]]) -> Vec<String> {
        match answer(query, &reply(query, 0, records)) {
            Some(Answer::Addresses(list)) => list.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_are_read_through_aliases() {
        let query = query(7, "r.example.", Kind::A).unwrap();
        let alias = b"\xc0\x0c\0\x05\0\x01\0\0\0\x09\0\x06\x03cdn\xc0\x0e";
        let real = b"\x03cdn\xc0\x0e\0\x01\0\x01\0\0\0\x09\0\x04\x0a\0\0\x01";
        let foreign = b"\x03foo\xc0\x0e\0\x01\0\x01\0\0\0\x09\0\x04\x0a\0\0\x02";
        assert_eq!(addresses(&query, &[alias, real, foreign]), ["10.0.0.1"]);
        assert!(addresses(&query, &[]).is_empty());
    }

    #[test]
    fn refusals_are_told_apart_and_strangers_ignored() {
        let query = query(7, "r.example", Kind::Aaaa).unwrap();
        assert_eq!(answer(&query, &reply(&query, 3, &[])), Some(Answer::NoSuchName));
        assert_eq!(answer(&query, &reply(&query, 2, &[])), Some(Answer::Failed(2)));
        let mut truncated = reply(&query, 0, &[]);
        truncated[2] |= 2;
        assert_eq!(answer(&query, &truncated), Some(Answer::Truncated));
        let mut other = reply(&query, 0, &[]);
        other[1] = 8;
        assert_eq!(answer(&query, &other), None);
        assert_eq!(answer(&query, &query), None);
        for name in ["", "a..b", &"a".repeat(64), &"a.".repeat(130)] {
            assert!(super::query(1, name, Kind::A).is_none(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..80), count in any::<u8>()) {
            let query = query(7, "r.example", Kind::A).unwrap();
            let mut message = reply(&query, 0, &[&tail]);
            message[7] = count;
            drop(answer(&query, &message));
            drop(answer(&query, &tail));
        }
    }
}
