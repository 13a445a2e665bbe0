//! Looking at a data root: rows, files, digests, documents, layers.
//!
//! Nothing is changed, but for what a layer is unpacked to while it is compared. What was found sound once is not
//! looked at again by the same [`Looker`], so that a second look costs little.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use content::Blobs;
use image::kept::KEPT;
use image::row::{IMAGES, ImageRow, NAMES};
use image::{PART_LIFE, describe_blobs};
use model::digest::{Algorithm, Digest};
use model::id::ContainerId;
use model::lock::Mutex;
use model::{Context, Kind, Result};
use snapshot::{Examined, LayerSurvey, Snapshots};
use store::{Row, Store, Table};

use super::compare;
use super::inventory::{Blob, Busy, DamagedRow, Disk, Inventory, Layer, Rows, Stray, StrayKind};
use crate::Engine;
use crate::container::row::{self, CONTAINERS, RUNS};
use crate::quarantine::QUARANTINE;
use crate::{root, stored};

/// Blobs hashed at the same time at most.
const HASHERS: usize = 4;
/// Bytes that stay free on the disk while a layer is unpacked for its comparison.
const SPARE: u64 = 256 << 20;

/// What lies in a data root under these names is Gantry's.
const TOP: [&str; 14] = [
    root::STORE,
    root::STORE_MARK,
    "lock",
    "engine-id",
    "events",
    "secrets.key",
    "content",
    "snapshots",
    "containers",
    "volumes",
    "build",
    "tmp",
    QUARANTINE,
    "lost+found",
];

/// What is being written in the data root itself: files that get their names when they are whole.
const UNFINISHED: [&str; 4] = ["gantry.redb.new", "gantry.redb.mark.new", "engine-id.new", "secrets.new"];

/// What is checked.
pub struct Subject {
    /// Where everything lies.
    pub data_root: PathBuf,
    /// The rows.
    pub store: Store,
    /// The blobs; `None`: there are none yet.
    pub blobs: Option<Blobs>,
    /// The layers; `None`: there are none yet.
    pub snapshots: Option<Snapshots>,
    /// The engine that works on all this, if one does.
    pub live: Option<Arc<Engine>>,
}

/// Looks, and remembers what was sound.
pub struct Looker<'s> {
    subject: &'s Subject,
    blobs: HashMap<Digest, Blob>,
    layers: HashMap<Digest, Layer>,
}

