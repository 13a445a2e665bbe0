//! Start-up and shutdown of the engine, in the order of the reference's daemon.
//!
//! data root → lock → store → images → volumes → containers recovered → networks → restart policies. Recovery is the
//! same life as any other: a probe tells what became of each container, `model::lifecycle` says what that means, the
//! actor goes on from there. The end has two halves, [`shutdown`] and [`rest`], with the last answers between them.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::lock::RwLock;

use ::build::Builder;
use blocking::{Class, Work};
use events::Events;
use model::fault::Faults;
use model::{Context, Error, Result};
use rustix::fs::{FlockOperation, flock};
use snapshot::Snapshots;
use store::Store;

use crate::Engine;
use crate::container::Containers;
use crate::container::life::{durable, launch, order, recover, watch};
use crate::container::read::stats::sampler::{Machine, Sampler};
use crate::container::read::users;
use crate::container::registry::arguments::{self, StopPlan};
use crate::container::registry::command::Command;
use crate::container::row::{self, ContainerRow};
use crate::container::unloaded::Unloaded;
use crate::ending::{self, LastEnd};
use crate::host::Host;
use crate::quarantine::Quarantine;
use crate::root;
use crate::settings::{Roots, Settings};

/// Seconds that a shutdown gives a container beyond its own time to stop.
const SHUTDOWN_GRACE: i64 = 5;

/// How long starts, removals and the like may still take when everything else has ended.
const REST_WAIT: Duration = Duration::from_secs(10);

/// An engine that is up, and the lock that keeps its data root to it.
pub struct Booted {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Held as long as the daemon lives.
    pub lock: File,
    /// Puts back what others change of the networks, as long as the daemon lives.
    pub watches: Vec<::network::Watch>,
}

/// Brings the engine up. Everything that was acknowledged before a crash is there afterwards.
pub async fn boot(settings: Settings, min_api_version: String, faults: Faults) -> Result<Booted> {
    prepare_roots(&settings.roots)?;
    let lock = lock_root(&settings.roots).await?;
    // Before anything is removed.
    let quarantine = Quarantine::new(&settings.roots.data);
    let store = root::open_store(&settings.roots.data, &settings.roots.exec, &quarantine)?;
    // Not before the lock: until then it may be another daemon's.
    let trash = snapshot::Trash::open(&settings.roots.data.join("tmp"))?;
    quarantine.look_over(&store, |id| root::is_there(&settings.roots.run(id)).is_ok_and(|there| !there)).await?;
    let engine_id = root::engine_id(&settings.roots.data, &quarantine)?;
    let host = Host::read(engine_id, min_api_version, faults, quarantine)?;
    tracing::info!(path = %settings.roots.data.display(), "metadata store is open");
    let snapshots = snapshot::open(&settings.roots.data, &settings.services.storage_driver)?;
    let images = open_images(&settings, &host.faults, &store, &snapshots)?;
    tracing::info!(driver = snapshots.roots.name(), images = images.count(), "images are ready");
    let plugins = plugin::Plugins::new(plugin::Places::default(), tokio::runtime::Handle::current());
    let volumes = open_volumes(&settings.roots, &host, &store, plugins.clone())?;
    let upgraded = row::upgrade(&store).await?;
    if upgraded > 0 {
        tracing::info!(containers = upgraded, "rows of an earlier version are brought into today's form");
    }
    let (rows, unloaded) = load_containers(&store, &volumes)?;
    let users = rows
        .iter()
        .flat_map(|row| row.images().into_iter().map(|pin| (image::user_key(&pin.id, row.id.as_str()), pin.user())));
    let spared = |id: &str| unloaded.iter().any(|one| one.id.as_str() == id);
    let repaired = image::repair_users(&store, users.collect(), spared).await?;
    host.quarantine.look_over_users(&store)?;
    if repaired > 0 {
        tracing::info!(rows = repaired, "the index of who uses which image is made anew");
    }
    let (local_ipv6, names) = (root::local_ipv6(&host.engine_id), Some(settings.roots.names()));
    let config = ::network::NetworkConfig { local_ipv6, names, ..settings.services.network.clone() };
    let network_store = store.clone();
    let threads = Class::new(Work::Background);
    let networks = threads.run(move |_| ::network::Networks::open(config, &network_store)).await?;
    let networks = Arc::new(networks.with_plugins(plugins));
    let events = open_journal(&settings.roots, &store).await?;
    let machine = Machine { cgroups: host.cgroups.clone(), memory: host.memory };
    let images = Arc::new(images);
    let engine = Arc::new(Engine {
        builder: open_builder(&settings, &store, &images, &snapshots)?.into(),
        containers: Containers::new(trash, monitor::Spares::new(host.executable.clone()), unloaded),
        images,
        networks,
        volumes,
        stats: Sampler::new(machine),
        events,
        snapshots,
        disk: Default::default(),
        store,
        host,
        settings: RwLock::new(Arc::new(settings)),
    });
    let last = ending::take_last_end(&engine.store).await?;
    let watches = take_up(&engine, rows, last).await?;
    launch::replenish(&engine).await;
    let weak = Arc::downgrade(&engine);
    let users = move || weak.upgrade().map(|engine| users::users(&engine.images, &engine.containers));
    watch::start(&engine);
    crate::volume::upkeep::start(&engine);
    image::collect::start(&engine.images, engine.events.clone(), users);
    Ok(Booted { engine, lock, watches })
}

