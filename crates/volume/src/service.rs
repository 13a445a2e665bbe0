//! All volumes of a daemon.

#[allow(clippy::disallowed_methods, reason = "on threads of those who use it")]
mod copies;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::lock::{Mutex, MutexGuard};
use model::time::Timestamp;
use model::{Error, Kind, Result};
use plugin::{Patience, Plugins};
use store::Store;

use crate::claim::{Claim, Claims};
use crate::driver::{Directories, Found, Others};
use crate::drivers::{Driver, Drivers};
use crate::keeper::Keeper;
use crate::local::Local;
use crate::mounted::Mounted;
use crate::row::{
    ANONYMOUS_LABEL, CreateVolume, LOCAL, MOUNTS, MountNote, VOLUMES, Volume, data, in_use, random_name, taken,
};
use crate::scope::Scope;

pub use copies::{Hold, OpenSnapshot, SNAPSHOTS, STAGED, STAGING, Snapshot, Staged};

/// All volumes of a daemon. Clones share them.
#[derive(Clone)]
pub struct Volumes {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    drivers: Drivers,
    root: PathBuf,
    /// What an earlier daemon has left mounted.
    left: Vec<String>,
    busy: Mutex<Busy>,
    claims: Claims,
    freed: tokio::sync::Notify,
}

/// Who does what with which volume.
#[derive(Default)]
struct Busy {
    /// Names with a create, mount, unmount or remove in progress.
    working: HashSet<String>,
    /// Users of mounted volumes, and whether the driver was notified of each.
    mounted: HashMap<String, HashMap<String, Notified>>,
}

/// Whether the driver has been notified of a use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notified {
    Yes,
    No,
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
        self.busy.lock()
    }

    /// The driver of a volume that there is.
    async fn driver(&self, name: &str) -> Result<Arc<Driver>> {
        self.drivers.get(name, Patience::Retry).await
    }

    /// What the volumes of a driver offer that are directories of this host.
    fn directories(&self, driver: &str) -> Option<&dyn Directories> {
        (driver == LOCAL).then(|| self.drivers.local().calls.directories()).flatten()
    }
}

impl Volumes {
    /// Opens the volumes under `root` (`<data-root>/volumes`); `keeper` has what is mounted, `plugins` may be drivers.
    pub fn open(root: &Path, store: Store, keeper: Keeper, plugins: Plugins) -> Result<Volumes> {
        let local = Local::open(root, keeper)?;
        let (known, rows) = store.read(|tx| Ok((tx.keys(&VOLUMES)?, tx.survey(&VOLUMES)?.rows)))?;
        copies::sweep(root, &known)?;
        local.sweep(&known)?;
        for (name, row) in rows.iter().filter(|(_, row)| row.unused && row.driver == LOCAL) {
            local.put_right(name, row.options.as_ref().unwrap_or(&BTreeMap::new()))?;
        }
        let left = local.mounted();
        let drivers = Drivers::new(Driver::new(Box::new(local)), plugins);
        let (busy, claims, freed) = (Mutex::default(), Claims::default(), tokio::sync::Notify::new());
        let root = root.to_owned();
        Ok(Volumes { inner: Arc::new(Inner { store, drivers, root, left, busy, claims, freed }) })
    }

    /// What a daemon that comes after another finds: `live` are the containers that run, with their volumes. Uses that
    /// nobody has any more are ended; drivers that are slow are not waited for.
    pub async fn recover(&self, live: &[(String, Vec<String>)]) -> Result<()> {
        let mut left: Vec<MountNote> =
            self.inner.store.read(|tx| tx.keys(&MOUNTS))?.iter().filter_map(|key| MountNote::of(key)).collect();
        let unknown: Vec<String>;
        {
            let mut busy = self.inner.busy();
            for (user, volumes) in live {
                for volume in volumes {
                    busy.mounted.entry(volume.clone()).or_default().insert(user.clone(), Notified::No);
                }
            }
            left.retain(|note| {
                let users = busy.mounted.entry(note.volume.clone()).or_default();
                users.insert(note.user.clone(), Notified::Yes).is_none()
            });
            unknown = self.inner.left.iter().filter(|name| !busy.mounted.contains_key(*name)).cloned().collect();
        }
        for name in unknown {
            let volume = Volume::found(&self.inner.root, &name);
            self.inner.drivers.local().call(move |driver| driver.unmount(&volume, "", Others::None)).await?;
        }
        for note in left {
            let volumes = self.clone();
            tokio::spawn(async move {
                if let Err(error) = volumes.unmount(&note.volume, &note.user).await {
                    tracing::warn!(volume = note.volume, %error, "a use that an earlier daemon has left does not end");
                }
            });
        }
        Ok(())
    }

