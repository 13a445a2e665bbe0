//! What becomes of a result: its layers are packed and hashed, beside each other and once each, and an image is made of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use image::oci;
use image::row::Content;
use model::digest::Digest;
use model::{Error, Result};
use snapshot::{Gzip, LayerKey};
use store::Lease;

use crate::builder::Builder;
use crate::cancel::Cancel;
use crate::record::{Layer, Packed, keys};

/// Layers that are packed at one time.
const WORKERS: usize = 4;

/// The archives of a chain with their diff ids, bottom first, pinned in `lease`. What was packed before is not packed again.
/// Blocks.
pub fn pack(builder: &Builder, chain: &[Layer], lease: &Lease, cancel: &Cancel) -> Result<Vec<(Content, Digest)>> {
    let next = AtomicUsize::new(0);
    let packed: Mutex<Vec<Option<(Content, Digest)>>> = Mutex::new(vec![None; chain.len()]);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= chain.len() {
                return;
            }
            let one = cancel.check().and_then(|()| pack_one(builder, &chain[..=at], lease));
            match one {
                Ok(one) => packed.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(one),
                Err(error) => {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
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
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(packed.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()),
    }
}

/// The archive of the topmost layer.
fn pack_one(builder: &Builder, chain: &[Layer], lease: &Lease) -> Result<(Content, Digest)> {
    let Some((layer, below)) = chain.split_last() else { return Err(Error::system("no layer to pack")) };
    if let (LayerKey::Diff(diff_id), Some(blob)) = (&layer.key, &layer.blob) {
        return Ok((blob.clone(), diff_id.clone()));
    }
    let (images, layers) = (&builder.images, &builder.roots.snapshots.layers);
    if let Some(Packed { diff_id, blob }) = builder.records.packed(&layer.key) {
        lease.pin(&diff_id);
        lease.pin(&blob.digest);
        if images.blobs.contains(&blob.digest) {
            layers.identify(&layer.key, &diff_id)?;
            return Ok((blob, diff_id));
        }
    }
    let mut gzip = Gzip::new(images.blobs.ingest()?);
    let diff_id = layers.pack_layer(&layer.key, &keys(below), &mut gzip)?;
    lease.pin(&diff_id);
    let ingest = gzip.finish().map_err(|error| Error::from(error).prefix("writing a layer"))?;
    let (digest, size) = ingest.finish(None, None, lease)?;
    layers.identify(&layer.key, &diff_id)?;
    let blob = Content { media_type: format!("{}+gzip", oci::LAYER), digest, size };
    images.blobs.barrier()?;
    builder.records.note_packed(&layer.key, Packed { diff_id: diff_id.clone(), blob: blob.clone() })?;
    Ok((blob, diff_id))
}
