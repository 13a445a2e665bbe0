//! From what a request mounts to rows: volumes of other containers, bind strings, `Mounts` entries, volumes of the image.
//!
//! One mount per target; later sources win over earlier ones (volumes-from < binds < mounts, B-vol-1), two of the same
//! source are refused. Volumes are made here, and taken back by create when it fails.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use ::volume::{Claim, CreateVolume};
use blocking::Blocking;
use model::id::ContainerId;
use model::mount::{self, clean};
use model::{Context, Error, Kind, Result};
use snapshot::LayerStore;

use super::sources::Sources;
use crate::Engine;
use crate::container::definition::mounts::spec_of;
use crate::container::definition::{Definition, ImagePin, MountKind, MountRow};
use crate::container::validate::Merged;
use crate::held::Held;

/// Rows, and what they need of volumes.
pub struct Resolved {
    /// Sorted by target.
    pub rows: Vec<MountRow>,
    /// To be kept until the container is there to be seen.
    pub volumes: OwnVolumes,
}

/// How far a read-only bind is read-only when the request does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadOnly {
    /// With the mounts below it, where the kernel can.
    #[default]
    Tree,
    /// It alone: what requests of an API before 1.44 mean.
    Top,
}

/// Resolves all mounts of a create request; makes volumes and missing bind directories.
pub async fn resolve(
    engine: &Arc<Engine>,
    id: &ContainerId,
    merged: &Merged,
    read_only: ReadOnly,
    sources: Sources,
) -> Result<Resolved> {
    let (driver, rows) = (merged.host_config.volume_driver.clone(), BTreeMap::new());
    let volumes = OwnVolumes::default();
    let mut table = Table { engine: engine.clone(), id: id.clone(), driver, read_only, sources, rows, volumes };
    let filled = table.fill(&merged.config, &merged.host_config).await;
    if let Err(error) = filled {
        table.volumes.take_back(engine).await;
        return Err(error);
    }
    Ok(Resolved { rows: table.rows.into_values().collect(), volumes: table.volumes })
}

/// What a container to come has of volumes.
#[derive(Default)]
pub struct OwnVolumes {
    /// Names of those that did not exist before.
    made: Vec<String>,
    /// None that it names is removed before it is there to be seen.
    claims: Vec<Claim>,
}

impl OwnVolumes {
    /// Removes what was made for a container that could not be made, unless another has taken it into use meanwhile. What is
    /// not there is no error.
    pub async fn take_back(&mut self, engine: &Arc<Engine>) {
        self.claims.clear();
        for name in &self.made {
            let removed = engine.volumes.remove(name, || crate::volume::named_by(&engine.containers, name)).await;
            match removed {
                Err(error) if !matches!(error.kind(), Kind::NotFound | Kind::Conflict) => {
                    tracing::warn!(volume = name, %error, "a volume of a failed create stays");
                }
                _ => {}
            }
        }
    }
}

struct Table {
    engine: Arc<Engine>,
    id: ContainerId,
    driver: String,
    read_only: ReadOnly,
    sources: Sources,
    rows: BTreeMap<String, MountRow>,
    volumes: OwnVolumes,
}

impl Table {
    async fn fill(&mut self, config: &api::ContainerConfig, host: &api::HostConfig) -> Result<()> {
        for from in host.volumes_from.iter().flatten() {
            self.volumes_from(from).await?;
        }
        let mut named = Vec::new();
        for bind in host.binds.iter().flatten() {
            let row = self.bind(bind).await?;
            let is_tmpfs = host.tmpfs.contains_key(&row.destination);
            claim(&mut named, &row.destination, if is_tmpfs { Taken::Yes } else { Taken::ByNames })?;
            self.rows.insert(row.destination.clone(), row);
        }
        // One at the target of a tmpfs is let pass: see `life::facts`.
        for mount in &host.mounts {
            let row = self.mount(mount).await?;
            claim(&mut named, &mount.target, Taken::ByNames)?;
            self.rows.insert(row.destination.clone(), row);
        }
        for target in config.volumes.iter().flatten().map(|(target, _)| clean(target)) {
            if !self.rows.contains_key(&target) && !host.tmpfs.contains_key(&target) {
                let row = self.anonymous(&target).await?;
                self.rows.insert(target, row);
            }
        }
        Ok(())
    }

