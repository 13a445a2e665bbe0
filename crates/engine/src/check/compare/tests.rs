//! Inventory in, faults out.

use std::path::Path;

use image::kept::KeptRow;
use image::oci;
use image::row::NameRow;
use model::lifecycle::State;
use model::time::Timestamp;
use snapshot::LayerKey;
use volume::Volume;

use super::*;
use crate::check::inventory::Stray;
use crate::container::definition::MountRow;
use crate::container::row::RunRecord;
use crate::container::row::sample as container;

fn digest(number: u8) -> Digest {
    Digest::from_sha256(&[number; 32])
}

fn content(media_type: &str, number: u8) -> Content {
    Content { media_type: media_type.into(), digest: digest(number), size: u64::from(number) }
}

/// Manifest 1, configuration 2, blob 3 of layer 4.
fn image() -> ImageRow {
    let manifest = ManifestRow {
        content: content(oci::MANIFEST, 1),
        kind: ManifestKind::Image,
        platform: Default::default(),
        annotations: Default::default(),
        available: true,
        config: Some(content(oci::CONFIG, 2)),
        layers: vec![content(oci::LAYER, 3)],
        diff_ids: vec![digest(4)],
        unpacked: Some(40),
        document: None,
    };
    ImageRow::new(content(oci::MANIFEST, 1), Timestamp::ZERO, vec![manifest])
}

/// An image with the name `a`, a stopped container of it that mounts volume `v`, all of it sound.
fn inventory() -> Inventory {
    let mut inventory = Inventory::default();
    inventory.rows.images.insert(digest(1), image());
    inventory.rows.names.insert("a".into(), NameRow { image: digest(1), tagged: Timestamp::ZERO });
    let mut c = container(1, State::Exited);
    let definition = std::sync::Arc::make_mut(&mut c.definition);
    definition.image.layers = vec![digest(4)];
    definition.storage = "overlayfs".into();
    definition.mounts.push(MountRow {
        kind: MountKind::Volume,
        name: "v".into(),
        source: String::new(),
        destination: "/v".into(),
        driver: volume::LOCAL.into(),
        mode: String::new(),
        writable: true,
        propagation: String::new(),
        anonymous: false,
        from_mounts: false,
        spec: None,
        copy_data: true,
        image: None,
    });
    inventory.disk.storage = "overlayfs".into();
    inventory.disk.blobs = (1..=3).map(|n| (digest(n), Blob::Sound(u64::from(n)))).collect();
    inventory.disk.described.insert(digest(1), Ok(image()));
    inventory.disk.layers.insert(digest(4), Layer::Sound(40));
    inventory.disk.containers.insert(c.id.as_str().into(), true);
    inventory.disk.volumes.insert("v".into(), true);
    inventory.rows.volumes.insert("v".into(), Volume::found(Path::new("/volumes"), "v"));
    inventory.rows.users.insert(image::user_key(&c.image.id, c.id.as_str()), c.image.user());
    inventory.rows.containers.insert(c.id.as_str().into(), c);
    inventory
}

/// What is found after a change: names and repairs.
#[track_caller]
fn found(change: impl FnOnce(&mut Inventory)) -> Vec<(&'static str, Repair)> {
    let mut inventory = inventory();
    assert_eq!(faults(&inventory), []);
    change(&mut inventory);
    faults(&inventory).into_iter().map(|fault| (fault.name, fault.repair)).collect()
}

fn withdraw() -> Repair {
    Repair::Withdraw { image: digest(1), manifests: vec![digest(1)] }
}

fn unpack() -> Repair {
    Repair::Unpack { layer: digest(4), blob: digest(3) }
}

fn pull_first() -> Repair {
    Repair::Nothing("its blob is not here; pull the image again, then repair".into())
}

#[test]
fn content_of_an_image_that_cannot_be_used_withdraws_it() {
    let damaged = |n| ("blob-damaged", Repair::SetBlobAside(digest(n)));
    for n in 1..=3 {
        let gone = found(|f| _ = f.disk.blobs.remove(&digest(n)));
        assert_eq!(gone, [("image-content", withdraw())]);
        let other = found(|f| _ = f.disk.blobs.insert(digest(n), Blob::Damaged(digest(99), 5)));
        assert_eq!(other, [damaged(n), ("image-content", withdraw())]);
        let unreadable = found(|f| _ = f.disk.blobs.insert(digest(n), Blob::Unreadable("EIO".into())));
        assert_eq!(unreadable, [damaged(n), ("image-content", withdraw())]);
    }
    // A row that speaks of another size than its sound blob.
    assert_eq!(found(|f| _ = f.disk.blobs.insert(digest(3), Blob::Sound(9))), [("image-content", withdraw())]);
}

