//! Volumes that are filled apart and then put in their place, and snapshots.
//!
//! Beside the volumes, under names that no volume can have:
//! - `.staging/<random>`: being filled by a copy or an import; removed at open, whatever is in it;
//! - `.staged/<volume>`: whole and durable. The volume's row is committed while it lies here, then it is moved to its place: at
//!   open it is moved if there is a row, removed if there is none;
//! - `.snapshots/<name>`: a snapshot, its data and `snapshot.json`. It appears by a rename when it is whole and durable, and
//!   goes by a rename to `.staging`. No row speaks of it: it outlives the volume, and the metadata if that is lost.
//!
//! Whoever reads a snapshot holds a shared lock on its directory (flock(2)); what is read is not removed.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use model::time::Timestamp;
use model::{Context, Error, Result};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with, syncfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sys::tree;

use super::{Turn, Volumes, draft};
use crate::local::{Local, c_name, make_data};
use crate::name;
use crate::row::{CreateVolume, DATA, LOCAL, VOLUMES, Volume, data, random_name};
use crate::scope::Scope;

/// What is being filled.
pub const STAGING: &str = ".staging";
/// What is whole and on its way to its place.
pub const STAGED: &str = ".staged";
/// Snapshots.
pub const SNAPSHOTS: &str = ".snapshots";
/// What is known of a snapshot, beside its data.
const RECORD: &str = "snapshot.json";
/// Bytes of that.
const RECORD_BYTES: u64 = 1 << 20;
/// Snapshots of one daemon.
const MAX_SNAPSHOTS: usize = 1 << 16;

/// A snapshot of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Unique over all volumes.
    pub name: String,
    /// The volume that it was taken of, which may be gone.
    pub volume: String,
    /// When it was taken.
    pub created: Timestamp,
    /// As given.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The schedule that took it; empty: somebody did.
    #[serde(default)]
    pub schedule: String,
}

/// A directory that is being filled; what is not put in a place is removed when this is dropped, which blocks.
#[derive(Debug)]
pub struct Staged {
    place: PathBuf,
}

/// A snapshot that is read; it is not removed meanwhile.
#[derive(Debug)]
pub struct OpenSnapshot {
    /// What is known of it.
    pub snapshot: Snapshot,
    /// The top of its data, open for reading.
    pub data: OwnedFd,
    _lock: File,
}

/// Nobody begins or ends a use of the volume, or removes it, while this lives.
pub struct Hold {
    _turn: Turn,
}

impl Staged {
    /// The directory that gets the data's.
    pub fn open(&self) -> Result<OwnedFd> {
        let open = || format!("opening {}", self.place.display());
        Ok(File::open(&self.place).with_context(open)?.into())
    }

    /// Makes the directory of the data, empty, and opens it for reading.
    pub fn make_data(&self) -> Result<OwnedFd> {
        make_data(&self.place)?;
        self.data()
    }

    /// The directory of the data, open for reading.
    pub fn data(&self) -> Result<OwnedFd> {
        Ok(tree::open_dir(self.open()?, &c_name(DATA)?)?)
    }

    /// Makes everything in it durable.
    fn sync(&self) -> Result<()> {
        let failed = || format!("syncing {}", self.place.display());
        // One call, however many files there are.
        syncfs(self.open()?).map_err(io::Error::from).with_context(failed)
    }

    /// Moves it. `AlreadyExists` by the kernel's `EEXIST`.
    fn go(&mut self, to: PathBuf) -> io::Result<()> {
        renameat_with(CWD, &self.place, CWD, &to, RenameFlags::NOREPLACE)?;
        let left = std::mem::replace(&mut self.place, to);
        // Fails while there are others in it.
        drop(left.parent().map(fs::remove_dir));
        Ok(())
    }