    /// All volumes and binds of another container.
    async fn volumes_from(&mut self, text: &str) -> Result<()> {
        let (name, writable) = mount::parse_volumes_from(text)?;
        let view = crate::container::create::find_other(&self.engine.containers, &name)?.view();
        for row in &view.row.mounts {
            let mut row = row.clone();
            if row.kind == MountKind::Volume {
                self.volumes.claims.push(self.engine.volumes.claim(&row.name, self.id.as_str()).await?);
            }
            row.writable &= writable;
            row.copy_data = false;
            row.mode.clear();
            self.rows.insert(row.destination.clone(), row);
        }
        Ok(())
    }

    async fn bind(&mut self, text: &str) -> Result<MountRow> {
        let bind = mount::BindSpec::parse(text)?;
        if bind.kind == mount::MountKind::Volume {
            let mut row = match bind.source.as_str() {
                "" => self.anonymous(&bind.target).await?,
                name => self.volume(name, &bind.target, CreateVolume::default()).await?,
            };
            row.writable = bind.writable;
            row.mode = if bind.mode.is_empty() { "z".into() } else { bind.mode };
            row.copy_data &= bind.copy_data;
            return Ok(row);
        }
        let propagation = self.propagation(&bind.propagation, &bind.source)?;
        self.engine.disk.paths.make(&bind.source).await?;
        let mut row = MountRow {
            propagation,
            source: bind.source,
            mode: bind.mode,
            writable: bind.writable,
            ..blank(MountKind::Bind, &bind.target)
        };
        self.limit_read_only(&mut row);
        Ok(row)
    }

    /// Notes of a read-only bind that the mounts below it stay as they are, where the request's API means that.
    fn limit_read_only(&self, row: &mut MountRow) {
        if row.kind != MountKind::Bind || row.writable || self.read_only == ReadOnly::Tree {
            return;
        }
        let entry = row.spec.get_or_insert_with(|| api::Mount {
            kind: "bind".into(),
            source: row.source.clone(),
            target: row.destination.clone(),
            read_only: true,
            ..api::Mount::default()
        });
        entry.bind_options.get_or_insert_default().read_only_non_recursive = true;
    }

    async fn mount(&mut self, mount: &api::Mount) -> Result<MountRow> {
        mount::check(&spec_of(mount), |source| self.sources.exists(source))?;
        let target = clean(&mount.target);
        let mut row = match mount.kind.as_str() {
            "bind" => self.bind_mount(mount).await?,
            "tmpfs" => blank(MountKind::Tmpfs, &target),
            "image" => self.image(mount)?,
            "volume" => {
                let options = mount.volume_options.clone().unwrap_or_default();
                let mut driver = options.driver_config.unwrap_or_default();
                if driver.name.is_empty() {
                    driver.name = ::volume::LOCAL.into();
                }
                let request = CreateVolume {
                    name: String::new(),
                    driver: driver.name,
                    options: Some(driver.options).filter(|o| !o.is_empty()),
                    labels: Some(options.labels).filter(|l| !l.is_empty()),
                };
                let mut row = self.volume(&mount.source, &target, request).await?;
                row.anonymous = mount.source.is_empty();
                row.copy_data &= !options.no_copy;
                row
            }
            other => return Err(Error::invalid(format!("mount type unknown: {other:?}"))),
        };
        row.destination = target;
        row.writable = !mount.read_only && row.kind != MountKind::Image;
        row.from_mounts = true;
        row.spec = Some(mount.clone());
        self.limit_read_only(&mut row);
        Ok(row)
    }

    /// An image, pinned as it is now.
    fn image(&self, mount: &api::Mount) -> Result<MountRow> {
        let found = self.engine.images.resolve(&mount.source, None)?;
        let pin = ImagePin {
            id: found.id,
            reference: mount.source.clone(),
            layers: found.layers,
            platform: found.platform,
            manifest: found.manifest,
        };
        let (name, source) = (mount.source.clone(), pin.id.as_str().to_owned());
        Ok(MountRow { name, source, image: Some(pin), ..blank(MountKind::Image, &mount.target) })
    }

