//! The writer of a log in files.
//!
//! Output is split into lines and encoded into one buffer without allocating. What fills a [`BLOCK`] of the file is written at
//! once, the rest by [`Sink::flush`], which the monitor calls unless it is about to read more: followers see lines at once,
//! and a flood costs few system calls. Every line carries a time of its own: the clock is read once for all output of one read,
//! later lines of it are a nanosecond apart.
//!
//! The container is never blocked and never hurt by its log: what cannot be written (a full disk) is dropped and counted,
//! writing is tried again later, and a line in the log then tells how much is missing. What is lost is lost by whole lines.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::codec::Codec;
use super::compress::Compressor;
use super::{chain, ordinal};
use crate::seam::Sink;
use crate::split::{Piece, Splitter};
use crate::{Stream, time};

/// Pieces of the file that are written without waiting for [`Sink::flush`]. They cost the kernel a quarter less than pieces
/// that end anywhere: its page cache takes each as one run of pages.
const BLOCK: usize = 64 * 1024;
/// A buffer that has grown beyond this (by lines full of escapes) is given back.
const KEEP_CAPACITY: usize = 128 * 1024;
/// How long nothing is tried after a write has failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A clock that went back by more than this is believed.
const CLOCK_SET_BACK: i64 = 1_000_000_000;
const MODE: u32 = 0o640;
const NEW: &str = ".new";

/// When files are rotated away, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file that has reached this many bytes is rotated away; `None` = never.
    pub max_size: Option<u64>,
    /// Files kept, the current one included; at least 1.
    pub max_file: u32,
    /// Rotated files are gzipped, in idle time.
    pub compress: bool,
}

/// An open log. Only one writer per log at a time.
#[derive(Debug)]
pub struct FileSink<C> {
    output: Output<C>,
    stdout: Splitter,
    stderr: Splitter,
}

impl<C: Codec> FileSink<C> {
    /// Opens or creates the log at `path` (0640) and goes on behind what is there. `attrs`: what every entry carries, a JSON
    /// object of strings; empty = nothing.
    pub fn open(path: &Path, rotation: Rotation, attrs: &str) -> io::Result<FileSink<C>> {
        let output = Output::open(path, rotation, C::new(attrs))?;
        Ok(FileSink { output, stdout: Splitter::default(), stderr: Splitter::default() })
    }
}

impl<C: Codec> Sink for FileSink<C> {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let output = &mut self.output;
        output.tick();
        let splitter = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        splitter.push(bytes, |piece| output.entry(stream, piece));
    }

    fn finish(&mut self, stream: Stream) {
        let output = &mut self.output;
        output.tick();
        let splitter = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        splitter.finish(|piece| output.entry(stream, piece));
    }

    fn flush(&mut self) {
        self.output.flush();
    }

    fn is_behind(&self) -> bool {
        !self.output.buffer.is_empty()
    }

    fn has_idle_work(&self) -> bool {
        self.output.compressor.as_ref().is_some_and(Compressor::is_pending)
    }

    /// Compresses a little of a rotated file.
    fn idle(&mut self) {
        if let Some(compressor) = &mut self.output.compressor
            && let Err(e) = compressor.step()
        {
            self.output.report = Some(format!("compressing {}: {e}", self.output.path.display()));
        }
    }

    fn dropped(&self) -> u64 {
        self.output.dropped
    }

    fn take_report(&mut self) -> Option<String> {
        self.output.report.take()
    }
}

/// The file behind the encoder.
#[derive(Debug)]
struct Output<C> {
    file: File,
    path: PathBuf,
    rotation: Rotation,
    /// Bytes in the file, and how many of them are the beginning of a line that goes on in the buffer.
    size: u64,
    begun: u64,
    buffer: Vec<u8>,
    lines: Lines,
    codec: C,
    /// The clock at the last read, and the last time given out.
    now: i64,
    compressor: Option<Compressor>,
    lost: Lost,
    /// All entries that were ever lost.
    dropped: u64,
    report: Option<String>,
}

/// Where the log's file stands in the log.
#[derive(Debug)]
struct Lines {
    /// Lines of the log before the file.
    before: u64,
    /// Bytes that were in the file when it was opened: their lines are counted when the number is needed.
    found: u64,
    /// Lines of this writer in the file.
    own: u64,
}

