//! DNS messages (RFC 1035), which `hickory-proto` writes and reads: one question out, addresses in. Pure.

use std::net::IpAddr;

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// Records looked at in an answer.
const RECORDS: u16 = 256;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
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
    let mut name = Name::from_ascii(name).ok().filter(|name| name.num_labels() > 0)?;
    name.set_fqdn(true);
    let kind = match kind {
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
    };
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    message.to_vec().ok()
}

/// Reads the answer to `query`; `None` when it is not one.
pub fn answer(query: &[u8], message: &[u8]) -> Option<Answer> {
    let asked = Message::from_vec(query).ok()?;
    let mut decoder = BinDecoder::new(message);
    let header = Header::read(&mut decoder).ok()?;
    let is_reply = header.metadata.message_type == MessageType::Response && header.metadata.id == asked.metadata.id;
    if !is_reply || header.counts.queries != 1 {
        return None;
    }
    // The question comes back, letters perhaps in another case: names are compared without it.
    let question = Query::read(&mut decoder).ok().filter(|question| asked.queries.first() == Some(question))?;
    if header.metadata.truncation {
        return Some(Answer::Truncated);
    }
    match header.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Some(Answer::NoSuchName),
        code => return Some(Answer::Failed(code.low())),
    }
    let mut wanted = question.name().clone();
    let mut found = Vec::new();
    for _ in 0..header.counts.answers.min(RECORDS) {
        let record = Record::read(&mut decoder).ok()?;
        if record.dns_class != DNSClass::IN || record.name != wanted {
            continue;
        }
        match record.data {
            RData::CNAME(alias) => wanted = alias.0,
            RData::A(address) if question.query_type() == RecordType::A => found.push(address.0.into()),
            RData::AAAA(address) if question.query_type() == RecordType::AAAA => found.push(address.0.into()),
            _ => {}
        }
    }
    Some(Answer::Addresses(found))
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
        let mut shouted = reply(&query, 3, &[]);
        shouted[13] = shouted[13].to_ascii_uppercase();
        assert_eq!(answer(&query, &shouted), Some(Answer::NoSuchName));
        shouted[13] = b'x';
        assert_eq!(answer(&query, &shouted), None);
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
