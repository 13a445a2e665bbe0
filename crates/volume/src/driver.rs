//! What a driver of volumes does. The engine calls it through [`crate::Volumes`], on threads of the driver's own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::Result;
use serde_json::Value;

use crate::mounted::Mounted;
use crate::row::Volume;
use crate::scope::Scope;

/// Makes, mounts and removes the data of volumes.
///
/// Life cycle: `create` → any number of `mount`/`unmount` pairs → `remove`. All calls block; `Volumes` sees to it that
/// none run at once for one volume.
pub trait VolumeDriver: Send + Sync {
    /// The name users give (`local`).
    fn name(&self) -> &str;
    /// `local`, or `global`: the same volumes are seen by every host that has the driver.
    fn scope(&self) -> Scope {
        Scope::Local
    }
    /// Makes the volume's data; existing data of that name is kept. Options and the name are checked before.
    fn create(&self, name: &str, options: &BTreeMap<String, String>) -> Result<()>;
    /// Where the data is, or will be once mounted; empty where nobody can tell yet.
    fn mountpoint(&self, name: &str) -> Result<PathBuf>;
    /// Whether a use of the volume begins and ends with a call of the driver. Such uses are recorded before they begin.
    fn is_mounted_for_use(&self, volume: &Volume) -> bool;
    /// Makes the data reachable for a user, which may have it mounted already.
    fn mount(&self, volume: &Volume, user: &str) -> Result<Mounted>;
    /// Ends a user's use; `others` tells whether anybody else still has it mounted. What is not mounted is no error.
    fn unmount(&self, volume: &Volume, user: &str, others: Others) -> Result<()>;
    /// Removes the data, retired or not; absent is fine.
    fn remove(&self, name: &str) -> Result<()>;
    /// What a driver offers whose volumes are directories of the data root.
    fn directories(&self) -> Option<&dyn Directories> {
        None
    }
    /// What a driver offers whose volumes are kept elsewhere.
    fn catalogue(&self) -> Option<&dyn Catalogue> {
        None
    }
}

/// Whether a volume has users besides the one that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// It is in use.
    Remain,
    /// That was the last one.
    None,
}

/// Volumes that are directories of this host: they are taken out of their place before their row goes, synced, measured.
pub trait Directories {
    /// Takes the data out of its place, on its way to [`VolumeDriver::remove`]; absent is fine.
    fn retire(&self, name: &str) -> Result<()>;
    /// Undoes `retire`.
    fn recall(&self, name: &str) -> Result<()>;
    /// Makes the volume's place durable, empty as it is.
    fn make_durable(&self, name: &str) -> Result<()>;
    /// Bytes on disk.
    fn usage(&self, name: &str) -> Result<u64>;
}

/// Volumes that another program knows: they may come and go without the engine.
pub trait Catalogue {
    /// One volume; `None`: the driver knows it not.
    fn get(&self, name: &str) -> Result<Option<Found>>;
    /// All volumes.
    fn list(&self) -> Result<Vec<Found>>;
}

/// A volume as its driver describes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Empty when it is not mounted.
    pub mountpoint: PathBuf,
    /// RFC 3339; empty when the driver does not tell.
    pub created_at: String,
    /// Free words of the driver's.
    pub status: BTreeMap<String, Value>,
}
