//! Content that is kept for the build cache.
//!
//! A row of kept content and the row that it is kept for come and go in one commit, and all that it names is here. What is
//! wrong is forgotten, at the cost of a step that runs once more.

use model::digest::Digest;
use snapshot::LayerKey;

use super::super::fault::{Fault, Repair};
use super::super::inventory::{Inventory, Layer};
use super::known::{is_damaged, keep_if_unsure, named, sound};

pub(super) fn faults(inventory: &Inventory) -> Vec<Fault> {
    let mut found = incomplete(inventory);
    found.extend(without_owner(inventory));
    found.extend(without_keeper(inventory));
    found.extend(orphan_layers(inventory));
    found
}

fn fault(name: &'static str, keeper: &str, place: &str, detail: String) -> Fault {
    let subject = format!("build cache entry {keeper}");
    Fault { name, subject, place: place.to_owned(), detail, repair: Repair::Forget(keeper.to_owned()) }
}

/// Entries of which a layer or an archive is not here.
fn incomplete(inventory: &Inventory) -> Vec<Fault> {
    let lacks = |layer: &&LayerKey| match layer {
        LayerKey::Diff(id) => matches!(inventory.disk.layers.get(id), None | Some(Layer::Damaged(_))),
        LayerKey::Local(name) => !inventory.disk.local_layers.contains_key(name),
    };
    let of_cache = inventory.rows.kept.iter().filter(|(keeper, _)| build::record::is_keeper(keeper));
    let mut found = Vec::new();
    for (keeper, row) in of_cache {
        let layer = row.layers.iter().find(lacks).map(|layer| format!("its layer {layer}"));
        let blob = || row.blobs.iter().find(|blob| !sound(inventory, blob)).map(|blob| format!("its blob {blob}"));
        if let Some(what) = layer.or_else(blob) {
            let detail = format!("{what} is missing or damaged");
            found.push(fault("build-content", keeper, image::kept::KEPT.name(), detail));
        }
    }
    found
}

/// Rows that keep content for nothing.
fn without_owner(inventory: &Inventory) -> impl Iterator<Item = Fault> {
    let (kept, owners) = (&inventory.rows.kept, &inventory.rows.kept_for);
    let alone = kept.keys().filter(|keeper| build::record::is_keeper(keeper) && !owners.contains_key(*keeper));
    let detail = "it keeps content for nothing";
    alone.map(move |keeper| fault("build-keeper", keeper, image::kept::KEPT.name(), detail.to_owned()))
}

/// What has to be kept, and is not.
fn without_keeper(inventory: &Inventory) -> impl Iterator<Item = Fault> {
    let table = image::kept::KEPT.name();
    let lost = |keeper: &str| !inventory.rows.kept.contains_key(keeper) && !is_damaged(inventory, table, keeper);
    let lost = inventory.rows.kept_for.iter().filter(move |(keeper, _)| lost(keeper));
    lost.map(|(keeper, (table, _))| fault("build-unkept", keeper, table, "nothing keeps its content".to_owned()))
}

/// Layers without a diff id that no entry has, and to which no diff id leads that is needed.
fn orphan_layers(inventory: &Inventory) -> Vec<Fault> {
    let (_, needed) = named(inventory);
    let kept: std::collections::HashSet<&Digest> =
        inventory.rows.kept.values().flat_map(|row| row.layers.iter().map(LayerKey::pin)).collect();
    let is_orphan = |(name, diff_ids): &(&Digest, &Vec<Digest>)| {
        !kept.contains(name)
            && !inventory.busy.pinned.contains(*name)
            && !diff_ids.iter().any(|id| needed.contains(id) || inventory.busy.pinned.contains(id))
    };
    let orphans = inventory.disk.local_layers.iter().filter(is_orphan);
    let told = orphans.map(|(name, _)| {
        let key = LayerKey::Local(name.clone());
        let place = inventory.disk.layers_at.join(key.to_string());
        let repair = keep_if_unsure(inventory, Repair::Remove(place.clone()));
        Fault {
            name: "orphan-layer",
            subject: format!("layer {key}"),
            place: place.display().to_string(),
            detail: "nothing names it".into(),
            repair,
        }
    });
    told.collect()
}
