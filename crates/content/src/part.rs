//! Parts: what is here of blobs that are being fetched. They outlive the process, so a fetch goes on where it broke off.
//!
//! - A part grows at its end only and has one writer at a time; readers follow with files of their own.
//! - A part becomes a blob only after a reader has read and hashed all of it, and when its image is committed: until
//!   then it is kept as a part, so that a fetch of several blobs that broke off has lost none.
//! - What nobody adds to for [`Blobs::expire_parts`]'s age is removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::digest::{Digest, Hasher};
use model::{Context, Error, Result};
use store::Lease;

use crate::{Blobs, Inner};

/// A blob that is being fetched.
pub struct Part {
    inner: Arc<Inner>,
    digest: Digest,
    path: PathBuf,
    file: File,
    length: u64,
}

/// A part that is complete and verified. Dropped, it stays a part.
pub struct WholePart {
    part: Part,
}

impl WholePart {
    /// Makes it a blob; it is pinned first.
    pub fn publish(self, lease: &Lease) -> Result<()> {
        let Part { inner, digest, path, .. } = &self.part;
        lease.pin(digest);
        let target = inner.path(digest);
        fs::rename(path, target).with_context(|| format!("publishing content {digest}"))
    }
}

/// Reads a part from its beginning, and hashes it.
pub struct PartReader {
    file: File,
    hash: Hasher,
    read: u64,
}

impl Blobs {
    /// Opens or begins the part of a blob. `Conflict` while another has it open.
    pub fn part(&self, digest: &Digest) -> Result<Part> {
        let claimed = self.inner.claims.lock().insert(digest.clone());
        if !claimed {
            return Err(Error::conflict(format!("content {digest} is being fetched")));
        }
        let path = self.inner.parts.join(digest.hex());
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        let opened = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
        match opened {
            Ok((file, length)) => Ok(Part { inner: self.inner.clone(), digest: digest.clone(), path, file, length }),
            Err(error) => {
                self.inner.claims.lock().remove(digest);
                Err(Error::from(error).prefix(format!("opening {}", path.display())))
            }
        }
    }

    /// Every part with its length, in no order.
    pub fn parts(&self) -> Result<Vec<(Digest, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.inner.parts).context("listing parts of blobs")? {
            let entry = entry.context("listing parts of blobs")?;
            let digest = entry.file_name().to_str().and_then(Digest::from_hex);
            if let (Some(digest), Ok(metadata)) = (digest, entry.metadata()) {
                found.push((digest, metadata.len()));
            }
        }
        Ok(found)
    }

    /// Removes the parts that nobody has added to for so long; answers the bytes that became free.
    pub fn expire_parts(&self, age: Duration) -> Result<u64> {
        let mut freed = 0;
        for (digest, length) in self.parts()? {
            let path = self.inner.parts.join(digest.hex());
            // Held while removing, so that none is opened meanwhile.
            let claims = self.inner.claims.lock();
            // What is a blob by now is not wanted as a part any more.
            let useless = crate::survey::idle(&path) >= age || self.contains(&digest);
            if useless && !claims.contains(&digest) && fs::remove_file(&path).is_ok() {
                freed += length;
            }
        }
        Ok(freed)
    }
}

impl Part {
    /// Bytes that are here.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Adds bytes at the end.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Forgets what is here.
    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.length = 0;
        Ok(())
    }

    /// A reader of its own, at the beginning.
    pub fn reader(&self) -> io::Result<PartReader> {
        Ok(PartReader { file: File::open(&self.path)?, hash: Hasher::to_match(Some(&self.digest)), read: 0 })
    }

    /// Whether the reader has read all of it and found what was expected.
    ///
    /// `DataLoss` when the content is another: the part is removed then.
    pub fn verify(self, reader: PartReader, size: u64) -> Result<WholePart> {
        let found = reader.hash.finish();
        if found != self.digest || reader.read != size || self.length != size {
            let text = match found == self.digest {
                true => format!("unexpected commit size {}, expected {size}: failed precondition", reader.read),
                false => format!("unexpected commit digest {found}, expected {}: failed precondition", self.digest),
            };
            self.discard();
            return Err(Error::data_loss(text));
        }
        Ok(WholePart { part: self })
    }

    /// Removes it.
    pub fn discard(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a part of a blob stays until it expires");
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.length == 0 {
            // Nothing worth keeping; it may have been published or discarded already.
            let _ = fs::remove_file(&self.path);
        }
        self.inner.claims.lock().remove(&self.digest);
    }
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.read += n as u64;
        Ok(n)
    }
}
