//! What all comparisons ask an inventory: what its rows name, and what is not known because a row is damaged.

use std::collections::HashSet;

use image::row::IMAGES;
use model::digest::Digest;
use snapshot::LayerKey;

use super::super::fault::Repair;
use super::super::inventory::{Blob, Inventory};
use crate::container::row::CONTAINERS;

/// The diff id that a layer is found by.
pub(super) fn diff_id(layer: &LayerKey) -> Option<Digest> {
    match layer {
        LayerKey::Diff(diff_id) => Some(diff_id.clone()),
        LayerKey::Local(_) => None,
    }
}

pub(super) fn is_damaged(inventory: &Inventory, table: &str, key: &str) -> bool {
    inventory.rows.damaged.iter().any(|damaged| damaged.table == table && damaged.row.key == key)
}

pub(super) fn sound(inventory: &Inventory, blob: &Digest) -> bool {
    inventory.disk.blobs.get(blob).is_some_and(Blob::is_sound)
}

/// While rows cannot be read, nobody knows what they name: nothing is removed then. What another store might name goes
/// to the quarantine.
pub(super) fn keep_if_unsure(inventory: &Inventory, repair: Repair) -> Repair {
    if inventory.rows.doubt.is_some() {
        return match repair {
            Repair::RemoveBlob(digest) => Repair::SetBlobAside(digest),
            Repair::RemoveLayer(layer) => Repair::SetLayerAside(layer),
            Repair::Remove(place) if place.starts_with("volumes") => Repair::SetAside(place),
            other => other,
        };
    }
    let naming = [IMAGES.name(), CONTAINERS.name(), image::USERS.name(), image::kept::KEPT.name()];
    let unsure = inventory.rows.damaged.iter().any(|damaged| naming.contains(&damaged.table));
    if unsure { Repair::Nothing("a damaged row may name it".into()) } else { repair }
}

/// Blobs and layers that rows name.
pub(super) fn named(inventory: &Inventory) -> (HashSet<Digest>, HashSet<Digest>) {
    let (mut blobs, mut layers) = (HashSet::new(), HashSet::new());
    inventory.rows.images.values().for_each(|image| image::add_kept(image, &mut blobs, &mut layers));
    layers.extend(inventory.rows.containers.values().flat_map(|row| row.image.layers.iter().cloned()));
    for row in inventory.rows.kept.values() {
        blobs.extend(row.blobs.iter().cloned());
        layers.extend(row.layers.iter().filter_map(diff_id));
    }
    (blobs, layers)
}
