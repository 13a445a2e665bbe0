//! Snapshots, clones, exports and imports of volumes.
//!
//! - A snapshot is a directory of its own beside the volumes: a subvolume's snapshot on btrfs, else a copy that shares its
//!   blocks with the volume where the file system can (reflink).
//! - With `freeze` the containers that use the volume stand still for the time of the copy, at most [`FREEZE`], and none
//!   begins to use it meanwhile. They go on whatever becomes of the copy, also when the daemon dies or hangs over it.
//! - What is begun here goes on when its client leaves.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ::volume::{CreateVolume, Mounted, Snapshot, Staged, Volume, Volumes};
use api::volume::{VolumeCloneRequest, VolumeSnapshot, VolumeSnapshotRequest};
use blocking::Blocking;
use events::Events;
use model::time::Timestamp;
use model::{Context, Error, Kind, Result};
use snapshot::Extraction;
use sys::rooted::Rooted;
use sys::tree;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::freeze::Frozen;
use super::{publish_create, wire};
use crate::Engine;
use crate::disk::Disk;

/// How long containers may stand still for a snapshot.
pub const FREEZE: Duration = Duration::from_secs(30);
/// What a user is called that mounts a volume to copy it.
const USER: &str = "copy";

/// A snapshot to come.
#[derive(Clone, Debug, Default)]
pub struct SnapshotArgs {
    /// What it is called.
    pub name: String,
    /// Of which volume.
    pub volume: String,
    /// Containers that use the volume stand still.
    pub freeze: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The schedule that takes it; empty: somebody does.
    pub schedule: String,
}

impl SnapshotArgs {
    /// As a client asks for it.
    pub fn of(volume: &str, request: VolumeSnapshotRequest) -> SnapshotArgs {
        SnapshotArgs {
            name: request.name,
            volume: volume.to_owned(),
            freeze: request.freeze,
            labels: request.labels.unwrap_or_default(),
            schedule: String::new(),
        }
    }
}

/// A volume that is mounted to be copied, until this is dropped.
struct Used {
    volumes: Volumes,
    volume: Volume,
    user: String,
    mounted: Mounted,
    runtime: Handle,
}

impl Used {
    async fn begin(volumes: &Volumes, name: &str) -> Result<Used> {
        let (volume, _) = volumes.look_up(name).await?;
        let user = format!("{USER}-{}", model::id::ContainerId::from_bytes(sys::random::bytes32()).short());
        let mounted = volumes.mount(name, &user).await?;
        Ok(Used { volumes: volumes.clone(), volume, user, mounted, runtime: Handle::current() })
    }

    /// The top of its data, open for reading. Blocks.
    fn open(&self) -> Result<OwnedFd> {
        let opened = self.mounted.open("").and_then(|place| tree::open_dir(place, c"."));
        opened.with_context(|| format!("opening volume {}", self.volume.name))
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        // Of a directory the use has ended at once, so that whoever is answered may remove the volume.
        if self.volumes.let_go(&self.user, std::iter::once(self.volume.name.as_str())).is_empty() {
            return;
        }
        let (volumes, name, user) = (self.volumes.clone(), self.volume.name.clone(), self.user.clone());
        self.runtime.spawn(async move {
            if let Err(error) = volumes.unmount(&name, &user).await {
                tracing::warn!(volume = name, %error, "a volume that was copied stays mounted");
            }
        });
    }
}

/// What goes on when who asked for it leaves.
async fn unbroken<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(Error::system("internal error: a copy of a volume failed")))
}

