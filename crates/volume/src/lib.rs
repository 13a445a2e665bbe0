//! Volumes: directories that outlive containers, their drivers and their names.
//!
//! Invariants:
//! - **referent before referrer**: a volume's directory is made before its row is committed and removed after the row is
//!   gone; a directory without a row is swept at open only when it is empty of data, never otherwise;
//! - on the disk as well: a volume that nobody has used yet holds nothing, and is made again at open if a power cut has
//!   taken its directory; whoever commits its first use makes it durable before ([`Volumes::make_durable`]);
//! - a removal takes the data out of its place, durably, before the row goes: one that a crash cut short is undone at open
//!   while there is a row, and finished when there is none;
//! - where a volume lies follows from its name and the root in force; what rows say of it is not gone by;
//! - creating a volume that exists answers the one that is there (B-vol-9);
//! - who uses a volume is the engine's knowledge (its containers): it checks before it calls [`Volumes::remove`], with
//!   [`in_use`] for the answer. A volume that is mounted ([`Volumes::mount`]) is never removed.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

#[allow(clippy::disallowed_methods, reason = "a driver is called on the threads of its class")]
mod local;
mod name;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blocking::{Class, Work};
use model::time::Timestamp;
use model::{Error, Result};
use serde::{Deserialize, Serialize};
use store::{Row, Store, Table, WriteTx};

pub use local::{Local, REMOVED};

/// The name of the built-in driver.
pub const LOCAL: &str = "local";
/// The label that marks a volume made without a name (B-vol-3).
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// All volumes, by name.
pub const VOLUMES: Table<Volume> = Table::new("volumes");

/// Makes, mounts and removes the data of volumes.
///
/// Life cycle: `create` → any number of `mount`/`unmount` pairs → `remove`. All calls block; `Volumes` sees to it that
/// none run at once for one volume.
pub trait VolumeDriver: Send + Sync {
    /// The name users give (`local`).
    fn name(&self) -> &'static str;
    /// Checks options without making anything.
    fn validate(&self, name: &str, options: &BTreeMap<String, String>) -> Result<()>;
    /// Makes the volume's data; existing data of that name is kept.
    fn create(&self, name: &str, options: &BTreeMap<String, String>) -> Result<()>;
    /// Where the data is (or will be once mounted).
    fn mountpoint(&self, name: &str) -> PathBuf;
    /// Makes the data reachable under the mount point, for the first user.
    fn mount(&self, name: &str, options: &BTreeMap<String, String>) -> Result<PathBuf>;
    /// Undoes `mount`, after the last user.
    fn unmount(&self, name: &str) -> Result<()>;
    /// Takes the data out of its place, on its way to [`VolumeDriver::remove`]; absent is fine.
    fn retire(&self, name: &str) -> Result<()>;
    /// Undoes `retire`.
    fn recall(&self, name: &str) -> Result<()>;
    /// Removes the data, retired or not; absent is fine.
    fn remove(&self, name: &str) -> Result<()>;
    /// Makes the volume's place durable, empty as it is.
    fn make_durable(&self, name: &str) -> Result<()>;
    /// Bytes on disk.
    fn usage(&self, name: &str) -> Result<u64>;
}

/// A volume: the row, and what callers get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Unique over all drivers.
    pub name: String,
    /// The driver's name.
    pub driver: String,
    /// When it was created.
    pub created: Timestamp,
    /// As given; `None` and empty look different on the wire.
    pub labels: Option<BTreeMap<String, String>>,
    /// Driver options as given.
    pub options: Option<BTreeMap<String, String>>,
    /// Where its data lies on the host. A row may have been written when the root was elsewhere.
    pub mountpoint: PathBuf,
    /// Nobody has used it yet: there is nothing in it that could be lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unused: bool,
}

impl Row for Volume {
    const VERSION: u32 = 1;
}

impl Volume {
    /// The row of a local volume of which only its directory under `root` is known.
    pub fn found(root: &Path, name: &str) -> Volume {
        Volume {
            name: name.to_owned(),
            driver: LOCAL.into(),
            created: Timestamp::from_unix_nanos(sys::clock::System.unix_nanos()),
            labels: None,
            options: None,
            mountpoint: Local::data(root, name),
            unused: false,
        }
    }

