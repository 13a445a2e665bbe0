//! Writing one blob: hashed on the way, verified, then renamed to its digest.
//!
//! An [`Ingest`] that is dropped unfinished removes its file. Finishing a blob that exists already keeps the old file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::digest::{Algorithm, Digest, Hasher};
use model::{Context, Error, Result};
use store::Lease;

use crate::Inner;

/// A blob being written.
pub struct Ingest {
    inner: Arc<Inner>,
    number: u64,
    path: Option<PathBuf>,
    file: File,
    hash: Option<Hasher>,
    written: u64,
}

impl Ingest {
    pub(crate) fn begin(inner: Arc<Inner>, algorithm: Algorithm) -> Result<Ingest> {
        let number = inner.next.fetch_add(1, Ordering::Relaxed);
        let path = inner.ingest.join(number.to_string());
        inner.writing().insert(number);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = opened.inspect_err(|_| _ = inner.writing().remove(&number));
        let file = file.with_context(|| format!("creating {}", path.display()))?;
        Ok(Ingest { inner, number, path: Some(path), file, hash: Some(Hasher::new(algorithm)), written: 0 })
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Verifies, pins and publishes the blob. What was expected and did not arrive is `InvalidParameter`.
    pub fn finish(mut self, expected: Option<&Digest>, size: Option<u64>, lease: &Lease) -> Result<(Digest, u64)> {
        if let Some(size) = size
            && size != self.written
        {
            return Err(Error::invalid(format!(
                "unexpected commit size {}, expected {size}: failed precondition",
                self.written
            )));
        }
        let digest = self.hash.take().expect("the hash is taken by finish only").finish();
        if let Some(expected) = expected
            && *expected != digest
        {
            return Err(Error::invalid(format!(
                "unexpected commit digest {digest}, expected {expected}: failed precondition"
            )));
        }
        lease.pin(&digest);
        let target = self.inner.path(&digest);
        let path = self.path.take().expect("the path is taken by finish only");
        if target.exists() {
            fs::remove_file(&path).context("removing a blob that is here already")?;
        } else {
            fs::rename(&path, &target).with_context(|| format!("publishing content {digest}"))?;
        }
        Ok((digest, self.written))
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&bytes[..n]);
        }
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if let Some(path) = self.path.take()
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "an unfinished blob stays until the next start");
        }
        self.inner.writing().remove(&self.number);
    }
}
