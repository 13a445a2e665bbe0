//! Looking the blobs over: hash them again, name what does not belong here.
//!
//! Nothing here changes what it looks at, [`Blobs::remove`] excepted; [`Blobs::attach`] makes and empties nothing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::digest::{Digest, Hasher};
use model::{Context, Result};

use crate::{Blobs, Inner};

/// Bytes read at once; each blob that is hashed takes so much memory.
const BUFFER: usize = 256 << 10;

/// A file that is no blob that could be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is.
    pub kind: StrayKind,
}

/// What a stray file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrayKind {
    /// Something unfinished that nobody writes any more.
    Leftover,
    /// A part that nobody has added to for too long.
    Expired,
    /// Nothing that this store has made.
    Unknown,
}

impl Blobs {
    /// The blobs under `root` as they are: nothing is made, nothing emptied. `NotFound` when there are none.
    pub fn attach(root: &Path) -> Result<Blobs> {
        let file = File::open(root).with_context(|| format!("opening {}", root.display()))?;
        Ok(Blobs { inner: Arc::new(Inner::new(root, file)) })
    }

    /// Reads the whole blob and says what it holds: its true digest, and its length. `NotFound` when it is absent.
    pub fn rehash(&self, digest: &Digest) -> Result<(Digest, u64)> {
        let mut file = self.open_blob(digest)?;
        let (mut hash, mut length) = (Hasher::to_match(Some(digest)), 0);
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = file.read(&mut buffer).with_context(|| format!("reading content {digest}"))?;
            if n == 0 {
                return Ok((hash.finish(), length));
            }
            hash.update(&buffer[..n]);
            length += n as u64;
        }
    }

    /// The file of a blob.
    pub fn file(&self, digest: &Digest) -> PathBuf {
        self.path(digest)
    }

    /// Removes a blob; absent is fine.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        match fs::remove_file(self.path(digest)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).with_context(|| format!("removing {digest}")),
            _ => Ok(()),
        }
    }

    /// What lies here and is no blob: leftovers, parts idle for `part_life`, files of unknown names.
    pub fn strays(&self, part_life: Duration) -> Result<Vec<Stray>> {
        let mut found = Vec::new();
        let mut note = |path: PathBuf, kind| found.push(Stray { path, kind });
        for path in self.inner.blob_files()? {
            if blob_name(&path).is_none() || !path.is_file() {
                note(path, StrayKind::Unknown);
            }
        }
        for path in entries(&self.inner.ingest)? {
            let number = path.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok());
            if number.is_none_or(|number| !self.inner.writing().contains(&number)) {
                note(path, StrayKind::Leftover);
            }
        }
        for path in entries(&self.inner.parts)? {
            match part_name(&path).filter(|_| path.is_file()) {
                None => note(path, StrayKind::Unknown),
                Some(digest) => {
                    let claimed = self.inner.claims.lock().contains(&digest);
                    if !claimed && idle(&path) >= part_life {
                        note(path, StrayKind::Expired);
                    }
                }
            }
        }
        Ok(found)
    }
}

/// What is in a directory; nothing when there is none.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("listing {}", dir.display()))?,
    };
    entries.map(|entry| Ok(entry.with_context(|| format!("listing {}", dir.display()))?.path())).collect()
}

/// What a file's name says that it holds; its directory is named after the algorithm, if it is one of blobs.
pub(crate) fn blob_name(path: &Path) -> Option<Digest> {
    let digest = Digest::from_hex(path.file_name()?.to_str()?)?;
    let place = path.parent()?.file_name()?;
    (place == digest.algorithm().name()).then_some(digest)
}

/// What a part's name says that it will hold.
fn part_name(path: &Path) -> Option<Digest> {
    Digest::from_hex(path.file_name()?.to_str()?)
}

/// How long a file has not been written to; gone is not idle.
pub(crate) fn idle(path: &Path) -> Duration {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
}