    /// The row of a volume whose root is `root` now.
    #[must_use]
    pub fn placed(self, root: &Path) -> Volume {
        match self.driver.as_str() {
            LOCAL => Volume { mountpoint: Local::data(root, &self.name), ..self },
            _ => self,
        }
    }

    /// Whether it was made without a name.
    pub fn is_anonymous(&self) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.contains_key(ANONYMOUS_LABEL))
    }

    /// Whether it has options that mount something; prune leaves such volumes (B-vol-11).
    pub fn has_mount_options(&self) -> bool {
        let mounting = |key: &String| matches!(key.as_str(), "type" | "o" | "device");
        self.options.as_ref().is_some_and(|options| options.keys().any(mounting))
    }

    /// `local` or `global`.
    pub fn scope(&self) -> &'static str {
        "local"
    }
}

/// What `create` takes.
#[derive(Clone, Debug, Default)]
pub struct CreateVolume {
    /// Empty: an anonymous volume with a name of 64 hex digits.
    pub name: String,
    /// Empty: `local`.
    pub driver: String,
    /// Driver options.
    pub options: Option<BTreeMap<String, String>>,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
}

/// All volumes of a daemon. Clones share them.
#[derive(Clone)]
pub struct Volumes {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    drivers: Vec<Driver>,
    busy: Mutex<Busy>,
    freed: tokio::sync::Notify,
}

/// A driver, and threads for its calls: one that hangs holds up no other.
struct Driver {
    calls: Box<dyn VolumeDriver>,
    threads: Class,
}

/// Who does what with which volume.
#[derive(Default)]
struct Busy {
    /// Names with a create, mount, unmount or remove in progress.
    working: HashSet<String>,
    /// Users of mounted volumes.
    mounted: HashMap<String, HashSet<String>>,
}

/// The right to work on one volume; given back on drop.
struct Turn {
    inner: Arc<Inner>,
    name: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.inner.busy().working.remove(&self.name);
        self.inner.freed.notify_waiters();
    }
}

impl Inner {
    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn driver(&self, name: &str) -> Result<&Driver> {
        let unknown =
            || Error::not_found(format!("error looking up volume plugin {name}: plugin \"{name}\" not found"));
        self.drivers.iter().find(|driver| driver.calls.name() == name).ok_or_else(unknown)
    }
}

impl Volumes {
    /// Opens the volumes under `root` (`<data-root>/volumes`).
    pub fn open(root: &Path, store: Store) -> Result<Volumes> {
        let local = Local::open(root)?;
        let (known, rows) = store.read(|tx| Ok((tx.keys(&VOLUMES)?, tx.survey(&VOLUMES)?.rows)))?;
        local.sweep(&known)?;
        for (name, _) in rows.iter().filter(|(_, row)| row.unused && row.driver == LOCAL) {
            local.put_right(name)?;
        }
        Ok(Volumes::with(store, vec![Box::new(local)]))
    }

    fn with(store: Store, drivers: Vec<Box<dyn VolumeDriver>>) -> Volumes {
        let drivers = drivers.into_iter().map(|calls| Driver { calls, threads: Class::new(Work::Volumes) }).collect();
        let inner = Inner { store, drivers, busy: Mutex::default(), freed: tokio::sync::Notify::new() };
        Volumes { inner: Arc::new(inner) }
    }