impl<'s> Looker<'s> {
    /// One that has seen nothing.
    pub fn new(subject: &'s Subject) -> Looker<'s> {
        Looker { subject, blobs: HashMap::new(), layers: HashMap::new() }
    }

    /// One look. The disk is listed before the rows are read and the rows before the pins: what is published meanwhile
    /// is pinned or in the rows.
    pub fn look(&mut self) -> Result<Inventory> {
        let (mut disk, blobs, layers) = self.list()?;
        let mut rows = rows(&self.subject.store)?;
        let place = self.subject.data_root.join("volumes");
        rows.volumes = rows.volumes.into_iter().map(|(name, row)| (name, row.placed(&place))).collect();
        rows.doubt = self.doubt();
        let busy = self.busy(blobs.iter().chain(&layers).chain(disk.local_layers.keys()));
        exclude_removals(&mut disk, &rows, &busy);
        disk.blobs = self.hash(blobs);
        disk.described =
            rows.images.iter().filter_map(|(id, row)| Some((id.clone(), self.describe(&disk, row)?))).collect();
        let mut inventory = Inventory { rows, disk, busy };
        inventory.disk.layers = self.examine(&inventory, layers)?;
        Ok(inventory)
    }

    /// Every name; the blobs and layers among them.
    fn list(&self) -> Result<(Disk, Vec<Digest>, Vec<Digest>)> {
        let root = &self.subject.data_root;
        let mut disk = Disk::default();
        let mut blobs = Vec::new();
        if let Some(store) = &self.subject.blobs {
            blobs.extend(store.list()?.into_iter().map(|(digest, _)| digest));
            let kind = |kind| match kind {
                content::StrayKind::Leftover => StrayKind::Leftover,
                content::StrayKind::Expired => StrayKind::ExpiredPart,
                content::StrayKind::Unknown => StrayKind::Unknown,
            };
            let strays = store.strays(PART_LIFE)?;
            disk.strays.extend(strays.into_iter().map(|s| stray(root, s.path, kind(s.kind))));
        }
        let mut layers = Vec::new();
        if let Some(snapshots) = &self.subject.snapshots {
            disk.storage = snapshots.roots.name().to_owned();
            disk.layers_at = below(root, snapshots.survey.root().to_owned());
            layers = snapshots.survey.list()?;
            disk.local_layers = snapshots.survey.list_local()?;
            let strays = snapshots.survey.strays()?;
            disk.strays.extend(strays.leftovers.into_iter().map(|path| stray(root, path, StrayKind::Leftover)));
            disk.strays.extend(strays.unknown.into_iter().map(|path| stray(root, path, StrayKind::Unknown)));
        }
        let is_blank = |path: &PathBuf| name_of(path).is_some_and(|name| name.starts_with(snapshot::blanks::PREFIX));
        for path in entries(&root.join("containers"))?.into_iter().filter(|path| !is_blank(path)) {
            match name_of(&path).filter(|name| ContainerId::parse(name).is_some()) {
                Some(id) => {
                    let writable = self.subject.snapshots.as_ref().is_some_and(|s| s.roots.has_writable(&id));
                    disk.containers.insert(id, writable);
                }
                None => disk.strays.push(stray(root, path, StrayKind::Unknown)),
            }
        }
        for path in entries(&root.join("volumes"))? {
            match name_of(&path).filter(|_| path.is_dir()) {
                Some(name) if [volume::REMOVED, volume::STAGED].contains(&&*name) => {
                    let left = entries(&path)?.into_iter();
                    disk.strays.extend(left.map(|path| stray(root, path, StrayKind::Leftover)));
                }
                // Snapshots have no rows; what is being filled, the next start removes.
                Some(name) if [volume::SNAPSHOTS, volume::STAGING].contains(&&*name) => {}
                Some(name) => _ = disk.volumes.insert(name, path.join("_data").is_dir()),
                None => disk.strays.push(stray(root, path, StrayKind::Unknown)),
            }
        }
        disk.strays.extend(self.foreign()?);
        Ok((disk, blobs, layers))
    }

    /// What lies where nothing of its name belongs.
    fn foreign(&self) -> Result<Vec<Stray>> {
        let root = &self.subject.data_root;
        let known: [(&str, &[&str]); 4] = [
            ("", &TOP),
            ("content", &["blobs", "ingest", "parts"]),
            ("content/blobs", &Algorithm::ALL.map(Algorithm::name)),
            ("snapshots", &["overlay", "copy"]),
        ];
        let mut found = Vec::new();
        for (dir, names) in known {
            let unknown = entries(&root.join(dir))?;
            let unknown = unknown.into_iter().filter(|path| name_of(path).is_none_or(|n| !names.contains(&n.as_str())));
            found.extend(unknown.map(|path| {
                let unfinished = dir.is_empty() && name_of(&path).is_some_and(|n| UNFINISHED.contains(&n.as_str()));
                stray(root, path, if unfinished { StrayKind::Leftover } else { StrayKind::Unknown })
            }));
        }
        // A living daemon and the monitors of its containers work there.
        if self.subject.live.is_none() {
            let left = entries(&root.join("tmp"))?;
            found.extend(left.into_iter().map(|path| stray(root, path, StrayKind::Leftover)));
        }
        Ok(found)
    }

    /// A daemon has asked before it began.
    fn doubt(&self) -> Option<String> {
        if self.subject.live.is_some() {
            return None;
        }
        let doubt =
            root::Content::of(&self.subject.data_root).and_then(|found| root::doubt(&self.subject.store, found));
        doubt.unwrap_or_else(|error| Some(error.message().to_owned()))
    }

    fn busy<'d>(&self, listed: impl Iterator<Item = &'d Digest>) -> Busy {
        let Some(engine) = &self.subject.live else { return Busy::default() };
        Busy {
            pinned: listed.filter(|digest| engine.images.pins.names(digest)).cloned().collect(),
            containers: engine.containers.ids(),
            volumes: engine.volumes.worked_on(),
        }
    }