#[test]
fn nothing_is_demanded_of_what_is_not_available() {
    let withdrawn = |f: &mut Inventory| f.rows.images.get_mut(&digest(1)).unwrap().manifests[0].available = false;
    assert_eq!(found(withdrawn), []);
    let without_blobs = |f: &mut Inventory| {
        withdrawn(f);
        f.disk.blobs.clear();
    };
    assert_eq!(found(without_blobs), []);
    let damaged_layer = |f: &mut Inventory| {
        without_blobs(f);
        f.rows.containers.clear();
        f.rows.users.clear();
        f.disk.containers.clear();
        f.disk.layers.insert(digest(4), Layer::Damaged("x".into()));
    };
    // Set aside, so that a pull does not take it for the layer.
    assert_eq!(found(damaged_layer), [("layer-damaged", Repair::SetLayerAside(digest(4)))]);
}

#[test]
fn rows_that_differ_from_the_documents_are_written_anew() {
    let describe = [("image-row", Repair::Describe(digest(1)))];
    let differing: [fn(&mut ManifestRow); 4] = [
        |m| m.platform.os = "plan9".into(),
        |m| m.kind = ManifestKind::Unknown,
        |m| m.diff_ids.push(digest(5)),
        |m| m.content.size = 77,
    ];
    for differ in differing {
        let change = |f: &mut Inventory| {
            let mut other = image();
            differ(&mut other.manifests[0]);
            f.disk.described.insert(digest(1), Ok(other));
        };
        assert_eq!(found(change), describe);
    }
    assert_eq!(found(|f| _ = f.disk.layers.insert(digest(4), Layer::Sound(41))), describe);
    let unreadable = |f: &mut Inventory| _ = f.disk.described.insert(digest(1), Err("invalid manifest".into()));
    assert_eq!(found(unreadable), [("image-documents", withdraw())]);
}

#[test]
fn layers_are_unpacked_again_as_long_as_their_blob_is_here() {
    assert_eq!(found(|f| f.disk.layers.clear()), [("layer-missing", unpack())]);
    let damaged = |f: &mut Inventory| _ = f.disk.layers.insert(digest(4), Layer::Damaged("x".into()));
    assert_eq!(found(damaged), [("layer-damaged", unpack())]);
    let without_blob = |f: &mut Inventory| {
        damaged(f);
        f.disk.blobs.remove(&digest(3));
    };
    // The container's layer stays where it is: there is nothing better.
    assert_eq!(found(without_blob), [("image-content", withdraw()), ("layer-damaged", pull_first())]);
    // Of another driver's containers nothing is demanded.
    let other_driver = |f: &mut Inventory| {
        f.disk.layers.clear();
        f.rows.images.clear();
        f.rows.names.clear();
        f.disk.blobs.clear();
        f.disk.storage = "native".into();
    };
    assert_eq!(found(other_driver), []);
    assert_eq!(found(|f| _ = f.disk.layers.insert(digest(4), Layer::Unverified(40, "x".into()))), []);
}

#[test]
fn what_nothing_names_is_an_orphan_unless_an_operation_speaks_for_it() {
    let orphans = |f: &mut Inventory| {
        f.disk.blobs.insert(digest(8), Blob::Sound(8));
        f.disk.layers.insert(digest(9), Layer::Sound(9));
        f.disk.containers.insert("c".repeat(64), true);
        f.disk.volumes.insert("w".into(), true);
    };
    let expected = [
        ("orphan-blob", Repair::RemoveBlob(digest(8))),
        ("orphan-layer", Repair::RemoveLayer(digest(9))),
        ("orphan-container", Repair::SetAside(format!("containers/{}", "c".repeat(64)).into())),
        ("orphan-volume", Repair::SetAside("volumes/w".into())),
    ];
    assert_eq!(found(orphans), expected);
    let busy = |f: &mut Inventory| {
        orphans(f);
        f.busy.pinned = [digest(8), digest(9)].into();
        f.busy.containers.insert("c".repeat(64));
        f.busy.volumes.insert("w".into());
    };
    assert_eq!(found(busy), []);
    // Pinned or not: what does not hold what its name says is damaged.
    let damaged = |f: &mut Inventory| {
        f.busy.pinned = [digest(8)].into();
        f.disk.blobs.insert(digest(8), Blob::Damaged(digest(9), 1));
    };
    assert_eq!(found(damaged), [("blob-damaged", Repair::SetBlobAside(digest(8)))]);
}

