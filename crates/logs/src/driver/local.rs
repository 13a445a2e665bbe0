//! The driver `local`: the reference engine's compact format. An entry is a protobuf message between two lengths (four bytes,
//! big-endian), so that files can be read from both ends. The message is `LogEntry` of moby's
//! `daemon/logger/internal/logdriver/entry.proto`.

mod message;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::PathBuf;

use model::Error;

use super::options::{self, DEFAULT_MAX_FILE, DEFAULT_MAX_SIZE};
use crate::file::chain::MAX_ROTATED;
use crate::file::codec::{Codec, Entry, Found, MAX_ENTRY, Text};
use crate::file::writer::Rotation;
use crate::seam::{Driver, Options, Place, ReadOptions, Sink, Source, Spec};
use crate::split::Piece;
use crate::time::Formatter;
use crate::{Stream, file};

const DIR: &str = "local-logs";
const FILE: &str = "container.log";
/// Of the directory.
const MODE: u32 = 0o700;
/// Bytes of a length.
const LENGTH: usize = 4;
const BLOCK: usize = 64 * 1024;

pub struct Local;

impl Driver for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn validate(&self, options: &Options) -> model::Result<()> {
        match options::unknown(options) {
            Some(key) => Err(Error::invalid(format!("unknown log opt '{key}' for log driver local"))),
            None => Ok(()),
        }
    }

    fn check(&self, options: &Options) -> model::Result<()> {
        rotation(options).map(drop)
    }

    fn open(&self, spec: &Spec) -> io::Result<Option<Box<dyn Sink>>> {
        match fs::DirBuilder::new().mode(MODE).create(spec.place.dir.join(DIR)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        file::open::<Framed>(&path(&spec.place), rotation(&spec.options), &spec.attrs)
    }

    fn read(&self, place: &Place, options: ReadOptions) -> Option<io::Result<Box<dyn Source>>> {
        file::read::<Framed>(&path(place), options)
    }

    fn path(&self, place: &Place) -> Option<PathBuf> {
        Some(path(place))
    }

    /// Nobody may rely on the format, which is why the reference does not show the file, either.
    fn public_path(&self, _place: &Place) -> Option<PathBuf> {
        None
    }
}

fn path(place: &Place) -> PathBuf {
    place.dir.join(DIR).join(FILE)
}

fn rotation(config: &Options) -> model::Result<Rotation> {
    let option = |name: &str| config.get(name).map(String::as_str);
    let max_size = match option("max-size") {
        None => DEFAULT_MAX_SIZE,
        Some(text) => options::human_size(text).map_err(|e| e.prefix(format!("invalid value for max-size: {text}")))?,
    };
    let max_file = match option("max-file") {
        None => i64::from(DEFAULT_MAX_FILE),
        Some(text) => options::atoi(text).map_err(|e| e.prefix(format!("invalid value for max-file: {text}")))?,
    };
    let compress = match option("compress") {
        None => true,
        Some(text) => options::parse_bool(text).map_err(|e| e.prefix("invalid boolean value for compress"))?,
    };
    if max_file < 0 {
        return Err(Error::invalid("max-file must not be negative"));
    }
    if compress && max_file <= 1 {
        return Err(Error::invalid("compression cannot be enabled when max file count is 1"));
    }
    let max_file = u32::try_from(max_file).unwrap_or(u32::MAX).clamp(1, MAX_ROTATED);
    Ok(Rotation { max_size: (max_size > 0).then_some(max_size), max_file, compress })
}

/// The form of entries.
#[derive(Debug)]
pub struct Framed {
    /// What every message ends with.
    attrs: Vec<u8>,
    /// Pieces of the present line of each stream.
    pieces: [u32; 2],
}

impl Codec for Framed {
    const WRITES_PARTS: bool = false;

    fn new(attrs: &str) -> Framed {
        Framed { attrs: message::attrs(attrs), pieces: [0; 2] }
    }

    fn encode(&mut self, stream: Stream, piece: Piece<'_>, time: i64, out: &mut Vec<u8>) {
        let pieces = match stream {
            Stream::Stdout => &mut self.pieces[0],
            Stream::Stderr => &mut self.pieces[1],
        };
        *pieces = if piece.time.is_some() { *pieces + 1 } else { 1 };
        let part = (!piece.ends_line || *pieces > 1).then_some((piece.ends_line, *pieces));
        let begin = out.len();
        out.extend_from_slice(&[0; LENGTH]);
        message::write(stream, piece.text, time, part, out);
        out.extend_from_slice(&self.attrs);
        let length = u32::try_from(out.len() - begin - LENGTH).expect("a piece and the attributes of a container");
        out[begin..begin + LENGTH].copy_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
    }

    fn find(text: &[u8]) -> Found {
        let Some(length) = length_at(text, 0) else { return Found::Incomplete };
        if length == 0 || length > MAX_ENTRY {
            return Found::Damage;
        }
        match length_at(text, LENGTH + length) {
            None => Found::Incomplete,
            Some(behind) if behind == length => {
                Found::Entry { body: LENGTH..LENGTH + length, next: length + 2 * LENGTH }
            }
            Some(_) => Found::Damage,
        }
    }

