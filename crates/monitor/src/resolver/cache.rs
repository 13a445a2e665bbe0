//! Answers of servers, kept for as long as they say and no longer than five minutes, in a bounded space.

use std::time::{Duration, Instant};

use dns::message::{self, Query};

/// Bytes of all answers and their keys.
const MAX_BYTES: usize = 32 << 10;
/// Bytes of one; a larger one is not kept.
const MAX_ANSWER: usize = 2048;
const MAX_ENTRIES: usize = 256;
/// Longest time that an answer is kept.
const LONGEST: Duration = Duration::from_secs(300);

/// Answers, the one that was used last at the end.
#[derive(Debug, Default)]
pub struct Cache {
    entries: Vec<Entry>,
    bytes: usize,
    key: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    key: Box<[u8]>,
    response: Box<[u8]>,
    kept: Instant,
    until: Instant,
}

impl Entry {
    fn size(&self) -> usize {
        self.key.len() + self.response.len()
    }
}

impl Cache {
    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Cache::default();
    }

    /// Writes a kept answer to `out`, if there is one.
    pub fn answer(&mut self, query: &Query<'_>, now: Instant, out: &mut Vec<u8>) -> bool {
        if self.entries.is_empty() || !is_general(query) {
            return false;
        }
        query.key(&mut self.key);
        let Some(at) = self.entries.iter().position(|entry| *entry.key == self.key[..]) else { return false };
        let entry = self.entries.remove(at);
        if entry.until <= now {
            self.bytes -= entry.size();
            return false;
        }
        out.clear();
        out.extend_from_slice(&entry.response);
        message::age(out, now.saturating_duration_since(entry.kept).as_secs() as u32);
        message::address_to(query, out);
        self.entries.push(entry);
        true
    }

    /// Keeps an answer, if it may be kept.
    pub fn keep(&mut self, query: &Query<'_>, response: &[u8], now: Instant) {
        let seconds = message::lifetime(response).filter(|seconds| *seconds > 0);
        let Some(seconds) = seconds.filter(|_| response.len() <= MAX_ANSWER && is_general(query)) else { return };
        query.key(&mut self.key);
        let lasts = Duration::from_secs(seconds.into()).min(LONGEST);
        let entry = Entry { key: self.key[..].into(), response: response.into(), kept: now, until: now + lasts };
        if let Some(at) = self.entries.iter().position(|other| other.key == entry.key) {
            self.bytes -= self.entries.remove(at).size();
        }
        self.bytes += entry.size();
        self.entries.push(entry);
        while self.bytes > MAX_BYTES || self.entries.len() > MAX_ENTRIES {
            self.bytes -= self.entries.remove(0).size();
        }
    }
}

/// The answer depends on nothing but the key.
fn is_general(query: &Query<'_>) -> bool {
    query.edns.is_none_or(|edns| !edns.has_options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dns::message::kind;

    /// An answer with one address that may be kept for so long.
    fn response(query: &[u8], seconds: u32) -> Vec<u8> {
        let mut out = query.to_vec();
        out[2] |= 0x80;
        out[7] = 1;
        out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        out.extend_from_slice(&seconds.to_be_bytes());
        out.extend_from_slice(&[0, 4, 1, 2, 3, 4]);
        out
    }

    #[test]
    fn answers_are_kept_for_their_time() {
        let (mut cache, now, mut out) = (Cache::default(), Instant::now(), Vec::new());
        let bytes = message::query(1, "example.com", kind::A);
        let query = Query::parse(&bytes).unwrap();
        cache.keep(&query, &response(&bytes, 60), now);
        let bytes = message::query(9, "EXAMPLE.com", kind::A);
        let other_case = Query::parse(&bytes).unwrap();
        assert!(cache.answer(&other_case, now + Duration::from_secs(20), &mut out));
        assert_eq!((message::id(&out), message::lifetime(&out)), (9, Some(40)));
        assert!(out[13..].starts_with(b"EXAMPLE"));
        let other_kind = message::query(1, "example.com", kind::AAAA);
        assert!(!cache.answer(&Query::parse(&other_kind).unwrap(), now, &mut out));
        assert!(!cache.answer(&query, now + Duration::from_secs(60), &mut out));
        cache.keep(&query, &response(&bytes, 0), now);
        assert!(cache.entries.is_empty() && cache.bytes == 0);
    }

    #[test]
    fn its_space_is_bounded() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for i in 0..5000 {
            let bytes = message::query(1, &format!("{}{i}.example.com", "x".repeat(i % 50)), kind::A);
            cache.keep(&Query::parse(&bytes).unwrap(), &response(&bytes, 60), now);
        }
        assert!(cache.bytes <= MAX_BYTES && cache.entries.len() <= MAX_ENTRIES);
        assert_eq!(cache.bytes, cache.entries.iter().map(Entry::size).sum::<usize>());
    }
}
