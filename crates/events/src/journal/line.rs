//! The lines of a journal: a checksum, a blank, one JSON value, a newline.
//!
//! A line is whole or it does not count: what a power cut left half-written, or another program changed, fails its CRC-32.
//! The next newline begins anew, so that damage costs the lines that it is in.

use std::ops::Range;

use flate2::Crc;
use serde::{Deserialize, Serialize};

use crate::{Draft, Event};
use model::time::Timestamp;

/// Hex digits of the checksum, and the blank.
const HEAD: usize = 9;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Line {
    /// The first one of a file.
    Journal(Head),
    /// A daemon begins to write.
    Session(String),
    /// An event.
    Event(Record),
    /// The daemon has written everything.
    Closed(u64),
}

/// What a file says of the events before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The format of the file.
    pub version: u32,
    /// The number of the next event when the file was begun.
    pub first: u64,
    /// The latest time of all events before, in unix nanoseconds.
    pub high: i64,
}

/// An event with its number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its number.
    pub n: u64,
    /// When it was published, in unix nanoseconds.
    pub t: i64,
    /// By which the store knows it, if it rode in a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub c: Option<u64>,
    /// What it says.
    #[serde(flatten)]
    pub said: Draft,
}

impl Record {
    /// As readers see it.
    pub(crate) fn into_event(self) -> Event {
        Event { number: self.n, time: Timestamp::from_unix_nanos(self.t), said: self.said }
    }
}

/// Appends a line.
pub(crate) fn encode(line: &Line, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[b' '; HEAD]);
    serde_json::to_writer(&mut *out, line).expect("plain data");
    let digits = format!("{:08x}", checksum(&out[start + HEAD..]));
    out[start..start + HEAD - 1].copy_from_slice(digits.as_bytes());
    out.push(b'\n');
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The line without its newline, if it is whole.
pub(crate) fn decode(line: &[u8]) -> Option<Line> {
    let (head, body) = line.split_at_checked(HEAD)?;
    let digits = std::str::from_utf8(head.strip_suffix(b" ")?).ok()?;
    let sum = u32::from_str_radix(digits, 16).ok()?;
    (sum == checksum(body)).then(|| serde_json::from_slice(body).ok())?
}

/// The lines of some bytes: where each lies, and what it says; `None` where it is not whole.
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = (Range<usize>, Option<Line>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let newline = rest.iter().position(|b| *b == b'\n');
        let range = at..at + newline.map_or(rest.len(), |n| n + 1);
        at = range.end;
        Some((range, newline.and_then(|n| decode(&rest[..n]))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u64) -> Line {
        let said = Draft::new("container", "exec_create: a\nb \u{fffd}", "ab", [("k", "\"\u{0}".to_owned())]);
        Line::Event(Record { n, t: -5, c: n.is_multiple_of(2).then_some(n), said })
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let all = [Line::Journal(Head { version: 1, first: 3, high: 0 }), line(3), line(4), Line::Closed(4)];
        let mut bytes = Vec::new();
        all.iter().for_each(|line| encode(line, &mut bytes));
        let read: Vec<_> = lines(&bytes).map(|(_, line)| line.unwrap()).collect();
        assert_eq!(read, all);
    }

    /// Any one byte that changes, and any cut, costs the line that it is in.
    #[test]
    fn damage_costs_the_line_that_it_is_in() {
        let mut bytes = Vec::new();
        (0..3).for_each(|n| encode(&line(n), &mut bytes));
        let ranges: Vec<_> = lines(&bytes).map(|(range, _)| range).collect();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x15;
            let whole: Vec<_> = lines(&damaged).filter_map(|(_, line)| line).collect();
            let hit = ranges.iter().position(|range| range.contains(&at)).unwrap();
            // A newline that is lost joins two lines.
            let lost = if bytes[at] == b'\n' && hit < 2 { 2 } else { 1 };
            assert_eq!(whole.len(), 3 - lost, "{at}");
            assert_eq!(lines(&bytes[..at]).filter(|(_, line)| line.is_some()).count(), hit, "{at}");
        }
    }
}