/// Entries that could not be written.
#[derive(Debug, Default)]
struct Lost {
    entries: u64,
    reason: String,
    retry_at: Option<Instant>,
}

impl<C: Codec> Output<C> {
    fn open(path: &Path, rotation: Rotation, codec: C) -> io::Result<Output<C>> {
        let file = fs::OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
        let mut buffer = Vec::new();
        let size = C::mend(&file, file.metadata()?.len(), &mut buffer)?;
        let rotates = rotation.max_size.is_some() && rotation.max_file > 1;
        let compressor =
            (rotates && rotation.compress).then(|| Compressor::new::<C>(path, rotation.max_file, size > 0));
        let lines = Lines { before: ordinal::begin(&file).unwrap_or(0), found: size, own: 0 };
        Ok(Output {
            file,
            path: path.to_owned(),
            rotation,
            size,
            begun: 0,
            buffer,
            lines,
            codec,
            now: 0,
            compressor,
            lost: Lost::default(),
            dropped: 0,
            report: None,
        })
    }

    fn tick(&mut self) {
        let now = time::now();
        if now > self.now || self.now - now > CLOCK_SET_BACK {
            self.now = now;
        }
    }

    fn entry(&mut self, stream: Stream, piece: Piece<'_>) -> i64 {
        if self.rotation.max_size.is_some_and(|max| self.size + self.buffer.len() as u64 >= max) {
            self.flush();
            self.rotate();
        }
        let time = piece.time.unwrap_or(self.now);
        self.now += 1;
        self.encode(stream, piece, time);
        let in_block = self.size as usize % BLOCK + self.buffer.len();
        if in_block >= BLOCK {
            let rest = if C::WRITES_PARTS { in_block % BLOCK } else { 0 };
            self.put(self.buffer.len() - rest);
        }
        time
    }

    fn encode(&mut self, stream: Stream, piece: Piece<'_>, time: i64) {
        self.codec.encode(stream, piece, time, &mut self.buffer);
        self.lines.own += u64::from(piece.ends_line);
    }

    fn flush(&mut self) {
        if !self.buffer.is_empty() {
            self.put(self.buffer.len());
        }
    }