#[test]
fn rows_that_cannot_be_read_protect_what_they_may_name() {
    let row = |table, key: &str, newer| DamagedRow {
        table,
        row: store::Damaged { key: key.into(), bytes: b"x".to_vec(), why: "not a row".into(), newer },
    };
    let image_row = |f: &mut Inventory| {
        f.rows.images.clear();
        f.rows.containers.clear();
        f.rows.users.clear();
        f.disk.containers.clear();
        f.rows.damaged.push(row(IMAGES.name(), digest(1).as_str(), false));
    };
    let unsure = || Repair::Nothing("a damaged row may name it".into());
    // Its manifest is here: the row is written anew, and its name leads to it.
    let mut expected = vec![("damaged-row", Repair::Describe(digest(1))), ("orphan-layer", unsure())];
    expected.splice(1..1, vec![("orphan-blob", unsure()); 3]);
    assert_eq!(found(image_row), expected);
    let container_row = |f: &mut Inventory| {
        let id = f.rows.containers.pop_first().unwrap().0;
        f.rows.damaged.push(row(CONTAINERS.name(), &id, false));
    };
    let id = container(1, State::Exited).id.as_str().to_owned();
    let aside = |table, key: &str| Repair::SetRowAside { table, key: key.into() };
    assert_eq!(found(container_row), [("damaged-row", aside("containers", &id))]);
    let volume_row = |f: &mut Inventory| {
        f.rows.volumes.clear();
        f.rows.damaged.push(row(volume::VOLUMES.name(), "v", false));
    };
    assert_eq!(found(volume_row), [("damaged-row", Repair::MakeVolume("v".into()))]);
    assert_eq!(
        found(|f| f.rows.damaged.push(row(NAMES.name(), "b", false))),
        [("damaged-row", aside("image-names", "b"))]
    );
    let newer = found(|f| f.rows.damaged.push(row(NAMES.name(), "b", true)));
    assert!(matches!(&newer[..], [("damaged-row", Repair::Nothing(_))]), "{newer:?}");
}

#[test]
fn containers_and_volumes_have_what_their_rows_say() {
    let id = container(1, State::Exited).id.as_str().to_owned();
    let make = Repair::MakeWritable(id.clone());
    assert_eq!(found(|f| f.disk.containers.clear()), [("container-directory", make.clone())]);
    assert_eq!(found(|f| _ = f.disk.containers.insert(id.clone(), false)), [("container-writable-layer", make)]);
    let running = |f: &mut Inventory| {
        f.disk.containers.clear();
        f.rows.containers.values_mut().for_each(|row| row.state = State::Running { pid: 1 });
    };
    assert!(matches!(&found(running)[..], [("container-directory", Repair::Nothing(_))]));
    let volume = Repair::MakeVolume("v".into());
    assert_eq!(found(|f| _ = f.disk.volumes.insert("v".into(), false)), [("volume-data", volume.clone())]);
    assert_eq!(found(|f| f.disk.volumes.clear()), [("volume-data", volume.clone())]);
    // The container still mounts it.
    assert_eq!(found(|f| f.rows.volumes.clear()), [("container-volume", volume)]);
    assert_eq!(found(|f| f.rows.images.clear())[0], ("dangling-name", Repair::DropName("a".into())));
    let strays = |f: &mut Inventory| {
        for kind in [StrayKind::Leftover, StrayKind::ExpiredPart, StrayKind::Unknown] {
            f.disk.strays.push(Stray { place: format!("{kind:?}").into(), kind });
        }
    };
    let expected = [
        ("expired-part", Repair::Remove("ExpiredPart".into())),
        ("leftover", Repair::Remove("Leftover".into())),
        ("unknown-file", Repair::SetAside("Unknown".into())),
    ];
    assert_eq!(found(strays), expected);
}

#[test]
fn a_definition_and_a_run_record_go_together() {
    let id = container(1, State::Exited).id.as_str().to_owned();
    let lost = |f: &mut Inventory| _ = f.rows.unrecorded.insert(id.clone());
    assert_eq!(found(lost), [("container-run", Repair::MakeRecord(id.clone()))]);
    let undefined = |f: &mut Inventory| _ = f.rows.undefined.insert("c".into(), RunRecord::created());
    assert_eq!(found(undefined), [("orphan-run", Repair::SetRecordAside("c".into()))]);
    // What a row that cannot be read says is not known.
    let unreadable = |f: &mut Inventory, table, key: &str| {
        let row = store::Damaged { key: key.into(), bytes: Vec::new(), why: "not a row".into(), newer: false };
        f.rows.damaged.push(DamagedRow { table, row });
    };
    let run = found(|f| {
        lost(f);
        unreadable(f, RUNS.name(), &id);
    });
    assert_eq!(run, [("damaged-row", Repair::SetRowAside { table: "runs", key: id.clone() })]);
    let definition = found(|f| {
        undefined(f);
        unreadable(f, CONTAINERS.name(), "c");
    });
    assert_eq!(definition.len(), 1, "{definition:?}");
}

