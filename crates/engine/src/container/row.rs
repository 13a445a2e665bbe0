//! The persisted form of a container: what `create` decided and how its last run stands.
//!
//! One row per container in table `containers`, keyed by the full id. The row holds the wire `Config` and `HostConfig`
//! as merged by create, since inspect echoes them; everything that can be derived (status text, flags) is not stored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use image::UserRow;
use model::Result;
use model::digest::Digest;
use model::id::ContainerId;
use model::lifecycle::State;
use model::own_label::OwnLabels;
use model::time::Timestamp;
use run::Place;
use serde::{Deserialize, Serialize};
use store::{Row, Table, WriteTx};

use crate::held::Part;

/// All containers, by full id.
pub const CONTAINERS: Table<ContainerRow> = Table::new("containers");

/// A container as it lies on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerRow {
    /// 64 hex digits.
    pub id: ContainerId,
    /// Without the leading slash.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// The merged portable configuration.
    pub config: api::ContainerConfig,
    /// The merged host configuration.
    pub host_config: api::HostConfig,
    /// What its labels ask of the engine.
    #[serde(default)]
    pub own_labels: OwnLabels,
    /// The endpoints asked for, by network name (or id, where that network was not there).
    pub networks: BTreeMap<String, api::EndpointSettings>,
    /// They are all that it is to be on; rows of older daemons do not name the network of the mode.
    #[serde(default)]
    pub networks_named: bool,
    /// The image it was made from.
    pub image: ImagePin,
    /// What is mounted where, besides the root file system.
    pub mounts: Vec<MountRow>,
    /// The storage driver that holds its writable layer.
    pub storage: String,
    /// How it lives.
    pub state: State,
    /// The figures of its runs.
    pub run: RunRow,
    /// Its connections while it runs.
    #[serde(default)]
    pub endpoints: Vec<network::Endpoint>,
    /// The link of its sandbox that is being made or taken away: a daemon that finds it so brings the sandbox in line with
    /// the endpoints.
    #[serde(default)]
    pub unsettled_link: Option<String>,
}

impl Row for ContainerRow {
    const VERSION: u32 = 1;
}

/// The image a container was made from, pinned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImagePin {
    /// The image's id (the digest of its manifest or index).
    pub id: Digest,
    /// As the user wrote it at create.
    pub reference: String,
    /// Its layers' diff ids, lowest first.
    pub layers: Vec<Digest>,
    /// `linux/amd64`.
    pub platform: String,
    /// The chosen manifest: media type, digest, size in bytes.
    pub manifest: Option<(String, Digest, u64)>,
}

/// The figures of a container's runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunRow {
    /// Start of the newest run; zero when it never ran.
    pub started_at: Timestamp,
    /// End of the newest finished run; zero when none finished.
    pub finished_at: Timestamp,
    /// The newest run's exit code, or 126/127/128 of a failed start.
    pub exit_code: i32,
    /// Why the newest start failed, in the client's words; or what went wrong at the newest run's end.
    pub error: String,
    /// The newest start failed.
    #[serde(default)]
    pub start_failed: bool,
    /// Whether the kernel killed it for memory.
    pub oom_killed: bool,
    /// Restarts by policy since the last manual start.
    pub restart_count: u32,
    /// It ran at least once: the daemon's start considers its restart policy.
    pub was_started: bool,
    /// Files were copied into it before it ever ran: its writable layer holds something.
    #[serde(default)]
    pub was_written: bool,
    /// The user stopped it: `unless-stopped` does not start it again.
    pub manually_stopped: bool,
    /// Where the newest run has its traces; rows of older daemons do not tell.
    #[serde(default)]
    pub place: Option<Place>,
    /// It is frozen only while it is being committed: a daemon that finds it so lets it go on.
    #[serde(default)]
    pub frozen_in_passing: bool,
}

/// A mount of a container, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRow {
    /// Bind, volume, tmpfs.
    pub kind: MountKind,
    /// The volume's name; empty for others.
    pub name: String,
    /// The directory or file on the host; empty for tmpfs.
    pub source: String,
    /// The absolute path in the container.
    pub destination: String,
    /// The volume's driver; empty for others.
    pub driver: String,
    /// The mode as given (`ro`, `z`, …), echoed by inspect.
    pub mode: String,
    /// Whether it may be written.
    pub writable: bool,
    /// `rprivate`, `rslave`, …; empty for volumes and tmpfs.
    pub propagation: String,
    /// It was made for this container alone and goes with it.
    pub anonymous: bool,
    /// Given as `Mounts` entry (true) or as a bind string, a volume of the image, … (false).
    pub from_mounts: bool,
    /// The `Mounts` entry behind it, for options that have no other place.
    pub spec: Option<api::Mount>,
    /// Volume data is copied from the image when the volume is empty.
    pub copy_data: bool,
}

impl MountRow {
    /// What it shows of its volume.
    pub fn part(&self) -> Part<'_> {
        Part { volume: &self.name, place: &self.source, subpath: self.subpath() }
    }

    /// The part of its volume that it shows; empty: all.
    pub fn subpath(&self) -> &str {
        let options = self.spec.as_ref().and_then(|entry| entry.volume_options.as_ref());
        options.map_or("", |options| options.subpath.as_str())
    }
}

/// What kind of thing is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the host.
    Bind,
    /// A directory of a volume driver.
    Volume,
    /// Memory.
    Tmpfs,
}

impl MountKind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
        }
    }
}

/// Writes a container's row, and that it uses its image.
pub fn put(tx: &mut WriteTx<'_, '_>, row: &ContainerRow) -> Result<()> {
    image::put_user(tx, &row.image.id, row.id.as_str(), &row.image.user())?;
    tx.put(&CONTAINERS, row.id.as_str(), row)
}

/// Deletes a container's row, and that it uses its image.
pub fn delete(tx: &mut WriteTx<'_, '_>, row: &ContainerRow) -> Result<()> {
    image::delete_user(tx, &row.image.id, row.id.as_str())?;
    tx.delete(&CONTAINERS, row.id.as_str()).map(drop)
}

impl ImagePin {
    /// As the index of who uses which image has it.
    pub fn user(&self) -> UserRow {
        UserRow {
            reference: self.reference.clone(),
            manifest: self.manifest.as_ref().map(|(_, digest, _)| digest.clone()),
            layers: self.layers.clone(),
        }
    }
}

impl ContainerRow {
    /// Notes where its local volumes lie; `place` tells by their names.
    pub fn place_volumes(&mut self, place: impl Fn(&str) -> Option<PathBuf>) {
        let local = self.mounts.iter_mut().filter(|m| m.kind == MountKind::Volume && m.driver == volume::LOCAL);
        for mount in local {
            if let Some(path) = place(&mount.name) {
                mount.source = path.display().to_string();
            }
        }
    }

    /// The volumes among its mounts.
    pub fn volumes(&self) -> impl Iterator<Item = &MountRow> {
        self.mounts.iter().filter(|mount| mount.kind == MountKind::Volume)
    }

    /// Attributes of every event of this container: its labels, its image, its name.
    pub fn event_attributes(&self) -> BTreeMap<String, String> {
        let mut attributes: BTreeMap<String, String> =
            self.config.labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        attributes.insert("image".into(), self.config.image.clone());
        attributes.insert("name".into(), self.name.clone());
        attributes
    }

    /// Whether the container removes itself after its run.
    pub fn auto_remove(&self) -> bool {
        self.host_config.auto_remove
    }
}