    /// The volumes that a user is noted to have mounted.
    pub fn noted_of(&self, user: &str) -> Result<Vec<String>> {
        let keys = self.inner.store.read(|tx| tx.keys(&MOUNTS))?;
        let notes = keys.iter().filter_map(|key| MountNote::of(key)).filter(|note| note.user == user);
        Ok(notes.map(|note| note.volume).collect())
    }

    /// Creates a volume, or finds the one of that name; tells whether it is new.
    ///
    /// Errors: `InvalidParameter` for a bad name or option, `NotFound` for an unknown driver, `Conflict` when another
    /// driver has the name.
    pub async fn create(&self, request: CreateVolume) -> Result<(Volume, bool)> {
        self.find_or_make(request).await.map(|(volume, is_new, _turn)| (volume, is_new))
    }

    /// As [`Volumes::create`]; the volume is not removed while `user`, which is about to name it, has the claim.
    pub async fn create_claimed(&self, request: CreateVolume, user: &str) -> Result<(Volume, bool, Claim)> {
        let (volume, is_new, _turn) = self.find_or_make(request).await?;
        let claim = self.inner.claims.take(&volume.name, user);
        Ok((volume, is_new, claim))
    }

    /// Claims a volume that is there for `user`. `NotFound`: `get zz: no such volume`.
    pub async fn claim(&self, name: &str, user: &str) -> Result<Claim> {
        let _turn = self.turn(name).await;
        self.get(name)?;
        Ok(self.inner.claims.take(name, user))
    }

    async fn find_or_make(&self, request: CreateVolume) -> Result<(Volume, bool, Turn)> {
        let (asked, draft) = (request.driver.clone(), draft(request));
        let prefixed = |e: Error| e.prefix(format!("create {}", draft.name));
        let named = if asked.is_empty() { LOCAL } else { &asked };
        let driver = self.inner.drivers.get(named, Patience::None).await.map_err(prefixed)?;
        let turn = self.turn(&draft.name).await;
        if let Some(existing) = self.existing(&draft.name).await.map_err(prefixed)? {
            return match asked.is_empty() || existing.driver == asked {
                true => Ok((existing, false, turn)),
                false => Err(taken(&existing)),
            };
        }
        if named == LOCAL {
            let options = draft.options.clone().unwrap_or_default();
            Local::check(&draft.name, &options).map_err(prefixed)?;
        }
        let making = driver.call(move |driver| {
            let options = draft.options.clone().unwrap_or_default();
            driver.create(&draft.name, &options).map_err(|e| e.prefix(format!("create {}", draft.name)))?;
            let mountpoint = driver.mountpoint(&draft.name).unwrap_or_default();
            Ok(Volume { driver: driver.name().to_owned(), mountpoint, scope: driver.scope(), ..draft })
        });
        let made = making.await?;
        let row = made.clone();
        let committed = self.inner.store.write(move |tx| tx.put(&VOLUMES, &row.name, &row)).await;
        if let Err(error) = committed {
            let name = made.name.clone();
            // A plugin may have had it before.
            let is_own = driver.calls.catalogue().is_none();
            if is_own && let Err(error) = driver.call(move |driver| driver.remove(&name)).await {
                tracing::warn!(volume = made.name, %error, "a volume that could not be recorded stays");
            }
            return Err(error);
        }
        Ok((made, true, turn))
    }

