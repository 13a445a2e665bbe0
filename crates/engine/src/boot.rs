//! Start-up and shutdown of the engine, in the order of the reference's daemon.
//!
//! data root → lock → store → images → volumes → containers recovered → networks → restart policies. Recovery is the
//! same life as any other: a probe tells what became of each container, `model::lifecycle` says what that means, the
//! actor goes on from there.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, RwLock};

use model::{Context, Error, Result};
use rustix::fs::{FlockOperation, flock};

use crate::Engine;
use crate::container::actor;
use crate::container::row::{CONTAINERS, ContainerRow};
use crate::container::{Containers, exit, link};
use crate::events::Events;
use crate::settings::Settings;
use crate::system::Host;

/// An engine that is up, and the lock that keeps its data root to it.
pub struct Booted {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Held as long as the daemon lives.
    pub lock: File,
}

/// Brings the engine up. Everything that was acknowledged before a crash is there afterwards.
pub async fn boot(settings: Settings, min_api_version: String) -> Result<Booted> {
    prepare_roots(&settings)?;
    let lock = lock_root(&settings.data_root)?;
    let host = Host::read(engine_id(&settings.data_root)?, min_api_version)?;
    let store = store::Store::open(&settings.data_root.join("gantry.redb"))?;
    tracing::info!(path = %settings.data_root.display(), "metadata store is open");
    let snapshots = snapshot::open(&settings.data_root, &settings.storage_driver)?;
    let images = crate::image::Images::open(&settings.data_root, store.clone(), snapshots.clone())?;
    tracing::info!(driver = snapshots.name(), images = images.count(), "images are ready");
    let volumes = ::volume::Volumes::open(&settings.data_root.join("volumes"), store.clone())?;
    tracing::info!("volumes are ready");
    let rows = load_containers(&store)?;
    let (config, network_store) = (settings.network.clone(), store.clone());
    let networks = tokio::task::spawn_blocking(move || ::network::Networks::open(config, &network_store));
    let networks = Arc::new(networks.await.map_err(|e| Error::system("opening networks").with_source(e))??);
    let engine = Arc::new(Engine {
        containers: Containers::default(),
        execs: Default::default(),
        images,
        networks,
        volumes,
        events: Events::default(),
        snapshots,
        store,
        host,
        settings: RwLock::new(Arc::new(settings)),
    });
    recover(&engine, rows).await?;
    Ok(Booted { engine, lock })
}

/// Makes the roots with their permissions: data root 0710, exec root 0711 (B-dm-1).
fn prepare_roots(settings: &Settings) -> Result<()> {
    let directories = [
        (settings.data_root.clone(), 0o710),
        (settings.data_root.join("containers"), 0o710),
        (settings.data_root.join("tmp"), 0o700),
        (settings.exec_root.clone(), 0o711),
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
    empty_directory(&settings.data_root.join("tmp"))
}

fn empty_directory(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let removed =
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        removed.with_context(|| format!("emptying {}", path.display()))?;
    }
    Ok(())
}

/// One daemon per data root.
fn lock_root(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Error::conflict(format!("the data root {} is in use by another daemon (its lock is held)", root.display()))
    })?;
    Ok(file)
}

/// The engine's id: made once, kept in the data root.
fn engine_id(root: &Path) -> Result<String> {
    let path = root.join("engine-id");
    let mut id = String::new();
    if let Ok(mut file) = File::open(&path) {
        file.read_to_string(&mut id)?;
        if !id.trim().is_empty() {
            return Ok(id.trim().to_string());
        }
    }
    let b = sys::random::bytes32();
    let hex: String = b[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let id = format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32]);
    let mut file = File::create(&path).with_context(|| format!("writing {}", path.display()))?;
    file.write_all(id.as_bytes())?;
    file.sync_all()?;
    Ok(id)
}

/// Reads all rows; the store has named any that cannot be read, the others are not hurt by it.
fn load_containers(store: &store::Store) -> Result<Vec<ContainerRow>> {
    let rows = store.read(|tx| tx.scan(&CONTAINERS))?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Finds out what became of every container and lets its actor go on.
async fn recover(engine: &Arc<Engine>, rows: Vec<ContainerRow>) -> Result<()> {
    let settings = engine.settings();
    let known: HashSet<String> = rows.iter().map(|row| row.id.as_str().to_string()).collect();
    let mut starts = tokio::task::JoinSet::new();
    for row in rows {
        if row.storage != engine.snapshots.name() {
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
        let (engine, settings) = (engine.clone(), settings.clone());
        starts.spawn(async move {
            let probe = link::probe(&settings.run_dir(row.id.as_str())).await;
            exit::recover(engine, row, probe).await
        });
    }
    let mut live = Vec::new();
    while let Some(recovered) = starts.join_next().await {
        match recovered.map_err(|e| Error::system("recovering containers").with_source(e))? {
            Ok(endpoints) => live.extend(endpoints),
            Err(error) => tracing::error!(%error, "a container could not be recovered"),
        }
    }
    tracing::info!(containers = known.len(), "containers are recovered");
    let networks = engine.networks.clone();
    tokio::task::spawn_blocking(move || networks.reconcile(&live))
        .await
        .map_err(|e| Error::system("reconciling networks").with_source(e))??;
    tracing::info!("networks are ready");
    sweep(engine, &settings, &known)?;
    for handle in engine.containers.all() {
        // Dependencies are looked up by the start itself; the policy decides who starts.
        drop(handle.send(actor::Command::Booted).await);
    }
    Ok(())
}

/// Removes what no container owns: leftovers of a create or remove that a crash cut short.
fn sweep(engine: &Engine, settings: &Settings, known: &HashSet<String>) -> Result<()> {
    for root in [settings.data_root.join("containers"), settings.exec_root.clone()] {
        for entry in fs::read_dir(&root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_container = model::id::ContainerId::parse(&name).is_some();
            if is_container && !known.contains(&name) {
                tracing::info!(path = %entry.path().display(), "removing what no container owns");
                fs::remove_dir_all(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
            }
        }
    }
    engine.images.sweep().map(drop)
}

/// Ends the engine: stops all containers unless they may live on (B-sg-3), then lets go.
pub async fn shutdown(engine: &Arc<Engine>) {
    let settings = engine.settings();
    if settings.live_restore {
        return;
    }
    let mut stops = tokio::task::JoinSet::new();
    for handle in engine.containers.all() {
        if handle.view().row.state.is_running() {
            stops.spawn(async move { handle.ask(|reply| actor::Command::Shutdown { reply }).await });
        }
    }
    let longest =
        engine.containers.all().iter().filter_map(|h| h.view().row.config.stop_timeout).max().unwrap_or(0) + 5;
    let limit = std::time::Duration::from_secs(longest.max(settings.shutdown_timeout).max(0) as u64);
    let all = async { while stops.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, all).await.is_err() {
        tracing::warn!("some containers did not stop in time");
    }
}