/// Takes a snapshot. Event: snapshot; pause and unpause of the containers that are frozen.
///
/// Errors: `NotFound` for the volume, `InvalidParameter` and `Conflict` for the name; `System` when containers cannot be frozen,
/// or not for as long as it takes.
pub async fn take(engine: &Arc<Engine>, args: SnapshotArgs) -> Result<VolumeSnapshot> {
    let engine = engine.clone();
    unbroken(async move {
        let (volumes, name) = (engine.volumes.clone(), args.name.clone());
        let walks = &engine.disk.walks;
        walks.run(move |_| volumes.check_snapshot_free(&name)).await?;
        let used = Used::begin(&engine.volumes, &args.volume).await?;
        // Before anything stands still: it must not wait for other copies.
        let turn = walks.turn().await;
        let (mut frozen, mut hold, mut until) = (None, None, None);
        if args.freeze {
            hold = Some(engine.volumes.hold(&args.volume).await);
            frozen = Some(Frozen::begin(&engine.containers, &args.volume).await?);
            until = Some(Instant::now() + FREEZE);
        }
        let (volumes, events) = (engine.volumes.clone(), engine.events.clone());
        let made = turn.run(move |_| {
            let created = Timestamp::from_unix_nanos(sys::clock::System.unix_nanos());
            let staged = volumes.stage()?;
            duplicate(&used.open()?, &staged, until).with_context(|| format!("copying volume {}", args.volume))?;
            let driver = used.volume.driver.clone();
            Ok((volumes, staged, created, driver, args))
        });
        let made = made.await;
        let stood = frozen.as_ref().map_or(Ok(()), Frozen::check);
        // Before they go on: an actor may wait for the volume.
        drop(hold);
        if let Some(frozen) = frozen {
            frozen.thaw().await;
        }
        let (volumes, staged, created, driver, args) = made?;
        stood.with_context(|| format!("copying volume {}", args.volume))?;
        let SnapshotArgs { name, volume, labels, schedule, .. } = args;
        let snapshot = Snapshot { name, volume, created, labels, schedule };
        let kept = walks.run(move |_| volumes.keep_snapshot(staged, &snapshot).map(|()| snapshot)).await?;
        let attributes = [("driver", driver), ("snapshot", kept.name.clone()), ("schedule", kept.schedule.clone())];
        events.publish(
            "volume",
            "snapshot",
            &kept.volume,
            attributes.into_iter().filter(|(_, value)| !value.is_empty()),
        );
        Ok(shown(&kept))
    })
    .await
}

/// Copies a directory to the data of what is staged.
fn duplicate(source: &OwnedFd, staged: &Staged, until: Option<Instant>) -> std::io::Result<()> {
    if sys::btrfs::is_subvolume(source).unwrap_or(false) {
        let place = staged.open().map_err(std::io::Error::other)?;
        match sys::btrfs::snapshot(source, &place, c"_data") {
            Ok(()) => return Ok(()),
            Err(error) => tracing::debug!(%error, "no snapshot of a subvolume: it is copied"),
        }
    }
    let target = staged.make_data().map_err(std::io::Error::other)?;
    snapshot::copy_tree(source, &target, &|| match until {
        Some(until) if Instant::now() >= until => {
            let text = format!("it takes more than {} s, and no container is frozen for longer", FREEZE.as_secs());
            Err(std::io::Error::other(text))
        }
        _ => Ok(()),
    })
}

/// All snapshots, or those of a volume; `measure`: with the bytes of their content.
pub async fn list(volumes: &Volumes, disk: &Disk, volume: &str, measure: Measure) -> Result<Vec<VolumeSnapshot>> {
    let (volumes, wanted) = (volumes.clone(), volume.to_owned());
    let list = move |_: &Blocking| {
        let mut all = volumes.snapshots()?;
        all.retain(|snapshot| wanted.is_empty() || snapshot.volume == wanted);
        let size = |name: &str| match measure {
            Measure::Content => volumes.snapshot_usage(name).map_or(-1, |size| size as i64),
            Measure::Nothing => -1,
        };
        Ok(all.iter().map(|one| VolumeSnapshot { size: size(&one.name), ..shown(one) }).collect())
    };
    disk.walks.run(list).await
}

/// Whether a list tells sizes, for which everything is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// It does.
    Content,
    /// Size is -1.
    Nothing,
}

/// Removes a snapshot. Event: snapshot-remove.
///
/// Errors: `NotFound`; `Conflict` while it is read.
pub async fn remove(volumes: &Volumes, disk: &Disk, events: &Events, name: &str) -> Result<()> {
    let (volumes, wanted) = (volumes.clone(), name.to_owned());
    let removed = disk.walks.run(move |_| volumes.remove_snapshot(&wanted)).await?;
    events.publish("volume", "snapshot-remove", &removed.volume, [("snapshot", removed.name)]);
    Ok(())
}

/// Makes a volume that holds what a snapshot does. Events: create, clone.
///
/// Errors: `NotFound` for the snapshot, `Conflict` for a volume that there is.
pub async fn clone(engine: &Arc<Engine>, snapshot: &str, request: VolumeCloneRequest) -> Result<api::Volume> {
    let (engine, snapshot) = (engine.clone(), snapshot.to_owned());
    unbroken(async move {
        check_new(&engine.volumes, &request.name).await?;
        let (volumes, wanted) = (engine.volumes.clone(), snapshot.clone());
        let copy = move |_: &Blocking| {
            let open = volumes.open_snapshot(&wanted)?;
            let staged = volumes.stage()?;
            duplicate(&open.data, &staged, None).with_context(|| format!("copying snapshot {wanted}"))?;
            Ok(staged)
        };
        let staged = engine.disk.walks.run(copy).await?;
        let request = CreateVolume { name: request.name, labels: request.labels, ..CreateVolume::default() };
        commit_copy(&engine.volumes, &engine.events, staged, request, Origin::Snapshot(snapshot)).await
    })
    .await
}