    /// It is where it belongs.
    fn stay(mut self) {
        self.place = PathBuf::new();
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.place.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = clear(&self.place) {
            tracing::warn!(path = %self.place.display(), %error, "what a copy has left stays until the next start");
        }
        // Fails while there are others in it.
        drop(self.place.parent().map(fs::remove_dir));
    }
}

impl Volumes {
    /// A place for data to come. Blocks.
    pub fn stage(&self) -> Result<Staged> {
        let top = self.inner.root.join(STAGING);
        let place = top.join(random_name());
        // Another one may take the outer directory away as it ends.
        for _ in 0..16 {
            make_dir(&top, 0o700)?;
            match DirBuilder::new().mode(0o701).create(&place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                made => made.with_context(|| format!("creating {}", place.display()))?,
            }
            fs::set_permissions(&place, Permissions::from_mode(0o701))?;
            return Ok(Staged { place });
        }
        Err(Error::system(format!("creating {}: it vanishes", place.display())))
    }

    /// Refuses a name that a new volume cannot have: a wrong one, or one that is taken.
    pub async fn check_free(&self, name: &str) -> Result<()> {
        Local::check(name, &BTreeMap::new())?;
        match self.existing(name).await? {
            None => Ok(()),
            Some(_) => Err(name_taken(name)),
        }
    }

    /// Makes what was filled a volume of the local driver. Must not be cut short: between the commit and the move the volume has
    /// no data to be seen.
    ///
    /// Errors: `Conflict` when there is a volume of this name; nothing stays then.
    pub async fn put_in_place(&self, mut staged: Staged, request: CreateVolume) -> Result<Volume> {
        let drafted = draft(request);
        let name = drafted.name.clone();
        let _turn = self.turn(&name).await;
        let (root, local) = (self.inner.root.clone(), self.inner.drivers.local().clone());
        let discard = |staged: Staged| {
            local.call(move |_| {
                drop(staged);
                Ok(())
            })
        };
        if let Err(error) = self.check_free(&name).await {
            discard(staged).await?;
            return Err(error);
        }
        let row = Volume {
            driver: LOCAL.into(),
            mountpoint: data(&root, &name),
            scope: Scope::Local,
            unused: false,
            ..drafted
        };
        let (top, wanted) = (root.clone(), name.clone());
        let whole = local.call(move |_| {
            free_place(&top, &wanted)?;
            staged.sync()?;
            let waiting = top.join(STAGED);
            make_dir(&waiting, 0o700)?;
            // One that an earlier daemon has left there and could not remove.
            clear(&waiting.join(&wanted))?;
            staged.go(waiting.join(&wanted)).with_context(|| format!("moving volume {wanted}"))?;
            sync_dirs(&[&waiting, &top])?;
            Ok(staged)
        });
        let mut whole = whole.await?;
        let noted = row.clone();
        if let Err(error) = self.inner.store.write(move |tx| tx.put(&VOLUMES, &noted.name, &noted)).await {
            discard(whole).await?;
            return Err(error);
        }
        let place = root.join(&name);
        let moved = local.call(move |_| {
            whole.go(place).context("moving a volume to its place")?;
            whole.stay();
            sync_dirs(&[&root])
        });
        if let Err(error) = moved.await {
            self.forget_row(&name).await?;
            return Err(error);
        }
        Ok(row)
    }

    /// Waits until nobody works on the volume, and keeps it so.
    pub async fn hold(&self, name: &str) -> Hold {
        Hold { _turn: self.turn(name).await }
    }

