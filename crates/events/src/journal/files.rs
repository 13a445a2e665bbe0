//! The files of a journal: `<20 digits>.log`, named by the number of their first event, in order.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use blocking::Blocking;
use model::{Context, Error, Result};

use super::line::{self, Head, Line, Record};

/// The format of files that are written.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a file that are read at once at most, however long it has become.
const MOST: u64 = 256 * 1024 * 1024;
/// What the names end with, and those of files that are not whole yet.
const SUFFIX: &str = ".log";
const UNFINISHED: &str = ".new";

/// One of the files, as far as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The number of the next event when it was begun.
    pub first: u64,
    /// The latest time of all events before it, in unix nanoseconds.
    pub high: i64,
    /// Bytes.
    pub len: u64,
}

impl Segment {
    /// Where it lies.
    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        path(dir, self.first)
    }
}

fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}{SUFFIX}"))
}

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Its first line.
    pub head: Option<Head>,
    /// Its events, in order.
    pub records: Vec<Record>,
    /// Who wrote last.
    pub session: Option<String>,
    /// It ends with the line of a daemon that had written everything.
    pub closed: bool,
    /// The bytes of whole lines.
    pub good: Vec<u8>,
    /// Bytes besides them, zeros apart.
    pub bad: usize,
    /// Bytes altogether.
    pub len: u64,
}

/// Reads all that a file holds. Numbers that do not grow do not count.
pub(crate) fn read(path: &Path, _on: &Blocking) -> Result<Content> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    file.take(MOST).read_to_end(&mut bytes).with_context(|| format!("reading {}", path.display()))?;
    Ok(parse(&bytes))
}

/// What these bytes of a file say.
pub(crate) fn parse(bytes: &[u8]) -> Content {
    let mut content = Content { len: bytes.len() as u64, ..Content::default() };
    let mut newest = 0;
    for (range, line) in line::lines(bytes) {
        let raw = &bytes[range.clone()];
        content.closed = matches!(line, Some(Line::Closed(_)));
        match line {
            Some(Line::Journal(head)) if range.start == 0 => {
                newest = head.first.saturating_sub(1);
                content.head = Some(head);
            }
            Some(Line::Event(record)) if record.n > newest => {
                newest = record.n;
                content.records.push(record);
            }
            Some(Line::Session(id)) => content.session = Some(id),
            Some(Line::Closed(_)) => {}
            _ => {
                content.bad += raw.iter().filter(|byte| **byte != 0).count();
                continue;
            }
        }
        content.good.extend_from_slice(raw);
    }
    content
}

/// The files, in order; what is unfinished goes.
pub(crate) fn list(dir: &Path, _on: &Blocking) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry.with_context(|| format!("reading {}", dir.display()))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(UNFINISHED) {
            drop(fs::remove_file(entry.path()));
        }
        let digits = name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 20);
        found.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// The first line of a file, and its length.
///
/// Errors: `DataLoss` when a newer version wrote it.
pub(crate) fn survey(dir: &Path, first: u64, _on: &Blocking) -> Result<Segment> {
    let path = path(dir, first);
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    let len = file.metadata().with_context(|| format!("reading {}", path.display()))?.len();
    let mut bytes = [0; 256];
    let read = file.read_at(&mut bytes, 0).with_context(|| format!("reading {}", path.display()))?;
    let head = match line::lines(&bytes[..read]).next() {
        Some((_, Some(Line::Journal(head)))) => Some(head),
        _ => None,
    };
    if let Some(Head { version, .. }) = head.filter(|head| head.version > VERSION) {
        let text = format!("{} was written by a newer version (format {version} > {VERSION})", path.display());
        return Err(Error::data_loss(text));
    }
    // Without a first line its events may be of any time.
    Ok(Segment { first, high: head.map_or(i64::MAX, |head| head.high), len })
}

/// Begins a file; it is not on the disk yet. Short, and in the page cache: see `docs/design/0031-event-journal.md`.
pub(crate) fn begin(dir: &Path, first: u64, high: i64) -> io::Result<(File, Segment)> {
    let mut head = Vec::new();
    line::encode(&Line::Journal(Head { version: VERSION, first, high }), &mut head);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path(dir, first))?;
    file.write_all_at(&head, 0)?;
    Ok((file, Segment { first, high, len: head.len() as u64 }))
}

/// Opens a file to write on.
pub(crate) fn reopen(dir: &Path, segment: &Segment, _on: &Blocking) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(segment.path(dir))
}

/// Replaces a file by what is whole of it, durably.
pub(crate) fn rewrite(dir: &Path, segment: &Segment, content: &Content, _on: &Blocking) -> Result<u64> {
    let (path, new) = (segment.path(dir), dir.join(format!("{:020}{UNFINISHED}", segment.first)));
    let mut bytes = Vec::new();
    if content.head.is_none() {
        let head = Head { version: VERSION, first: segment.first, high: segment.high };
        line::encode(&Line::Journal(head), &mut bytes);
    }
    bytes.extend_from_slice(&content.good);
    let write = || -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    };
    write().with_context(|| format!("writing {}", path.display()))?;
    Ok(bytes.len() as u64)
}

/// Copies a file into the quarantine; where it lies then.
pub(crate) fn set_aside(dir: &Path, segment: &Segment, quarantine: &Path, _on: &Blocking) -> Result<PathBuf> {
    let place = quarantine.join("events");
    fs::create_dir_all(&place).with_context(|| format!("creating {}", place.display()))?;
    let name = |n: u32| place.join(format!("{:020}{SUFFIX}.{n}", segment.first));
    let free = (0..u32::MAX).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0));
    fs::copy(segment.path(dir), &free).with_context(|| format!("writing {}", free.display()))?;
    Ok(free)
}