#[test]
fn the_index_of_who_uses_which_image_says_what_the_containers_say() {
    let id = container(1, State::Exited).id.as_str().to_owned();
    let other = || image::user_key(&digest(77), "c");
    let first = |f: &Inventory| f.rows.users.iter().next().map(|(key, row)| (key.clone(), row.clone())).unwrap();
    let index = ("image-user", Repair::IndexUser(id));
    let changed = found(|f| f.rows.users.values_mut().for_each(|user| user.layers.clear()));
    assert_eq!(changed, std::slice::from_ref(&index));
    let more = |f: &mut Inventory| {
        let (_, row) = first(f);
        f.rows.users.insert(other(), row);
    };
    assert_eq!(found(more), [("image-user", Repair::DropUser(other()))]);
    let moved = |f: &mut Inventory| {
        let (key, row) = first(f);
        f.rows.users.clear();
        f.rows.users.insert(image::user_key(&digest(77), key.split_once('/').unwrap().1), row);
    };
    assert_eq!(found(moved).len(), 2);
    // Of an older version, which has none: the next start makes it.
    assert_eq!(found(|f| f.rows.users.clear()), []);
    // What a row that cannot be read has is not known.
    let damaged = |f: &mut Inventory| {
        let id = f.rows.containers.pop_first().unwrap().0;
        let row = store::Damaged { key: id, bytes: Vec::new(), why: "not a row".into(), newer: false };
        f.rows.damaged.push(DamagedRow { table: CONTAINERS.name(), row });
    };
    assert!(found(damaged).iter().all(|(name, _)| *name == "damaged-row"));
}

/// A step whose result is local layer 5, which was packed to blob 3 and is known as layer 4, over layer 4.
fn with_step(f: &mut Inventory) -> [String; 2] {
    let keepers = [format!("build/{}", digest(9).hex()), format!("build-packed/{}", digest(5).hex())];
    let layers = vec![LayerKey::Diff(digest(4)), LayerKey::Local(digest(5))];
    f.rows.kept.insert(keepers[0].clone(), KeptRow { layers, blobs: vec![digest(3)] });
    f.rows.kept.insert(keepers[1].clone(), KeptRow { layers: Vec::new(), blobs: vec![digest(3)] });
    f.rows.kept_for = keepers.iter().map(|keeper| (keeper.clone(), ("build", "key".to_owned()))).collect();
    f.disk.local_layers.insert(digest(5), Vec::new());
    keepers
}

#[test]
fn what_the_build_cache_keeps_is_here_and_kept_for_something() {
    assert_eq!(found(|f| drop(with_step(f))), []);
    let change = |change: fn(&mut Inventory)| {
        let mut keepers = Default::default();
        let found = found(|f| {
            keepers = with_step(f);
            change(f);
        });
        (found, keepers)
    };
    let (lost, [step, _]) = change(|f| f.disk.local_layers.clear());
    assert_eq!(lost, [("build-content", Repair::Forget(step))]);
    let (alone, [step, packed]) = change(|f| f.rows.kept_for.clear());
    assert_eq!(alone, [("build-keeper", Repair::Forget(packed)), ("build-keeper", Repair::Forget(step))]);
    let (unkept, [_, packed]) = change(|f| _ = f.rows.kept.pop_first());
    assert_eq!(unkept, [("build-unkept", Repair::Forget(packed))]);
    // Nothing else names what the cache has.
    let (kept, _) = change(|f| {
        f.disk.layers.insert(digest(6), Layer::Unverified(1, String::new()));
        f.disk.blobs.insert(digest(7), Blob::Sound(7));
        let more = KeptRow { layers: vec![LayerKey::Diff(digest(6))], blobs: vec![digest(7)] };
        f.rows.kept.insert("other".into(), more);
    });
    assert_eq!(kept, []);
}

#[test]
fn a_local_layer_is_named_by_the_cache_or_by_a_diff_id_that_is() {
    let place = || Path::new("").join(LayerKey::Local(digest(5)).to_string());
    let alone = found(|f| _ = f.disk.local_layers.insert(digest(5), vec![]));
    assert_eq!(alone, [("orphan-layer", Repair::Remove(place()))]);
    let of_nobody = found(|f| _ = f.disk.local_layers.insert(digest(5), vec![digest(66)]));
    assert_eq!(of_nobody, [("orphan-layer", Repair::Remove(place()))]);
    assert_eq!(found(|f| _ = f.disk.local_layers.insert(digest(5), vec![digest(4)])), []);
    let pinned = found(|f| {
        f.disk.local_layers.insert(digest(5), vec![]);
        f.busy.pinned.insert(digest(5));
    });
    assert_eq!(pinned, []);
}
