//! Putting right what can be put right without losing anything. Only on a data root that no daemon works on.
//!
//! - Nothing that may be a user's is deleted: rows, blobs, layers, containers and volumes that have to go are moved to
//!   `<data-root>/quarantine`. Removed are unfinished work, and blobs and layers that nothing names, as a sweep does.
//! - Files are put right before the row that relies on them is committed.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use image::row::{Content, IMAGES, ImageRow, ManifestKind, NAMES};
use image::{describe_blobs, oci};
use model::digest::Digest;
use model::{Context, Error, Result};
use store::{Row, Table};
use volume::{VOLUMES, Volume};

use super::fault::Repair;
use super::gather::Subject;
use super::inventory::{Inventory, Layer};
use crate::container::definition::Definition;
use crate::container::row::{ContainerRow, RUNS};
use crate::{quarantine, root, stored};

/// The work on one data root, after one look.
pub struct Repairer<'r> {
    /// What is repaired.
    pub subject: &'r Subject,
    /// As it was found.
    pub inventory: &'r Inventory,
}

impl Repairer<'_> {
    /// Does it; answers what was done, `None` when nothing can be.
    pub fn apply(&self, repair: &Repair) -> Result<Option<String>> {
        let done = match repair {
            Repair::Nothing(_) => return Ok(None),
            Repair::SetRowAside { table, key } => self.set_row_aside(table, key)?,
            Repair::SetRecordAside(id) => self.set_record_aside(id)?,
            Repair::MakeRecord(id) => {
                // The one that stands for what is lost.
                let record = self.inventory.rows.containers.get(id).map(ContainerRow::record);
                self.put(&RUNS, id, record.ok_or_else(|| Error::not_found(format!("container {id}")))?)?;
                format!("recorded that container {id} has ended")
            }
            Repair::SetBlobAside(digest) => self.set_aside(&self.blobs()?.file(digest), "blobs")?,
            Repair::Describe(image) => self.describe(image)?,
            Repair::Withdraw { image, manifests } => self.withdraw(image, manifests)?,
            Repair::DropName(name) => {
                self.delete(&NAMES, name)?;
                format!("dropped the name {name}")
            }
            Repair::IndexUser(container) => {
                let row = self.container(container)?;
                for pin in row.images() {
                    self.put(&image::USERS, &image::user_key(&pin.id, container), pin.user())?;
                }
                format!("wrote that container {container} uses its image")
            }
            Repair::DropUser(key) => {
                self.delete(&image::USERS, key)?;
                format!("dropped {key} from the index of who uses which image")
            }
            Repair::Unpack { layer, blob } => self.unpack(layer, blob)?,
            Repair::SetLayerAside(layer) => {
                let aside = self.quarantine("layers", layer.hex())?;
                self.snapshots()?.survey.set_aside(layer, &aside)?;
                format!("moved layer {layer} to {}", self.shown(&aside))
            }
            Repair::Forget(keeper) => {
                let key = keeper.clone();
                self.subject.store.write_blocking(move |tx| build::record::forget(tx, &key))?;
                format!("dropped {keeper} from the build cache")
            }
            Repair::MakeWritable(container) => self.make_writable(container)?,
            Repair::MakeVolume(name) => self.make_volume(name)?,
            Repair::RemoveBlob(digest) => {
                self.blobs()?.remove(digest)?;
                format!("removed blob {digest}")
            }
            Repair::RemoveLayer(layer) => {
                self.snapshots()?.survey.remove(layer)?;
                format!("removed layer {layer}")
            }
            Repair::Remove(place) => {
                remove(&self.subject.data_root.join(place))?;
                format!("removed {}", place.display())
            }
            Repair::SetAside(place) => {
                let kind = place.parent().and_then(Path::to_str).filter(|p| matches!(*p, "containers" | "volumes"));
                self.set_aside(&self.subject.data_root.join(place), kind.unwrap_or("files"))?
            }
            Repair::ApproveStore => {
                self.subject.store.approve()?;
                "took the store for the one that belongs here".into()
            }
            Repair::SetContentAside => return Ok(None),
        };
        Ok(Some(done))
    }

    fn blobs(&self) -> Result<&content::Blobs> {
        self.subject.blobs.as_ref().ok_or_else(|| Error::system("there are no blobs"))
    }

    fn snapshots(&self) -> Result<&snapshot::Snapshots> {
        self.subject.snapshots.as_ref().ok_or_else(|| Error::system("there are no layers"))
    }

    fn container(&self, id: &str) -> Result<&Definition> {
        self.inventory
            .rows
            .containers
            .get(id)
            .map(|row| &**row)
            .ok_or_else(|| Error::not_found(format!("container {id}")))
    }

    /// A free name in the quarantine.
    fn quarantine(&self, kind: &str, name: &str) -> Result<PathBuf> {
        quarantine::free_name(&self.subject.data_root, kind, name)
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.subject.data_root).unwrap_or(path).display().to_string()
    }

    fn set_aside(&self, path: &Path, kind: &str) -> Result<String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = self.quarantine(kind, &name)?;
        fs::rename(path, &aside).with_context(|| format!("moving {} to the quarantine", path.display()))?;
        Ok(format!("moved {} to {}", self.shown(path), self.shown(&aside)))
    }

    fn put<R: Row + Send + 'static>(&self, table: &'static Table<R>, key: &str, row: R) -> Result<()> {
        let key = key.to_owned();
        self.subject.store.write_blocking(move |tx| tx.put(table, &key, &row))
    }

    fn delete<R: Row + 'static>(&self, table: &'static Table<R>, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.subject.store.write_blocking(move |tx| tx.delete(table, &key).map(drop))
    }

    fn set_row_aside(&self, table: &str, key: &str) -> Result<String> {
        let found = self.inventory.rows.damaged.iter().find(|damaged| damaged.table == table && damaged.row.key == key);
        let damaged = found.ok_or_else(|| Error::not_found(format!("row {key:?} of table {table}")))?;
        let aside = quarantine::save_row(&self.subject.data_root, table, key, &damaged.row.bytes)?;
        let owner = stored::all().into_iter().find(|known| known.name() == table);
        let owner = owner.ok_or_else(|| Error::not_found(format!("table {table}")))?;
        let deleted = key.to_owned();
        self.subject.store.write_blocking(move |tx| owner.delete(tx, &deleted).map(drop))?;
        Ok(format!("saved row {key:?} of table {table} in {} and deleted it", self.shown(&aside)))
    }

    fn set_record_aside(&self, id: &str) -> Result<String> {
        let record =
            self.inventory.rows.undefined.get(id).ok_or_else(|| Error::not_found(format!("run record {id}")))?;
        let bytes = serde_json::to_vec(record).map_err(|error| Error::system(error.to_string()))?;
        let aside = quarantine::save_row(&self.subject.data_root, RUNS.name(), id, &bytes)?;
        self.delete(&RUNS, id)?;
        Ok(format!("saved the run record of container {id} in {} and deleted it", self.shown(&aside)))
    }

    /// Writes an image's row anew. Of a row that cannot be read only its key is known: the image's id.
    fn describe(&self, id: &Digest) -> Result<String> {
        let blobs = self.blobs()?;
        let before = self.inventory.rows.images.get(id);
        let descriptor = match before {
            Some(row) => super::descriptor(row),
            None => target(blobs, id)?.descriptor(),
        };
        let mut row: ImageRow = describe_blobs(blobs, &descriptor)?;
        if let Some(before) = before {
            row.created = before.created;
            row.parent.clone_from(&before.parent);
            row.signatures.clone_from(&before.signatures);
        }
        for manifest in row.manifests.iter_mut().filter(|m| m.kind == ManifestKind::Image && m.available) {
            let layers = manifest.distinct_layers();
            let sizes = layers.iter().map(|layer| self.inventory.disk.layers.get(*layer).and_then(Layer::size));
            manifest.unpacked = sizes.sum();
        }
        self.put(&IMAGES, id.as_str(), row)?;
        Ok(format!("wrote the row of image {id} anew"))
    }

    fn withdraw(&self, id: &Digest, manifests: &[Digest]) -> Result<String> {
        let (key, chosen) = (id.as_str().to_owned(), manifests.to_vec());
        self.subject.store.write_blocking(move |tx| {
            let Some(mut row) = tx.get(&IMAGES, &key)? else { return Ok(()) };
            let chosen = row.manifests.iter_mut().filter(|manifest| chosen.contains(&manifest.content.digest));
            chosen.for_each(|manifest| manifest.available = false);
            tx.put(&IMAGES, &key, &row)
        })?;
        Ok(format!("marked image {id} as not available ({} of its manifests)", manifests.len()))
    }

    fn unpack(&self, layer: &Digest, blob: &Digest) -> Result<String> {
        let aside = self.quarantine("layers", layer.hex())?;
        let mut tar = snapshot::decompress(self.blobs()?.open_blob(blob)?)?;
        self.snapshots()?.survey.replace(layer, &mut tar, &aside)?;
        let was = if aside.exists() { format!("; the old one is {}", self.shown(&aside)) } else { String::new() };
        Ok(format!("unpacked layer {layer} again from blob {blob}{was}"))
    }

    fn make_writable(&self, container: &str) -> Result<String> {
        let row = self.container(container)?;
        let dir = self.subject.data_root.join("containers").join(container);
        let made = DirBuilder::new().recursive(true).mode(0o710).create(&dir);
        made.with_context(|| format!("creating {}", dir.display()))?;
        let mut was = String::new();
        if row.storage == self.inventory.disk.storage && !self.snapshots()?.roots.has_writable(container) {
            if dir.join("rw").exists() {
                let aside = self.quarantine("writable", container)?;
                fs::rename(dir.join("rw"), &aside).context("moving a writable layer to the quarantine")?;
                was = format!("; what was left of it is {}", self.shown(&aside));
            }
            self.snapshots()?.roots.prepare(container, &snapshot::keys(&row.image.layers))?;
        }
        Ok(format!("made what was missing of container {container} anew{was}"))
    }

    fn make_volume(&self, name: &str) -> Result<String> {
        let root = self.subject.data_root.join("volumes");
        // Where the row has it: below this root, whatever an earlier one was.
        let row = match self.inventory.rows.volumes.get(name) {
            Some(row) => row.clone(),
            None => Volume::found(&root, name),
        };
        let removed = root.join(volume::REMOVED).join(name);
        if removed.is_dir() && !root.join(name).exists() {
            fs::rename(&removed, root.join(name)).context("taking back a volume whose removal was cut short")?;
        }
        let existed = row.mountpoint.is_dir();
        for (dir, mode) in [(root.join(name), 0o701), (row.mountpoint.clone(), 0o755)] {
            let made = DirBuilder::new().recursive(true).mode(mode).create(&dir);
            made.with_context(|| format!("creating {}", dir.display()))?;
        }
        self.put(&VOLUMES, name, row)?;
        let what = if existed { "the data that is there" } else { "an empty directory: its data was gone" };
        Ok(format!("made volume {name} anew around {what}"))
    }
}