fn open_builder(
    settings: &Settings,
    store: &Store,
    images: &Arc<image::Images>,
    snapshots: &Snapshots,
) -> Result<Builder> {
    let builder = Builder::open(&settings.roots.data, store.clone(), images.clone(), snapshots.clone())?;
    builder.replace_settings(settings.services.builds.clone());
    Ok(builder)
}

fn open_images(settings: &Settings, faults: &Faults, store: &Store, snapshots: &Snapshots) -> Result<image::Images> {
    let registries = registry::Registries::new(settings.services.registries.clone());
    let mut images = image::Images::open(&settings.roots.data, store.clone(), snapshots.layers.clone(), registries)?;
    images.faults = faults.clone();
    images.replace_policy(settings.services.signature_policy.clone());
    images.replace_rules(settings.services.image_gc.clone());
    Ok(images)
}

fn open_volumes(roots: &Roots, host: &Host, store: &Store, plugins: plugin::Plugins) -> Result<::volume::Volumes> {
    let keeper = ::volume::Keeper::open(roots.exec.join("volumes"), host.executable.clone());
    let keeper = keeper.context("finding what keeps the mounts of volumes")?;
    let volumes = ::volume::Volumes::open(&roots.data.join("volumes"), store.clone(), keeper, plugins)?;
    tracing::info!("volumes are ready");
    for why in volumes.unreadable_snapshots()? {
        host.quarantine.report(format!("{why}: it is not listed; its data is as it was"));
    }
    Ok(volumes)
}