    /// Writes so much of the buffer.
    fn put(&mut self, mut length: usize) {
        if self.lost.retry_at.is_some_and(|at| Instant::now() < at) {
            self.drop_buffer();
            return;
        }
        if self.lost.entries > 0 {
            self.prepend_note();
            length = self.buffer.len();
        }
        match self.write_buffer(length) {
            Ok(()) => {
                if self.lost.entries > 0 {
                    self.report =
                        Some(format!("{}: writing again, {} lines lost", self.path.display(), self.lost.entries));
                }
                self.lost = Lost::default();
            }
            Err(e) => {
                if self.lost.entries == 0 {
                    self.report = Some(format!("writing {}: {e}", self.path.display()));
                }
                self.lost.reason = model::io_text(&e);
                self.lost.retry_at = Some(Instant::now() + RETRY_AFTER);
                self.drop_buffer();
            }
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_CAPACITY {
            self.buffer = Vec::new();
        }
    }

    fn drop_buffer(&mut self) {
        let lost = C::ends(&self.buffer).1;
        self.lost.entries += lost;
        self.dropped += lost;
        self.lines.own -= C::lines(&self.buffer).min(self.lines.own);
        self.buffer.clear();
    }

    /// Puts a line that tells of the lost ones before what will be written.
    fn prepend_note(&mut self) {
        let note = format!("[gantry: {} lines of this log were lost: {}]", self.lost.entries, self.lost.reason);
        let rest = std::mem::take(&mut self.buffer);
        let piece = Piece { text: note.as_bytes(), ends_line: true, time: None };
        self.encode(Stream::Stderr, piece, self.now);
        self.buffer.extend_from_slice(&rest);
    }

    /// Writes so much of the buffer or, after an error, complete lines only; those are then no longer in the buffer.
    fn write_buffer(&mut self, length: usize) -> io::Result<()> {
        let mut written = 0;
        let result = loop {
            match self.file.write(&self.buffer[written..length]) {
                Ok(0) => break Err(io::Error::from(io::ErrorKind::WriteZero)),
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
            if written == length {
                break Ok(());
            }
        };
        let complete = C::ends(&self.buffer[..written]).0;
        self.begun = complete.map_or(self.begun + written as u64, |complete| (written - complete) as u64);
        self.size += written as u64;
        if result.is_err() {
            self.take_back_begun();
            written = complete.unwrap_or(0);
        }
        self.buffer.drain(..written);
        result
    }

    /// Removes half a line from the end of the file.
    fn take_back_begun(&mut self) {
        let end = self.file.metadata().map_or(0, |m| m.len());
        if self.begun > 0 && end >= self.begun {
            // If even this fails, readers pass over the half line.
            let _ = self.file.set_len(end - self.begun);
        }
        self.size -= self.begun;
        self.begun = 0;
    }

    /// Starts a new file. If that is impossible the old one goes on growing, and the next entry tries again.
    fn rotate(&mut self) {
        match self.new_file() {
            Ok((file, before)) => {
                self.file = file;
                self.size = 0;
                self.lines = Lines { before, found: 0, own: 0 };
                if let Some(compressor) = &mut self.compressor {
                    compressor.rotated();
                }
            }
            Err(e) => self.report = Some(format!("rotating {}: {e}", self.path.display())),
        }
    }

    /// The new file is ready before the first rename, and takes the log's name in one step. Gives the number of lines before
    /// it, too.
    fn new_file(&self) -> io::Result<(File, u64)> {
        let new = chain::unfinished(&self.path, NEW);
        let file = fs::OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(&new)?;
        let Lines { before, found, own } = self.lines;
        let found = if found > 0 { C::lines_of(&self.file, found)? } else { 0 };
        let lines = before + found + own;
        ordinal::note(&self.file, &file, lines);
        if self.rotation.max_file > 1 {
            chain::shift(&self.path, self.rotation.max_file)?;
            let first = chain::rotated(&self.path, 1, false);
            // A second name keeps the log's own name present all the time; some file systems have no hard links.
            if fs::hard_link(&self.path, &first).is_err() {
                chain::ignore_missing(fs::rename(&self.path, &first))?;
            }
        }
        fs::rename(&new, &self.path)?;
        Ok((file, lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::FileExt;

    use crate::driver::json_file::Json;

    fn rotation(max_size: u64, max_file: u32, compress: bool) -> Rotation {
        Rotation { max_size: Some(max_size), max_file, compress }
    }

    fn open(path: &Path, rotation: Rotation) -> FileSink<Json> {
        FileSink::open(path, rotation, "").unwrap()
    }

    fn lines_of(text: &str) -> Vec<String> {
        text.lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["log"].as_str().unwrap().into())
            .collect()
    }

    #[test]
    fn the_format_of_the_reference() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let mut log = FileSink::<Json>::open(&path, rotation(1 << 20, 1, false), "{\"a\":\"b\"}").unwrap();
        log.write(Stream::Stdout, b"out <1>\npart");
        log.write(Stream::Stderr, b"err\r\n");
        log.finish(Stream::Stdout);
        log.flush();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with(r#"{"log":"out \u003c1\u003e\n","stream":"stdout","attrs":{"a":"b"},"time":"20"#));
        assert!(lines[0].ends_with("Z\"}"));
        assert!(lines[1].starts_with(r#"{"log":"err\r\n","stream":"stderr","attrs""#));
        assert!(lines[2].starts_with(r#"{"log":"part","stream":"stdout""#));
        assert_eq!(
            fs::metadata(&path).map(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777).unwrap(),
            0o640
        );
    }

    #[test]
    fn rotation_keeps_so_many_files_of_so_many_bytes_and_every_line_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let mut log = open(&path, rotation(2000, 4, false));
        for n in 0..200 {
            log.write(Stream::Stdout, format!("line {n}\n").as_bytes());
        }
        log.flush();
        let mut all = Vec::new();
        for index in (0..4).rev() {
            let text = fs::read_to_string(chain::rotated(&path, index, false)).unwrap();
            assert!(index == 0 || (2000..2100).contains(&text.len()));
            all.extend(lines_of(&text));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
        let first: usize = all[0].trim().strip_prefix("line ").unwrap().parse().unwrap();
        assert_eq!(all, (first..200).map(|n| format!("line {n}\n")).collect::<Vec<_>>());
    }

    #[test]
    fn compression_happens_in_idle_time_even_across_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let mut log = open(&path, rotation(100_000, 3, true));
        for n in 0..5000 {
            log.write(Stream::Stdout, format!("line {n}\n").as_bytes());
            if n % 3 == 0 {
                log.idle();
            }
        }
        log.flush();
        while log.has_idle_work() {
            log.idle();
        }
        let mut all = String::new();
        for index in [2, 1] {
            let file = File::open(chain::rotated(&path, index, true)).unwrap();
            chain::decompress(&file).unwrap().read_to_string(&mut all).unwrap();
        }
        all += &fs::read_to_string(&path).unwrap();
        let lines = lines_of(&all);
        let first: usize = lines[0].trim().strip_prefix("line ").unwrap().parse().unwrap();
        assert_eq!(lines, (first..5000).map(|n| format!("line {n}\n")).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_line_cut_off_by_a_crash_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        fs::write(&path, "{\"log\":\"hal").unwrap();
        let mut log = open(&path, rotation(1 << 20, 1, false));
        log.write(Stream::Stdout, b"next\n");
        log.flush();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(lines_of(text.split_once('\n').unwrap().1), ["next\n"]);
    }

    #[test]
    fn what_fills_blocks_is_written_at_once_and_the_rest_when_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let mut log = open(&path, rotation(1 << 30, 1, false));
        let size = || fs::metadata(&path).unwrap().len() as usize;
        let mut lines = 0;
        for n in [1, 2000, 1, 3000] {
            log.write(Stream::Stdout, "a line\n".repeat(n).as_bytes());
            lines += n;
            assert!(n == 1 || size() % BLOCK == 0, "{} after {n} lines", size());
            assert!(log.is_behind());
            log.flush();
            assert!(!log.is_behind());
            assert_eq!(lines_of(&fs::read_to_string(&path).unwrap()).len(), lines);
        }
        // Entries longer than a block.
        log.write(Stream::Stdout, &[b'<'; 20_000]);
        log.finish(Stream::Stdout);
        log.flush();
        assert_eq!(lines_of(&fs::read_to_string(&path).unwrap()).len(), lines + 2);
    }

    #[test]
    fn half_a_line_whose_rest_cannot_be_written_is_taken_back() {
        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(&dir.path().join("l"), rotation(1 << 30, 1, false));
        log.output.file = memfd_create("log", MemfdFlags::ALLOW_SEALING).unwrap().into();
        log.write(Stream::Stdout, "a line\n".repeat(1000).as_bytes());
        assert_eq!(log.output.file.metadata().unwrap().len(), BLOCK as u64);
        fcntl_add_seals(&log.output.file, SealFlags::GROW).unwrap();
        log.flush();
        let mut text = vec![0; log.output.file.metadata().unwrap().len() as usize];
        assert!(text.len() < BLOCK && log.output.size == text.len() as u64);
        log.output.file.read_exact_at(&mut text, 0).unwrap();
        assert!(text.ends_with(b"}\n"));
        let kept = lines_of(std::str::from_utf8(&text).unwrap()).len();
        assert_eq!(log.output.lost.entries, 1000 - kept as u64);
    }

    #[test]
    fn a_write_error_drops_and_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let mut log = open(&path, rotation(1 << 20, 1, false));
        let good = std::mem::replace(&mut log.output.file, File::options().write(true).open("/dev/full").unwrap());
        log.write(Stream::Stdout, b"one\ntwo\n");
        log.flush();
        assert!(log.take_report().unwrap().contains("No space left"));
        log.write(Stream::Stdout, b"three\n");
        log.flush();
        assert_eq!(log.output.lost.entries, 3);
        log.output.file = good;
        log.output.lost.retry_at = None;
        log.write(Stream::Stdout, b"four\n");
        log.flush();
        let lines = lines_of(&fs::read_to_string(&path).unwrap());
        assert_eq!(lines[0], "[gantry: 3 lines of this log were lost: no space left on device]\n");
        assert_eq!(lines[1], "four\n");
        assert!(log.take_report().unwrap().contains("3 lines lost"));
        assert_eq!(log.dropped(), 3);
    }
}