/// Moves everything that a store names, and what is left of the store, to the quarantine; answers what was done.
pub fn set_content_aside(data_root: &Path) -> Result<Vec<String>> {
    const NAMES: [&str; 6] = ["containers", "volumes", "snapshots", "content", root::STORE_MARK, root::STORE];
    let aside = quarantine::free_name(data_root, "stores", "lost")?;
    DirBuilder::new().mode(0o700).create(&aside).with_context(|| format!("creating {}", aside.display()))?;
    let mut done = Vec::new();
    for name in NAMES {
        let from = data_root.join(name);
        if !root::is_there(&from)? {
            continue;
        }
        fs::rename(&from, aside.join(name)).with_context(|| format!("moving {} to the quarantine", from.display()))?;
        let shown = aside.strip_prefix(data_root).unwrap_or(&aside).join(name);
        done.push(format!("moved {name} to {}", shown.display()));
    }
    Ok(done)
}

/// What a manifest or index is, of which only the digest is known.
fn target(blobs: &content::Blobs, id: &Digest) -> Result<Content> {
    let bytes = blobs.read_small(id, oci::MANIFEST_BYTES)?;
    let index = oci::parse_index(&bytes).is_ok_and(|index| !index.manifests.is_empty());
    let stated = if index { oci::parse_index(&bytes)?.media_type } else { oci::parse_manifest(&bytes)?.media_type };
    let usual = if index { oci::INDEX } else { oci::MANIFEST };
    let media_type = if stated.is_empty() { usual.to_owned() } else { stated };
    Ok(Content { media_type, digest: id.clone(), size: bytes.len() as u64 })
}

fn remove(path: &Path) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let removed = if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.with_context(|| format!("removing {}", path.display()))
}
