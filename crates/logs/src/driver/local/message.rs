//! The message of an entry: fields source (1, string), time_nano (2, int64), line (3, bytes without the newline), partial (4,
//! bool), partial_log_metadata (5: last 1, id 2, ordinal 3), attrs (6, repeated: key 1, value 2). Protocol Buffers encoding:
//! <https://protobuf.dev/programming-guides/encoding/>.

use std::collections::BTreeMap;

use crate::Stream;

const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const FIXED_32: u8 = 5;
/// A number takes no more bytes.
const MAX_VARINT: usize = 10;

/// What a message says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found<'a> {
    /// `None`: neither output.
    pub stream: Option<Stream>,
    /// Unix nanoseconds.
    pub time: i64,
    pub line: &'a [u8],
    pub ends_line: bool,
    /// A JSON object of strings, or empty.
    pub attrs: String,
}

/// Appends a message without attributes. `part`: whether the piece of a line is its last one, and its number from 1.
pub fn write(stream: Stream, line: &[u8], time: i64, part: Option<(bool, u32)>, out: &mut Vec<u8>) {
    bytes(1, stream.name().as_bytes(), out);
    number(2, time.cast_unsigned(), out);
    if !line.is_empty() {
        bytes(3, line, out);
    }
    if let Some((last, ordinal)) = part {
        number(4, 1, out);
        let mut part = Vec::new();
        if last {
            number(1, 1, &mut part);
        }
        // Pieces of a line have the time of the first one, and no other line of the stream has it.
        bytes(2, format!("{time:064x}").as_bytes(), &mut part);
        number(3, u64::from(ordinal), &mut part);
        bytes(5, &part, out);
    }
}

/// The fields of these attributes, a JSON object of strings.
pub fn attrs(json: &str) -> Vec<u8> {
    let pairs: BTreeMap<String, String> = serde_json::from_str(json).unwrap_or_default();
    let mut out = Vec::new();
    for (key, value) in &pairs {
        let mut pair = Vec::new();
        bytes(1, key.as_bytes(), &mut pair);
        bytes(2, value.as_bytes(), &mut pair);
        bytes(6, &pair, &mut out);
    }
    out
}

/// Reads a message; fields that are not known are passed over. `None`: it is none.
pub fn read(message: &[u8]) -> Option<Found<'_>> {
    let mut found = Found { ends_line: true, ..Found::default() };
    let mut attrs = BTreeMap::new();
    let (mut partial, mut last) = (false, false);
    let mut fields = Fields(message);
    while let Some(field) = fields.next()? {
        match field {
            Field::Bytes(1, b"stdout") => found.stream = Some(Stream::Stdout),
            Field::Bytes(1, b"stderr") => found.stream = Some(Stream::Stderr),
            Field::Number(2, time) => found.time = time.cast_signed(),
            Field::Bytes(3, line) => found.line = line,
            Field::Number(4, value) => partial = value != 0,
            Field::Bytes(5, part) => {
                let mut fields = Fields(part);
                while let Some(field) = fields.next()? {
                    if let Field::Number(1, value) = field {
                        last = value != 0;
                    }
                }
            }
            Field::Bytes(6, pair) => attrs.extend([read_pair(pair)?]),
            _ => {}
        }
    }
    found.ends_line = !partial || last;
    if !attrs.is_empty() {
        found.attrs = serde_json::to_string(&attrs).unwrap_or_default();
    }
    Some(found)
}

fn read_pair(pair: &[u8]) -> Option<(String, String)> {
    let (mut key, mut value) = (String::new(), String::new());
    let mut fields = Fields(pair);
    while let Some(field) = fields.next()? {
        match field {
            Field::Bytes(1, text) => key = String::from_utf8_lossy(text).into_owned(),
            Field::Bytes(2, text) => value = String::from_utf8_lossy(text).into_owned(),
            _ => {}
        }
    }
    Some((key, value))
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(field: u8, value: u64, out: &mut Vec<u8>) {
    out.push(field << 3 | VARINT);
    varint(value, out);
}

fn bytes(field: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(field << 3 | BYTES);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

enum Field<'a> {
    Number(u64, u64),
    Bytes(u64, &'a [u8]),
    Other,
}

/// The fields of a message in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next field, if there is one; an outer `None`: the message is damaged.
    fn next(&mut self) -> Option<Option<Field<'a>>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let key = self.varint()?;
        let field = key >> 3;
        Some(Some(match key as u8 & 7 {
            VARINT => Field::Number(field, self.varint()?),
            BYTES => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(field, self.take(length)?)
            }
            FIXED_64 => self.take(8).map(|_| Field::Other)?,
            FIXED_32 => self.take(4).map(|_| Field::Other)?,
            _ => return None,
        }))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for at in 0..MAX_VARINT {
            let byte = *self.0.get(at)?;
            value |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}
