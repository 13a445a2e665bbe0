//! `gantryd check`: the store against the disk.
//!
//! Inventory are gathered ([`gather`]), compared ([`compare`], pure) and, on a data root at rest, put right ([`repair`]).
//! On a live one a fault is told only if three looks in a row have found it: what goes on meanwhile is none. What is
//! verified and what is not: `docs/design/0013-check.md`.

mod compare;
mod fault;
mod gather;
mod inventory;
mod repair;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::oci::{Descriptor, Platform};
use blocking::Blocking;
use image::oci;
use image::row::ImageRow;
use model::{Error, Kind, Result};
use store::Store;

use crate::Engine;
use crate::root;
use fault::{Fault, Repair};
use gather::{Looker, Subject};
use inventory::{Blob, Inventory, Layer};
use repair::Repairer;

pub use fault::{Checked, FaultReport, OnDisk, Report};

/// Looks on a live data root while there are faults, and the pause between them. What is removed and made again all the time
/// must not be met between the two at each of them.
const LOOKS: (u32, Duration) = (6, Duration::from_millis(500));
/// Rounds of a repair: putting one thing right may show another.
const ROUNDS: usize = 5;

/// Checks a data root that no daemon works on; `lock` is its lock, held.
///
/// Errors: it cannot be checked, or a repair must not begin.
pub fn at_rest(data_root: &Path, driver: &str, repair: bool, lock: &File) -> Result<Report> {
    let _held = lock;
    let content = root::Content::of(data_root)?;
    let path = data_root.join(root::STORE);
    let store = match root::is_there(&path)? {
        true => Store::open(&path),
        false if content.is_nothing() => {
            let text = format!("{} is no data root of Gantry: it has no {}", data_root.display(), root::STORE);
            return Err(Error::not_found(text));
        }
        false => Err(Error::data_loss("it is missing")),
    };
    let store = match store {
        Err(error) if error.kind() == Kind::DataLoss && (repair || !content.is_nothing()) => {
            return lost(data_root, content, error.message(), repair);
        }
        other => other?,
    };
    let content = data_root.join("content");
    let subject = Subject {
        data_root: data_root.to_owned(),
        store,
        blobs: if content.is_dir() { Some(content::Blobs::attach(&content)?) } else { None },
        snapshots: snapshot::attach(data_root, driver)?,
        live: None,
    };
    let mut looker = Looker::new(&subject);
    let mut inventory = looker.look()?;
    let mut faults = compare::faults(&inventory);
    let mut repaired = Vec::new();
    for _ in 0..if repair { ROUNDS } else { 0 } {
        if inventory.rows.damaged.iter().any(|damaged| damaged.row.newer) {
            return Err(Error::conflict(
                "the store has rows of a newer version of Gantry: it is not repaired by this one",
            ));
        }
        let done = repair_round(&subject, &inventory, &faults);
        if done.is_empty() {
            break;
        }
        repaired.extend(done);
        // Its memory of sound things is dropped: they may have been moved.
        looker = Looker::new(&subject);
        inventory = looker.look()?;
        faults = compare::faults(&inventory);
    }
    Ok(Report { on_disk: OnDisk::of(data_root)?, ..report(&inventory, &faults, repaired) })
}

/// A data root whose rows are gone.
fn lost(data_root: &Path, content: root::Content, why: &str, repair: bool) -> Result<Report> {
    if repair {
        let repaired = repair::set_content_aside(data_root)?;
        return Ok(Report { clean: true, repaired, ..Report::default() });
    }
    let faults = vec![FaultReport::from(&compare::lost_store(content, why))];
    Ok(Report { faults, ..Report::default() })
}

/// Applies every repair once; answers what was done or could not be.
fn repair_round(subject: &Subject, inventory: &Inventory, faults: &[Fault]) -> Vec<String> {
    let repairer = Repairer { subject, inventory };
    let repairs: BTreeSet<_> = faults.iter().map(|fault| &fault.repair).collect();
    let (mut done, mut has_failed) = (Vec::new(), false);
    for repair in repairs {
        // A store that is approved of is swept by.
        if *repair == Repair::ApproveStore && has_failed {
            continue;
        }
        match repairer.apply(repair) {
            Ok(one) => done.extend(one),
            Err(error) => {
                tracing::warn!(%error, ?repair, "not repaired");
                has_failed = true;
            }
        }
    }
    done
}

/// Checks the data root that this engine works on; nothing is changed, and nothing waits for it. Blocks for long.
pub fn live(_on: &Blocking, engine: &Arc<Engine>) -> Result<Report> {
    let Some(_turn) = engine.images.checking.try_lock() else {
        return Err(Error::conflict("a check is running already"));
    };
    let subject = Subject {
        data_root: engine.settings().roots.data.clone(),
        store: engine.store.clone(),
        blobs: Some(engine.images.blobs.clone()),
        snapshots: Some(engine.snapshots.clone()),
        live: Some(engine.clone()),
    };
    let mut looker = Looker::new(&subject);
    let mut inventory = looker.look()?;
    let mut faults = compare::faults(&inventory);
    for _ in 1..LOOKS.0 {
        if faults.is_empty() {
            break;
        }
        std::thread::sleep(LOOKS.1);
        inventory = looker.look()?;
        let again = compare::faults(&inventory);
        let same = |a: &Fault, b: &Fault| (a.name, &a.subject, &a.place) == (b.name, &b.subject, &b.place);
        faults = again.into_iter().filter(|fault| faults.iter().any(|before| same(before, fault))).collect();
    }
    Ok(Report { on_disk: OnDisk::of(&subject.data_root)?, ..report(&inventory, &faults, Vec::new()) })
}

fn report(inventory: &Inventory, faults: &[Fault], repaired: Vec<String>) -> Report {
    let sizes = inventory.disk.blobs.values().map(|blob| match blob {
        Blob::Sound(size) | Blob::Damaged(_, size) => *size,
        Blob::Unreadable(_) => 0,
    });
    let unverified = inventory.disk.layers.iter().filter_map(|(layer, state)| match state {
        Layer::Unverified(_, why) => Some(format!("layer {layer} was not compared with its archive: {why}")),
        _ => None,
    });
    let other = inventory.rows.containers.values().filter(|row| row.storage != inventory.disk.storage);
    let other =
        other.map(|row| format!("container {} belongs to another storage driver ({})", row.id.short(), row.storage));
    Report {
        clean: faults.is_empty(),
        faults: faults.iter().map(FaultReport::from).collect(),
        repaired,
        unverified: unverified.chain(other).collect(),
        checked: Checked {
            images: inventory.rows.images.len(),
            blobs: inventory.disk.blobs.len(),
            bytes: sizes.sum(),
            layers: inventory.disk.layers.values().filter(|layer| matches!(layer, Layer::Sound(_))).count(),
            containers: inventory.rows.containers.len(),
            volumes: inventory.rows.volumes.len(),
            steps: inventory.rows.kept_for.len(),
        },
        on_disk: OnDisk::default(),
    }
}

/// The descriptor of an image's target. What a single manifest's descriptor said when the image came is in its row only.
fn descriptor(row: &ImageRow) -> Descriptor {
    let mut descriptor = row.target.descriptor();
    if oci::is_manifest(&row.target.media_type)
        && let Some(manifest) = row.manifests.first()
    {
        descriptor.annotations = manifest.annotations.clone();
        descriptor.platform = Some(manifest.platform.clone()).filter(|platform| *platform != Platform::default());
    }
    descriptor
}

#[cfg(test)]
mod tests;