    /// The volume of this name that a create answers with: one that is recorded, unless its driver knows it no more, or one that
    /// a plugin has.
    async fn existing(&self, name: &str) -> Result<Option<Volume>> {
        let Some(volume) = self.find(name)? else { return self.adopt(name).await };
        if volume.driver == LOCAL {
            return Ok(Some(volume));
        }
        let conflict = |text: String| Error::conflict(format!("{text}: volume name must be unique"));
        let found = format!("found reference to volume '{name}' in driver '{}'", volume.driver);
        match self.described(&volume).await {
            Ok(Some(_)) => Ok(Some(volume)),
            Ok(None) if self.users(name).is_empty() => Ok(None),
            Ok(None) => Err(conflict(format!("{found} but the volume was not found in the driver"))),
            Err(error) => Err(conflict(format!("{found}, but got an error while checking the driver: {error}"))),
        }
    }

    /// What the driver of a volume says of it.
    async fn described(&self, volume: &Volume) -> Result<Option<Found>> {
        let (name, named) = (volume.name.clone(), volume.driver.clone());
        let driver = self.inner.drivers.get(&named, Patience::None).await?;
        driver.call(move |driver| driver.catalogue().map_or(Ok(None), |catalogue| catalogue.get(&name))).await
    }

    /// Records a volume that no row knows, if a plugin has it.
    async fn adopt(&self, name: &str) -> Result<Option<Volume>> {
        let wanted = name.to_owned();
        for (plugin, answer) in self.inner.drivers.survey([], move |catalogue| catalogue.get(&wanted)).await {
            let Ok(Some(found)) = answer else { continue };
            let row = Volume { driver: plugin, ..of_plugin(&found) };
            let noted = row.clone();
            self.inner.store.write(move |tx| tx.put(&VOLUMES, &noted.name, &noted)).await?;
            return Ok(Some(row));
        }
        Ok(None)
    }

    /// The volume of this name, whoever has it, with what its driver says of it.
    ///
    /// Errors: `NotFound`; `System` when the driver does not answer.
    pub async fn look_up(&self, name: &str) -> Result<(Volume, Found)> {
        let missing = || no_such(name);
        let volume = match self.find(name)? {
            Some(volume) if volume.driver == LOCAL => return Ok((volume, Found::default())),
            Some(volume) => volume,
            None => self.adopt(name).await?.ok_or_else(missing)?,
        };
        let checking =
            format!("get {name}: error while checking if volume {name:?} exists in driver {:?}", volume.driver);
        let found = self.described(&volume).await.map_err(|e| e.prefix(checking).with_kind(Kind::System))?;
        let found = found.ok_or_else(missing)?;
        let mountpoint =
            if found.mountpoint.as_os_str().is_empty() { volume.mountpoint } else { found.mountpoint.clone() };
        Ok((Volume { mountpoint, ..volume }, found))
    }

    /// All volumes, those that only plugins know among them, ordered by name; and which drivers did not answer.
    pub async fn list_all(&self) -> Result<(Vec<Volume>, Vec<String>)> {
        let mut rows: BTreeMap<String, Volume> = self.list()?.into_iter().map(|row| (row.name.clone(), row)).collect();
        let drivers: HashSet<String> = rows.values().map(|row| row.driver.clone()).collect();
        let (mut listed, mut warnings) = (BTreeMap::new(), Vec::new());
        for (plugin, answer) in self.inner.drivers.survey(drivers, |catalogue| catalogue.list()).await {
            let all = match answer {
                Ok(all) => all,
                Err(error) => {
                    warnings.push(format!("list {plugin}: {error}"));
                    continue;
                }
            };
            for found in all {
                let row = match rows.get(&found.name) {
                    Some(row) if row.driver == plugin => Volume { mountpoint: found.mountpoint, ..row.clone() },
                    Some(_) => continue,
                    None => Volume { driver: plugin.clone(), ..of_plugin(&found) },
                };
                listed.insert(row.name.clone(), row);
            }
            rows.retain(|_, row| row.driver != plugin);
        }
        rows.extend(listed);
        Ok((rows.into_values().collect(), warnings))
    }

    /// Forgets a volume whose driver is gone; its data is its driver's.
    pub async fn forget_row(&self, name: &str) -> Result<()> {
        let key = name.to_owned();
        self.inner.store.write(move |tx| tx.delete(&VOLUMES, &key).map(drop)).await
    }

    /// The names of the drivers that are in use.
    pub fn driver_names(&self) -> Vec<String> {
        self.inner.drivers.names()
    }

