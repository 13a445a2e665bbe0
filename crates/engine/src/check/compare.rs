//! From inventory to faults. Pure.
//!
//! - A manifest that its row calls available must be here, whole; one that is not available is demanded nothing of.
//! - What a row names is never an orphan, available or not: it is what a sweep keeps.
//! - What an operation that goes on speaks for is no fault.

use std::collections::{BTreeMap, HashSet};

use image::row::{Content, IMAGES, ImageRow, ManifestKind, ManifestRow, NAMES};
use model::digest::Digest;

use self::known::{is_damaged, keep_if_unsure, named, sound};
use super::fault::{Fault, Repair};
use super::inventory::{Blob, DamagedRow, Inventory, Layer, StrayKind};
use crate::container::definition::MountKind;
use crate::container::row::{CONTAINERS, ContainerRow, RUNS};
use crate::root;

const NO_RECORD: &str = "nothing tells how it lives";
const NO_DEFINITION: &str = "its run record is here, and no definition of it";

/// Everything that is wrong, in the order of a repair.
pub fn faults(inventory: &Inventory) -> Vec<Fault> {
    let mut found = Vec::new();
    found.extend(inventory.rows.doubt.as_deref().map(doubtful_store));
    found.extend(inventory.rows.damaged.iter().map(|damaged| damaged_row(inventory, damaged)));
    found.extend(dangling_names(inventory));
    found.extend(inventory.rows.images.values().flat_map(|image| image_faults(inventory, image)));
    found.extend(blob_faults(inventory));
    found.extend(layer_faults(inventory));
    found.extend(kept::faults(inventory));
    found.extend(inventory.rows.containers.values().flat_map(|row| container_faults(inventory, row)));
    found.extend(record_faults(inventory));
    found.extend(user_faults(inventory));
    found.extend(orphan_containers(inventory));
    found.extend(volume_faults(inventory));
    found.extend(strays(inventory));
    found.sort_by(|a, b| (&a.repair, a.name, &a.subject).cmp(&(&b.repair, b.name, &b.subject)));
    found
}

fn doubtful_store(why: &str) -> Fault {
    let (subject, place) = ("the metadata store".to_owned(), root::STORE.to_owned());
    Fault { name: "store-doubtful", subject, place, detail: why.to_owned(), repair: Repair::ApproveStore }
}

/// There is no store to be read.
pub fn lost_store(content: root::Content, why: &str) -> Fault {
    let (subject, place) = ("the metadata store".to_owned(), root::STORE.to_owned());
    let detail = format!("{why}; there are {content}");
    Fault { name: "store-lost", subject, place, detail, repair: Repair::SetContentAside }
}

fn damaged_row(inventory: &Inventory, damaged: &DamagedRow) -> Fault {
    let (table, key) = (damaged.table, damaged.row.key.clone());
    let image = Digest::parse(&key).ok().filter(|id| table == IMAGES.name() && sound(inventory, id));
    let repair = match image {
        _ if damaged.row.newer => Repair::Nothing("a newer version of Gantry wrote it; use that version".into()),
        Some(id) => Repair::Describe(id),
        None if table == volume::VOLUMES.name() && inventory.disk.volumes.contains_key(&key) => {
            Repair::MakeVolume(key.clone())
        }
        None => Repair::SetRowAside { table, key: key.clone() },
    };
    let subject = format!("row {key:?} of table {table}");
    Fault { name: "damaged-row", subject, place: table.into(), detail: damaged.row.why.clone(), repair }
}

fn dangling_names(inventory: &Inventory) -> impl Iterator<Item = Fault> {
    let known = |image: &Digest| {
        inventory.rows.images.contains_key(image) || is_damaged(inventory, IMAGES.name(), image.as_str())
    };
    let dangling = inventory.rows.names.iter().filter(move |(_, row)| !known(&row.image));
    dangling.map(|(name, row)| Fault {
        name: "dangling-name",
        subject: format!("name {name}"),
        place: NAMES.name().into(),
        detail: format!("it leads to image {}, which is not here", row.image),
        repair: Repair::DropName(name.clone()),
    })
}

