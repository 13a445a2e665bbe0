//! Messages of DNS.

use std::net::{IpAddr, Ipv4Addr};

use dns::message::{self, Answer, Query, Verdict, rcode};
use hickory_proto::op::{Message, MessageType};

/// A query and what is said to answer it, each with its length before it (two bytes, as over TCP): reading ends, what is
/// taken for a query can be answered within its bounds, and only an answer to it is one.
pub fn dns_messages(bytes: &[u8]) {
    let (query, rest) = framed(bytes);
    let (response, _) = framed(rest);
    let mut out = Vec::new();
    if let Ok(asked) = Query::parse(query) {
        assert!(asked.name().text().len() <= 253);
        let _ = asked.name().reverse();
        let limit = asked.datagram_size();
        let mut answer = Answer::begin(&asked, rcode::NO_ERROR, limit, &mut out);
        (0..=u8::MAX).for_each(|last| answer.address(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))));
        answer.pointer("web.app");
        answer.end();
        assert!(out.len() <= limit, "{} of {limit}", out.len());
        assert_eq!(message::judge(query, &out), Verdict::Answered { is_negative: false });
        judged_elsewhere(query, &out);
        message::truncate(&asked, response, &mut out);
        assert!(out.len() <= message::PLAIN_SIZE);
        let mut kept = response.to_vec();
        message::address_to(&asked, &mut kept);
        assert_eq!(kept.len(), response.len());
        asked.key(&mut out);
    }
    if let Verdict::Answered { .. } = message::judge(query, response) {
        assert_eq!(message::id(query), message::id(response));
    }
    message::refusal(query, rcode::REFUSED, &mut out);
    let (addresses, seconds) = message::addresses(response);
    assert!(addresses.len() <= response.len() / 16 && (!addresses.is_empty() || seconds == 0));
    let before = message::lifetime(response);
    let mut aged = response.to_vec();
    message::age(&mut aged, 10);
    assert_eq!(aged.len(), response.len());
    if let (Some(before), Some(after)) = (before, message::lifetime(&aged)) {
        assert!(after <= before);
    }
}

/// Another codec reads what was written: its number, its question and that it is an answer; nothing lies behind its end.
fn judged_elsewhere(query: &[u8], answer: &[u8]) {
    let Ok(asked) = Message::from_vec(query) else { return };
    let read = Message::from_vec(answer).expect("an answer can be read");
    assert_eq!((read.metadata.id, read.metadata.message_type), (asked.metadata.id, MessageType::Response));
    assert_eq!(read.queries, asked.queries);
    assert_eq!(read.edns.is_some(), asked.edns.is_some());
    assert!(read.answers.iter().all(|record| record.name == asked.queries[0].name));
}

/// The first message, and what comes behind it.
fn framed(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return (&[], &[]) };
    rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()))
}