/// Makes the roots with their permissions: data root 0710, exec root 0711 (B-dm-1).
#[expect(clippy::disallowed_methods, reason = "before anybody is served")]
fn prepare_roots(roots: &Roots) -> Result<()> {
    let directories = [
        (roots.data.clone(), 0o710),
        (roots.data.join("containers"), 0o710),
        (roots.data.join("tmp"), 0o700),
        (roots.exec.clone(), 0o711),
        (run::place::namespaces(&roots.exec), 0o755),
    ];
    for (path, mode) in directories {
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&path)
            .with_context(|| format!("creating {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("setting the mode of {}", path.display()))?;
    }
    let tmp = &roots.tmp;
    DirBuilder::new().recursive(true).mode(0o700).create(tmp).with_context(|| format!("creating {}", tmp.display()))
}

/// How often the held lock of a data root is tried again, and the pause before each: a daemon that was killed in the
/// middle of starting a process leaves its descriptors to it until that has begun, which a busy machine may put off for
/// seconds.
pub const LOCK_ATTEMPTS: (u32, Duration) = (250, Duration::from_millis(20));

/// Opens the journal of events, with those that only the store has.
async fn open_journal(roots: &Roots, store: &store::Store) -> Result<Events> {
    let place = events::Place {
        dir: roots.data.join("events"),
        session: roots.exec.join("events-session"),
        quarantine: roots.data.join("quarantine"),
        bytes: events::JOURNAL_BYTES,
    };
    let store = store.clone();
    let events = Class::new(Work::Events).turn().await.run(move |on| Events::open(&place, &store, on)).await?;
    events.keep();
    Ok(events)
}

/// One daemon per data root. What it holds tells commands where to find the daemon.
#[expect(clippy::disallowed_methods, reason = "before anybody is served")]
async fn lock_root(roots: &Roots) -> Result<File> {
    let root = &roots.data;
    let path = root.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    for _ in 0..LOCK_ATTEMPTS.0 {
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            note_exec_root(&file, &roots.exec);
            return Ok(file);
        }
        tokio::time::sleep(LOCK_ATTEMPTS.1).await;
    }
    let text = format!("the data root {} is in use by another daemon (its lock is held)", root.display());
    Err(Error::conflict(text))
}

/// Commands that are told the data root only find the daemon by this. On a full disk it is written into the block that
/// the last daemon's note has: given up first, the block may not be had again.
fn note_exec_root(lock: &File, exec_root: &Path) {
    let absolute = std::path::absolute(exec_root).unwrap_or_else(|_| exec_root.to_owned());
    let note = [absolute.as_os_str().as_bytes(), b"\n"].concat();
    let written = lock.write_all_at(&note, 0).and_then(|()| lock.set_len(note.len() as u64));
    if let Err(error) = written {
        tracing::warn!(%error, "the lock does not tell where this daemon is");
    }
}

/// Reads all rows; their volumes lie where this root has them, wherever it was when they were made.
fn load_containers(store: &store::Store, volumes: &::volume::Volumes) -> Result<(Vec<ContainerRow>, Vec<Unloaded>)> {
    let (mut rows, unloaded) = row::load(store)?;
    for row in &mut rows {
        Arc::make_mut(&mut row.definition).place_volumes(|name| Some(volumes.place(name)));
    }
    Ok((rows, unloaded))
}

/// Finds out what became of every container and lets its actor go on.
async fn take_up(engine: &Arc<Engine>, rows: Vec<ContainerRow>, last: LastEnd) -> Result<Vec<::network::Watch>> {
    let unloaded = &engine.containers.unloaded;
    let ids = rows.iter().map(|row| &row.id).chain(unloaded.iter().map(|one| &one.id));
    let known: HashSet<String> = ids.map(|id| id.as_str().to_string()).collect();
    let (snapshots, settings) = (engine.snapshots.clone(), engine.settings());
    let threads = &engine.containers.threads.background;
    let put_right = threads.run(move |_| {
        durable::put_right(&*snapshots.roots, &settings.roots, &rows);
        Ok(rows)
    });
    let rows = put_right.await?;
    let mut starts = tokio::task::JoinSet::new();
    for row in rows {
        if row.storage != engine.snapshots.roots.name() {
            tracing::warn!(
                container = row.id.short(),
                driver = row.storage,
                "not loaded: it belongs to another storage driver"
            );
            continue;
        }
        if let Err(error) = engine.containers.reserve(&row.name, &row.id) {
            tracing::error!(container = row.id.short(), %error, "not loaded: its name is taken");
            continue;
        }
        starts.spawn(recover::recover(engine.clone(), row, last));
    }
    let mut recovered = Vec::new();
    while let Some(one) = starts.join_next().await {
        recovered.push(one.map_err(|e| Error::system("recovering containers").with_source(e))?);
    }
    tracing::info!(containers = known.len(), "containers are recovered");
    recover::sweep(engine, &known).await;
    let mut using: Vec<_> = recovered.iter().filter_map(recover::Recovered::uses_volumes).collect();
    for one in unloaded {
        using.push((one.id.as_str().to_owned(), engine.volumes.noted_of(one.id.as_str())?));
    }
    engine.volumes.recover(&using).await?;
    let live = recovered.iter().flat_map(recover::Recovered::endpoints);
    // What of the unloaded runs keeps its connections.
    let live: Vec<_> = live.chain(unloaded.iter().flat_map(|one| &one.endpoints)).cloned().collect();
    let networks = engine.networks.clone();
    let watches = threads.run(move |_| networks.reconcile(&live).and_then(|()| networks.watch())).await?;
    tracing::info!("networks are ready");
    engine.images.sweep()?;
    recovered.into_iter().for_each(recover::Recovered::live);
    Ok(watches)
}