/// Why a blob that is needed cannot be used; `None` when it can.
fn lacks(inventory: &Inventory, blob: &Content) -> Option<&'static str> {
    match inventory.disk.blobs.get(&blob.digest) {
        None => Some("missing"),
        Some(Blob::Sound(size)) if *size == blob.size => None,
        Some(Blob::Sound(_)) => Some("of another size"),
        Some(Blob::Damaged(..)) => Some("damaged"),
        Some(Blob::Unreadable(_)) => Some("unreadable"),
    }
}

/// What is wrong with an image: content that is not here, or documents that say something else than the row.
fn image_faults(inventory: &Inventory, image: &ImageRow) -> Vec<Fault> {
    let id = &image.target.digest;
    let available: Vec<_> = image.manifests.iter().filter(|manifest| manifest.available).collect();
    let fault = |name, detail, repair| Fault {
        name,
        subject: format!("image {id}"),
        place: IMAGES.name().into(),
        detail,
        repair,
    };
    let withdraw = |manifests: Vec<Digest>| Repair::Withdraw { image: id.clone(), manifests };
    let digests = |of: &[&ManifestRow]| of.iter().map(|manifest| manifest.content.digest.clone()).collect::<Vec<_>>();
    if available.is_empty() {
        return Vec::new();
    }
    if let Some(why) = lacks(inventory, &image.target) {
        let detail = format!("its {} {id} is {why}", shown_type(&image.target));
        return vec![fault("image-content", detail, withdraw(digests(&available)))];
    }
    let mut found = Vec::new();
    for manifest in &available {
        let lacking = manifest.blobs().find_map(|blob| Some((blob, lacks(inventory, blob)?)));
        if let Some((blob, why)) = lacking {
            let detail = format!("its {} {} is {why}", shown_type(blob), blob.digest);
            found.push(fault("image-content", detail, withdraw(digests(&[manifest]))));
        }
    }
    if !found.is_empty() {
        return found;
    }
    let differs = match inventory.disk.described.get(id) {
        Some(Ok(described)) => difference(inventory, image, described),
        Some(Err(why)) => return vec![fault("image-documents", why.clone(), withdraw(digests(&available)))],
        None => None,
    };
    differs.map(|detail| fault("image-row", detail, Repair::Describe(id.clone()))).into_iter().collect()
}

fn shown_type(content: &Content) -> &'static str {
    use image::oci;
    match content.media_type.as_str() {
        t if oci::is_index(t) => "index",
        t if oci::is_manifest(t) => "manifest",
        t if t.contains("config") || t == oci::DOCKER_CONFIG => "configuration",
        _ => "blob",
    }
}

/// Where a row says something else than the documents.
fn difference(inventory: &Inventory, row: &ImageRow, documents: &ImageRow) -> Option<String> {
    let ids = |image: &ImageRow| image.manifests.iter().map(|m| m.content.clone()).collect::<Vec<_>>();
    if ids(row) != ids(documents) {
        return Some("its row lists other manifests than its index".into());
    }
    let pairs = row.manifests.iter().zip(&documents.manifests).filter(|(ours, _)| ours.available);
    for (ours, theirs) in pairs {
        let id = &ours.content.digest;
        // Whether it is unpacked is not the documents' to say.
        let theirs = ManifestRow { unpacked: ours.unpacked, ..theirs.clone() };
        if *ours != theirs {
            return Some(format!("its row says something else than the documents of manifest {id}"));
        }
        let size = |layer: &Digest| inventory.disk.layers.get(layer).and_then(Layer::size);
        let unpacked: Option<u64> = ours.distinct_layers().into_iter().map(size).sum();
        // Earlier versions counted a layer as often as the image names it.
        let with_repeats: Option<u64> = ours.diff_ids.iter().map(size).sum();
        if let (Some(noted), Some(true_size)) = (ours.unpacked, unpacked)
            && noted != true_size
            && with_repeats != Some(noted)
        {
            return Some(format!("its row says that manifest {id} takes {noted} bytes unpacked, not {true_size}"));
        }
    }
    None
}

