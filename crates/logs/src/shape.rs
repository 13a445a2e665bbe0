//! Entries into what a client sees: filtered, with time and attributes in front, framed.

use std::collections::BTreeMap;

use crate::file::codec::{Entry, Text};
use crate::seam::{Format, ReadOptions, Shape};
use crate::{FRAME_HEADER, RECORD_SEPARATOR, Stream, encode, frame_header, record, time};

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Written, filtered out, or no entry at all.
    Done,
    /// Later than `until`: neither this nor any further line is wanted.
    Past,
}

/// Applies one reader's options to lines in order.
#[derive(Debug)]
pub struct Shaper {
    /// Taken away by the first entry that is late enough: times need not be in order.
    since: Option<i64>,
    until: Option<i64>,
    stdout: bool,
    stderr: bool,
    format: Format,
    /// The last attributes seen and their text, since they rarely change.
    details: (Vec<u8>, Vec<u8>),
}

/// Appends the text; false = it is not valid (`out` then has some of it).
fn write_text(text: Text<'_>, out: &mut Vec<u8>) -> bool {
    match text {
        Text::Escaped(text) => return encode::unescape(text, out),
        Text::Plain(text) => out.extend_from_slice(text.as_bytes()),
        Text::Bytes(text, newline) => {
            out.extend_from_slice(text);
            out.extend_from_slice(if newline { b"\n" } else { b"" });
        }
    }
    true
}

impl Shaper {
    pub fn new(options: &ReadOptions) -> Shaper {
        Shaper {
            since: options.since,
            until: options.until,
            stdout: options.stdout,
            stderr: options.stderr,
            format: options.format,
            details: (Vec::new(), Vec::new()),
        }
    }

    /// Appends a line that tells of lines that were thrown away before they were read; `None`: nobody knows how many. It is on
    /// the error stream, unless only the other one is wanted.
    pub fn lost(&mut self, lines: Option<u64>, out: &mut Vec<u8>) {
        let stream = match (self.stdout, self.stderr) {
            (_, true) => Stream::Stderr,
            (true, false) => Stream::Stdout,
            (false, false) => return,
        };
        let lines = match lines {
            Some(1) => "1 line of this log was".to_owned(),
            Some(count) => format!("{count} lines of this log were"),
            None => "lines of this log were".to_owned(),
        };
        let text = format!("[gantry: {lines} lost: the log was rotated before they were read]\n");
        let mut time = Vec::new();
        time::Formatter::new().write(time::now(), &mut time);
        let entry = Entry { stream: Some(stream), text: Text::Plain(&text), attrs: b"", time: &time };
        self.write(stream, entry, out);
    }

    /// Appends the entry, if it is wanted.
    pub fn entry(&mut self, entry: Entry<'_>, out: &mut Vec<u8>) -> Verdict {
        let Some(stream) = entry.stream else { return Verdict::Done };
        if self.since.is_some() || self.until.is_some() {
            let Some(time) = time::parse(entry.time) else { return Verdict::Done };
            if self.since.is_some_and(|since| time < since) {
                return Verdict::Done;
            }
            self.since = None;
            if self.until.is_some_and(|until| time > until) {
                return Verdict::Past;
            }
        }
        let wanted = match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        if wanted {
            self.write(stream, entry, out);
        }
        Verdict::Done
    }

    fn write(&mut self, stream: Stream, entry: Entry<'_>, out: &mut Vec<u8>) {
        let framed = match self.format.shape {
            Shape::Raw => false,
            Shape::Frames => true,
            Shape::Json | Shape::JsonSequence => return self.write_json(stream, entry, out),
        };
        let begin = out.len();
        if framed {
            out.extend_from_slice(&[0; FRAME_HEADER]);
        }
        let payload = out.len();
        if self.format.timestamps {
            time::write_fixed(entry.time, out);
            out.push(b' ');
        }
        if self.format.details {
            self.write_details(entry.attrs, out);
            out.push(b' ');
        }
        if !write_text(entry.text, out) {
            out.truncate(begin);
        } else if framed {
            let length = u32::try_from(out.len() - payload).expect("a line is not longer than codec::MAX_ENTRY");
            out[begin..payload].copy_from_slice(&frame_header(stream, length));
        }
    }

    fn write_json(&self, stream: Stream, entry: Entry<'_>, out: &mut Vec<u8>) {
        let mut text = Vec::new();
        if !write_text(entry.text, &mut text) {
            return;
        }
        if self.format.shape == Shape::JsonSequence {
            out.push(RECORD_SEPARATOR);
        }
        let attrs = if self.format.details { pairs(entry.attrs) } else { BTreeMap::new() };
        record::write(stream, &text, entry.time, &attrs, out);
    }

    /// `k=v,k=v`, sorted, both parts escaped as in a URL's query.
    fn write_details(&mut self, attrs: &[u8], out: &mut Vec<u8>) {
        if self.details.0 != attrs {
            let mut text = Vec::new();
            for (key, value) in &pairs(attrs) {
                if !text.is_empty() {
                    text.push(b',');
                }
                query_escape(key, &mut text);
                text.push(b'=');
                query_escape(value, &mut text);
            }
            self.details = (attrs.to_vec(), text);
        }
        out.extend_from_slice(&self.details.1);
    }
}