/// The API serves: containers do what their policies say, in the order of what they need.
pub async fn begin(containers: &Containers, settings: &Settings) {
    order::begin(containers, settings.containers.start_wait).await;
}

/// The first half of the end: nothing begins any more, and all containers are stopped unless they may live on (B-sg-3).
/// One that is being started is stopped when it runs.
pub async fn shutdown(containers: &Containers, settings: &Settings) {
    containers.ending.begin();
    if settings.daemon.live_restore {
        return;
    }
    let mut stops = tokio::task::JoinSet::new();
    for handle in containers.all() {
        let plan = StopPlan::at_shutdown(&handle.view().row, &settings.containers);
        stops.spawn(async move { handle.ask(|reply| Command::Shutdown { plan, reply }).await });
    }
    let all = async { while stops.join_next().await.is_some() {} };
    match shutdown_limit(containers, settings) {
        None => all.await,
        Some(limit) if tokio::time::timeout(limit, all).await.is_err() => {
            tracing::warn!("some containers did not stop in time");
        }
        Some(_) => {}
    }
}

/// The second half, when no client is served any more: what is under way of any container ends, and the next daemon is told
/// that this one ended as it should.
pub async fn rest(containers: &Containers, store: &store::Store) {
    let mut rests = tokio::task::JoinSet::new();
    for handle in containers.all() {
        rests.spawn(async move { handle.ask(|reply| Command::Rest { reply }).await });
    }
    let all = async { while rests.join_next().await.is_some() {} };
    if tokio::time::timeout(REST_WAIT, all).await.is_err() {
        tracing::warn!(containers = rests.len(), "something is still under way at the end");
    }
    if let Err(error) = ending::note_clean_end(store).await {
        tracing::warn!(%error, "the next daemon will not know that this one ended in order");
    }
}

/// Longest wait for the trash to be emptied when the daemon ends; what is left goes at the next start.
const TRASH: Duration = Duration::from_secs(10);

/// Leaves nothing unfinished: the API is down, and nobody begins anything.
pub async fn close(engine: &Arc<Engine>) {
    engine.events.close().await;
    let threads = engine.containers.threads.background.clone();
    let engine = engine.clone();
    let closed = threads.run(move |_| {
        engine.containers.trash.await_empty(TRASH);
        engine.store.note_end();
        engine.snapshots.roots.clear_ahead()
    });
    if let Err(error) = closed.await {
        tracing::warn!(%error, "what was made ahead stays until the next start");
    }
}

/// How long containers may take to stop when the daemon ends; `None`: as long as they like, as one of the times says.
fn shutdown_limit(containers: &Containers, settings: &Settings) -> Option<Duration> {
    let views = containers.all().into_iter().map(|handle| handle.view());
    let stops: Vec<i64> = views.map(|view| arguments::timeout(&view.row, &settings.containers)).collect();
    if settings.daemon.shutdown_timeout < 0 || stops.iter().any(|seconds| *seconds < 0) {
        return None;
    }
    let longest = stops.iter().map(|seconds| seconds.saturating_add(SHUTDOWN_GRACE)).max().unwrap_or(0);
    Some(Duration::from_secs(longest.max(settings.daemon.shutdown_timeout) as u64))
}