fn blob_faults(inventory: &Inventory) -> Vec<Fault> {
    let (named, _) = named(inventory);
    let mut found = Vec::new();
    for (digest, blob) in &inventory.disk.blobs {
        let fault = |name, detail, repair| {
            let place = format!("content/blobs/{}/{}", digest.algorithm(), digest.hex());
            Fault { name, subject: format!("blob {digest}"), place, detail, repair }
        };
        match blob {
            Blob::Damaged(is, size) => {
                let detail = format!("its content has the digest {is} ({size} bytes)");
                found.push(fault("blob-damaged", detail, Repair::SetBlobAside(digest.clone())));
            }
            Blob::Unreadable(why) => {
                found.push(fault("blob-damaged", why.clone(), Repair::SetBlobAside(digest.clone())));
            }
            Blob::Sound(size) if !named.contains(digest) && !inventory.busy.pinned.contains(digest) => {
                let detail = format!("nothing names it ({size} bytes)");
                found.push(fault("orphan-blob", detail, keep_if_unsure(inventory, Repair::RemoveBlob(digest.clone()))));
            }
            Blob::Sound(_) => {}
        }
    }
    found
}

/// Who needs a layer to be here.
fn needed_layers(inventory: &Inventory) -> BTreeMap<&Digest, Vec<String>> {
    let mut users: BTreeMap<&Digest, Vec<String>> = BTreeMap::new();
    for image in inventory.rows.images.values() {
        for manifest in image.manifests.iter().filter(|m| m.available && m.unpacked.is_some()) {
            let user = format!("image {}", image.target.digest.short());
            manifest.diff_ids.iter().for_each(|layer| users.entry(layer).or_default().push(user.clone()));
        }
    }
    for row in inventory.rows.containers.values().filter(|row| row.storage == inventory.disk.storage) {
        let user = format!("container {}", row.id.short());
        row.image.layers.iter().for_each(|layer| users.entry(layer).or_default().push(user.clone()));
    }
    for users in users.values_mut() {
        users.dedup();
    }
    users
}

/// The blobs that layers can be unpacked from.
pub fn sources(inventory: &Inventory) -> BTreeMap<Digest, Digest> {
    let manifests = inventory.rows.images.values().flat_map(|image| &image.manifests);
    let whole = |m: &&ManifestRow| m.kind == ManifestKind::Image && m.layers.len() == m.diff_ids.len();
    let pairs = manifests.filter(whole).flat_map(|m| m.diff_ids.iter().zip(&m.layers));
    let usable = pairs.filter(|(_, blob)| lacks(inventory, blob).is_none());
    usable.map(|(layer, blob)| (layer.clone(), blob.digest.clone())).collect()
}

fn layer_faults(inventory: &Inventory) -> Vec<Fault> {
    let (needed, sources, (_, named)) = (needed_layers(inventory), sources(inventory), named(inventory));
    let mut found = Vec::new();
    let fault = |layer: &Digest, name, detail, repair| {
        let place = inventory.disk.layers_at.join(layer.hex()).display().to_string();
        Fault { name, subject: format!("layer {layer}"), place, detail, repair }
    };
    let unpack = |layer: &Digest, otherwise: Repair| match sources.get(layer) {
        Some(blob) => Repair::Unpack { layer: layer.clone(), blob: blob.clone() },
        None => otherwise,
    };
    let pull = || Repair::Nothing("its blob is not here; pull the image again, then repair".into());
    for (layer, users) in needed.iter().filter(|(layer, _)| !inventory.disk.layers.contains_key(layer)) {
        let detail = format!("it is missing, and needed by {}", users.join(", "));
        found.push(fault(layer, "layer-missing", detail, unpack(layer, pull())));
    }
    for (layer, state) in &inventory.disk.layers {
        let by_container =
            || needed.get(layer).is_some_and(|users| users.iter().any(|user| user.starts_with("container")));
        if !named.contains(layer) {
            if !inventory.busy.pinned.contains(layer) {
                let repair = keep_if_unsure(inventory, Repair::RemoveLayer(layer.clone()));
                found.push(fault(layer, "orphan-layer", "nothing names it".into(), repair));
            }
        } else if let Layer::Damaged(why) = state {
            let aside = || Repair::SetLayerAside(layer.clone());
            let repair = unpack(layer, if by_container() { pull() } else { aside() });
            found.push(fault(layer, "layer-damaged", why.clone(), repair));
        }
    }
    found
}

