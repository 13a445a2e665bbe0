//! Blobs by digest: ingest, verify, open, sweep.
//!
//! Layout under the root (an OCI layout's `blobs` directory): `blobs/<algorithm>/<hex>`, `ingest/<name>`, `parts/<hex>`.
//!
//! Invariants:
//! - a file under `blobs` has the content its name says: it is hashed while it is written and renamed into place last;
//! - `ingest` holds only what an operation of this process is writing; it is emptied at open;
//! - `parts` holds what was fetched of blobs that are not whole: it outlives the process, and expires;
//! - **referent before referrer**: no blob is synced one by one. Whoever commits a row that names blobs calls
//!   [`Blobs::barrier`] once before the commit, and whatever no row names is swept at boot. So a blob that a power
//!   failure left torn is never trusted: no row can name it;
//! - an unnamed blob is kept while a [`store::Lease`] pins it.
#![forbid(unsafe_code)]

mod ingest;
mod part;
mod survey;

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use model::digest::{Algorithm, Digest};
use model::lock::{Mutex, MutexGuard};
use model::{Context, Error, Result};
use store::{Lease, Sweep};

pub use ingest::Ingest;
pub use part::{Part, PartReader, WholePart};
pub use survey::{Stray, StrayKind};

/// The blobs of one data root. Clones share it.
#[derive(Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

struct Inner {
    /// `<root>/blobs`
    blobs: PathBuf,
    /// `<root>/ingest`
    ingest: PathBuf,
    /// `<root>/parts`
    parts: PathBuf,
    /// The parts that are being written.
    claims: Mutex<HashSet<Digest>>,
    /// The numbers of the files in `ingest` that are being written.
    writing: Mutex<HashSet<u64>>,
    /// The root, open, for the barrier.
    root: File,
    next: AtomicU64,
}

impl Inner {
    fn new(root: &Path, file: File) -> Inner {
        Inner {
            blobs: root.join("blobs"),
            ingest: root.join("ingest"),
            parts: root.join("parts"),
            claims: Mutex::default(),
            writing: Mutex::default(),
            root: file,
            next: AtomicU64::new(0),
        }
    }

    /// Where a blob lies.
    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.algorithm().name()).join(digest.hex())
    }

    /// What lies among the blobs of each algorithm.
    fn blob_files(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for algorithm in Algorithm::ALL {
            found.extend(survey::entries(&self.blobs.join(algorithm.name()))?);
        }
        Ok(found)
    }

    fn writing(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.writing.lock()
    }
}

/// Removes the files of a directory. It is not made anew, which a full disk would refuse.
fn empty(dir: &Path) -> std::io::Result<()> {
    fs::read_dir(dir)?.try_for_each(|entry| fs::remove_file(entry?.path()))
}

impl Blobs {
    /// Opens or creates the store of blobs under `root` and empties its `ingest`.
    pub fn open(root: &Path) -> Result<Blobs> {
        let ingest = root.join("ingest");
        let parts = root.join("parts");
        let blobs = Algorithm::ALL.map(|algorithm| root.join("blobs").join(algorithm.name()));
        for dir in blobs.iter().chain([&ingest, &parts]) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .with_context(|| format!("creating {}", dir.display()))?;
        }
        empty(&ingest).with_context(|| format!("emptying {}", ingest.display()))?;
        Blobs::attach(root)
    }

    /// Begins to write a blob whose digest need not be known yet.
    pub fn ingest(&self) -> Result<Ingest> {
        self.ingest_as(Algorithm::Sha256)
    }

    /// Begins to write a blob that will have a digest of this kind.
    pub fn ingest_as(&self, algorithm: Algorithm) -> Result<Ingest> {
        Ingest::begin(self.inner.clone(), algorithm)
    }

    /// Writes a small blob that has this digest in one step and pins it; other content is `InvalidParameter`.
    pub fn keep(&self, digest: &Digest, bytes: &[u8], lease: &Lease) -> Result<()> {
        use std::io::Write;
        let mut ingest = self.ingest_as(digest.algorithm())?;
        ingest.write_all(bytes).context("writing a blob")?;
        ingest.finish(Some(digest), None, lease).map(drop)
    }

    /// Writes a small blob in one step and pins it.
    pub fn put(&self, bytes: &[u8], lease: &Lease) -> Result<(Digest, u64)> {
        use std::io::Write;
        let mut ingest = self.ingest()?;
        ingest.write_all(bytes).context("writing a blob")?;
        ingest.finish(None, None, lease)
    }

    /// Opens a blob for reading. `NotFound` when it is absent.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        File::open(self.path(digest)).map_err(|e| absent(digest, e))
    }

    /// Reads a whole blob of at most `max` bytes; a larger one is `InvalidParameter`.
    pub fn read_small(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_blob(digest)?.take(max + 1).read_to_end(&mut bytes).context("reading a blob")?;
        if bytes.len() as u64 > max {
            return Err(Error::invalid(format!("content {digest} is larger than {max} bytes")));
        }
        Ok(bytes)
    }

    /// Whether the blob is here. Pin it first when the answer has to last.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Length of the blob in bytes. `NotFound` when it is absent.
    pub fn size(&self, digest: &Digest) -> Result<u64> {
        fs::metadata(self.path(digest)).map(|m| m.len()).map_err(|e| absent(digest, e))
    }

    /// Every blob with its length, in no order.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>> {
        self.files(fs::Metadata::len)
    }

    /// Every blob with the blocks that it takes on the disk, in bytes; in no order. See [`Blobs::list`] for its content.
    pub fn on_disk(&self) -> Result<Vec<(Digest, u64)>> {
        self.files(|metadata| metadata.blocks() * 512)
    }

    fn files(&self, size: impl Fn(&fs::Metadata) -> u64) -> Result<Vec<(Digest, u64)>> {
        let mut found = Vec::new();
        for path in self.inner.blob_files()? {
            let Some(digest) = survey::blob_name(&path) else {
                tracing::warn!(path = %path.display(), "not a blob; left alone");
                continue;
            };
            if let Ok(metadata) = fs::symlink_metadata(&path) {
                found.push((digest, size(&metadata)));
            }
        }
        Ok(found)
    }

    /// Removes every blob that is neither in `live` nor pinned; answers the bytes that became free.
    pub fn sweep(&self, live: &HashSet<Digest>, sweep: &Sweep<'_>) -> Result<u64> {
        let mut freed = 0;
        for (digest, size) in self.list()? {
            if live.contains(&digest) {
                continue;
            }
            if let Some(removed) = sweep.unless_pinned(&digest, || remove(&self.path(&digest))) {
                removed.with_context(|| format!("removing content {digest}"))?;
                freed += size;
            }
        }
        Ok(freed)
    }

    /// Makes everything written so far durable, directories included: one `syncfs` of the file system below.
    pub fn barrier(&self) -> Result<()> {
        rustix::fs::syncfs(&self.inner.root).map_err(std::io::Error::from).context("syncing content")
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.inner.path(digest)
    }
}

fn absent(digest: &Digest, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::not_found(format!("content {digest}: not found")),
        _ => Error::from(error).prefix(format!("content {digest}")),
    }
}

/// Removes what has a blob's name: without a journal, a power cut makes of a name whatever its inode was before.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => fs::remove_dir_all(path),
        other => other,
    }
}

#[cfg(test)]
mod tests;
