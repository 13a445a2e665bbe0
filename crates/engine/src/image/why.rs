//! Why an image is kept, in sentences for people: `gantryd images why`.
//!
//! Any text that leads to an image may be asked about, and the digest of anything that images consist of: a manifest
//! of an index, a configuration, a layer, packed or not. All images that hold it are told of then.

use std::sync::Arc;

use model::digest::Digest;
use model::{Kind, Result};
use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, parsed};
use super::oci;
use super::row::ImageRow;
use crate::Engine;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The image that was asked about, or every image that holds the content.
    pub images: Vec<WhyImage>,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyImage {
    /// Its id.
    pub id: String,
    /// Its names as users write them.
    pub names: Vec<String>,
    /// What of it was asked about, if it is not the image as a whole.
    pub part: Option<String>,
    /// When, and how long ago.
    pub last_used: String,
    /// Every reason to keep it.
    pub kept: Vec<String>,
    /// What the garbage collector makes of that.
    pub fate: String,
}

/// Why the image that `text` leads to, or the images that hold this content, are kept.
pub fn why(engine: &Engine, text: &str) -> Result<Why> {
    let catalog = engine.images.catalog();
    let images = held(&catalog, text)?.into_iter().map(|(image, part)| one(engine, &catalog, &image, part));
    Ok(Why { images: images.collect() })
}

/// The images that a text is about, and which part of them.
fn held(catalog: &Catalog, text: &str) -> Result<Vec<(Arc<ImageRow>, Option<String>)>> {
    let error = match catalog.find(text) {
        Ok(found) => return Ok(vec![(found.image, None)]),
        Err(error) if error.kind() == Kind::NotFound => error,
        Err(error) => return Err(error),
    };
    let Ok(digest) = Digest::parse(text).or_else(|_| Digest::parse(&format!("sha256:{text}"))) else {
        return Err(error);
    };
    let holders = catalog.images.values().filter_map(|image| Some((image.clone(), Some(part(image, &digest)?))));
    let holders: Vec<_> = holders.collect();
    if holders.is_empty() { Err(error) } else { Ok(holders) }
}

/// What this digest is in an image.
fn part(image: &ImageRow, digest: &Digest) -> Option<String> {
    image.manifests.iter().find_map(|manifest| {
        let place = oci::platform(&manifest.platform);
        if manifest.content.digest == *digest {
            Some(format!("manifest {digest} ({place}) of the index"))
        } else if manifest.config.as_ref().is_some_and(|config| config.digest == *digest) {
            Some(format!("configuration {digest} ({place})"))
        } else if manifest.layers.iter().any(|layer| layer.digest == *digest) {
            Some(format!("layer {digest} ({place})"))
        } else if manifest.diff_ids.contains(digest) {
            Some(format!("unpacked layer {digest} ({place})"))
        } else {
            None
        }
    })
}

fn one(engine: &Engine, catalog: &Catalog, image: &ImageRow, part: Option<String>) -> WhyImage {
    let id = &image.target.digest;
    let names: Vec<_> = catalog.names_of(id).filter_map(parsed).map(|name| name.familiar()).collect();
    let mut kept: Vec<String> = names.iter().map(|name| format!("it has the name {name}")).collect();
    kept.extend(users(engine, id));
    if engine.images.pins.holds(id) {
        kept.push("it is being pulled, pushed, loaded or saved".to_owned());
    }
    WhyImage { id: id.to_string(), names, part, last_used: image.created.rfc3339(), kept, fate: "off".to_owned() }
}

/// A sentence for each container made of the image.
fn users(engine: &Engine, id: &Digest) -> Vec<String> {
    let mut users = Vec::new();
    for handle in engine.containers.all() {
        let view = handle.view();
        if view.row.image.id == *id {
            let (name, state) = (&view.row.name, view.row.state.word());
            users.push(format!("container {name} ({}, {state}) is made of it", handle.id.short()));
        }
    }
    users
}