fn container_faults(inventory: &Inventory, row: &ContainerRow) -> Vec<Fault> {
    let id = row.id.as_str();
    let mut found = Vec::new();
    let fault = |name, place: String, detail: String, repair| Fault {
        name,
        subject: format!("container {} ({})", row.id.short(), row.name),
        place,
        detail,
        repair,
    };
    let make = || match row.state.is_running() {
        true => Repair::Nothing("the container runs; stop it first".into()),
        false => Repair::MakeWritable(id.to_owned()),
    };
    let place = format!("containers/{id}");
    match inventory.disk.containers.get(id) {
        None => found.push(fault("container-directory", place, "its directory is missing".into(), make())),
        Some(false) if row.storage == inventory.disk.storage => {
            let detail = "its writable layer is missing, or not whole".into();
            found.push(fault("container-writable-layer", format!("{place}/rw"), detail, make()));
        }
        Some(_) => {}
    }
    let local = row.mounts.iter().filter(|m| m.kind == MountKind::Volume && m.driver == volume::LOCAL);
    for mount in
        local.filter(|m| !inventory.rows.volumes.contains_key(&m.name) && !inventory.busy.volumes.contains(&m.name))
    {
        if !is_damaged(inventory, volume::VOLUMES.name(), &mount.name) {
            let (place, detail) = (format!("volumes/{}", mount.name), format!("its volume {} is not here", mount.name));
            found.push(fault("container-volume", place, detail, Repair::MakeVolume(mount.name.clone())));
        }
    }
    found
}

/// Containers without a run record, and run records without a container.
fn record_faults(inventory: &Inventory) -> impl Iterator<Item = Fault> {
    let fault = |name, id: &str, detail: &str, repair| {
        let (subject, place) = (format!("container {id}"), RUNS.name().to_owned());
        Fault { name, subject, place, detail: detail.to_owned(), repair }
    };
    let missing = inventory.rows.unrecorded.iter().filter(|id| !is_damaged(inventory, RUNS.name(), id));
    let undefined = inventory.rows.undefined.keys().filter(|id| !is_damaged(inventory, CONTAINERS.name(), id));
    let missing = missing.map(move |id| fault("container-run", id, NO_RECORD, Repair::MakeRecord(id.clone())));
    missing.chain(undefined.map(move |id| fault("orphan-run", id, NO_DEFINITION, Repair::SetRecordAside(id.clone()))))
}

