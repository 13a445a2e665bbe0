//! The driver `json-file`: the reference engine's format, byte for byte. An entry is a JSON object on a line of its own:
//! `{"log":"text\n","stream":"stdout"[,"attrs":{…}],"time":"2006-01-02T15:04:05.999999999Z"}`.

mod count;
mod parse;
mod tail;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use model::Error;

use super::options::{self, DEFAULT_MAX_FILE, DEFAULT_MAX_SIZE};
use crate::file::chain::MAX_ROTATED;
use crate::file::codec::{Codec, Entry, Found, Text};
use crate::file::writer::Rotation;
use crate::seam::{Driver, Options, Place, ReadOptions, Sink, Source, Spec};
use crate::split::Piece;
use crate::time::Formatter;
use crate::{Stream, encode, file};

/// `max-size` of a log that grows for ever.
const UNLIMITED: &str = "-1";

pub struct JsonFile;

impl Driver for JsonFile {
    fn name(&self) -> &'static str {
        "json-file"
    }

    fn validate(&self, options: &Options) -> model::Result<()> {
        match options::unknown(options) {
            Some(key) => Err(Error::invalid(format!("unknown log opt '{key}' for json-file log driver"))),
            None => Ok(()),
        }
    }

    fn check(&self, options: &Options) -> model::Result<()> {
        rotation(options).map(drop)
    }

    fn open(&self, spec: &Spec) -> io::Result<Option<Box<dyn Sink>>> {
        file::open::<Json>(&path(&spec.place), rotation(&spec.options), &spec.attrs)
    }

    fn read(&self, place: &Place, options: ReadOptions) -> Option<io::Result<Box<dyn Source>>> {
        file::read::<Json>(&path(place), options)
    }

    fn path(&self, place: &Place) -> Option<PathBuf> {
        Some(path(place))
    }

    fn public_path(&self, place: &Place) -> Option<PathBuf> {
        Some(path(place))
    }
}

fn path(place: &Place) -> PathBuf {
    place.dir.join(format!("{}-json.log", place.id))
}

/// Unlike the reference, a log is bounded unless asked otherwise: five files of 20 MB, the rotated ones compressed.
/// `max-size=-1` asks for the reference's unbounded log.
fn rotation(config: &Options) -> model::Result<Rotation> {
    let max_size = match config.get("max-size").map(String::as_str) {
        None => Some(DEFAULT_MAX_SIZE),
        Some(UNLIMITED) => None,
        Some(text) => Some(positive_size(text)?),
    };
    let max_file = match config.get("max-file") {
        None => DEFAULT_MAX_FILE,
        Some(text) => max_file(text)?,
    };
    let possible = max_file > 1 && max_size.is_some();
    let compress = match config.get("compress") {
        None => possible,
        Some(text) => options::parse_bool(text)?,
    };
    if compress && !possible {
        return Err(Error::invalid("compress cannot be true when max-file is less than 2 or max-size is not set"));
    }
    Ok(Rotation { max_size, max_file, compress })
}

fn max_file(text: &str) -> model::Result<u32> {
    let number = options::atoi(text)?;
    if number < 1 {
        return Err(Error::invalid("max-file cannot be less than 1"));
    }
    Ok(u32::try_from(number).unwrap_or(u32::MAX).min(MAX_ROTATED))
}

fn positive_size(text: &str) -> model::Result<u64> {
    match options::human_size(text)? {
        0 => Err(Error::invalid("max-size must be a positive number")),
        size => Ok(size),
    }
}

/// The form of entries.
#[derive(Debug)]
pub struct Json {
    /// How entries of each stream end.
    tails: [Tail; 2],
}

impl Codec for Json {
    const WRITES_PARTS: bool = true;

    fn new(attrs: &str) -> Json {
        Json { tails: [Stream::Stdout, Stream::Stderr].map(|stream| Tail::new(stream, attrs)) }
    }

    fn encode(&mut self, stream: Stream, piece: Piece<'_>, time: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"log\":\"");
        encode::escape(piece.text, out);
        if piece.ends_line {
            out.extend_from_slice(b"\\n");
        }
        let tail = match stream {
            Stream::Stdout => &mut self.tails[0],
            Stream::Stderr => &mut self.tails[1],
        };
        out.extend_from_slice(tail.at(time));
    }

    fn find(text: &[u8]) -> Found {
        match memchr::memchr(b'\n', text) {
            Some(at) => Found::Entry { body: 0..at, next: at + 1 },
            None => Found::Incomplete,
        }
    }