/// The attributes as they stand in the file.
fn pairs(attrs: &[u8]) -> BTreeMap<String, String> {
    serde_json::from_slice(attrs).unwrap_or_default()
}

/// Go's `url.QueryEscape`.
fn query_escape(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(b),
            b' ' => out.push(b'+'),
            _ => out.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::json_file::Json;
    use crate::file::codec::Codec;

    fn take(shaper: &mut Shaper, line: &[u8], out: &mut Vec<u8>) -> Verdict {
        Json::decode(line, |entry| shaper.entry(entry, out)).unwrap_or(Verdict::Done)
    }

    const LINE: &[u8] =
        br#"{"log":"a \"b\"\n","stream":"stderr","attrs":{"z":"1 2","a":"x=y"},"time":"2026-11-23T17:37:59.31Z"}"#;

    fn shaped(options: ReadOptions) -> Vec<u8> {
        let mut out = Vec::new();
        take(&mut Shaper::new(&ReadOptions { stdout: true, ..options }), LINE, &mut out);
        out
    }

    #[test]
    fn prefixes_and_frame() {
        let format = Format { shape: Shape::Frames, timestamps: true, details: true };
        let text = b"2026-11-23T17:37:59.310000000Z a=x%3Dy,z=1+2 a \"b\"\n";
        let mut expected = vec![2, 0, 0, 0, 0, 0, 0, text.len() as u8];
        expected.extend_from_slice(text);
        assert_eq!(shaped(ReadOptions { stderr: true, format, ..Default::default() }), expected);
        assert_eq!(shaped(ReadOptions { stderr: true, ..Default::default() }), b"a \"b\"\n");
        assert_eq!(shaped(ReadOptions::default()), b"");
    }

    #[test]
    fn json_and_its_sequences() {
        let json = |shape, details| {
            let format = Format { shape, timestamps: false, details };
            String::from_utf8(shaped(ReadOptions { stderr: true, format, ..Default::default() })).unwrap()
        };
        let plain = r#"{"Line":"a \"b\"\n","Source":"stderr","Timestamp":"2026-11-23T17:37:59.31Z""#;
        assert_eq!(json(Shape::Json, false), format!("{plain}}}\n"));
        let attrs = r#""Attrs":[{"Key":"a","Value":"x=y"},{"Key":"z","Value":"1 2"}]"#;
        assert_eq!(json(Shape::JsonSequence, true), format!("\u{1e}{plain},{attrs}}}\n"));
    }

    #[test]
    fn since_and_until_are_inclusive() {
        let at = time::parse(b"2026-11-23T17:37:59.31Z").unwrap();
        let window = |since, until| {
            let options = ReadOptions { stderr: true, since: Some(since), until: Some(until), ..Default::default() };
            let mut out = Vec::new();
            (take(&mut Shaper::new(&options), LINE, &mut out), out.len())
        };
        assert_eq!(window(at, at), (Verdict::Done, 6));
        assert_eq!(window(at + 1, at + 1), (Verdict::Done, 0));
        assert_eq!(window(at - 2, at - 1), (Verdict::Past, 0));
    }

    #[test]
    fn a_frame_never_stays_half_written() {
        let mut out = Vec::new();
        let options = ReadOptions {
            stdout: true,
            format: Format { shape: Shape::Frames, ..Default::default() },
            ..Default::default()
        };
        let bad = br#"{"log":"a\u12","stream":"stdout","time":"2026-11-23T17:37:59Z"}"#;
        assert_eq!(take(&mut Shaper::new(&options), bad, &mut out), Verdict::Done);
        assert!(out.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_comes_back(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let mut escaped = Vec::new();
            encode::escape(&bytes, &mut escaped);
            let line =
                [b"{\"log\":\"", &escaped[..], b"\",\"stream\":\"stdout\",\"time\":\"2026-11-23T17:37:59Z\"}"].concat();
            let mut out = Vec::new();
            take(&mut Shaper::new(&ReadOptions { stdout: true, ..Default::default() }), &line, &mut out);
            // One replacement character for each byte that is not part of a character, as in Go.
            let mut expected = String::new();
            for chunk in bytes.utf8_chunks() {
                expected.push_str(chunk.valid());
                expected.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
            }
            proptest::prop_assert_eq!(&out, expected.as_bytes());
            let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
            proptest::prop_assert_eq!(json["log"].as_str(), Some(expected.as_str()));
        }

        #[test]
        fn damaged_lines_never_panic(at in 0..200_usize, byte in proptest::prelude::any::<u8>(), end in 0..200_usize) {
            let mut line = LINE.to_vec();
            let at = at % line.len();
            line[at] = byte;
            line.truncate(end.max(1));
            for shape in [Shape::Frames, Shape::Json] {
                let format = Format { shape, timestamps: true, details: true };
                let options = ReadOptions { stdout: true, stderr: true, since: Some(0), format, ..Default::default() };
                let mut out = Vec::new();
                take(&mut Shaper::new(&options), &line, &mut out);
                if shape == Shape::Json && !out.is_empty() {
                    serde_json::from_slice::<serde_json::Value>(&out).unwrap();
                }
            }
        }
    }
}
