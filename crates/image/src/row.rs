//! The persisted form of images: what lies where, and which names lead to it.
//!
//! Table `images` is keyed by the image's id (the digest of its manifest or index), table `image-names` by the full
//! name (`docker.io/library/busybox:latest`). An image without a name is dangling. Rows repeat what the blobs say, so
//! that listing and resolving read no blob.

use std::collections::{BTreeMap, HashSet};

use api::oci::{Descriptor, Platform};
use model::digest::Digest;
use model::time::Timestamp;
use serde::{Deserialize, Serialize};
use signature::Signature;
use store::{Row, Table};

use super::oci::{self, Document};

/// Signatures kept of one image.
const SIGNATURES: usize = 16;
/// The version of the rows of images.
pub const FORMAT: u32 = <ImageRow as Row>::VERSION;

/// All images, by id.
pub const IMAGES: Table<ImageRow> = Table::new("images");
/// All names, in full.
pub const NAMES: Table<NameRow> = Table::new("image-names");

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// What it is.
    pub media_type: String,
    /// Of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

impl Content {
    /// As the wire shows it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.to_string(),
            size: self.size as i64,
            ..Descriptor::default()
        }
    }
}

/// An image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageRow {
    /// The manifest or index: its digest is the image's id.
    pub target: Content,
    /// When it came here.
    pub created: Timestamp,
    /// The manifests it consists of; one, if the target is a manifest.
    pub manifests: Vec<ManifestRow>,
    /// The image of the container that it was committed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Digest>,
    /// Signatures of the target that a policy asked for. Kept as they are: each use verifies them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Signature>,
}

impl ImageRow {
    /// One that was not made here, and that no policy asked anything of.
    pub fn new(target: Content, created: Timestamp, manifests: Vec<ManifestRow>) -> ImageRow {
        ImageRow { target, created, manifests, parent: None, signatures: Vec::new() }
    }
}

impl Row for ImageRow {
    const VERSION: u32 = 1;
}

/// What a manifest is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestKind {
    /// Can be run.
    Image,
    /// Speaks about the manifest of this digest.
    Attestation(String),
    /// Neither.
    Unknown,
}

/// One manifest of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManifestRow {
    /// The manifest itself.
    pub content: Content,
    /// What it is for.
    pub kind: ManifestKind,
    /// Where it runs; empty texts when unknown.
    pub platform: Platform,
    /// Of its descriptor.
    pub annotations: BTreeMap<String, String>,
    /// The manifest, its configuration and all its layers are here.
    pub available: bool,
    /// The configuration, if the manifest is here.
    pub config: Option<Content>,
    /// The layers' blobs, bottom first.
    pub layers: Vec<Content>,
    /// The layers' digests when uncompressed, bottom first.
    pub diff_ids: Vec<Digest>,
    /// Bytes the unpacked layers take; `None`: not unpacked.
    pub unpacked: Option<u64>,
    /// What the configuration says.
    pub document: Option<Document>,
}

impl ManifestRow {
    /// The blobs it names, itself included, present or not.
    pub fn blobs(&self) -> impl Iterator<Item = &Content> {
        std::iter::once(&self.content).chain(&self.config).chain(&self.layers)
    }

    /// The layers it is made of, each once: an image may name one layer several times.
    pub fn distinct_layers(&self) -> Vec<&Digest> {
        snapshot::topmost(&self.diff_ids)
    }

    /// Its content is not here any more; where it runs and what it is called for is still known.
    pub fn lose(&mut self) {
        self.available = false;
        (self.config, self.unpacked, self.document) = (None, None, None);
        self.layers.clear();
        self.diff_ids.clear();
    }

    /// Bytes of its blobs, each counted once.
    pub fn content_size(&self) -> u64 {
        let mut seen = HashSet::new();
        let distinct = self.blobs().filter(|blob| seen.insert(&blob.digest));
        if self.available { distinct.map(|blob| blob.size).sum() } else { 0 }
    }

    /// Bytes of its blobs and of what is unpacked.
    pub fn total_size(&self) -> u64 {
        self.content_size() + self.unpacked.unwrap_or(0)
    }
}

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRow {
    /// The image's id.
    pub image: Digest,
    /// When the name was given.
    pub tagged: Timestamp,
}

impl Row for NameRow {
    const VERSION: u32 = 1;
}

/// What an image keeps: its blobs and its layers.
pub fn add_kept(image: &ImageRow, blobs: &mut HashSet<Digest>, layers: &mut HashSet<Digest>) {
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

/// Adds signatures that are not there yet; the oldest give way when there are too many.
pub(crate) fn keep_signatures(signatures: &mut Vec<Signature>, more: &[Signature]) {
    let new: Vec<_> = more.iter().filter(|signature| !signatures.contains(signature)).cloned().collect();
    signatures.extend(new);
    signatures.truncate(SIGNATURES);
}
