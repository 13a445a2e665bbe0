//! Which store belongs here, and how far it has come: a small file beside the store.
//!
//! A store carries an id and counts its commits; `<store>.mark` says the same from the outside. It is written when a
//! commit is durable, now and then and at the end, in place and without a sync of its own, so it is never ahead of the
//! store that it belongs to. A store with another id, or one that has fewer commits than the mark has seen, is another's or an older copy: what it does
//! not name may be in use all the same.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::{Context, Error, Result};
use rustix::fs::OFlags;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

/// What the name of the file ends with.
const SUFFIX: &str = ".mark";
/// What the name of a file ends with that is being written.
const UNFINISHED: &str = ".mark.new";
/// Bytes of the file: 32 hex digits, a blank, 20 decimal digits, a newline.
const LENGTH: usize = 54;
/// Least time between two writes of a store that is used.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a store's id.
const ID: usize = 16;

/// A store, at some time of its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// 32 hex digits, made with the store.
    pub id: String,
    /// Commits so far.
    pub commits: u64,
}

impl Mark {
    /// That of a store which gets one now.
    pub(crate) fn new() -> Result<Mark> {
        let mut bytes = [0; ID];
        // So few bytes come whole.
        getrandom(&mut bytes, GetRandomFlags::empty()).map_err(io::Error::from).context("making a store's id")?;
        Ok(Mark { id: bytes.iter().map(|byte| format!("{byte:02x}")).collect(), commits: 0 })
    }

    pub(crate) fn after_one_more(self) -> Mark {
        Mark { commits: self.commits.saturating_add(1), ..self }
    }

    fn bytes(&self) -> String {
        format!("{:0>32} {:020}\n", self.id, self.commits)
    }

    fn parse(bytes: &[u8]) -> Option<Mark> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() == LENGTH)?;
        let (id, commits) = text.strip_suffix('\n')?.split_once(' ')?;
        let is_hex = id.len() == 2 * ID && id.bytes().all(|b| b.is_ascii_hexdigit());
        Some(Mark { id: id.to_owned(), commits: commits.parse().ok()? }).filter(|_| is_hex)
    }
}

/// The file, open.
pub(crate) struct MarkFile {
    file: File,
    written: Instant,
}

impl MarkFile {
    /// What the file beside the store says; `None` when there is none.
    pub(crate) fn read(store: &Path) -> Result<Option<Mark>> {
        let path = beside(store, SUFFIX);
        let context = || format!("reading {}", path.display());
        let mut options = OpenOptions::new();
        // Never to wait for who might write to it.
        let opened = options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(&path);
        let file = match opened {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(context)?,
        };
        let mut bytes = Vec::new();
        file.take(LENGTH as u64 + 1).read_to_end(&mut bytes).with_context(context)?;
        match Mark::parse(&bytes) {
            Some(mark) => Ok(Some(mark)),
            None => Err(Error::data_loss("it does not say which store belongs here").prefix(context())),
        }
    }

    /// Has the file say this, durably. One of the same store is written in place, for which a full disk has room.
    pub(crate) fn make(store: &Path, mark: &Mark) -> Result<MarkFile> {
        let (path, unfinished) = (beside(store, SUFFIX), beside(store, UNFINISHED));
        let is_own = MarkFile::read(store).is_ok_and(|found| found.is_some_and(|found| found.id == mark.id));
        let make = || -> io::Result<MarkFile> {
            if is_own {
                let file = OpenOptions::new().write(true).open(&path)?;
                file.write_all_at(mark.bytes().as_bytes(), 0)?;
                file.sync_data()?;
                return Ok(MarkFile { file, written: Instant::now() });
            }
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(mark.bytes().as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(store.parent().unwrap_or(Path::new("/")))?.sync_all()?;
            Ok(MarkFile { file, written: Instant::now() })
        };
        make().with_context(|| format!("writing {}", path.display()))
    }

    /// The same, if that was long ago.
    pub(crate) fn write_at_times(&mut self, mark: &Mark) {
        if self.written.elapsed() >= PAUSE {
            self.write(mark);
            self.written = Instant::now();
        }
    }

    /// Says how far the store has come. Refused, the file stays behind, which is no harm.
    pub(crate) fn write(&self, mark: &Mark) {
        if let Err(error) = self.file.write_all_at(mark.bytes().as_bytes(), 0) {
            tracing::debug!(%error, "the store's mark stays behind");
        }
    }
}

fn beside(store: &Path, suffix: &str) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("s");
        assert_eq!(MarkFile::read(&store).unwrap(), None);
        let mark = Mark { commits: 41, ..Mark::new().unwrap() };
        let file = MarkFile::make(&store, &mark).unwrap();
        assert_eq!(MarkFile::read(&store).unwrap(), Some(mark.clone()));
        let next = mark.after_one_more();
        file.write(&next);
        assert_eq!(MarkFile::read(&store).unwrap(), Some(next.clone()));
        for bytes in [&b""[..], &[0; LENGTH], &next.bytes().as_bytes()[1..], b"x".repeat(LENGTH).as_slice()] {
            fs::write(beside(&store, SUFFIX), bytes).unwrap();
            let error = MarkFile::read(&store).unwrap_err();
            assert!(error.message().contains("s.mark: it does not say"), "{error}");
        }
        fs::remove_file(beside(&store, SUFFIX)).unwrap();
        fs::create_dir(beside(&store, SUFFIX)).unwrap();
        assert!(MarkFile::read(&store).unwrap_err().message().contains("s.mark: "));
    }
}
