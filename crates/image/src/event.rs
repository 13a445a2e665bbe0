//! Events of images.

use std::collections::BTreeMap;

use events::{Draft, Events};
use model::digest::Digest;

use crate::catalog::{Wanted, select};
use crate::row::ImageRow;

/// Publishes an event of an image; `labels` are those of its configuration.
pub(crate) fn publish(events: &Events, action: &str, id: &Digest, name: &str, labels: &BTreeMap<String, String>) {
    events.publish_all(vec![draft(action, id, name, labels)]);
}

/// An event of an image.
pub(crate) fn draft(action: &str, id: &Digest, name: &str, labels: &BTreeMap<String, String>) -> Draft {
    let mut attributes = labels.clone();
    attributes.insert("name".to_owned(), name.to_owned());
    Draft::new("image", action, id.as_str(), attributes)
}

/// The labels of the image's manifest for this host.
pub(crate) fn labels(image: &ImageRow) -> BTreeMap<String, String> {
    let manifest = select(image, Wanted::Any, "").ok().or(image.manifests.first());
    manifest.and_then(|m| m.document.as_ref()).map(|d| d.config.labels.clone()).unwrap_or_default()
}
