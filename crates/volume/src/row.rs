//! Volumes as they lie on the disk, and the rules about them that need no driver.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::time::Timestamp;
use model::{Error, Result};
use serde::{Deserialize, Serialize};
use store::{Row, Table, WriteTx};

use crate::scope::Scope;

/// The name of the built-in driver.
pub const LOCAL: &str = "local";
/// The label that marks a volume made without a name (B-vol-3).
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// All volumes, by name.
pub const VOLUMES: Table<Volume> = Table::new("volumes");

/// Who has which volume mounted, of those that their driver mounts: key `<user>/<volume>`.
pub const MOUNTS: Table<MountNote> = Table::new("volume-mounts");

/// A use of a volume that its driver was, or is about to be, told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountNote {
    /// The volume.
    pub volume: String,
    /// A container's id, or a name made for one use.
    pub user: String,
}

impl Row for MountNote {
    const VERSION: u32 = 1;
}

impl MountNote {
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.user, self.volume)
    }

    /// The note of this key, which says all that the row does.
    pub fn of(key: &str) -> Option<MountNote> {
        let (user, volume) = key.split_once('/')?;
        Some(MountNote { volume: volume.to_owned(), user: user.to_owned() })
    }
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
    /// Where its data lies on the host; of one that its driver mounts, where it is said to be. A row may have been written when the root was elsewhere.
    pub mountpoint: PathBuf,
    /// Who can reach it.
    #[serde(default)]
    pub scope: Scope,
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
            mountpoint: data(root, name),
            scope: Scope::Local,
            unused: false,
        }
    }

    /// The row of a volume whose root is `root` now.
    #[must_use]
    pub fn placed(self, root: &Path) -> Volume {
        match self.driver.as_str() {
            LOCAL => Volume { mountpoint: data(root, &self.name), ..self },
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

/// The directory of a volume's data, within the volume's own.
pub(crate) const DATA: &str = "_data";

/// Where the data of a local volume lies under `root`.
pub(crate) fn data(root: &Path, name: &str) -> PathBuf {
    root.join(name).join(DATA)
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

pub(crate) fn taken(existing: &Volume) -> Error {
    let Volume { name, driver, .. } = existing;
    Error::conflict(format!("driver '{driver}' already has volume '{name}': volume name must be unique"))
        .prefix(format!("create {name}"))
}
