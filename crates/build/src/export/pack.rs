//! Layers of a result as archives: packed and hashed beside each other, and once each.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use image::oci;
use image::row::Content;
use model::digest::{Algorithm, Digest, Hasher};
use model::lock::Mutex;
use model::{Error, Result};
use snapshot::LayerKey;
use store::Lease;

use super::options::{Compression, Form};
use crate::builder::Builder;
use crate::cancel::{Cancel, cancelled};
use crate::record::{Layer, Packed, keys};

/// Layers that are packed at one time.
const WORKERS: usize = 4;
/// Bytes copied at once.
const CHUNK: usize = 128 << 10;

/// How layers are packed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// Their form.
    pub compression: Compression,
    /// No file of a layer of this build is told to be newer than this many seconds since 1970.
    pub latest: Option<i64>,
    /// So many layers at the bottom are those of the image below: their files are told as they are.
    pub base: usize,
}

/// A packed layer.
pub type Archived = Packed;

/// The archives of a chain, bottom first, pinned in `lease`. What was packed before is not packed again. Blocks.
pub fn pack(
    builder: &Builder,
    chain: &[Layer],
    request: &Request,
    (lease, cancel): (&Lease, &Cancel),
) -> Result<Vec<Archived>> {
    let next = AtomicUsize::new(0);
    let packed: Mutex<Vec<Option<Archived>>> = Mutex::new(vec![None; chain.len()]);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let packing = Packing { builder, request, lease, cancel };
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= chain.len() {
                return;
            }
            match cancel.check().and_then(|()| packing.one(&chain[..=at])) {
                Ok(one) => packed.lock()[at] = Some(one),
                Err(error) => {
                    failed.lock().get_or_insert(error);
                    next.store(chain.len(), Ordering::Relaxed);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..WORKERS.min(chain.len()) {
            scope.spawn(work);
        }
        work();
    });
    match failed.into_inner() {
        Some(error) => Err(error),
        None => Ok(packed.into_inner().into_iter().flatten().collect()),
    }
}

struct Packing<'p> {
    builder: &'p Builder,
    request: &'p Request,
    lease: &'p Lease,
    cancel: &'p Cancel,
}

impl Packing<'_> {
    /// The archive of the topmost layer.
    fn one(&self, chain: &[Layer]) -> Result<Archived> {
        let Some((layer, below)) = chain.split_last() else { return Err(Error::system("no layer to pack")) };
        let latest = self.request.latest.filter(|_| below.len() >= self.request.base);
        match (&layer.key, &layer.blob, latest) {
            (LayerKey::Diff(diff_id), Some(blob), None) => self.of_image(diff_id, blob),
            _ => self.of_build(layer, below, latest),
        }
    }

    /// A layer of an image: as it came, or in another form where that is asked for.
    fn of_image(&self, diff_id: &Digest, blob: &Content) -> Result<Archived> {
        let Compression { form, force } = self.request.compression;
        if !force || is_in(&blob.media_type, form) {
            return Ok(Packed { diff_id: diff_id.clone(), blob: blob.clone() });
        }
        let key = LayerKey::from(diff_id);
        // What came as gzip or as it is would count as the usual form as well.
        let word = format!("forced-{}", form.word());
        if let Some(known) = self.known(&key, &word) {
            return Ok(known);
        }
        let tar = snapshot::decompress(self.builder.images.blobs.open_blob(&blob.digest)?)?;
        let packed = self.write(|out| copied(tar, diff_id, out))?;
        self.note(&key, &word, packed)
    }

    /// A layer that was built here, or whose files are told to be older than they are.
    fn of_build(&self, layer: &Layer, below: &[Layer], latest: Option<i64>) -> Result<Archived> {
        let word = match latest {
            None => self.request.compression.form.word(),
            Some(latest) => format!("{}@{latest}", self.request.compression.form.word()),
        };
        let layers = &self.builder.roots.snapshots.layers;
        let identify = |packed: &Packed| match latest {
            None => layers.identify(&layer.key, &packed.diff_id),
            Some(_) => Ok(()),
        };
        if let Some(known) = self.known(&layer.key, &word) {
            identify(&known)?;
            return Ok(known);
        }
        let packed = self.write(|out| layers.pack_layer(&layer.key, &keys(below), latest, out))?;
        identify(&packed)?;
        self.note(&layer.key, &word, packed)
    }

    /// What was packed before and is still here.
    fn known(&self, key: &LayerKey, word: &str) -> Option<Packed> {
        let known = self.builder.records.packed(key, word)?;
        self.lease.pin(&known.diff_id);
        self.lease.pin(&known.blob.digest);
        self.builder.images.blobs.contains(&known.blob.digest).then_some(known)
    }

    /// Compresses what `write` writes to a blob; `write` answers the diff id.
    fn write(&self, write: impl FnOnce(&mut dyn Write) -> Result<Digest>) -> Result<Packed> {
        let form = self.request.compression.form;
        let ingest = self.builder.images.blobs.ingest()?;
        let cancel = self.cancel;
        let (ingest, diff_id) = form.compress(ingest, |out| write(&mut Cancellable { out, cancel }))?;
        self.lease.pin(&diff_id);
        let (digest, size) = ingest.finish(None, None, self.lease)?;
        let media_type = format!("{}{}", oci::LAYER, form.suffix());
        Ok(Packed { diff_id, blob: Content { media_type, digest, size } })
    }

    fn note(&self, key: &LayerKey, word: &str, packed: Packed) -> Result<Packed> {
        self.builder.images.blobs.barrier()?;
        self.builder.records.note_packed(key, word, packed.clone())?;
        Ok(packed)
    }
}

/// Whether a layer of this media type is in this form already; its level is not known.
fn is_in(media_type: &str, form: Form) -> bool {
    let has = |word: &str| media_type.ends_with(word);
    match form {
        Form::Gzip(_) => has("gzip"),
        Form::Zstd(_) => has("zstd"),
        Form::Uncompressed => !has("gzip") && !has("zstd"),
    }
}

/// Copies an uncompressed archive that has to be of this diff id.
fn copied(mut tar: impl Read, diff_id: &Digest, out: &mut dyn Write) -> Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; CHUNK];
    loop {
        match tar.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buffer[..n]);
                out.write_all(&buffer[..n])?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let found = hasher.finish();
    match found == *diff_id || diff_id.algorithm() != Algorithm::Sha256 {
        true => Ok(diff_id.clone()),
        false => Err(Error::invalid(format!("wrong diff id of a layer: {found}, want {diff_id}"))),
    }
}

/// Writes until the build is cancelled.
struct Cancellable<'c> {
    out: &'c mut dyn Write,
    cancel: &'c Cancel,
}

impl Write for Cancellable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other(cancelled()));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