/// Where the index of who uses which image differs from the containers. One that has nothing at all is of an older
/// version, and made at the next start.
fn user_faults(inventory: &Inventory) -> Vec<Fault> {
    let (users, containers) = (&inventory.rows.users, &inventory.rows.containers);
    let fault = |container: &str, detail: &str, repair| {
        let (subject, place) = (format!("container {container}"), image::USERS.name().to_owned());
        Fault { name: "image-user", subject, place, detail: detail.to_owned(), repair }
    };
    let is_old = users.is_empty() && !inventory.rows.damaged.iter().any(|damaged| damaged.table == image::USERS.name());
    let mut found = Vec::new();
    let pins = containers.iter().flat_map(|(id, row)| row.images().into_iter().map(move |pin| (id, pin)));
    for (id, pin) in pins.filter(|_| !is_old) {
        let detail = match users.get(&image::user_key(&pin.id, id)) {
            Some(user) if *user == pin.user() => continue,
            Some(_) => "the index of who uses which image says something else of it than its row",
            None => "the index of who uses which image lacks it",
        };
        found.push(fault(id, detail, Repair::IndexUser(id.clone())));
    }
    for key in users.keys() {
        let (image, id) = key.split_once('/').unwrap_or_default();
        let is_right = containers.get(id).is_some_and(|row| row.images().iter().any(|pin| pin.id.as_str() == image));
        if !is_right && !is_damaged(inventory, CONTAINERS.name(), id) {
            found.push(fault(
                id,
                "the index of who uses which image has it, and no row",
                Repair::DropUser(key.clone()),
            ));
        }
    }
    found
}

fn orphan_containers(inventory: &Inventory) -> impl Iterator<Item = Fault> {
    let known = |id: &String| {
        inventory.rows.containers.contains_key(id)
            || inventory.busy.containers.contains(id)
            || is_damaged(inventory, CONTAINERS.name(), id)
    };
    inventory.disk.containers.keys().filter(move |id| !known(id)).map(|id| {
        let place = format!("containers/{id}");
        let repair = Repair::SetAside(place.clone().into());
        Fault {
            name: "orphan-container",
            subject: format!("container {id}"),
            place,
            detail: "no row owns it".into(),
            repair,
        }
    })
}

fn volume_faults(inventory: &Inventory) -> Vec<Fault> {
    let mut found = Vec::new();
    let place = |name: &str| format!("volumes/{name}");
    let named: HashSet<&str> = (inventory.rows.containers.values().flat_map(|row| &row.mounts))
        .filter(|mount| mount.kind == MountKind::Volume)
        .map(|mount| mount.name.as_str())
        .collect();
    for (name, row) in inventory.rows.volumes.iter().filter(|(name, _)| !inventory.busy.volumes.contains(*name)) {
        if row.driver == volume::LOCAL && inventory.disk.volumes.get(name) != Some(&true) {
            found.push(Fault {
                name: "volume-data",
                subject: format!("volume {name}"),
                place: place(name),
                detail: "its data is missing".into(),
                repair: Repair::MakeVolume(name.clone()),
            });
        }
    }
    for name in inventory.disk.volumes.keys() {
        let known = inventory.rows.volumes.contains_key(name)
            || inventory.busy.volumes.contains(name)
            || is_damaged(inventory, volume::VOLUMES.name(), name)
            // Told of with the container: its row is made, so that the data is found again.
            || named.contains(name.as_str());
        if !known {
            let (subject, place) = (format!("volume {name}"), place(name));
            let repair = Repair::SetAside(place.clone().into());
            found.push(Fault { name: "orphan-volume", subject, place, detail: "no row owns it".into(), repair });
        }
    }
    found
}

fn strays(inventory: &Inventory) -> impl Iterator<Item = Fault> {
    inventory.disk.strays.iter().map(|stray| {
        let (name, detail, repair) = match stray.kind {
            StrayKind::Leftover => {
                let detail = "unfinished work that nobody goes on with; the next start removes it as well";
                let repair = Repair::Remove(stray.place.clone());
                (
                    "leftover",
                    detail,
                    if inventory.rows.doubt.is_some() { keep_if_unsure(inventory, repair) } else { repair },
                )
            }
            StrayKind::ExpiredPart => (
                "expired-part",
                "a part of a blob that nobody has added to for a day",
                Repair::Remove(stray.place.clone()),
            ),
            StrayKind::Unknown => {
                ("unknown-file", "nothing that Gantry has made", Repair::SetAside(stray.place.clone()))
            }
        };
        let place = stray.place.display().to_string();
        Fault { name, subject: format!("file {place}"), place, detail: detail.into(), repair }
    })
}

mod kept;
mod known;

#[cfg(test)]
mod tests;
