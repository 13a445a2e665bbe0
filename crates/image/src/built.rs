//! An image of layers that were built here.
//!
//! Its blobs are in the store already and its layers are known by their diff ids; what is made here are its documents, and the
//! one commit that makes it and its names visible.

use model::digest::Digest;
use model::reference::ImageRef;
use model::{Error, Result};
use serde_json::Value;
use store::Lease;

use super::event::{labels, publish};
use super::images::Images;
use super::import::put_json;
use super::row::Content;
use super::{oci, unpack};
use events::Events;

/// What an image is made of.
pub struct BuiltImage {
    /// Blobs of its layers with their diff ids, bottom first; all pinned.
    pub layers: Vec<(Content, Digest)>,
    /// Its configuration, without what `layers` says.
    pub config: Value,
    /// The names it gets.
    pub names: Vec<ImageRef>,
    /// The image that it was built on.
    pub parent: Option<Digest>,
}

/// Makes the image; answers its id. Events: create, tag for each name. Blocks.
///
/// Errors: `InvalidParameter` for a configuration that is none, or more layers than an image can have.
pub fn built(images: &Images, events: &Events, wanted: BuiltImage, lease: &Lease) -> Result<Digest> {
    let names = wanted.names.clone();
    let id = make(images, wanted, lease)?;
    let labels = images.catalog().images.get(&id).map(|image| labels(image)).unwrap_or_default();
    publish(events, "create", &id, id.as_str(), &labels);
    for name in names {
        publish(events, "tag", &id, &name.familiar(), &labels);
    }
    Ok(id)
}

fn make(images: &Images, wanted: BuiltImage, lease: &Lease) -> Result<Digest> {
    if wanted.layers.len() > oci::LAYERS {
        return Err(Error::invalid(format!("max depth exceeded: an image has at most {} layers", oci::LAYERS)));
    }
    let mut config = wanted.config;
    let object = config.as_object_mut().ok_or_else(|| Error::invalid("invalid image configuration: no object"))?;
    let diff_ids: Vec<&str> = wanted.layers.iter().map(|(_, diff_id)| diff_id.as_str()).collect();
    object.insert("rootfs".into(), serde_json::json!({"type": "layers", "diff_ids": diff_ids}));
    let manifest = oci::Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.into(),
        config: put_json(images, oci::CONFIG, &config, lease)?,
        layers: wanted.layers.iter().map(|(blob, _)| blob.descriptor()).collect(),
        ..oci::Manifest::default()
    };
    let target = put_json(images, oci::MANIFEST, &manifest, lease)?;
    let mut row = unpack::describe(images, &target)?;
    unpack::unpack(images, &mut row, |_| true, lease)?;
    row.parent = wanted.parent;
    let id = row.target.digest.clone();
    images.publish(row, wanted.names.iter().map(ImageRef::canonical).collect())?;
    Ok(id)
}