    async fn bind_mount(&self, mount: &api::Mount) -> Result<MountRow> {
        let options = mount.bind_options.clone().unwrap_or_default();
        let source = clean(&mount.source);
        let propagation = self.propagation(&options.propagation, &source)?;
        if options.create_mountpoint {
            self.engine.disk.paths.make(&mount.source).await?;
        }
        Ok(MountRow { source, propagation, ..blank(MountKind::Bind, &mount.target) })
    }

    fn propagation(&self, asked: &str, source: &str) -> Result<String> {
        mount::bind_propagation(asked, source, &self.engine.settings().roots.data.to_string_lossy())
    }

    async fn volume(&mut self, name: &str, target: &str, request: CreateVolume) -> Result<MountRow> {
        let driver = if request.driver.is_empty() { self.driver.clone() } else { request.driver };
        let request = CreateVolume { name: name.into(), driver, ..request };
        let (volumes, events) = (&self.engine.volumes, &self.engine.events);
        let (volume, is_new, claim) = crate::volume::create_claimed(volumes, events, request, &self.id).await?;
        self.volumes.claims.push(claim);
        if is_new {
            self.volumes.made.push(volume.name.clone());
        }
        Ok(MountRow {
            name: volume.name,
            source: volume.mountpoint.display().to_string(),
            driver: volume.driver,
            mode: "z".into(),
            copy_data: true,
            ..blank(MountKind::Volume, target)
        })
    }

    async fn anonymous(&mut self, target: &str) -> Result<MountRow> {
        let mut row = self.volume("", target, CreateVolume::default()).await?;
        row.anonymous = true;
        row.mode = String::new();
        Ok(row)
    }
}

fn blank(kind: MountKind, target: &str) -> MountRow {
    MountRow {
        kind,
        name: String::new(),
        source: String::new(),
        destination: clean(target),
        driver: String::new(),
        mode: String::new(),
        writable: true,
        propagation: String::new(),
        anonymous: false,
        from_mounts: false,
        spec: None,
        copy_data: false,
        image: None,
    }
}

/// Whether a target is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Yes,
    /// If one of those has it that are named already.
    ByNames,
}

fn claim(named: &mut Vec<String>, target: &str, taken: Taken) -> Result<()> {
    let cleaned = clean(target);
    if taken == Taken::Yes || named.contains(&cleaned) {
        return Err(Error::invalid(format!("Duplicate mount point: {target}")));
    }
    named.push(cleaned);
    Ok(())
}

/// New volumes take over what the image has at their target (B-vol-4), durably; the names of those that got something.
#[expect(clippy::disallowed_methods, reason = "on a thread of the creates")]
pub fn copy_up(_on: &Blocking, layers: &dyn LayerStore, row: &Definition, held: &Held) -> Result<Vec<String>> {
    let (mut filled, chain) = (Vec::new(), snapshot::keys(&row.image.layers));
    for mount in row.volumes().filter(|mount| mount.copy_data) {
        // A part of a volume that is not there is the start's to refuse.
        let Some(Ok(shown)) = held.of(&mount.name).map(|_| held.open(mount.part())) else { continue };
        let target = format!("/proc/self/fd/{}", shown.as_raw_fd());
        let is_empty = || fs::read_dir(&target).is_ok_and(|mut entries| entries.next().is_none());
        let attributes = || fs::metadata(&target).map(|m| (m.mode(), m.uid(), m.gid(), m.mtime(), m.mtime_nsec()));
        if is_empty() {
            let before = attributes()?;
            layers
                .copy_out(&chain, &mount.destination, target.as_ref())
                .with_context(|| format!("copying the image's {} to volume {}", mount.destination, mount.name))?;
            // The image may have an empty directory, of somebody else's.
            if !is_empty() || attributes()? != before {
                fs::File::open(&target)
                    .and_then(|volume| sys::tree::sync(volume.into()))
                    .with_context(|| format!("syncing volume {}", mount.name))?;
                filled.push(mount.name.clone());
            }
        }
    }
    Ok(filled)
}