    /// Creates a volume, or finds the one of that name; tells whether it is new.
    ///
    /// Errors: `InvalidParameter` for a bad name or option, `NotFound` for an unknown driver, `Conflict` when another
    /// driver has the name.
    pub async fn create(&self, request: CreateVolume) -> Result<(Volume, bool)> {
        let volume = self.draft(request)?;
        if !volume.driver.is_empty() {
            self.driver(&volume.driver).map_err(|e| e.prefix(format!("create {}", volume.name)))?;
        }
        let turn = self.turn(&volume.name).await;
        if let Some(existing) = self.find(&volume.name)? {
            if !volume.driver.is_empty() && existing.driver != volume.driver {
                return Err(taken(&existing));
            }
            return Ok((existing, false));
        }
        let row =
            Volume { driver: if volume.driver.is_empty() { LOCAL.into() } else { volume.driver.clone() }, ..volume };
        let named = row.driver.clone();
        let making = self.call(&named, move |driver| {
            let draft = row;
            let options = draft.options.clone().unwrap_or_default();
            let prefixed = |e: Error| e.prefix(format!("create {}", draft.name));
            driver.validate(&draft.name, &options).map_err(prefixed)?;
            driver.create(&draft.name, &options).map_err(prefixed)?;
            Ok(Volume { mountpoint: driver.mountpoint(&draft.name), ..draft })
        });
        let made = making.await?;
        let row = made.clone();
        let committed = self.inner.store.write(move |tx| tx.put(&VOLUMES, &row.name, &row)).await;
        if let Err(error) = committed {
            let name = made.name.clone();
            if let Err(error) = self.call(&made.driver, move |driver| driver.remove(&name)).await {
                tracing::warn!(volume = made.name, %error, "a volume that could not be recorded stays");
            }
            return Err(error);
        }
        drop(turn);
        Ok((made, true))
    }

    fn draft(&self, request: CreateVolume) -> Result<Volume> {
        let CreateVolume { mut name, driver, options, mut labels } = request;
        if name.is_empty() {
            name = random_name();
            labels.get_or_insert_default().insert(ANONYMOUS_LABEL.into(), String::new());
        } else {
            name::validate(&name).map_err(|e| e.prefix(format!("create {name}")))?;
        }
        let created = Timestamp::from_unix_nanos(sys::clock::System.unix_nanos());
        Ok(Volume { name, driver, created, labels, options, mountpoint: PathBuf::new(), unused: true })
    }

    /// The volume of this name. `NotFound`: `get zz: no such volume`.
    pub fn get(&self, name: &str) -> Result<Volume> {
        self.find(name)?.ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
    }

    fn find(&self, name: &str) -> Result<Option<Volume>> {
        Ok(self.inner.store.read(|tx| tx.get(&VOLUMES, name))?.map(|row| self.placed(row)))
    }

    /// The row with the place that the volume has now.
    fn placed(&self, row: Volume) -> Volume {
        match self.driver(&row.driver) {
            Ok(driver) => Volume { mountpoint: driver.mountpoint(&row.name), ..row },
            Err(_) => row,
        }
    }

    /// Where a local volume of this name lies.
    pub fn place(&self, name: &str) -> Option<PathBuf> {
        self.driver(LOCAL).ok().map(|driver| driver.mountpoint(name))
    }

    /// Makes the place of a volume durable that is about to be used for the first time; whoever commits that use notes it
    /// with [`note_use`]. Blocks.
    pub fn make_durable(&self, name: &str) -> Result<()> {
        match self.find(name)? {
            Some(volume) if volume.unused => self.driver(&volume.driver)?.make_durable(name),
            _ => Ok(()),
        }
    }

    /// All volumes, ordered by name.
    pub fn list(&self) -> Result<Vec<Volume>> {
        let rows = self.inner.store.read(|tx| tx.scan(&VOLUMES))?;
        Ok(rows.into_iter().map(|(_, row)| self.placed(row)).collect())
    }

