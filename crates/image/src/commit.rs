//! An image of a container: its image's layers, untouched, and one with what it changed.
//!
//! The layer is compressed as it is packed, straight into the blob store, and unpacked from there like any other. What
//! comes out is an OCI image whatever the image below was; a container that changed nothing gives no layer, only a
//! step in the history, as with the reference.

use std::io::Write;

use model::digest::Digest;
use model::reference::ImageRef;
use model::{Error, Result};
use snapshot::Gzip;
use store::Lease;

use api::oci::Descriptor;

use super::event::{labels, publish};
use super::images::Images;
use super::import::put_json;
use super::oci::{self, Document, History, Rootfs};
use super::unpack;
use events::{Events, now};

/// Packs a layer.
pub type Pack<'c> = dyn Fn(&mut dyn Write) -> Result<Option<Digest>> + 'c;

/// What the image is made of.
pub struct CommitImage<'c> {
    /// Writes what the container changed as an uncompressed tar, and returns its diff id; `None`: nothing.
    pub pack: &'c Pack<'c>,
    /// The image below.
    pub image: &'c Digest,
    /// The manifest of the image below; `None`: the container was made of nothing.
    pub manifest: Option<&'c Digest>,
    /// What a container of it does.
    pub config: api::ImageConfig,
    /// For its history: the container's command.
    pub created_by: String,
    /// For its history.
    pub comment: String,
    /// For its history; empty: the author of the image below.
    pub author: String,
    /// The name it gets.
    pub name: Option<ImageRef>,
}

/// Makes the image; answers its id. Events: create, tag (if named).
pub fn commit(images: &Images, events: &Events, wanted: CommitImage<'_>) -> Result<Digest> {
    let lease = images.pins.lease();
    let made = make(images, &wanted, &lease);
    drop(lease);
    let id = made.inspect_err(|_| _ = images.tidy_up())?;
    let labels = images.catalog().images.get(&id).map(|image| labels(image)).unwrap_or_default();
    publish(events, "create", &id, id.as_str(), &labels);
    if let Some(name) = &wanted.name {
        publish(events, "tag", &id, &name.familiar(), &labels);
    }
    Ok(id)
}

fn make(images: &Images, wanted: &CommitImage<'_>, lease: &Lease) -> Result<Digest> {
    let (below, document) = match wanted.manifest {
        Some(digest) => parent(images, digest, lease)?,
        None => Default::default(),
    };
    let mut layers = below.layers;
    let layer = pack(images, wanted, lease)?;
    let diff_id = layer.map(|(layer, diff_id)| {
        layers.push(layer);
        diff_id
    });
    let config = put_json(images, oci::CONFIG, &describe(document, wanted, diff_id.as_ref()), lease)?;
    let manifest = oci::Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.into(),
        config,
        layers,
        ..oci::Manifest::default()
    };
    let target = put_json(images, oci::MANIFEST, &manifest, lease)?;
    let mut row = unpack::describe(images, &target)?;
    unpack::unpack(images, &mut row, |_| true, lease)?;
    row.parent = wanted.manifest.map(|_| wanted.image.clone());
    let id = row.target.digest.clone();
    images.publish(row, wanted.name.iter().map(ImageRef::canonical).collect())?;
    Ok(id)
}

/// The documents of the image below. Everything they name is pinned.
fn parent(images: &Images, digest: &Digest, lease: &Lease) -> Result<(oci::Manifest, Document)> {
    lease.pin(digest);
    let manifest = oci::parse_manifest(&images.blobs.read_small(digest, oci::MANIFEST_BYTES)?)?;
    for content in manifest.layers.iter().chain([&manifest.config]) {
        let digest = oci::digest(content)?;
        lease.pin(&digest);
        images.blobs.size(&digest)?;
    }
    let config = images.blobs.read_small(&oci::digest(&manifest.config)?, oci::CONFIG_BYTES)?;
    let document: Document = oci::parse(&config, "image configuration")?;
    for diff_id in &document.rootfs.diff_ids {
        lease.pin(&Digest::parse(diff_id)?);
    }
    Ok((manifest, document))
}

/// Packs what the container changed; `None`: nothing.
fn pack(images: &Images, wanted: &CommitImage<'_>, lease: &Lease) -> Result<Option<(Descriptor, Digest)>> {
    let mut gzip = Gzip::new(images.blobs.ingest()?);
    let diff_id = (wanted.pack)(&mut gzip)?;
    let Some(diff_id) = diff_id else { return Ok(None) };
    lease.pin(&diff_id);
    let ingest = gzip.finish().map_err(|error| Error::from(error).prefix("writing a layer"))?;
    let (digest, size) = ingest.finish(None, None, lease)?;
    let (media_type, digest, size) = (format!("{}+gzip", oci::LAYER), digest.to_string(), size as i64);
    Ok(Some((Descriptor { media_type, digest, size, ..Descriptor::default() }, diff_id)))
}

/// The configuration of the image below, carried on.
fn describe(below: Document, wanted: &CommitImage<'_>, diff_id: Option<&Digest>) -> Document {
    let created = now().rfc3339_nano();
    let author = if wanted.author.is_empty() { below.author } else { wanted.author.clone() };
    let mut platform = below.platform;
    let host = oci::host();
    if platform.architecture.is_empty() {
        platform.architecture = host.architecture;
    }
    if platform.os.is_empty() {
        platform.os = host.os;
    }
    let mut diff_ids = below.rootfs.diff_ids;
    diff_ids.extend(diff_id.map(Digest::to_string));
    let mut history = below.history;
    history.push(History {
        created: created.clone(),
        created_by: wanted.created_by.clone(),
        author: author.clone(),
        comment: wanted.comment.clone(),
        empty_layer: diff_id.is_none(),
    });
    let rootfs = Rootfs { kind: "layers".into(), diff_ids };
    Document { created, author, platform, config: wanted.config.clone(), rootfs, history }
}