    fn decode<R>(body: &[u8], take: impl FnOnce(Entry<'_>) -> R) -> Option<R> {
        let stream = |name: &[u8]| match name {
            b"stdout" => Some(Stream::Stdout),
            b"stderr" => Some(Stream::Stderr),
            _ => None,
        };
        if let Some(raw) = parse::own(body) {
            let text = Text::Escaped(raw.log);
            return Some(take(Entry { stream: stream(raw.stream), text, attrs: raw.attrs, time: raw.time }));
        }
        let loose = parse::loose(body)?;
        let attrs = if loose.attrs.is_object() { loose.attrs.to_string() } else { String::new() };
        Some(take(Entry {
            stream: stream(loose.stream.as_bytes()),
            text: Text::Plain(&loose.log),
            attrs: attrs.as_bytes(),
            time: loose.time.as_bytes(),
        }))
    }

    fn ends(text: &[u8]) -> (Option<usize>, u64) {
        (memchr::memrchr(b'\n', text).map(|at| at + 1), memchr::memchr_iter(b'\n', text).count() as u64)
    }

    fn lines(text: &[u8]) -> u64 {
        count::lines(text)
    }

    fn lines_of(file: &File, length: u64) -> io::Result<u64> {
        count::lines_of(file, length)
    }

    fn mend(file: &File, size: u64, buffer: &mut Vec<u8>) -> io::Result<u64> {
        let mut last = [b'\n'];
        if size > 0 {
            file.read_exact_at(&mut last, size - 1)?;
        }
        if last != [b'\n'] {
            buffer.push(b'\n');
        }
        Ok(size)
    }

    fn start_of_last(file: &File, end: u64, entries: u64) -> io::Result<(u64, u64)> {
        tail::start_of_last(file, end, entries)
    }

    fn count(reader: &mut dyn Read) -> io::Result<u64> {
        tail::count(reader)
    }

    fn last_time(file: &File) -> io::Result<String> {
        tail::last_time(file)
    }
}

/// What follows an entry's text. Of the lines of one read only the last digits of the time differ.
#[derive(Debug)]
struct Tail {
    text: Vec<u8>,
    /// Bytes before the time.
    fixed: usize,
    /// The time in the text.
    time: i64,
    formatter: Formatter,
}

impl Tail {
    const END: &[u8] = b"\"}\n";
    /// Digits that are put in place, and what is behind them: `Z` and the end.
    const DIGITS: usize = 3;
    const BEHIND: usize = 1 + Self::END.len();
    const TURN: i64 = 10_i64.pow(Self::DIGITS as u32);

    fn new(stream: Stream, attrs: &str) -> Tail {
        let attrs = if attrs.is_empty() { String::new() } else { format!(",\"attrs\":{attrs}") };
        let text = format!("\",\"stream\":\"{}\"{attrs},\"time\":\"", stream.name()).into_bytes();
        Tail { fixed: text.len(), text, time: 0, formatter: Formatter::new() }
    }

    /// The tail of an entry of this time.
    fn at(&mut self, time: i64) -> &[u8] {
        // A fraction is written without zeros at its end.
        let is_whole = |time: i64| time % 10 != 0;
        if time.div_euclid(Self::TURN) == self.time.div_euclid(Self::TURN) && is_whole(time) && is_whole(self.time) {
            let digits = self.text.iter_mut().rev().skip(Self::BEHIND).take(Self::DIGITS);
            let mut rest = time.rem_euclid(Self::TURN);
            for digit in digits {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        } else {
            self.text.truncate(self.fixed);
            self.formatter.write(time, &mut self.text);
            self.text.extend_from_slice(Self::END);
        }
        self.time = time;
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    fn error(pairs: &[(&str, &str)]) -> String {
        rotation(&config(pairs)).unwrap_err().message().to_owned()
    }

    #[test]
    fn bounded_by_default_and_unbounded_when_asked() {
        let parsed = |pairs| {
            let o = rotation(&config(pairs)).unwrap();
            (o.max_size, o.max_file, o.compress)
        };
        assert_eq!(parsed(&[]), (Some(20_000_000), 5, true));
        assert_eq!(parsed(&[("max-size", "-1")]), (None, 5, false));
        assert_eq!(parsed(&[("max-size", "10k"), ("max-file", "1")]), (Some(10_000), 1, false));
        assert_eq!(parsed(&[("max-size", "1.5MB"), ("compress", "false")]), (Some(1_500_000), 5, false));
    }

    #[test]
    fn the_texts_of_the_reference() {
        assert_eq!(error(&[("max-size", "abc")]), "invalid size: 'abc'");
        assert_eq!(error(&[("max-size", "0")]), "max-size must be a positive number");
        assert_eq!(error(&[("max-file", "0")]), "max-file cannot be less than 1");
        assert_eq!(error(&[("max-file", "x")]), "strconv.Atoi: parsing \"x\": invalid syntax");
        assert_eq!(error(&[("compress", "x")]), "strconv.ParseBool: parsing \"x\": invalid syntax");
        assert_eq!(
            error(&[("compress", "true"), ("max-file", "1")]),
            "compress cannot be true when max-file is less than 2 or max-size is not set"
        );
    }

    #[test]
    fn a_tail_has_its_time_whatever_the_one_before() {
        let mut tail = Tail::new(Stream::Stderr, "{}");
        let base = 1_700_000_000_123_456_000;
        let steps = [1, 2, 9, 10, 11, 19, 20, 99, 100, 101, 999, 1000, 1001, 1, 500_000_000, 500_000_001, 876_544_000];
        for time in steps.map(|step| base + step).into_iter().chain([-1, -2, 1, 2, 0, 3]) {
            let mut expected = b"\",\"stream\":\"stderr\",\"attrs\":{},\"time\":\"".to_vec();
            Formatter::new().write(time, &mut expected);
            expected.extend_from_slice(b"\"}\n");
            assert_eq!(tail.at(time), expected, "{time}");
        }
    }
}
