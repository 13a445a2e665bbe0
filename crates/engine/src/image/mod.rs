//! Images: what they are called, what they consist of, which container may be made of which.

use std::path::Path;
use std::sync::Arc;

use model::Result;
use model::digest::Digest;
use snapshot::Snapshotter;
use store::{Store, WriteTx};

/// The image service.
pub struct Images {}

/// An image chosen for a container.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// Digest of the manifest or index: the image's id.
    pub id: Digest,
    /// What its configuration says to containers.
    pub config: api::ImageConfig,
    /// Diff ids of its layers, bottom first.
    pub layers: Vec<Digest>,
    /// `linux/amd64`.
    pub platform: String,
    /// The chosen manifest: media type, digest, size in bytes.
    pub manifest: Option<(String, Digest, u64)>,
}

impl Images {
    /// Opens the service over the content below the data root.
    pub fn open(_data_root: &Path, _store: Store, _snapshots: Arc<dyn Snapshotter>) -> Result<Images> {
        todo!()
    }

    /// How many images there are.
    pub fn count(&self) -> usize {
        todo!()
    }

    /// The image a container is made from; 404 `No such image: nosuch:latest`.
    pub async fn resolve(&self, _reference: &str, _platform: Option<&str>) -> Result<ResolvedImage> {
        todo!()
    }

    /// Ids of the images that a reference, id or id prefix means; empty when none. Never waits.
    pub fn ids_of(&self, _reference: &str) -> Vec<String> {
        todo!()
    }

    /// Removes blobs and layers that no image and no container needs.
    pub fn sweep(&self) -> Result<()> {
        todo!()
    }
}

/// Fails (404) unless the image is still there: for the commit of a container row.
pub fn require(_tx: &WriteTx<'_, '_>, _id: &Digest) -> Result<()> {
    todo!()
}
