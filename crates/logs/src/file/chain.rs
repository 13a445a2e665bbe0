//! The files of one log: `name`, then `name.1`, `name.2`, … from newer to older, each plain or gzipped (`.gz`).
//!
//! The writer changes the chain only by renames, oldest first, and `name` itself always exists: readers in other processes
//! need no lock. A gzipped file carries in its header the time of its last entry (the reference's field, so that `--since`
//! can skip it) and the inode number that it had uncompressed, so that a reader that holds that file open finds its place
//! again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ordinal;

/// No log has more rotated files than this.
pub const MAX_ROTATED: u32 = 10_000;
/// Beginning of a gzip header with an extra field.
const GZIP_EXTRA: [u8; 4] = [0x1f, 0x8b, 8, 4];

/// The header's extra field, JSON as in the reference engine.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Extra {
    #[serde(rename = "lastTime")]
    pub last_time: String,
    /// Gantry's own: the inode number of the file that was compressed.
    pub inode: u64,
    /// Likewise: where it stands in the log ([`ordinal`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begin: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}

/// `name.<index>` or `name.<index>.gz`; index 0 is `name` itself.
pub fn rotated(name: &Path, index: u32, gzip: bool) -> PathBuf {
    let mut text = OsString::from(name);
    if index > 0 {
        text.push(format!(".{index}"));
    }
    if gzip {
        text.push(".gz");
    }
    text.into()
}

/// A name beside the log for a file that is not ready yet.
pub fn unfinished(name: &Path, what: &str) -> PathBuf {
    let mut text = OsString::from(name);
    text.push(what);
    text.into()
}

/// Makes room at index 1; what would get an index of `max_file` or more is removed.
pub fn shift(name: &Path, max_file: u32) -> io::Result<()> {
    for index in (1..max_file).rev() {
        for gzip in [false, true] {
            let from = rotated(name, index, gzip);
            let done = if index + 1 >= max_file {
                fs::remove_file(from)
            } else {
                fs::rename(from, rotated(name, index + 1, gzip))
            };
            ignore_missing(done)?;
        }
    }
    Ok(())
}

pub fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A file of the chain, opened.
#[derive(Debug)]
pub struct Link {
    pub file: File,
    pub inode: u64,
    /// At the time of opening.
    pub size: u64,
    pub gzip: bool,
}

