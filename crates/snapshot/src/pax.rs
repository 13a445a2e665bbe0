//! PAX extended headers: the records that stand before an entry and override its header.
//!
//! Only records that matter to a layer are kept; all sizes are bounded by the caller, who reads the block.

use std::collections::BTreeMap;
use std::io;

use crate::archive::{Time, bad};

/// What the records of one header say. `None`: the record was absent.
#[derive(Debug, Default)]
pub(crate) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    /// `SCHILY.xattr.*`, names without that prefix.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: Sparse,
}

/// The records of the three GNU sparse formats.
#[derive(Debug, Default)]
pub(crate) struct Sparse {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// Offsets and lengths alternating, of format 0.0 and 0.1.
    pub map: Vec<u64>,
}

/// Parses a block of `LENGTH KEY=VALUE\n` records.
pub(crate) fn parse(mut block: &[u8]) -> io::Result<Pax> {
    let mut pax = Pax::default();
    while !block.is_empty() {
        let (record, rest) = split(block).ok_or_else(|| bad("invalid PAX record"))?;
        block = rest;
        let at = record.iter().position(|b| *b == b'=').ok_or_else(|| bad("invalid PAX record"))?;
        pax.take(&record[..at], &record[at + 1..])?;
    }
    Ok(pax)
}

/// Splits the first record (without length and newline) off.
fn split(block: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = block.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = number(&block[..space])?.try_into().ok()?;
    if length <= space + 1 || length > block.len() || block[length - 1] != b'\n' {
        return None;
    }
    Some((&block[space + 1..length - 1], &block[length..]))
}

impl Pax {
    fn take(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let wanted = |value| number(value).ok_or_else(|| bad("invalid number in a PAX record"));
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.insert(name.to_vec(), value.to_vec());
            return Ok(());
        }
        match key {
            // Such a record takes back what a global header said: nothing here, where those are read over.
            _ if value.is_empty() => {}
            b"path" => self.path = Some(text(value)?),
            b"linkpath" => self.link = Some(text(value)?),
            b"size" => self.size = Some(wanted(value)?),
            b"uid" => self.uid = Some(wanted(value)?),
            b"gid" => self.gid = Some(wanted(value)?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(|| bad("invalid time in a PAX record"))?),
            b"GNU.sparse.major" => self.sparse.major = Some(wanted(value)?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(wanted(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(text(value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = Some(wanted(value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.map.push(wanted(value)?),
            b"GNU.sparse.map" => {
                for part in value.split(|b| *b == b',') {
                    self.sparse.map.push(wanted(part)?);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A name: no NUL.
fn text(value: &[u8]) -> io::Result<Vec<u8>> {
    if value.contains(&0) { Err(bad("invalid name in a PAX record")) } else { Ok(value.to_vec()) }
}

/// Decimal digits only.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`; digits past nanoseconds are dropped.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let (whole, fraction) = match value.iter().position(|b| *b == b'.') {
        Some(at) => (&value[..at], &value[at + 1..]),
        None => (value, &b""[..]),
    };
    let seconds: i64 = number(whole)?.try_into().ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanos: i64 = 0;
    for place in 0..9 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        nanos = nanos * 10 + i64::from(char::from(digit).to_digit(10)?);
    }
    Some(match (negative, nanos) {
        (false, _) => Time { seconds, nanos },
        (true, 0) => Time { seconds: -seconds, nanos: 0 },
        (true, _) => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> Vec<u8> {
        let body = format!(" {key}={value}\n");
        let mut length = body.len() + 1;
        while length != length.to_string().len() + body.len() {
            length = length.to_string().len() + body.len();
        }
        format!("{length}{body}").into_bytes()
    }

    #[test]
    fn records_are_taken() {
        let block = [
            record("path", "a=b\u{e9}"),
            record("mtime", "12.5"),
            record("comment", "no"),
            record("SCHILY.xattr.user.k", "v\nw"),
            record("GNU.sparse.map", "0,1,5,2"),
        ]
        .concat();
        let pax = parse(&block).unwrap();
        assert_eq!(pax.path.unwrap(), "a=b\u{e9}".as_bytes());
        assert_eq!(pax.mtime.unwrap(), Time { seconds: 12, nanos: 500_000_000 });
        assert_eq!(pax.xattrs[&b"user.k"[..]], b"v\nw");
        assert_eq!(pax.sparse.map, [0, 1, 5, 2]);
    }

    #[test]
    fn times_before_the_epoch_round_down() {
        assert_eq!(time(b"-1.25").unwrap(), Time { seconds: -2, nanos: 750_000_000 });
        assert_eq!(time(b"-3").unwrap(), Time { seconds: -3, nanos: 0 });
        assert_eq!(time(b"1.x"), None);
        assert_eq!(time(b"1.1234567891x"), None);
        assert_eq!(time(b""), None);
    }

    #[test]
    fn a_record_without_a_value_says_nothing() {
        let keys = ["path", "linkpath", "size", "uid", "gid", "mtime", "GNU.sparse.major", "GNU.sparse.map"];
        let pax = parse(&keys.map(|key| record(key, "")).concat()).unwrap();
        assert_eq!((pax.path, pax.link, pax.size, pax.uid, pax.gid, pax.mtime), (None, None, None, None, None, None));
        let pax = parse(&record("SCHILY.xattr.user.k", "")).unwrap();
        assert_eq!(pax.xattrs[&b"user.k"[..]], b"");
    }

    #[test]
    fn malformed_blocks_are_refused() {
        for block in [
            "5 a=b",
            "4 a=\n\n",
            "99 a=b\n",
            "x a=b\n",
            "6 a=b\nx",
            "0 a=b\n",
            "9 path=\0\n",
            "18446744073709551616 a=b\n",
        ] {
            assert!(parse(block.as_bytes()).is_err(), "{block:?}");
        }
    }
}