    fn decode<R>(body: &[u8], take: impl FnOnce(Entry<'_>) -> R) -> Option<R> {
        let found = message::read(body)?;
        let mut time = Vec::new();
        Formatter::new().write(found.time, &mut time);
        let text = Text::Bytes(found.line, found.ends_line);
        Some(take(Entry { stream: found.stream, text, attrs: found.attrs.as_bytes(), time: &time }))
    }

    fn ends(text: &[u8]) -> (Option<usize>, u64) {
        let (mut end, mut count) = (0, 0);
        while let Found::Entry { next, .. } = Framed::find(&text[end..]) {
            end += next;
            count += 1;
        }
        ((count > 0).then_some(end), count)
    }

    fn lines(mut text: &[u8]) -> u64 {
        let mut lines = 0;
        while let Found::Entry { body, next } = Framed::find(text) {
            lines += u64::from(message::read(&text[body]).is_some_and(|entry| entry.ends_line));
            text = &text[next..];
        }
        lines
    }

    fn lines_of(file: &File, length: u64) -> io::Result<u64> {
        let mut lines = 0;
        walk(&mut At { file, at: 0, end: length }, |body| {
            lines += u64::from(message::read(body).is_some_and(|entry| entry.ends_line));
        })?;
        Ok(lines)
    }

    fn mend(file: &File, size: u64, _buffer: &mut Vec<u8>) -> io::Result<u64> {
        let end = whole(file, size)?;
        if end < size {
            file.set_len(end)?;
        }
        Ok(end)
    }

    fn start_of_last(file: &File, end: u64, entries: u64) -> io::Result<(u64, u64)> {
        let mut window = Window { file, begin: 0, bytes: Vec::new() };
        let mut position = whole(file, end)?;
        let mut count = 0;
        while count < entries && position > 0 {
            let Some(begin) = window.before(position)? else { break };
            position = begin;
            count += 1;
        }
        Ok((position, count))
    }

    fn count(reader: &mut dyn Read) -> io::Result<u64> {
        let mut entries = 0;
        walk(reader, |_| entries += 1)?;
        Ok(entries)
    }

    fn last_time(file: &File) -> io::Result<String> {
        let end = whole(file, file.metadata()?.len())?;
        let (begin, count) = Framed::start_of_last(file, end, 1)?;
        let mut time = String::new();
        if count == 1 {
            walk(&mut At { file, at: begin, end }, |body| {
                let text = Framed::decode(body, |entry| String::from_utf8_lossy(entry.time).into_owned());
                time = text.unwrap_or_default();
            })?;
        }
        Ok(time)
    }
}

/// The length that is written here; `None`: behind the end.
fn length_at(text: &[u8], at: usize) -> Option<usize> {
    let bytes: [u8; LENGTH] = text.get(at..at + LENGTH)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(bytes)).ok()
}

/// Where the last whole entry before `end` ends. Usually there, and two reads tell.
fn whole(file: &File, end: u64) -> io::Result<u64> {
    if end == 0 || (Window { file, begin: 0, bytes: Vec::new() }).before(end)?.is_some() {
        return Ok(end);
    }
    walk(&mut At { file, at: 0, end }, |_| {})
}

/// Gives `take` the body of each whole entry; the number of bytes that these take up, up to damage or the end.
fn walk(reader: &mut dyn Read, mut take: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut buffer = Vec::new();
    let (mut start, mut filled, mut total) = (0, 0, 0);
    loop {
        match Framed::find(&buffer[start..filled]) {
            Found::Entry { body, next } => {
                take(&buffer[start + body.start..start + body.end]);
                start += next;
                total += next as u64;
                continue;
            }
            Found::Damage => return Ok(total),
            Found::Incomplete => {}
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
        start = 0;
        buffer.resize(buffer.len().max(filled + BLOCK), 0);
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(total),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A part of a file, whose position is not touched.
struct At<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for At<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(room.len());
        let n = self.file.read_at(&mut room[..wanted], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// A piece of a file that is read from its end.
struct Window<'a> {
    file: &'a File,
    begin: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// Where the entry begins that ends here; `None`: none ends here.
    fn before(&mut self, end: u64) -> io::Result<Option<u64>> {
        let length_before = |window: &mut Self, at: u64| match at.checked_sub(LENGTH as u64) {
            Some(at) => window.length(at).map(Some),
            None => Ok(None),
        };
        let Some(length) = length_before(self, end)? else { return Ok(None) };
        if length == 0 || length > MAX_ENTRY {
            return Ok(None);
        }
        let Some(body) = end.checked_sub((LENGTH + length) as u64) else { return Ok(None) };
        let first = length_before(self, body)?;
        Ok((first == Some(length)).then(|| body - LENGTH as u64))
    }

    /// The length that is written at this place of the file.
    fn length(&mut self, at: u64) -> io::Result<usize> {
        let end = at + LENGTH as u64;
        if at < self.begin || end > self.begin + self.bytes.len() as u64 {
            self.begin = end.saturating_sub(BLOCK as u64);
            self.bytes.resize(usize::try_from(end - self.begin).unwrap_or(BLOCK), 0);
            self.file.read_exact_at(&mut self.bytes, self.begin)?;
        }
        let inside = usize::try_from(at - self.begin).unwrap_or(usize::MAX);
        Ok(length_at(&self.bytes, inside).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
