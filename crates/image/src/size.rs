//! How many bytes images take on the disk, and how many of them something needs.

use std::collections::HashSet;

use model::Result;
use model::digest::Digest;

use super::row::{ImageRow, ManifestKind, ManifestRow};
use super::{Images, Users, oci};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Blobs, what is here of blobs that are being fetched, and unpacked layers; each once.
    pub total: u64,
    /// Those that images with containers and containers themselves need.
    pub needed: u64,
}

impl Images {
    /// Measures everything on the disk. Reads directories and records, no content.
    pub fn bytes(&self, users: &Users) -> Result<Bytes> {
        let catalog = self.catalog();
        let (mut blobs, mut layers) = (HashSet::new(), HashSet::new());
        let in_use = catalog.images.values().filter(|image| users.of(&image.target.digest).next().is_some());
        in_use.for_each(|image| add(image, &mut blobs, &mut layers));
        layers.extend(users.layers());
        let mut bytes = Bytes::default();
        for (digest, size) in self.blobs.on_disk()? {
            bytes.total += size;
            bytes.needed += if blobs.contains(&digest) { size } else { 0 };
        }
        bytes.total += self.blobs.parts()?.iter().map(|(_, size)| size).sum::<u64>();
        let mut all = layers.clone();
        catalog.images.values().for_each(|image| add(image, &mut HashSet::new(), &mut all));
        for diff_id in &all {
            let size = self.snapshots.layer_usage(diff_id)?;
            bytes.total += size;
            bytes.needed += if layers.contains(diff_id) { size } else { 0 };
        }
        Ok(bytes)
    }
}

/// What an image keeps: its blobs and its layers.
pub fn add(image: &ImageRow, blobs: &mut HashSet<Digest>, layers: &mut HashSet<Digest>) {
    blobs.insert(image.target.digest.clone());
    // Of a manifest that is not here nothing is: the blob of one that was removed by its platform is not kept.
    let here = |manifest: &&ManifestRow| manifest.config.is_some() || !oci::is_manifest(&manifest.content.media_type);
    for manifest in image.manifests.iter().filter(here) {
        blobs.extend(manifest.blobs().map(|blob| blob.digest.clone()));
        if manifest.kind == ManifestKind::Image {
            layers.extend(manifest.diff_ids.iter().cloned());
        }
    }
}