impl Link {
    fn open(path: &Path, gzip: bool) -> io::Result<Option<Link>> {
        match File::open(path) {
            Ok(file) => {
                let metadata = file.metadata()?;
                Ok(Some(Link { inode: metadata.ino(), size: metadata.len(), file, gzip }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The file with this index, plain if there is one.
    pub fn at(name: &Path, index: u32) -> io::Result<Option<Link>> {
        match Link::open(&rotated(name, index, false), false)? {
            None if index > 0 => Link::open(&rotated(name, index, true), true),
            found => Ok(found),
        }
    }

    /// The extra field of a gzipped file; zero when there is none.
    pub fn extra(&self) -> Extra {
        if self.gzip { read_extra(&self.file).unwrap_or_default() } else { Extra::default() }
    }

    /// How many lines of the log are before the file; `None`: not noted.
    pub fn begin(&self) -> Option<u64> {
        if self.gzip { self.extra().begin } else { ordinal::begin(&self.file) }
    }

    /// How many lines of the log are before the next file; `None`: not noted, perhaps since this one still grows.
    fn end(&self) -> Option<u64> {
        if self.gzip { self.extra().end } else { ordinal::end(&self.file) }
    }
}

fn read_extra(file: &File) -> Option<Extra> {
    use std::os::unix::fs::FileExt;
    let mut head = [0; 12];
    file.read_exact_at(&mut head, 0).ok()?;
    if head[..4] != GZIP_EXTRA {
        return None;
    }
    let mut extra = vec![0; usize::from(u16::from_le_bytes([head[10], head[11]]))];
    file.read_exact_at(&mut extra, 12).ok()?;
    serde_json::from_slice(&extra).ok()
}

/// All files of the log, newest first, each once, as they stand at one moment.
pub fn snapshot(name: &Path) -> io::Result<Vec<Link>> {
    const ATTEMPTS: u32 = 500;
    for _ in 0..ATTEMPTS {
        let links = collect(name)?;
        if unchanged(name, &links)? {
            return Ok(once(links));
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // A log that rotates without pause: every file once is the best there is.
    Ok(once(collect(name)?))
}

/// Each file once, with the lowest index that it has: in the middle of a rotation the newest one has two names.
fn once(links: Vec<(u32, Link)>) -> Vec<Link> {
    let mut seen = std::collections::HashSet::new();
    links.into_iter().map(|(_, link)| link).filter(|link| seen.insert(link.inode)).collect()
}

fn collect(name: &Path) -> io::Result<Vec<(u32, Link)>> {
    // While the writer renames, one index may be empty.
    const GAP: u32 = 2;
    let mut links = Vec::new();
    let mut gap = 0;
    for index in 0..=MAX_ROTATED {
        match Link::at(name, index)? {
            Some(link) => {
                gap = 0;
                links.push((index, link));
            }
            None if index > 0 => gap += 1,
            None => {}
        }
        if gap == GAP {
            break;
        }
    }
    Ok(links)
}

/// Every file still has the index at which it was found, and there is no further one.
fn unchanged(name: &Path, links: &[(u32, Link)]) -> io::Result<bool> {
    for (index, link) in links {
        if inode_of(&rotated(name, *index, link.gzip))? != Some(link.inode) {
            return Ok(false);
        }
    }
    let next = links.last().map_or(1, |(index, _)| index + 1);
    Ok(inode_of(&rotated(name, next, false))?.is_none() && inode_of(&rotated(name, next, true))?.is_none())
}

/// The inode number of the file that has this name now.
pub fn inode_of(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A file of the chain that is held open, so that its inode number is nobody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub inode: u64,
    pub gzip: bool,
}

impl From<&Link> for Held {
    fn from(link: &Link) -> Held {
        Held { inode: link.inode, gzip: link.gzip }
    }
}

/// The index that a held file has now, or its compressed copy. `None`: it is gone.
///
/// Numbers in headers are those of files that are gone: a held compressed file may have the number that another one had
/// before it was compressed. Of a held plain file's number only older files can have been, and they come later.
pub fn locate(name: &Path, held: Held) -> io::Result<Option<u32>> {
    let mut missing = 0;
    for index in 0..=MAX_ROTATED {
        let plain = inode_of(&rotated(name, index, false))?;
        if plain == Some(held.inode) {
            return Ok(Some(index));
        }
        let packed = if index > 0 { Link::open(&rotated(name, index, true), true)? } else { None };
        missing = if plain.is_none() && packed.is_none() { missing + 1 } else { 0 };
        let number = packed.map(|link| if held.gzip { link.inode } else { link.extra().inode });
        if number == Some(held.inode) {
            return Ok(Some(index));
        }
        if missing > 2 {
            break;
        }
    }
    Ok(None)
}

/// A file that follows another one.
#[derive(Debug)]
pub struct Successor {
    pub link: Link,
    /// There may be files between the two, thrown away by the rotation.
    pub gap: bool,
}

/// The file that follows a held one, which has been rotated away behind `end` lines of the log. If that one is gone, the oldest
/// file there is that is later: what lay between was thrown away by the rotation. `None`: there is nothing.
pub fn successor(name: &Path, held: Held, end: Option<u64>) -> io::Result<Option<Successor>> {
    const ATTEMPTS: u32 = 20;
    for _ in 0..ATTEMPTS {
        match locate(name, held)? {
            Some(0) => return Ok(None),
            Some(index) => {
                let next = Link::at(name, index - 1)?;
                // Files move to higher indices only: an unmoved predecessor means that this is the right neighbour.
                if locate(name, held)? == Some(index)
                    && let Some(link) = next
                {
                    return Ok(Some(Successor { link, gap: false }));
                }
            }
            None => break,
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // It is gone, or the log rotates faster than one can look.
    // The first file of a log has no beginning noted.
    let is_later = |link: &Link| match (link.begin(), link.end(), end) {
        (Some(begin), _, Some(end)) => begin >= end,
        (None, Some(its), Some(end)) => its > end,
        _ => true,
    };
    let later = snapshot(name)?.into_iter().rev().find(|link| link.inode != held.inode && is_later(link));
    Ok(later.map(|link| Successor { link, gap: true }))
}

/// Decompresses a gzipped file of the chain from its beginning.
pub fn decompress(file: &File) -> io::Result<Box<dyn Read + Send>> {
    let mut file = file.try_clone()?;
    io::Seek::rewind(&mut file)?;
    Ok(Box::new(flate2::read::MultiGzDecoder::new(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(dir: &Path, names: &[&str]) {
        for name in names {
            fs::write(dir.join(name), name).unwrap();
        }
    }

    fn names(dir: &Path) -> Vec<(String, String)> {
        let mut all: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), fs::read_to_string(e.path()).unwrap()))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn shifting_keeps_kinds_and_drops_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), &["l", "l.1", "l.2.gz", "l.3", "l.4.gz"]);
        shift(&dir.path().join("l"), 5).unwrap();
        let expected = [("l", "l"), ("l.2", "l.1"), ("l.3.gz", "l.2.gz"), ("l.4", "l.3")];
        assert_eq!(names(dir.path()), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn a_snapshot_is_newest_first_and_prefers_plain() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), &["l", "l.1", "l.1.gz", "l.3.gz"]);
        let links = snapshot(&dir.path().join("l")).unwrap();
        assert_eq!(links.iter().map(|l| l.gzip).collect::<Vec<_>>(), [false, false, true]);
        assert!(snapshot(&dir.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn a_writer_that_stands_still_within_a_rotation_repeats_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("l");
        fill(dir.path(), &["l", "l.2"]);
        fs::hard_link(&log, dir.path().join("l.1")).unwrap();
        let links = snapshot(&log).unwrap();
        assert_eq!(links.iter().map(|link| link.size).collect::<Vec<_>>(), [1, 3]);
        let newest = Held::from(&links[0]);
        assert!(successor(&log, newest, None).unwrap().is_none());
        fs::write(dir.path().join("new"), "").unwrap();
        fs::rename(dir.path().join("new"), &log).unwrap();
        assert_eq!(successor(&log, newest, None).unwrap().unwrap().link.size, 0);
    }

    #[test]
    fn the_successor_of_a_lost_file_is_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("l");
        fill(dir.path(), &["l", "l.1"]);
        let link = Link::at(&log, 1).unwrap().unwrap();
        let held = Held::from(&link);
        assert_eq!(locate(&log, held).unwrap(), Some(1));
        assert_eq!(successor(&log, held, None).unwrap().unwrap().link.size, 1);
        fs::rename(dir.path().join("l"), dir.path().join("l.1")).unwrap();
        fs::write(&log, "newest").unwrap();
        assert_eq!(locate(&log, held).unwrap(), None);
        assert_eq!(successor(&log, held, None).unwrap().unwrap().link.size, 1);
    }

    /// A compressed file is made where another one's source was removed a moment ago: it gets that one's inode number.
    #[test]
    fn a_number_that_another_file_had_before_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("l");
        let pack = |index: u32, inode: u64| {
            let extra = serde_json::to_vec(&Extra { inode, ..Extra::default() }).unwrap();
            let file = File::create(rotated(&log, index, true)).unwrap();
            flate2::GzBuilder::new().extra(extra).write(file, flate2::Compression::fast()).finish().unwrap();
            Held::from(&Link::at(&log, index).unwrap().unwrap())
        };
        fill(dir.path(), &["l"]);
        let older = pack(3, 0);
        pack(2, 0);
        pack(1, older.inode);
        assert_eq!(locate(&log, older).unwrap(), Some(3));
        let next = successor(&log, older, None).unwrap().unwrap().link;
        assert_eq!(Some(next.inode), inode_of(&rotated(&log, 2, true)).unwrap());
    }
}