/// Refuses what cannot become a volume before much is done for it.
async fn check_new(volumes: &Volumes, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("a volume that is cloned or imported needs a name"));
    }
    volumes.check_free(name).await
}

/// What a volume is made of.
enum Origin {
    /// The snapshot of this name.
    Snapshot(String),
    /// An archive of a client's.
    Archive,
}

async fn commit_copy(
    volumes: &Volumes,
    events: &Events,
    staged: Staged,
    request: CreateVolume,
    origin: Origin,
) -> Result<api::Volume> {
    let volume = volumes.put_in_place(staged, request).await?;
    publish_create(events, &volume);
    let driver = ("driver", volume.driver.clone());
    match origin {
        Origin::Snapshot(name) => events.publish("volume", "clone", &volume.name, [driver, ("snapshot", name)]),
        Origin::Archive => events.publish("volume", "import", &volume.name, [driver]),
    }
    Ok(wire(&volume))
}

/// What is exported: a volume, mounted until this is dropped, or a snapshot.
pub struct Export(Source);

enum Source {
    Volume(Used),
    Snapshot(::volume::OpenSnapshot),
}

impl Export {
    /// A volume as it is while it is read.
    pub async fn of_volume(volumes: &Volumes, events: &Events, name: &str) -> Result<Export> {
        let used = Used::begin(volumes, name).await?;
        events.publish("volume", "export", name, [("driver", used.volume.driver.clone())]);
        Ok(Export(Source::Volume(used)))
    }

    /// A snapshot.
    pub async fn of_snapshot(volumes: &Volumes, disk: &Disk, events: &Events, name: &str) -> Result<Export> {
        let (volumes, wanted) = (volumes.clone(), name.to_owned());
        let open = disk.walks.run(move |_| volumes.open_snapshot(&wanted)).await?;
        let attributes = [("snapshot", open.snapshot.name.clone())];
        events.publish("volume", "export", &open.snapshot.volume, attributes);
        Ok(Export(Source::Snapshot(open)))
    }

    /// Writes it as a tar in zstd. On a thread of its own.
    pub fn write(self, out: &mut dyn Write) -> Result<()> {
        let mut coded = snapshot::Zstd::new(out)?;
        match &self.0 {
            Source::Volume(used) => snapshot::pack_tree(&used.open()?, &mut coded)?,
            Source::Snapshot(open) => snapshot::pack_tree(&open.data, &mut coded)?,
        }
        Ok(coded.finish().map(drop)?)
    }
}

/// A volume that is being imported: [`Import::begin`], [`Import::unpack`] on a thread of its own, [`Import::finish`].
pub struct Import {
    volumes: Volumes,
    request: CreateVolume,
}

impl Import {
    /// Refuses what cannot become a volume.
    pub async fn begin(volumes: &Volumes, name: &str, labels: Option<BTreeMap<String, String>>) -> Result<Import> {
        check_new(volumes, name).await?;
        let request = CreateVolume { name: name.to_owned(), labels, ..CreateVolume::default() };
        Ok(Import { volumes: volumes.clone(), request })
    }

    /// Unpacks a tar, compressed or not. Blocks.
    ///
    /// Errors: `InvalidParameter` for what is none.
    pub fn unpack(self, archive: impl Read + Send) -> Result<(CreateVolume, Staged)> {
        let staged = self.volumes.stage()?;
        let root = Rooted::from_fd(staged.make_data()?);
        let how = Extraction { whole: true, ..Extraction::default() };
        let tar = snapshot::decompress(snapshot::to_layer(archive)?)?;
        snapshot::extract(&root, std::path::Path::new("/"), tar, how).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => Kind::InvalidParameter,
                _ => Kind::System,
            };
            Error::from(error).prefix(format!("importing volume {}", self.request.name)).with_kind(kind)
        })?;
        Ok((self.request, staged))
    }

    /// Makes it a volume. Events: create, import.
    pub async fn finish(
        volumes: &Volumes,
        events: &Events,
        (request, staged): (CreateVolume, Staged),
    ) -> Result<api::Volume> {
        let (volumes, events) = (volumes.clone(), events.clone());
        let committed = async move { commit_copy(&volumes, &events, staged, request, Origin::Archive).await };
        unbroken(committed).await
    }
}

fn shown(snapshot: &Snapshot) -> VolumeSnapshot {
    VolumeSnapshot {
        created_at: snapshot.created.rfc3339_nano(),
        labels: snapshot.labels.clone(),
        name: snapshot.name.clone(),
        schedule: snapshot.schedule.clone(),
        size: -1,
        volume: snapshot.volume.clone(),
    }
}