    /// The volume of this name. `NotFound`: `get zz: no such volume`.
    pub fn get(&self, name: &str) -> Result<Volume> {
        self.find(name)?.ok_or_else(|| no_such(name))
    }

    fn find(&self, name: &str) -> Result<Option<Volume>> {
        Ok(self.inner.store.read(|tx| tx.get(&VOLUMES, name))?.map(|row| row.placed(&self.inner.root)))
    }

    /// Where a local volume of this name lies.
    pub fn place(&self, name: &str) -> PathBuf {
        data(&self.inner.root, name)
    }

    /// Makes the place of a volume durable that is about to be used for the first time; whoever commits that use notes it
    /// with [`crate::note_use`]. Blocks.
    pub fn make_durable(&self, name: &str) -> Result<()> {
        match self.find(name)?.filter(|volume| volume.unused) {
            Some(volume) => {
                self.inner.directories(&volume.driver).map_or(Ok(()), |directories| directories.make_durable(name))
            }
            _ => Ok(()),
        }
    }

    /// All volumes, ordered by name.
    pub fn list(&self) -> Result<Vec<Volume>> {
        let rows = self.inner.store.read(|tx| tx.readable(&VOLUMES))?;
        Ok(rows.into_iter().map(|(_, row)| row.placed(&self.inner.root)).collect())
    }

    /// Removes a volume and its data, unless somebody uses it (`Conflict`); `named_by` tells which containers name it.
    pub async fn remove(&self, name: &str, named_by: impl FnOnce() -> Result<Vec<String>>) -> Result<()> {
        let _turn = self.turn(name).await;
        let volume = self.get(name)?;
        let mut users = self.users(name);
        users.extend(self.inner.claims.of(name));
        // After the claims: who gives one up can be seen by then.
        users.extend(named_by()?);
        users.sort();
        users.dedup();
        if !users.is_empty() {
            return Err(in_use(name, &users));
        }
        let prefixed = |e: Error| e.prefix(format!("remove {name}"));
        let driver = self.inner.driver(&volume.driver).await.map_err(prefixed)?;
        let (retired, recalled, removed) = (name.to_owned(), name.to_owned(), name.to_owned());
        let is_elsewhere = driver.calls.directories().is_none();
        let first = driver.call(move |driver| match driver.directories() {
            Some(directories) => directories.retire(&retired),
            None => driver.remove(&retired),
        });
        first.await.map_err(prefixed)?;
        let key = name.to_owned();
        if let Err(error) = self.inner.store.write(move |tx| tx.delete(&VOLUMES, &key).map(drop)).await {
            let back = driver.call(move |driver| driver.directories().map_or(Ok(()), |d| d.recall(&recalled)));
            back.await.map_err(prefixed)?;
            return Err(error);
        }
        if is_elsewhere {
            return Ok(());
        }
        driver.call(move |driver| driver.remove(&removed)).await.map_err(prefixed)
    }

    /// Makes the volume's data reachable for `user`: a container's id, or a name made for one use.
    pub async fn mount(&self, name: &str, user: &str) -> Result<Mounted> {
        let _turn = self.turn(name).await;
        let volume = self.get(name)?;
        let driver = self.inner.driver(&volume.driver).await?;
        let note = MountNote { volume: name.to_owned(), user: user.to_owned() };
        let is_noted = driver.calls.is_mounted_for_use(&volume);
        if is_noted {
            let note = note.clone();
            self.inner.store.write(move |tx| tx.put(&MOUNTS, &note.key(), &note)).await?;
        }
        let was_used = self.enter(&note, if is_noted { Notified::Yes } else { Notified::No });
        if !is_noted {
            return Ok(Mounted::Directory(volume.mountpoint));
        }
        let asked = note.clone();
        let mounted = driver.call(move |driver| driver.mount(&volume, &asked.user)).await;
        if mounted.is_err() && !was_used {
            self.leave(&note);
            self.forget(&note).await?;
        }
        mounted
    }

