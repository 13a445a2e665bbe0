//! The entries of one file of the chain, plain or gzipped, from a starting point.
//!
//! Only complete entries are given. At the end of a plain file that may still grow, nothing of an incomplete one is kept: it
//! is read again later, because a writer that has run out of disk space takes half an entry back.

use std::fs::File;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;

use super::chain::{self, Extra, Link};
use super::codec::{Codec, Found, MAX_ENTRY};
use super::ordinal;

const BLOCK: usize = 64 * 1024;

/// Reads entries in order.
pub struct Lines<C> {
    source: Source,
    buffer: Vec<u8>,
    /// The unread part of the buffer.
    start: usize,
    filled: usize,
    /// Entries to pass over first.
    skip: u64,
    /// Inside one that is longer than any of ours.
    oversized: bool,
    /// At what cannot be an entry: the rest of the file is not read.
    damaged: bool,
    codec: PhantomData<C>,
    /// Lines of the log before the file.
    begin: Option<u64>,
}

enum Source {
    Plain { file: File, position: u64, end: u64 },
    Gzip { text: Box<dyn Read + Send>, end: Option<u64> },
}

impl<C: Codec> Lines<C> {
    /// The last `tail` entries of the file (`None` = all) and how many these are.
    pub fn last(link: Link, tail: Option<u64>) -> io::Result<(Lines<C>, u64)> {
        if link.gzip { Lines::last_of_gzip(&link, tail) } else { Lines::last_of_plain(link, tail) }
    }

    fn last_of_plain(link: Link, tail: Option<u64>) -> io::Result<(Lines<C>, u64)> {
        let begin = link.begin();
        let Link { file, size: end, .. } = link;
        let (position, count) = match tail {
            None => (0, 0),
            Some(lines) => C::start_of_last(&file, end, lines)?,
        };
        Ok((Lines::new(Source::Plain { file, position, end }, 0, begin), count))
    }

    /// Decompresses twice, once to count, rather than keeping the text.
    fn last_of_gzip(link: &Link, tail: Option<u64>) -> io::Result<(Lines<C>, u64)> {
        let (skip, count) = match tail {
            None => (0, 0),
            Some(wanted) => {
                let there = C::count(&mut *chain::decompress(&link.file)?)?;
                (there.saturating_sub(wanted), there.min(wanted))
            }
        };
        let Extra { begin, end, .. } = link.extra();
        Ok((Lines::new(Source::Gzip { text: chain::decompress(&link.file)?, end }, skip, begin), count))
    }

    fn new(source: Source, skip: u64, begin: Option<u64>) -> Lines<C> {
        let buffer = Vec::new();
        Lines { source, buffer, start: 0, filled: 0, skip, oversized: false, damaged: false, codec: PhantomData, begin }
    }

    /// How many lines of the log are before the file; `None`: not noted.
    pub fn begin(&self) -> Option<u64> {
        self.begin
    }

    /// How many lines of the log are before the next file; `None`: not noted, perhaps since this one still grows.
    pub fn end(&self) -> Option<u64> {
        match &self.source {
            Source::Plain { file, .. } => ordinal::end(file),
            Source::Gzip { end, .. } => *end,
        }
    }

    /// From now on, read whatever is appended to the file.
    pub fn grow(&mut self) {
        if let Source::Plain { end, .. } = &mut self.source {
            *end = u64::MAX;
        }
    }

    /// Gives the buffer back; to be called at the present end, when more is not expected soon.
    pub fn rest(&mut self) {
        if self.start == self.filled {
            (self.start, self.filled) = (0, 0);
            self.buffer = Vec::new();
        }
    }

