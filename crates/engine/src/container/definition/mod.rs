//! What a container is: what create decided, and what changes it (rename, connect, update). How it lives stands in
//! [`super::row`].

pub mod health;
pub mod links;
pub mod log;
pub mod modes;
pub mod mounts;
pub mod network;
pub mod parsed;
pub mod places;
pub mod security;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use image::UserRow;
use model::Result;
use model::digest::Digest;
use model::id::ContainerId;
use model::own_label::OwnLabels;
use model::time::Timestamp;
use serde::{Deserialize, Serialize};
use store::Row;

use self::modes::NetworkMode;
use self::parsed::Parsed;
use crate::held::Part;

/// What a container is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Definition {
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
    /// What is read of its configuration, once.
    #[serde(skip)]
    pub parsed: OnceLock<Parsed>,
}

impl Row for Definition {
    /// 2: the run has a row of its own; [`super::row::upgrade`] takes it from rows of version 1.
    const VERSION: u32 = 2;
}

/// The image a container was made from, pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl Definition {
    /// What its configuration says, read.
    pub fn parsed(&self) -> &Parsed {
        let tmpfs = self.mounts.iter().filter(|mount| mount.kind == MountKind::Tmpfs);
        let tmpfs = tmpfs.map(|mount| (mount.destination.as_str(), mount.spec.as_ref()));
        let read = || Parsed::of(&self.config, &self.host_config, tmpfs, self.log_attributes());
        self.parsed.get_or_init(read)
    }

    /// What the options of its log choose, which its driver takes.
    ///
    /// Errors: those of [`logs::Attributes::parse`] and of the driver's check.
    fn log_attributes(&self) -> Result<logs::Attributes> {
        let command = command_line(&self.config);
        let labels: Vec<_> = self.config.labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let subject = logs::Subject {
            id: self.id.as_str(),
            name: &self.name,
            command: &command,
            image_id: self.image.id.as_str(),
            image_name: &self.config.image,
            env: self.config.env.as_deref().unwrap_or_default(),
            labels: &labels,
        };
        let none = BTreeMap::new();
        let options = self.host_config.log_config.config.as_ref().unwrap_or(&none);
        let attributes = logs::Attributes::parse(options, &subject)?;
        logs::find(&self.host_config.log_config.kind)?.check(options)?;
        Ok(attributes)
    }

    /// The same with a change, of which everything is read anew.
    #[must_use]
    pub fn changed(&self, change: impl FnOnce(&mut Definition)) -> Definition {
        let mut changed = self.clone();
        change(&mut changed);
        changed.parsed = OnceLock::new();
        changed
    }

    /// Whose network it has.
    pub fn network_mode(&self) -> &NetworkMode {
        &self.parsed().network
    }

    /// The images that it uses, each once: its own, and those that it mounts.
    pub fn images(&self) -> Vec<&ImagePin> {
        let mut all = vec![&self.image];
        for pin in self.mounts.iter().filter_map(|mount| mount.image.as_ref()) {
            if all.iter().all(|other| other.id != pin.id) {
                all.push(pin);
            }
        }
        all
    }
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

/// A mount of a container, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRow {
    /// Bind, volume, tmpfs, image.
    pub kind: MountKind,
    /// The volume's name, or the image's as it was given; empty for others.
    pub name: String,
    /// The directory or file on the host, or the image's id; empty for tmpfs.
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
    /// The image that is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImagePin>,
}

impl MountRow {
    /// What it shows of its volume.
    pub fn part(&self) -> Part<'_> {
        Part { volume: &self.name, place: &self.source, subpath: self.subpath() }
    }

    /// The part of its volume or image that it shows; empty: all.
    pub fn subpath(&self) -> &str {
        let Some(entry) = &self.spec else { return "" };
        let of_volume = entry.volume_options.as_ref().map(|options| options.subpath.as_str());
        let of_image = entry.image_options.as_ref().map(|options| options.subpath.as_str());
        of_volume.or(of_image).unwrap_or("")
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
    /// The file system of an image.
    Image,
}

impl MountKind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
            MountKind::Image => "image",
        }
    }
}

impl Definition {
    /// Notes where its local volumes lie; `place` tells by their names.
    pub fn place_volumes(&mut self, place: impl Fn(&str) -> Option<PathBuf>) {
        let local = self.mounts.iter_mut().filter(|m| m.kind == MountKind::Volume && m.driver == volume::LOCAL);
        for mount in local {
            if let Some(path) = place(&mount.name) {
                mount.source = path.display().to_string();
            }
        }
    }

    /// Whether a sysctl of the container takes IPv6 from a link, or from all (ip-sysctl.rst, `disable_ipv6`).
    pub fn turns_ipv6_off(&self, link: &str) -> bool {
        let setting = format!("net.ipv6.conf.{link}.disable_ipv6");
        self.host_config.sysctls.iter().any(|(name, value)| name.replace('/', ".") == setting && is_on(value))
    }

    /// The volumes among its mounts.
    pub fn volumes(&self) -> impl Iterator<Item = &MountRow> {
        self.mounts.iter().filter(|mount| mount.kind == MountKind::Volume)
    }

    /// Whether an entry of `HostConfig.Tmpfs` has exactly its target: that one is mounted instead. Of two tmpfs both are.
    pub fn gives_way_to_tmpfs(&self, mount: &MountRow) -> bool {
        mount.kind != MountKind::Tmpfs && self.host_config.tmpfs.contains_key(&mount.destination)
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

/// Entrypoint and command, joined (B-cr-1).
pub fn command_line(config: &api::ContainerConfig) -> Vec<String> {
    let entrypoint = config.entrypoint.iter().flatten();
    let resets = config.entrypoint.as_deref().is_some_and(|e| e == [String::new()]);
    entrypoint.filter(|_| !resets).chain(config.cmd.iter().flatten()).cloned().collect()
}

/// Whether a sysctl's value switches on.
fn is_on(value: &str) -> bool {
    value.trim().parse::<i64>().is_ok_and(|value| value != 0)
}
