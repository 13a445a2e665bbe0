//! How many bytes images have, and how many of them something needs.
//!
//! One measure for lists, `system df` and what a prune reports: bytes of content, whatever blocks a file system gives
//! them.

use std::collections::{BTreeMap, HashSet};

use model::Result;

use super::collect::Part;
use super::images::Images;
use super::row::{ImageRow, add_kept};
use super::users::Users;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Blobs, what is here of blobs that are being fetched, and unpacked layers; each once.
    pub total: u64,
    /// Those that images with containers and containers themselves need.
    pub needed: u64,
}

impl Images {
    /// Measures all content. Reads directories and records, no content.
    pub fn bytes(&self, users: &Users) -> Result<Bytes> {
        let catalog = self.catalog();
        let (mut blobs, mut layers) = (HashSet::new(), HashSet::new());
        let in_use = catalog.images.values().filter(|image| users.of(&image.target.digest).next().is_some());
        in_use.for_each(|image| add_kept(image, &mut blobs, &mut layers));
        layers.extend(users.layers());
        let mut bytes = Bytes::default();
        for (digest, size) in self.blobs.list()? {
            bytes.total += size;
            bytes.needed += if blobs.contains(&digest) { size } else { 0 };
        }
        bytes.total += self.blobs.parts()?.iter().map(|(_, size)| size).sum::<u64>();
        let mut all = layers.clone();
        catalog.images.values().for_each(|image| add_kept(image, &mut HashSet::new(), &mut all));
        for diff_id in &all {
            let size = self.layers.layer(&diff_id.into())?.map_or(0, |layer| layer.size);
            bytes.total += size;
            bytes.needed += if layers.contains(diff_id) { size } else { 0 };
        }
        Ok(bytes)
    }

    /// What is here of an image, each blob and each unpacked layer once, with its bytes.
    pub(super) fn parts(&self, image: &ImageRow) -> Result<BTreeMap<Part, u64>> {
        let mut parts = BTreeMap::from([(Part::Blob(image.target.digest.clone()), image.target.size)]);
        for manifest in image.manifests.iter().filter(|manifest| manifest.available) {
            parts.extend(manifest.blobs().map(|blob| (Part::Blob(blob.digest.clone()), blob.size)));
            for diff_id in manifest.diff_ids.iter().filter(|_| manifest.unpacked.is_some()) {
                let size = self.layers.layer(&diff_id.into())?.map_or(0, |layer| layer.size);
                parts.insert(Part::Layer(diff_id.clone()), size);
            }
        }
        Ok(parts)
    }

    /// Bytes of all that is here of an image.
    pub(super) fn size(&self, image: &ImageRow) -> Result<u64> {
        match &image.manifests[..] {
            // The row alone says it.
            [manifest] if manifest.content.digest == image.target.digest && manifest.available => {
                Ok(manifest.total_size())
            }
            _ => Ok(self.parts(image)?.values().sum()),
        }
    }
}