    /// Removes a volume and its data. The engine has made sure that no container names it.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let _turn = self.turn(name).await;
        let volume = self.get(name)?;
        let users = self.users(name);
        if !users.is_empty() {
            return Err(in_use(name, &users));
        }
        self.work(&volume, |driver, name| driver.retire(name)).await?;
        let key = name.to_owned();
        if let Err(error) = self.inner.store.write(move |tx| tx.delete(&VOLUMES, &key).map(drop)).await {
            self.work(&volume, |driver, name| driver.recall(name)).await?;
            return Err(error);
        }
        self.work(&volume, |driver, name| driver.remove(name)).await
    }

    /// A step of a removal, by the volume's driver.
    async fn work(&self, volume: &Volume, step: fn(&dyn VolumeDriver, &str) -> Result<()>) -> Result<()> {
        let name = volume.name.clone();
        self.call(&volume.driver, move |driver| step(driver, &name).map_err(|e| e.prefix(format!("remove {name}"))))
            .await
    }

    /// Makes the volume's data reachable for `user` (a container's id) and answers where.
    pub async fn mount(&self, name: &str, user: &str) -> Result<PathBuf> {
        let _turn = self.turn(name).await;
        let volume = self.get(name)?;
        let path = if self.users(name).is_empty() {
            let (name, options) = (volume.name, volume.options.unwrap_or_default());
            self.call(&volume.driver, move |driver| driver.mount(&name, &options)).await?
        } else {
            volume.mountpoint
        };
        self.inner.busy().mounted.entry(name.to_owned()).or_default().insert(user.to_owned());
        Ok(path)
    }

    /// Ends `user`'s use of the volume; unknown users are fine.
    pub async fn unmount(&self, name: &str, user: &str) -> Result<()> {
        let _turn = self.turn(name).await;
        let last = {
            let mut busy = self.inner.busy();
            let Some(users) = busy.mounted.get_mut(name) else { return Ok(()) };
            let was = users.remove(user);
            let empty = users.is_empty();
            if empty {
                busy.mounted.remove(name);
            }
            was && empty
        };
        let Some(volume) = self.find(name)?.filter(|_| last) else { return Ok(()) };
        self.call(&volume.driver, move |driver| driver.unmount(&volume.name)).await
    }

    /// The volumes that are being made, mounted, unmounted or removed.
    pub fn worked_on(&self) -> HashSet<String> {
        self.inner.busy().working.clone()
    }

    /// Bytes on disk of the volume's data. Blocks.
    pub fn usage(&self, name: &str) -> Result<u64> {
        let volume = self.get(name)?;
        self.driver(&volume.driver)?.usage(name)
    }

    /// Users for whom the volume is mounted now, sorted.
    fn users(&self, name: &str) -> Vec<String> {
        let mut users: Vec<_> = self.inner.busy().mounted.get(name).into_iter().flatten().cloned().collect();
        users.sort();
        users
    }

    fn driver(&self, name: &str) -> Result<&dyn VolumeDriver> {
        self.inner.driver(name).map(|driver| &*driver.calls)
    }

    /// Calls a driver on one of its threads.
    async fn call<T: Send + 'static>(
        &self,
        driver: &str,
        call: impl FnOnce(&dyn VolumeDriver) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (inner, driver) = (self.inner.clone(), driver.to_owned());
        let threads = inner.driver(&driver)?.threads.clone();
        threads.run(move |_| call(&*inner.driver(&driver)?.calls)).await
    }

    /// Waits until nobody works on the volume.
    async fn turn(&self, name: &str) -> Turn {
        loop {
            let freed = self.inner.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.inner.busy().working.insert(name.to_owned()) {
                return Turn { inner: self.inner.clone(), name: name.to_owned() };
            }
            freed.await;
        }
    }
}

/// Notes, with the commit of what uses it, that a volume may hold something from now on; absent is fine.
pub fn note_use(tx: &mut WriteTx<'_, '_>, name: &str) -> Result<()> {
    match tx.get(&VOLUMES, name)? {
        Some(volume) if volume.unused => tx.put(&VOLUMES, name, &Volume { unused: false, ..volume }),
        _ => Ok(()),
    }
}

/// A name for a volume that got none.
pub(crate) fn random_name() -> String {
    model::id::ContainerId::from_bytes(sys::random::bytes32()).as_str().to_owned()
}

/// The refusal to remove a volume that these containers name.
pub fn in_use(name: &str, users: &[String]) -> Error {
    Error::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", ")))
}

fn taken(existing: &Volume) -> Error {
    let Volume { name, driver, .. } = existing;
    Error::conflict(format!("driver '{driver}' already has volume '{name}': volume name must be unique"))
        .prefix(format!("create {name}"))
}

#[cfg(test)]
mod tests;