    /// The body of the next entry; `None` at the (present) end.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        while !self.damaged {
            match C::find(&self.buffer[self.start..self.filled]) {
                Found::Entry { body, next } => {
                    let body = self.start + body.start..self.start + body.end;
                    self.start += next;
                    if std::mem::take(&mut self.oversized) {
                        continue;
                    }
                    if self.skip > 0 {
                        self.skip -= 1;
                        continue;
                    }
                    return Ok(Some(&self.buffer[body]));
                }
                Found::Damage => self.damaged = true,
                Found::Incomplete if self.refill()? => {}
                Found::Incomplete => break,
            }
        }
        Ok(None)
    }

    /// Reads more behind the incomplete entry in the buffer; false = there is no more.
    fn refill(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        if self.filled > MAX_ENTRY {
            self.oversized = true;
            self.filled = 0;
        }
        if self.buffer.len() < self.filled + BLOCK {
            self.buffer.resize(self.filled + BLOCK, 0);
        }
        let room = &mut self.buffer[self.filled..];
        let n = match &mut self.source {
            Source::Plain { file, position, end } => read_plain(file, position, *end, room)?,
            // A compressed file that is damaged ends where the damage begins.
            Source::Gzip { text, .. } => read(text, room).unwrap_or(0),
        };
        self.filled += n;
        if n == 0 {
            self.forget_incomplete()?;
        }
        Ok(n > 0)
    }

    fn forget_incomplete(&mut self) -> io::Result<()> {
        if let Source::Plain { file, position, end } = &mut self.source {
            *position -= self.filled as u64;
            if *end == u64::MAX && file.metadata()?.len() < *position {
                // Somebody has truncated the log.
                *position = 0;
            }
        }
        self.filled = 0;
        Ok(())
    }
}

fn read_plain(file: &File, position: &mut u64, end: u64, room: &mut [u8]) -> io::Result<usize> {
    let wanted = usize::try_from(end.saturating_sub(*position)).unwrap_or(usize::MAX).min(room.len());
    let n = loop {
        match file.read_at(&mut room[..wanted], *position) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    *position += n as u64;
    Ok(n)
}

fn read(reader: &mut dyn Read, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(room) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::driver::json_file::Json;

    type Lines = super::Lines<Json>;

    fn all(lines: &mut Lines) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push(String::from_utf8(line.to_vec()).unwrap());
        }
        found
    }

    #[test]
    fn a_growing_file_gives_complete_lines_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        let link = Link::at(&path, 0).unwrap().unwrap();
        let (mut lines, _) = Lines::last(link, None).unwrap();
        lines.grow();
        assert_eq!(all(&mut lines), ["one"]);
        assert_eq!(all(&mut lines), [""; 0]);
        // The writer takes the half line back and writes another.
        file.set_len(4).unwrap();
        std::io::Seek::seek(&mut file, io::SeekFrom::End(0)).unwrap();
        file.write_all(b"other\n").unwrap();
        assert_eq!(all(&mut lines), ["other"]);
        file.set_len(0).unwrap();
        assert_eq!(all(&mut lines), [""; 0]);
        std::io::Seek::rewind(&mut file).unwrap();
        file.write_all(b"x\n").unwrap();
        assert_eq!(all(&mut lines), ["x"]);
    }

    #[test]
    fn a_line_that_is_half_written_is_after_the_last_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        let open = |tail| Lines::last(Link::at(&path, 0).unwrap().unwrap(), Some(tail)).unwrap().0;
        let (mut none, mut one) = (open(0), open(1));
        none.grow();
        one.grow();
        file.write_all(b"o\n").unwrap();
        assert_eq!(all(&mut none), ["two"]);
        assert_eq!(all(&mut one), ["one", "two"]);
    }

    #[test]
    fn lines_longer_than_the_buffer_and_longer_than_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let (long, huge) = ("x".repeat(3 * BLOCK), "y".repeat(MAX_ENTRY + 2 * BLOCK));
        std::fs::write(&path, format!("a\n{long}\n{huge}\nb\n")).unwrap();
        let (mut lines, _) = Lines::last(Link::at(&path, 0).unwrap().unwrap(), None).unwrap();
        assert_eq!(all(&mut lines), ["a", &long, "b"]);
    }
}
