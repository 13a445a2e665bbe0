//! Messages: what is written and read, and what strangers write.

use super::*;
use proptest::prelude::*;

/// A response to `query` with these records: type, seconds, data.
fn response(query: &[u8], flags: u16, records: &[(Section, u16, u32, &[u8])]) -> Vec<u8> {
    let mut out = query.to_vec();
    out[2..4].copy_from_slice(&(RESPONSE | flags).to_be_bytes());
    for (section, kind, ttl, data) in records {
        let count = match section {
            Section::Answer => 7,
            Section::Authority => 9,
            Section::Additional => 11,
        };
        out[count] += 1;
        out.extend_from_slice(&QUESTION_NAME);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(data);
    }
    out
}

fn with_edns(mut query: Vec<u8>, size: u16) -> Vec<u8> {
    query[11] = 1;
    query.extend_from_slice(&[0, 0, 41]);
    query.extend_from_slice(&size.to_be_bytes());
    query.extend_from_slice(&[0, 0, 0x80, 0, 0, 0]);
    query
}

#[test]
fn queries_are_read() {
    let bytes = query(7, "WEB.app", kind::A);
    let read = Query::parse(&bytes).unwrap();
    assert_eq!((read.name().text(), read.kind, read.class), (&b"web.app"[..], kind::A, 1));
    assert_eq!((read.edns, read.datagram_size()), (None, 512));
    let bytes = with_edns(bytes, 1232);
    let read = Query::parse(&bytes).unwrap();
    assert_eq!(read.edns, Some(Edns { size: 1232, dnssec: true, has_options: false }));
    assert_eq!(read.datagram_size(), 1232);
    let root = query(7, "", kind::A);
    assert_eq!(Query::parse(&root).unwrap().name().text(), b"");
}

#[test]
fn what_is_no_query_is_refused() {
    let good = query(7, "web", kind::A);
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Query::parse(&bytes).map(|_| ()).unwrap_err()
    };
    assert_eq!(changed(2, 0x81), Invalid::Silent, "a response");
    assert_eq!(changed(2, 0x11), Invalid::Code(rcode::NOT_IMPLEMENTED), "an inverse query");
    assert_eq!(changed(5, 0), Invalid::Code(rcode::FORMAT_ERROR), "no question");
    assert_eq!(changed(5, 2), Invalid::Code(rcode::FORMAT_ERROR), "two questions");
    assert_eq!(changed(7, 1), Invalid::Code(rcode::FORMAT_ERROR), "a record that is not there");
    assert_eq!(changed(12, 0xc0), Invalid::Code(rcode::FORMAT_ERROR), "a name that points at itself");
    for end in 0..good.len() {
        let expected = if end < HEADER { Invalid::Silent } else { Invalid::Code(rcode::FORMAT_ERROR) };
        assert_eq!(Query::parse(&good[..end]).map(|_| ()).unwrap_err(), expected, "{end}");
    }
    let long = query(7, &["a"; 128].join("."), kind::A);
    assert_eq!(Query::parse(&long).map(|_| ()).unwrap_err(), Invalid::Code(rcode::FORMAT_ERROR));
}

#[test]
fn answers_are_written_and_cut() {
    let bytes = with_edns(query(7, "Web", kind::A), 512);
    let asked = Query::parse(&bytes).unwrap();
    let mut out = Vec::new();
    let mut answer = Answer::begin(&asked, rcode::NO_ERROR, 512, &mut out);
    (0..100u8).for_each(|i| answer.address(IpAddr::V4(Ipv4Addr::new(10, 0, 0, i))));
    answer.end();
    assert!(out.len() <= 512 && is_truncated(&out), "{}", out.len());
    assert_eq!(judge(&bytes, &out), Verdict::Answered { is_negative: false });
    assert_eq!(out[12..17], *b"\x03Web\0");
    assert_eq!(word(&out, 6), Some(30));
    let mut answer = Answer::begin(&asked, rcode::NO_ERROR, 512, &mut out);
    answer.pointer(&["a"; 128].join("."));
    answer.pointer("web.app");
    answer.end();
    assert_eq!((word(&out, 6), is_truncated(&out)), (Some(1), false));
    refusal(&bytes, rcode::REFUSED, &mut out);
    assert_eq!(judge(&bytes, &out), Verdict::Failed);
}

#[test]
fn addresses_of_reverse_zones() {
    let reverse = |name: &str| {
        let bytes = query(1, name, kind::PTR);
        Query::parse(&bytes).unwrap().name().reverse()
    };
    assert_eq!(reverse("2.0.17.172.in-addr.arpa"), Some("172.17.0.2".parse().unwrap()));
    let six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.D.F.ip6.arpa";
    assert_eq!(reverse(six), Some("fd00::2".parse().unwrap()));
    for wrong in ["2.0.17.in-addr.arpa", "1.2.0.17.172.in-addr.arpa", "256.0.0.1.in-addr.arpa", "d.f.ip6.arpa", "x.y"] {
        assert_eq!(reverse(wrong), None, "{wrong}");
    }
}