    /// Keeps what was filled as a snapshot. Blocks.
    ///
    /// Errors: `Conflict` when there is one of this name.
    pub fn keep_snapshot(&self, mut staged: Staged, snapshot: &Snapshot) -> Result<()> {
        let all = self.inner.root.join(SNAPSHOTS);
        make_dir(&all, 0o700)?;
        let text = serde_json::to_vec(snapshot).map_err(|error| Error::system(error.to_string()))?;
        sys::file::replace(&staged.place.join(RECORD), &text, 0o600)?;
        staged.sync()?;
        match staged.go(all.join(&snapshot.name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(snapshot_taken(&snapshot.name)),
            moved => moved.with_context(|| format!("moving snapshot {}", snapshot.name))?,
        }
        let durable = sync_dirs(&[&all, &self.inner.root]);
        if durable.is_ok() {
            staged.stay();
        }
        durable
    }

    /// Refuses a name that a new snapshot cannot have. Blocks.
    pub fn check_snapshot_free(&self, name: &str) -> Result<()> {
        name::validate(name)?;
        let all = self.inner.root.join(SNAPSHOTS);
        if fs::symlink_metadata(all.join(name)).is_ok() {
            return Err(snapshot_taken(name));
        }
        let count = fs::read_dir(&all).map_or(0, Iterator::count);
        if count >= MAX_SNAPSHOTS {
            return Err(Error::conflict(format!("there are more than {MAX_SNAPSHOTS} snapshots of volumes")));
        }
        Ok(())
    }

    /// All snapshots, by name. Blocks.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let mut all = Vec::new();
        for name in names(&self.inner.root.join(SNAPSHOTS))? {
            match self.read_record(&name) {
                Ok(snapshot) => all.push(snapshot),
                Err(error) => tracing::warn!(snapshot = name, %error, "a snapshot without a readable record"),
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Why the records of snapshots cannot be read that are here. Blocks.
    pub fn unreadable_snapshots(&self) -> Result<Vec<String>> {
        let all = names(&self.inner.root.join(SNAPSHOTS))?.into_iter();
        Ok(all
            .filter_map(|name| Some(format!("snapshot {name} of a volume: {}", self.read_record(&name).err()?)))
            .collect())
    }

    fn read_record(&self, name: &str) -> Result<Snapshot> {
        let place = self.snapshot_place(name)?.join(RECORD);
        let text = match sys::file::read_small(&place, RECORD_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_snapshot(name)),
            other => other?,
        };
        let snapshot: Snapshot = serde_json::from_slice(&text).map_err(|error| Error::system(error.to_string()))?;
        // By hand it may have been moved.
        Ok(Snapshot { name: name.to_owned(), ..snapshot })
    }

    fn snapshot_place(&self, name: &str) -> Result<PathBuf> {
        name::validate(name).map_err(|_| no_snapshot(name))?;
        Ok(self.inner.root.join(SNAPSHOTS).join(name))
    }

    /// A snapshot to be read. Blocks.
    ///
    /// Errors: `NotFound`; `Conflict` while it is being removed.
    pub fn open_snapshot(&self, name: &str) -> Result<OpenSnapshot> {
        let lock = self.lock_snapshot(name, FlockOperation::NonBlockingLockShared)?;
        let data = tree::open_dir(&lock, &c_name(DATA)?).with_context(|| format!("opening snapshot {name}"))?;
        Ok(OpenSnapshot { snapshot: self.read_record(name)?, data, _lock: lock })
    }

    fn lock_snapshot(&self, name: &str, how: FlockOperation) -> Result<File> {
        let place = self.snapshot_place(name)?;
        let dir = match File::open(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_snapshot(name)),
            other => other.with_context(|| format!("opening snapshot {name}"))?,
        };
        match flock(&dir, how) {
            Err(Errno::WOULDBLOCK) => return Err(Error::conflict(format!("snapshot {name} is in use"))),
            locked => locked.map_err(io::Error::from)?,
        }
        // It may have gone before it was locked.
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let now = fs::symlink_metadata(&place).map(identity).map_err(|_| no_snapshot(name))?;
        if identity(dir.metadata()?) == now { Ok(dir) } else { Err(no_snapshot(name)) }
    }

    /// Removes a snapshot; what it was. Blocks.
    ///
    /// Errors: `NotFound`; `Conflict` while it is read.
    pub fn remove_snapshot(&self, name: &str) -> Result<Snapshot> {
        let _lock = self.lock_snapshot(name, FlockOperation::NonBlockingLockExclusive)?;
        let lost = || Snapshot {
            name: name.to_owned(),
            volume: String::new(),
            created: Timestamp::default(),
            labels: BTreeMap::new(),
            schedule: String::new(),
        };
        let snapshot = self.read_record(name).unwrap_or_else(|_| lost());
        let all = self.inner.root.join(SNAPSHOTS);
        let mut leaving = self.stage()?;
        // Onto the empty directory that was made for it.
        fs::rename(all.join(name), &leaving.place).with_context(|| format!("removing snapshot {name}"))?;
        sync_dirs(&[&all])?;
        let place = std::mem::take(&mut leaving.place);
        clear(&place)?;
        drop(place.parent().map(fs::remove_dir));
        Ok(snapshot)
    }

    /// Bytes of a snapshot's content. Blocks.
    pub fn snapshot_usage(&self, name: &str) -> Result<u64> {
        Ok(tree::content_bytes(self.open_snapshot(name)?.data)?)
    }
}

/// Finishes what was whole when an earlier daemon ended, and removes what was not; `known` are the volumes that have rows.
pub(super) fn sweep(root: &Path, known: &[String]) -> Result<()> {
    for volume in names(&root.join(STAGED))? {
        let waiting = root.join(STAGED).join(&volume);
        let done = match known.contains(&volume) {
            true => move_into_place(root, &volume, &waiting),
            false => clear(&waiting),
        };
        if let Err(error) = done {
            tracing::warn!(volume, %error, "what an import has left stays until the next start");
        }
    }
    for left in names(&root.join(STAGING))? {
        if let Err(error) = clear(&root.join(STAGING).join(&left)) {
            tracing::warn!(%error, "what a copy has left stays until the next start");
        }
    }
    for dir in [STAGING, STAGED] {
        drop(fs::remove_dir(root.join(dir)));
    }
    Ok(())
}

fn move_into_place(root: &Path, volume: &str, waiting: &Path) -> Result<()> {
    if free_place(root, volume).is_err() {
        return clear(waiting);
    }
    renameat_with(CWD, waiting, CWD, root.join(volume), RenameFlags::NOREPLACE).map_err(io::Error::from)?;
    sync_dirs(&[root])
}

/// Makes sure that nothing lies where a volume is to come; an empty directory goes.
fn free_place(root: &Path, volume: &str) -> Result<()> {
    drop(fs::remove_dir(data(root, volume)));
    drop(fs::remove_dir(root.join(volume)));
    match fs::symlink_metadata(root.join(volume)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(Error::conflict(format!(
            "create {volume}: there is data in '{}' that belongs to no volume",
            root.join(volume).display()
        ))),
    }
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let context = || format!("listing {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(context)?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name()));
    let names: Vec<_> = names.collect::<io::Result<_>>().with_context(context)?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

/// Removes a tree; absent is fine.
fn clear(place: &Path) -> Result<()> {
    let failed = || format!("removing {}", place.display());
    let (Some(parent), Some(name)) = (place.parent(), place.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let parent = match File::open(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(failed)?,
    };
    let name = c_name(name)?;
    let name: &CStr = &name;
    tree::remove(&parent, name).with_context(failed)
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.with_context(|| format!("creating {}", path.display())),
    }
}

fn sync_dirs(dirs: &[&Path]) -> Result<()> {
    dirs.iter().try_for_each(|dir| sys::file::sync_dir(dir).with_context(|| format!("syncing {}", dir.display())))
}

fn name_taken(name: &str) -> Error {
    Error::conflict(format!("create {name}: there is a volume of this name: volume name must be unique"))
}

fn no_snapshot(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such snapshot"))
}

fn snapshot_taken(name: &str) -> Error {
    Error::conflict(format!("create {name}: there is a snapshot of this name: snapshot name must be unique"))
}

#[cfg(test)]
mod tests;
