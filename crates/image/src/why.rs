//! Why an image is kept, in sentences for people: `gantryd images why`.
//!
//! Any text that leads to an image may be asked about, and the digest of anything that images consist of: a manifest
//! of an index, a configuration, a layer, packed or not. All images that hold it are told of then.

use std::sync::Arc;

use model::digest::Digest;
use model::{Kind, Result, duration, units};
use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, parsed};
use super::collect::{self, ImageUse, Reason, Room, Rules, Survey};
use super::images::Images;
use super::oci;
use super::row::ImageRow;
use super::users::Users;
use events::now;

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

/// Why the image that `text` leads to, or the images that hold this content, are kept. Blocks.
pub fn why(images: &Images, users: &Users, text: &str) -> Result<Why> {
    let catalog = images.catalog();
    let held = held(&catalog, text)?;
    let rules = images.rules();
    let survey = Survey::take(images, users)?;
    let scene = Scene { uses: &survey.uses, rules: rules.as_ref(), room: Room::of(&images.data_root)? };
    let uses = |image: &ImageRow| survey.uses.iter().find(|uses| uses.id == image.target.digest);
    let one = |(image, part): (Arc<ImageRow>, Option<String>)| Some(one(&scene, uses(&image)?, part));
    Ok(Why { images: held.into_iter().filter_map(one).collect() })
}

/// What the collector would look at now.
struct Scene<'s> {
    uses: &'s [ImageUse],
    rules: Option<&'s Rules>,
    room: Room,
}

/// The images that a text is about, and which part of them.
fn held(catalog: &Catalog, text: &str) -> Result<Vec<(Arc<ImageRow>, Option<String>)>> {
    let error = match catalog.find(text) {
        Ok(found) => return Ok(vec![(found.image, None)]),
        Err(error) if error.kind() == Kind::NotFound => error,
        Err(error) => return Err(error),
    };
    let Some(digest) = Digest::parse(text).ok().or_else(|| Digest::from_hex(text)) else {
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

fn one(scene: &Scene<'_>, uses: &ImageUse, part: Option<String>) -> WhyImage {
    let names: Vec<_> = uses.names.iter().filter_map(|name| parsed(name)).map(|name| name.familiar()).collect();
    let reasons = collect::reasons(uses, scene.rules, now());
    let mut kept: Vec<String> = names.iter().map(|name| format!("it has the name {name}")).collect();
    kept.extend(reasons.iter().map(ToString::to_string));
    if kept.is_empty() {
        kept.push("nothing keeps it: docker image prune takes it".to_owned());
    }
    let ago = duration::human(now().nanos_since(uses.used).max(0)).to_lowercase();
    WhyImage {
        id: uses.id.to_string(),
        names,
        part,
        last_used: format!("{} ({ago} ago)", uses.used.rfc3339()),
        kept,
        fate: fate(scene, uses, &reasons),
    }
}

/// What the collector makes of it.
fn fate(scene: &Scene<'_>, uses: &ImageUse, reasons: &[Reason]) -> String {
    let Some(rules) = scene.rules else {
        return "off (there is no \"image-gc\" in the configuration)".to_owned();
    };
    if let [Reason::Recent { until, .. }] = reasons {
        return format!("leaves it until {}", until.rfc3339());
    }
    if !reasons.is_empty() {
        return "leaves it".to_owned();
    }
    let order = collect::order(scene.uses, rules, now());
    let place = order.iter().position(|other| other.id == uses.id).map_or(0, |at| at + 1);
    let (used, room) = (units::bytes_size(scene.room.used as f64), units::bytes_size(scene.room.capacity as f64));
    let (high, count) = (rules.high, order.len());
    format!("takes it as number {place} of {count} when more than {high} of the disk are used (now {used} of {room})")
}