    /// Ends `user`'s use of the volume; unknown users are fine.
    pub async fn unmount(&self, name: &str, user: &str) -> Result<()> {
        let _turn = self.turn(name).await;
        let note = MountNote { volume: name.to_owned(), user: user.to_owned() };
        let Some((others, notified)) = self.leave(&note) else { return Ok(()) };
        if notified == Notified::No {
            return Ok(());
        }
        let Some(volume) = self.find(name)? else { return self.forget(&note).await };
        let driver = self.inner.driver(&volume.driver).await?;
        let asked = note.clone();
        driver.call(move |driver| driver.unmount(&volume, &asked.user, others)).await?;
        self.forget(&note).await
    }

    /// Ends `user`'s use of those of these volumes whose drivers need not be told; the others' names.
    pub fn let_go<'n>(&self, user: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
        let mut busy = self.inner.busy();
        let mut notified = BTreeSet::new();
        for name in names {
            let Some(users) = busy.mounted.get_mut(name) else { continue };
            match users.get(user) {
                Some(Notified::Yes) => drop(notified.insert(name.to_owned())),
                _ => drop(users.remove(user)),
            }
            if users.is_empty() {
                busy.mounted.remove(name);
            }
        }
        notified.into_iter().collect()
    }

    /// Counts a user in; whether it was one before.
    fn enter(&self, note: &MountNote, notified: Notified) -> bool {
        self.inner.busy().mounted.entry(note.volume.clone()).or_default().insert(note.user.clone(), notified).is_some()
    }

    /// Counts a user out; who is left. `None`: it was none.
    fn leave(&self, note: &MountNote) -> Option<(Others, Notified)> {
        let mut busy = self.inner.busy();
        let users = busy.mounted.get_mut(&note.volume)?;
        let was = users.remove(&note.user);
        let others = if users.is_empty() { Others::None } else { Others::Remain };
        if others == Others::None {
            busy.mounted.remove(&note.volume);
        }
        was.map(|notified| (others, notified))
    }

    /// The driver has let go.
    async fn forget(&self, note: &MountNote) -> Result<()> {
        let key = note.key();
        self.inner.store.write(move |tx| tx.delete(&MOUNTS, &key).map(drop)).await
    }

    /// The volumes that are being made, mounted, unmounted or removed.
    pub fn worked_on(&self) -> HashSet<String> {
        self.inner.busy().working.clone()
    }

    /// Bytes on disk of the volume's data; `NotImplemented` where the driver cannot tell. Blocks.
    pub fn usage(&self, name: &str) -> Result<u64> {
        let volume = self.get(name)?;
        let unknown = || Error::not_implemented(format!("driver {} does not tell sizes", volume.driver));
        self.inner.directories(&volume.driver).ok_or_else(unknown)?.usage(name)
    }

    /// Users for whom the volume is mounted now, sorted.
    fn users(&self, name: &str) -> Vec<String> {
        let mut users: Vec<_> =
            self.inner.busy().mounted.get(name).into_iter().flat_map(HashMap::keys).cloned().collect();
        users.sort();
        users
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

fn no_such(name: &str) -> Error {
    let get = if name.is_empty() { "get".to_owned() } else { format!("get {name}") };
    Error::not_found(format!("{get}: no such volume"))
}

/// The row of a volume that a plugin has made by itself; its driver is to be filled in.
fn of_plugin(found: &Found) -> Volume {
    let created = model::time::parse_rfc3339(&found.created_at);
    let created = created.unwrap_or_else(|_| Timestamp::from_unix_nanos(sys::clock::System.unix_nanos()));
    let (name, mountpoint) = (found.name.clone(), found.mountpoint.clone());
    let (driver, scope) = (String::new(), Scope::Local);
    Volume { name, driver, created, labels: None, options: None, mountpoint, scope, unused: false }
}

/// The row of a volume to come; without a name it is anonymous.
fn draft(request: CreateVolume) -> Volume {
    let CreateVolume { mut name, driver, options, mut labels } = request;
    if name.is_empty() {
        name = random_name();
        labels.get_or_insert_default().insert(ANONYMOUS_LABEL.into(), String::new());
    }
    let created = Timestamp::from_unix_nanos(sys::clock::System.unix_nanos());
    let (mountpoint, scope) = (PathBuf::new(), Scope::Local);
    Volume { name, driver, created, labels, options, mountpoint, scope, unused: true }
}

#[cfg(test)]
mod tests;