#[test]
fn responses_are_judged() {
    let asked = query(7, "example.com", kind::A);
    let good = response(&asked, 0, &[(Section::Answer, kind::A, 60, &[1, 2, 3, 4])]);
    assert_eq!(judge(&asked, &good), Verdict::Answered { is_negative: false });
    let mut other_case = good.clone();
    other_case[13] = b'E';
    assert_eq!(judge(&asked, &other_case), Verdict::Answered { is_negative: false });
    let mut other_id = good.clone();
    other_id[1] = 8;
    let mut other_name = good.clone();
    other_name[13] = b'f';
    let mut other_kind = good.clone();
    other_kind[26] = 28;
    for foreign in [&other_id, &other_name, &other_kind, &asked, &good[..11].to_vec()] {
        assert_eq!(judge(&asked, foreign), Verdict::Foreign);
    }
    assert_eq!(judge(&asked, &response(&asked, 2, &[])), Verdict::Failed);
    assert_eq!(judge(&asked, &response(&asked, 5, &[])), Verdict::Failed);
    assert_eq!(judge(&asked, &response(&asked, 3, &[])), Verdict::Answered { is_negative: true });
}

#[test]
fn lifetimes() {
    let asked = query(7, "example.com", kind::A);
    let soa = [&[0, 0][..], &[0; 16], &30u32.to_be_bytes()].concat();
    let of = |flags, records: &[_]| lifetime(&response(&asked, flags, records));
    let a = (Section::Answer, kind::A, 60, &[1, 2, 3, 4][..]);
    let shorter = (Section::Answer, kind::A, 20, &[1, 2, 3, 4][..]);
    assert_eq!(of(0, &[a, shorter]), Some(20));
    assert_eq!(of(0, &[]), None);
    assert_eq!(of(3, &[(Section::Authority, kind::SOA, 900, &soa[..])]), Some(30));
    assert_eq!(of(0, &[(Section::Authority, kind::SOA, 10, &soa[..])]), Some(10));
    assert_eq!((of(2, &[a]), of(TRUNCATED, &[a])), (None, None));
    assert_eq!(of(0, &[(Section::Answer, kind::A, u32::MAX, &[1, 2, 3, 4][..])]), Some(0));
    let mut kept = response(&asked, 0, &[a, (Section::Additional, kind::OPT, 0x8000, &[])]);
    age(&mut kept, 25);
    assert_eq!(lifetime(&kept), Some(35));
    assert!(kept.ends_with(&[0, 0, 0x80, 0, 0, 0]), "the flags of EDNS are no time");
}

proptest! {
    /// Whatever arrives, nothing panics, and what is taken for a query can be answered.
    #[test]
    fn strangers_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600), is_query in any::<bool>()) {
        let mut bytes = bytes;
        if is_query && bytes.len() > HEADER {
            bytes[2] &= 1;
            bytes[4..6].copy_from_slice(&[0, 1]);
        }
        check(&bytes, &bytes);
    }

    /// Nor when good messages are damaged.
    #[test]
    fn damaged_messages_do_no_harm(at in 0usize..100, value in any::<u8>(), cut in 0usize..100) {
        let asked = with_edns(query(7, "web.example.com", kind::A), 4096);
        let mut bytes = response(&query(7, "web.example.com", kind::A), 0, &[(Section::Answer, kind::A, 60, &[1, 2, 3, 4])]);
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(bytes.len() - cut % bytes.len());
        check(&asked, &bytes);
        check(&bytes, &asked);
    }
}

fn check(query: &[u8], other: &[u8]) {
    let mut out = Vec::new();
    if let Ok(asked) = Query::parse(query) {
        assert!(asked.name().text().len() <= 253);
        let _ = asked.name().reverse();
        let mut answer = Answer::begin(&asked, rcode::NO_ERROR, asked.datagram_size(), &mut out);
        answer.address(IpAddr::V4(Ipv4Addr::LOCALHOST));
        answer.end();
        assert!(matches!(judge(query, &out), Verdict::Answered { .. }));
        assert!(lifetime(&out).is_none_or(|seconds| seconds == NAME_TTL));
        truncate(&asked, other, &mut out);
        address_to(&asked, &mut out);
        asked.key(&mut out);
    }
    refusal(query, rcode::REFUSED, &mut out);
    let _ = (judge(query, other), lifetime(other), is_truncated(other), id(other));
    let mut aged = other.to_vec();
    age(&mut aged, 10);
    assert_eq!(aged.len(), other.len());
}
