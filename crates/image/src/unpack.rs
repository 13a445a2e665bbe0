//! From blobs to a row and to layers: what an image's documents say, and its layers unpacked side by side.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::oci::{Descriptor, Platform};
use content::Blobs;
use model::digest::Digest;
use model::lock::Mutex;
use model::{Error, Result};
use store::Lease;

use super::images::Images;
use super::oci::{self, Document};
use super::pull::layer_tar;
use super::row::{Content, ImageRow, ManifestKind, ManifestRow};
use events::now;

/// Layers unpacked at the same time.
const WORKERS: usize = 4;
/// Manifests of one index.
const MANIFESTS: usize = 1024;

/// The row of the image behind `target`, whose blob is here.
pub(super) fn describe(images: &Images, target: &Descriptor) -> Result<ImageRow> {
    describe_blobs(&images.blobs, target)
}

/// The same, where there are blobs only.
pub fn describe_blobs(blobs: &Blobs, target: &Descriptor) -> Result<ImageRow> {
    let content = content(target)?;
    let bytes = blobs.read_small(&content.digest, oci::MANIFEST_BYTES)?;
    let manifests = if oci::is_index(&content.media_type) {
        let (mut listed, mut indexes) = (Vec::new(), 0);
        list(blobs, &bytes, (0, &mut indexes), &mut listed)?;
        listed.iter().map(|descriptor| manifest(blobs, descriptor)).collect::<Result<_>>()?
    } else if oci::is_manifest(&content.media_type) {
        vec![manifest(blobs, target)?]
    } else {
        return Err(Error::invalid(format!("unsupported media type of an image: {:?}", content.media_type)));
    };
    Ok(ImageRow::new(content, now(), manifests))
}

/// Everything that an index lists, each once. What an index within it lists stands before that one; a manifest without a
/// platform has that of the index it is in.
fn list(
    blobs: &Blobs,
    bytes: &[u8],
    (depth, indexes): (usize, &mut usize),
    listed: &mut Vec<Descriptor>,
) -> Result<()> {
    *indexes += 1;
    if depth > oci::INDEX_DEPTH || *indexes > oci::INDEXES {
        return Err(Error::invalid("invalid index: there are too many indexes within it"));
    }
    for descriptor in oci::parse_index(bytes)?.manifests {
        if oci::is_index(&descriptor.media_type) {
            let digest = oci::digest(&descriptor)?;
            if blobs.contains(&digest) {
                let first = listed.len();
                let inner = blobs.read_small(&digest, oci::MANIFEST_BYTES)?;
                list(blobs, &inner, (depth + 1, &mut *indexes), listed)?;
                for below in listed[first..].iter_mut().filter(|below| below.platform.is_none()) {
                    below.platform.clone_from(&descriptor.platform);
                }
            }
        }
        if !listed.iter().any(|known| known.digest == descriptor.digest) {
            listed.push(descriptor);
        }
        if listed.len() > MANIFESTS {
            return Err(Error::invalid(format!("invalid index: it lists more than {MANIFESTS} manifests")));
        }
    }
    Ok(())
}

fn content(descriptor: &Descriptor) -> Result<Content> {
    let size = u64::try_from(descriptor.size).map_err(|_| Error::invalid("descriptor with a negative size"))?;
    Ok(Content { media_type: descriptor.media_type.clone(), digest: oci::digest(descriptor)?, size })
}

/// The row of one manifest; content that is not here leaves it unavailable.
fn manifest(blobs: &Blobs, descriptor: &Descriptor) -> Result<ManifestRow> {
    let kind = match descriptor.annotations.get(oci::REFERENCE_TYPE).map(String::as_str) {
        Some("attestation-manifest") => {
            ManifestKind::Attestation(descriptor.annotations.get(oci::REFERENCE_DIGEST).cloned().unwrap_or_default())
        }
        _ => ManifestKind::Unknown,
    };
    let platform = descriptor.platform.clone().unwrap_or_default();
    let mut row = ManifestRow {
        content: content(descriptor)?,
        kind,
        platform,
        annotations: descriptor.annotations.clone(),
        available: false,
        config: None,
        layers: Vec::new(),
        diff_ids: Vec::new(),
        unpacked: None,
        document: None,
    };
    if !oci::is_manifest(&row.content.media_type) {
        // An index within the index is whole when it is here: what it lists has rows of its own.
        row.available = oci::is_index(&row.content.media_type) && blobs.contains(&row.content.digest);
        return Ok(row);
    }
    if !blobs.contains(&row.content.digest) {
        // Taken for an image until it is here, unless its platform says that it is none.
        let none = row.platform.os == "unknown" && row.platform.architecture == "unknown";
        if row.kind == ManifestKind::Unknown && !none {
            row.kind = ManifestKind::Image;
        }
        return Ok(row);
    }
    let bytes = blobs.read_small(&row.content.digest, oci::MANIFEST_BYTES)?;
    let manifest = oci::parse_manifest(&bytes)?;
    let config = content(&manifest.config)?;
    row.layers = manifest.layers.iter().map(content).collect::<Result<_>>()?;
    let here = |blob: &Content| blobs.size(&blob.digest).is_ok_and(|size| size == blob.size);
    row.available = here(&config) && row.layers.iter().all(here);
    if row.kind == ManifestKind::Unknown && here(&config) && is_image_config(&config.media_type) {
        read_config(blobs, &config, &mut row)?;
    }
    row.config = Some(config);
    Ok(row)
}

fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, oci::CONFIG | oci::DOCKER_CONFIG)
}

fn read_config(blobs: &Blobs, config: &Content, row: &mut ManifestRow) -> Result<()> {
    let bytes = blobs.read_small(&config.digest, oci::CONFIG_BYTES)?;
    let document: Document = oci::parse(&bytes, "image configuration")?;
    if document.rootfs.diff_ids.len() != row.layers.len() {
        return Err(Error::invalid("mismatched image rootfs and manifest layers"));
    }
    row.diff_ids = document.rootfs.diff_ids.iter().map(|id| Digest::parse(id)).collect::<Result<_>>()?;
    if row.platform == Platform::default() {
        row.platform = document.platform.clone();
    }
    row.kind = ManifestKind::Image;
    row.document = Some(document);
    Ok(())
}

/// Unpacks the manifests that `wanted` picks, and notes their sizes in the row.
pub(super) fn unpack(
    images: &Images,
    row: &mut ImageRow,
    wanted: impl Fn(&ManifestRow) -> bool,
    lease: &Lease,
) -> Result<()> {
    for manifest in row.manifests.iter_mut().filter(|m| m.kind == ManifestKind::Image && m.available) {
        if wanted(manifest) {
            manifest.unpacked = Some(unpack_layers(images, manifest, lease)?);
        }
    }
    Ok(())
}

/// Unpacks the layers of a manifest side by side; answers the bytes they take.
fn unpack_layers(images: &Images, manifest: &ManifestRow, lease: &Lease) -> Result<u64> {
    // A layer that the image names several times lies on the disk once, and is counted once.
    let mut seen = HashSet::new();
    let pairs = manifest.layers.iter().zip(&manifest.diff_ids);
    let jobs: Vec<_> = pairs.filter(|(_, diff_id)| seen.insert(*diff_id)).collect();
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new(Ok(0_u64));
    let work = || {
        while let Some((blob, diff_id)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let size = unpack_layer(images, blob, diff_id, lease);
            let mut total = outcome.lock();
            match (&mut *total, size) {
                (Ok(total), Ok(size)) => *total += size,
                (Ok(_), Err(error)) => *total = Err(error),
                (Err(_), _) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..WORKERS.min(jobs.len()) {
            scope.spawn(work);
        }
        work();
    });
    outcome.into_inner()
}

fn unpack_layer(images: &Images, blob: &Content, diff_id: &Digest, lease: &Lease) -> Result<u64> {
    lease.pin(diff_id);
    if let Some(layer) = images.layers.layer(&diff_id.into())? {
        return Ok(layer.size);
    }
    let tar = layer_tar(images.blobs.open_blob(&blob.digest)?, blob.size)?;
    let layer = snapshot::ahead(tar, |tar| images.layers.apply_layer(Some(diff_id), tar, lease));
    Ok(layer?.size)
}

/// Unpacks a manifest of an image, if that has not been done: a container of it is to be made.
pub fn ensure_unpacked(images: &Images, id: &Digest, manifest: &Digest) -> Result<()> {
    let wanted = |m: &ManifestRow| m.content.digest == *manifest;
    let Some(image) = images.catalog().images.get(id).cloned() else { return Ok(()) };
    if image.manifests.iter().any(|m| wanted(m) && m.unpacked.is_some()) {
        return Ok(());
    }
    let lease = images.pins.lease();
    let mut row = ImageRow::clone(&image);
    unpack(images, &mut row, wanted, &lease)?;
    let unpacked = row.manifests.iter().find(|m| wanted(m)).and_then(|m| m.unpacked);
    images.layers.sync()?;
    let (id, manifest) = (id.clone(), manifest.clone());
    images.change(move |catalog, edit| {
        // As it is now: it may have got or lost another platform meanwhile.
        let Some(image) = catalog.images.get(&id) else { return Ok(()) };
        let mut row = ImageRow::clone(image);
        let found = row.manifests.iter_mut().filter(|m| m.content.digest == manifest && m.available);
        found.for_each(|m| m.unpacked = unpacked);
        edit.put_image(&row)
    })
}