    /// Hashes blobs side by side; what is gone meanwhile is left out.
    fn hash(&mut self, listed: Vec<Digest>) -> BTreeMap<Digest, Blob> {
        let Some(store) = &self.subject.blobs else { return BTreeMap::new() };
        let jobs: Vec<_> = listed.iter().filter(|digest| !self.blobs.contains_key(digest)).collect();
        let (next, hashed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let Some(digest) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let blob = match store.rehash(digest) {
                    Ok((is, size)) if is == **digest => Blob::Sound(size),
                    Ok((is, size)) => Blob::Damaged(is, size),
                    Err(error) if error.kind() == Kind::NotFound => continue,
                    Err(error) => Blob::Unreadable(error.message().to_owned()),
                };
                hashed.lock().push(((*digest).clone(), blob));
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(HASHERS).min(jobs.len());
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let mut all: BTreeMap<_, _> =
            listed.iter().filter_map(|d| Some((d.clone(), self.blobs.get(d)?.clone()))).collect();
        for (digest, blob) in hashed.into_inner() {
            if blob.is_sound() {
                self.blobs.insert(digest.clone(), blob.clone());
            }
            all.insert(digest, blob);
        }
        all
    }

    /// What an image's documents say; `None` when its first document is not here.
    fn describe(&self, disk: &Disk, row: &ImageRow) -> Option<Result<ImageRow, String>> {
        let blobs = self.subject.blobs.as_ref()?;
        disk.blobs.get(&row.target.digest).filter(|blob| blob.is_sound())?;
        Some(describe_blobs(blobs, &super::descriptor(row)).map_err(|error| error.message().to_owned()))
    }

    /// Compares layers with their archives, one after the other.
    fn examine(&mut self, inventory: &Inventory, listed: Vec<Digest>) -> Result<BTreeMap<Digest, Layer>> {
        let mut all = BTreeMap::new();
        let Some(snapshots) = &self.subject.snapshots else { return Ok(all) };
        let sources = compare::sources(inventory);
        for digest in listed {
            let known = self.layers.get(&digest).cloned();
            let examined = match known {
                Some(layer) => Some(layer),
                None => self.examine_one(&*snapshots.survey, &digest, sources.get(&digest))?,
            };
            let Some(layer) = examined else { continue };
            if !matches!(layer, Layer::Damaged(_)) {
                self.layers.insert(digest.clone(), layer.clone());
            }
            all.insert(digest, layer);
        }
        Ok(all)
    }

    fn examine_one(&self, layers: &dyn LayerSurvey, digest: &Digest, source: Option<&Digest>) -> Result<Option<Layer>> {
        let size = match layers.examine(digest, None)? {
            Examined::Missing => return Ok(None),
            Examined::Damaged(why) => return Ok(Some(Layer::Damaged(why))),
            Examined::Sound(info) => info.size,
        };
        let unverified = |why: &str| Ok(Some(Layer::Unverified(size, why.to_owned())));
        let (Some(source), Some(blobs)) = (source, &self.subject.blobs) else {
            return unverified("no image has its blob");
        };
        if free(&self.subject.data_root)? < size + SPARE {
            return unverified("the disk has no room to unpack it for a comparison");
        }
        let archive = blobs.open_blob(source).and_then(snapshot::decompress);
        let examined = archive.and_then(|mut tar| layers.examine(digest, Some(&mut tar)));
        match examined {
            Ok(Examined::Sound(info)) => Ok(Some(Layer::Sound(info.size))),
            Ok(Examined::Damaged(why)) => Ok(Some(Layer::Damaged(why))),
            Ok(Examined::Missing) => Ok(None),
            Err(error) => unverified(error.message()),
        }
    }
}

/// A volume that is being removed, or comes to its place, is no leftover; one whose removal was cut short before its row went,
/// or whose row was committed before it came to its place, is whole, and the next start takes it up.
fn exclude_removals(disk: &mut Disk, rows: &Rows, busy: &Busy) {
    let volumes = &mut disk.volumes;
    disk.strays.retain(|stray| {
        let aside = [volume::REMOVED, volume::STAGED].map(|dir| Path::new("volumes").join(dir));
        let name = aside.iter().find_map(|dir| stray.place.strip_prefix(dir).ok()).and_then(Path::to_str);
        let Some(name) = name else { return true };
        let damaged = rows.damaged.iter().any(|d| d.table == volume::VOLUMES.name() && d.row.key == name);
        let whole = (rows.volumes.contains_key(name) || damaged) && !volumes.contains_key(name);
        if whole {
            volumes.insert(name.to_owned(), true);
        }
        !whole && !busy.volumes.contains(name)
    });
}

fn rows(store: &Store) -> Result<Rows> {
    let mut rows = Rows::default();
    store.read(|tx| {
        rows.images =
            survey(tx, &IMAGES, &mut rows.damaged)?.map(|(_, row)| (row.target.digest.clone(), row)).collect();
        rows.names = survey(tx, &NAMES, &mut rows.damaged)?.collect();
        let definitions: Vec<_> = survey(tx, &CONTAINERS, &mut rows.damaged)?.collect();
        let records = survey(tx, &RUNS, &mut rows.damaged)?;
        let all = row::Containers::new(definitions, records, |id| row::earlier(tx, id));
        (rows.containers, rows.unrecorded, rows.undefined) = (all.rows, all.unrecorded, all.undefined);
        rows.users = survey(tx, &image::USERS, &mut rows.damaged)?.collect();
        rows.volumes = survey(tx, &volume::VOLUMES, &mut rows.damaged)?.collect();
        rows.kept = survey(tx, &KEPT, &mut rows.damaged)?.collect();
        rows.kept_for = build::record::keepers(tx)?;
        let read = [
            IMAGES.name(),
            NAMES.name(),
            CONTAINERS.name(),
            RUNS.name(),
            image::USERS.name(),
            volume::VOLUMES.name(),
            KEPT.name(),
        ];
        for table in stored::all().into_iter().filter(|table| !read.contains(&table.name())) {
            let damaged = table.damaged(tx)?.into_iter();
            rows.damaged.extend(damaged.map(|row| DamagedRow { table: table.name(), row }));
        }
        Ok(())
    })?;
    Ok(rows)
}

fn survey<R: Row>(
    tx: &store::ReadTx,
    table: &Table<R>,
    damaged: &mut Vec<DamagedRow>,
) -> Result<impl Iterator<Item = (String, R)>> {
    let survey = tx.survey(table)?;
    damaged.extend(survey.damaged.into_iter().map(|row| DamagedRow { table: table.name(), row }));
    Ok(survey.rows.into_iter())
}

/// What is in a directory; nothing when there is none.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("listing {}", dir.display()))?,
    };
    entries.map(|entry| Ok(entry.with_context(|| format!("listing {}", dir.display()))?.path())).collect()
}

fn name_of(path: &Path) -> Option<String> {
    path.file_name()?.to_str().map(str::to_owned)
}

fn stray(root: &Path, path: PathBuf, kind: StrayKind) -> Stray {
    Stray { place: below(root, path), kind }
}

fn below(root: &Path, path: PathBuf) -> PathBuf {
    path.strip_prefix(root).map(Path::to_path_buf).unwrap_or(path)
}

/// Bytes that the disk has left.
fn free(path: &Path) -> Result<u64> {
    let disk = rustix::fs::statvfs(path).map_err(std::io::Error::from)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
