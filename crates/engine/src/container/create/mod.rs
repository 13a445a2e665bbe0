//! `POST /containers/create`: from a request to a committed row.
//!
//! Order: image → merge → validation → name → mounts → writable layer → row → actor → event → answer. Whatever fails
//! takes back what was made before it; the name is reserved before any work is done and freed on failure (B-id-2).

mod egress;
pub mod merge;
pub mod mounts;
pub mod sources;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use blocking::Blocking;
use events::{Rows, now};
use image::ResolvedImage;
use model::id::ContainerId;
use model::name;
use model::own_label::{self, OwnLabels};
use model::platform::Platform;
use model::{Error, Kind, Result};
use rustix::fs::FileType;
use snapshot::LayerStore;

use self::sources::Sources;
use super::definition::modes::{NetworkMode, container_of};
use super::definition::{Definition, ImagePin, MountRow, health, links, network, places};
use super::life::{actor, plan};
use super::registry;
use super::row::{self, ContainerRow, RunRecord};
use super::validate::{self, Merged};
use super::{Containers, Handle};
use crate::Engine;
use crate::held;
use crate::secrets;
use crate::settings::Settings;

/// The query and body of a create call.
#[derive(Clone, Debug, Default)]
pub struct CreateArgs {
    /// The wished name, with or without slash.
    pub name: Option<String>,
    /// `os[/arch[/variant]]`.
    pub platform: Option<String>,
    /// What its read-only binds mean.
    pub read_only: mounts::ReadOnly,
    /// The body.
    pub request: api::CreateRequest,
}

/// What create answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Created {
    /// The full id.
    pub id: String,
    /// What the user should know; may be empty.
    pub warnings: Vec<String>,
}

/// Creates a container.
pub async fn create(engine: &Arc<Engine>, args: CreateArgs) -> Result<Created> {
    engine.containers.refuse_new()?;
    let settings = engine.settings();
    let id = ContainerId::from_bytes(sys::random::bytes32());
    let host = validate::host(&engine.host, &settings.containers);
    let mut request = args.request;
    let sources = Sources::look(&engine.disk.paths, request.host_config.get_or_insert_default()).await?;
    let mut warnings = validate::request(&mut request, &host, |path| sources.exists(path))?;
    if let Some(name) = args.name.as_deref().filter(|n| !n.is_empty()) {
        name::validate(name)?;
    }
    let (config, host_config) =
        (request.config.clone().unwrap_or_default(), request.host_config.clone().unwrap_or_default());
    let own_labels = OwnLabels::parse(&config.labels.clone().unwrap_or_default())?;
    secrets::check(&secrets::of(engine), &own_labels)?;
    if config.image.is_empty() {
        // What there is to run can only be in an image here.
        return Err(Error::invalid("no command specified"));
    }
    let image = engine.images.resolve(&config.image, args.platform.as_deref())?;
    if args.platform.as_deref().is_none_or(str::is_empty) {
        warnings.extend(foreign(&image.platform));
    }
    warnings.extend(own_label::warning(&image.config.labels));
    let mut merged = merge::merge(config, host_config, &image.config, &host, &id)?;
    resolve_container_modes(&engine.containers, &mut merged.host_config)?;
    share_hostname(&engine.containers, &mut merged);
    resolve_links(&engine.containers, &mut merged.host_config)?;
    warnings.extend(validate::check(&merged, &request)?);
    health::check(&own_labels, (&merged.config, &merged.host_config), request.config.as_ref())?;
    if own_labels.egress.is_some() {
        egress::refuse_unconfined(&engine.networks, &merged, &request)?;
    }
    plan::runtime_choice(&settings.containers.runtimes, &merged.host_config.runtime)?;
    let name = reserve_name(&engine.containers, args.name.as_deref(), &id)?;
    let draft = Draft {
        id: id.clone(),
        name: name.clone(),
        merged,
        own_labels,
        image,
        request,
        sources,
        read_only: args.read_only,
    };
    let built = build(engine, &settings, draft).await;
    if built.is_err() {
        engine.containers.release(&name, &id);
    }
    built?;
    Ok(Created { id: id.as_str().into(), warnings })
}

/// The warning for an image that was not made for this machine, when nobody asked for that.
fn foreign(platform: &str) -> Option<String> {
    let host = image::oci::host();
    let given = Platform::parse(platform, &host).ok()?;
    (!image::oci::machine().runs(&given)).then(|| {
        format!(
            "The requested image's platform ({platform}) does not match the detected host platform ({host}) and no \
             specific platform was requested"
        )
    })
}

/// What the rest of create works on.
struct Draft {
    id: ContainerId,
    name: String,
    merged: Merged,
    own_labels: OwnLabels,
    image: ResolvedImage,
    request: api::CreateRequest,
    sources: Sources,
    read_only: mounts::ReadOnly,
}

async fn build(engine: &Arc<Engine>, settings: &Arc<Settings>, draft: Draft) -> Result<()> {
    let Draft { id, name, merged, own_labels, image, request, sources, read_only } = draft;
    let mut mounts = mounts::resolve(engine, &id, &merged, read_only, sources).await?;
    let definition = Definition {
        id,
        name,
        created: now(),
        networks: places::named(
            &engine.networks,
            &merged.host_config.network_mode,
            network::requested(request.networking_config),
        ),
        networks_named: true,
        image: ImagePin {
            id: image.id.clone(),
            reference: merged.config.image.clone(),
            layers: image.layers.clone(),
            platform: image.platform.clone(),
            manifest: image.manifest.clone(),
        },
        config: merged.config,
        host_config: merged.host_config,
        own_labels,
        mounts: mounts.rows.clone(),
        storage: engine.snapshots.roots.name().into(),
        parsed: OnceLock::new(),
    };
    let row = ContainerRow::new(definition, RunRecord::created());
    let told = engine.events.ride(vec![registry::draft(&row, "create", [])]);
    let made = make(engine, &row, told.rows()).await;
    held::release_all(&engine.volumes, row.volumes().map(MountRow::part), row.id.as_str()).await;
    if let Err(error) = made {
        take_back(engine, settings, &row, &mut mounts).await;
        if engine.host.faults.is_armed() {
            take_back(engine, settings, &row, &mut mounts).await;
        }
        return Err(error);
    }
    actor::spawn(engine, row.clone());
    told.publish();
    Ok(())
}

/// Its layer, what new volumes take over, and its row. Those volumes are mounted meanwhile.
async fn make(engine: &Arc<Engine>, row: &ContainerRow, told: Rows) -> Result<()> {
    let work = (engine.clone(), row.clone());
    let places = engine.containers.threads.creates.run(move |_| {
        let (engine, row) = work;
        let faults = &engine.host.faults;
        faults.pass("create", "mounts")?;
        let places = prepare(&engine, &row)?;
        faults.pass("create", "root").map(|()| places)
    });
    let places: HashSet<String> = places.await?;
    let taking_over = row.volumes().filter(|mount| mount.copy_data && places.contains(&mount.destination));
    let held = held::hold(&engine.volumes, taking_over.map(MountRow::part), row.id.as_str()).await?;
    let work = (engine.clone(), row.clone());
    let made = engine.containers.threads.creates.run(move |on| {
        let (engine, row) = work;
        let faults = &engine.host.faults;
        faults.pass("create", "volumes")?;
        let filled = mounts::copy_up(on, &*engine.snapshots.layers, &row, &held)?;
        faults.pass("create", "layer")?;
        let own = row.clone();
        engine.store.write_blocking(move |tx| {
            filled.iter().try_for_each(|volume| ::volume::note_use(tx, volume))?;
            // An image may have been removed since it was resolved.
            own.images().into_iter().try_for_each(|pin| image::use_by_container(tx, &pin.id))?;
            row::put(tx, &own)?;
            told.put(tx)
        })?;
        faults.pass("create", "row").or_else(|error| {
            engine.store.write_blocking(move |tx| row::delete(tx, &row))?;
            Err(error)
        })
    });
    made.await
}

/// The layers, the writable one among them; where the image has directories that new volumes take over.
fn prepare(engine: &Engine, row: &Definition) -> Result<HashSet<String>> {
    for pin in row.images() {
        if let Some((_, manifest, _)) = &pin.manifest {
            image::ensure_unpacked(&engine.images, &pin.id, manifest)?;
        }
    }
    let layers = &*engine.snapshots.layers;
    check_directories(layers, row)?;
    let chain = snapshot::keys(&row.image.layers);
    engine.snapshots.roots.prepare(row.id.as_str(), &chain)?;
    let mut places = HashSet::new();
    for mount in row.volumes().filter(|mount| mount.copy_data) {
        if layers.file_type(&chain, &mount.destination)?.is_some() {
            places.insert(mount.destination.clone());
        }
    }
    Ok(places)
}

/// The working directory and the places of the configuration's volumes are directories, or nothing yet. Of other volumes a part
/// that is a file may be shown, over a file.
fn check_directories(layers: &dyn LayerStore, row: &Definition) -> Result<()> {
    let chain = snapshot::keys(&row.image.layers);
    let is_file = |path: &str| layers.file_type(&chain, path).map(|found| found.is_some_and(|kind| !kind.is_dir()));
    let dir = row.config.working_dir.as_str();
    if !dir.is_empty() {
        check_working_dir(dir, layers.file_type(&chain, dir)?, is_file)?;
    }
    let configured = |mount: &&MountRow| mount.copy_data && !mount.from_mounts && mount.mode.is_empty();
    for mount in row.volumes().filter(configured) {
        let place = mount.destination.as_str();
        if is_file(place)? {
            return Err(Error::system(format!("cannot mount volume over existing file, file exists {place}")));
        }
    }
    Ok(())
}

/// `found`: what is at the working directory; without it no place above it is a file.
fn check_working_dir(dir: &str, found: Option<FileType>, is_file: impl Fn(&str) -> Result<bool>) -> Result<()> {
    if found.is_some_and(|kind| !kind.is_dir()) {
        return Err(Error::system(format!("Cannot mkdir: {dir} is not a directory")));
    }
    if found.is_none() {
        let above = Path::new(dir).ancestors().skip(1).filter_map(Path::to_str).filter(|above| above.len() > 1);
        for place in above {
            if is_file(place)? {
                return Err(Error::system(format!("lstat {dir}: not a directory")));
            }
        }
    }
    Ok(())
}

/// Leaves nothing of a container that could not be made; it has no row. What is not there is no
/// error: tests with armed faults call this twice.
async fn take_back(engine: &Arc<Engine>, settings: &Arc<Settings>, row: &Definition, mounts: &mut mounts::Resolved) {
    mounts.volumes.take_back(engine).await;
    let removals = &engine.containers.threads.removals;
    let (engine, settings, id) = (engine.clone(), settings.clone(), row.id.clone());
    let removed = removals.run(move |on| {
        engine.snapshots.roots.remove(id.as_str())?;
        remove_dir(on, &settings.roots.container(id.as_str()))
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, "a directory of a failed create stays until the next start");
    }
}

/// Absent is fine.
#[expect(clippy::disallowed_methods, reason = "on a thread of the removals")]
fn remove_dir(_on: &Blocking, dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// The wished name, or a generated one that is free.
fn reserve_name(containers: &Containers, wished: Option<&str>, id: &ContainerId) -> Result<String> {
    if let Some(wished) = wished.filter(|n| !n.is_empty()) {
        let name = wished.strip_prefix('/').unwrap_or(wished).to_string();
        containers.reserve(&name, id)?;
        return Ok(name);
    }
    for retry in 0..=name::RETRIES {
        let bytes = sys::random::bytes32();
        let random = u64::from_le_bytes(bytes[..8].try_into().expect("eight of 32 bytes"));
        let name = name::generated(random, retry);
        if containers.reserve(&name, id).is_ok() {
            return Ok(name);
        }
    }
    containers.reserve(id.short(), id)?;
    Ok(id.short().to_string())
}

/// Whoever joins another's network is called as that one is (B-nw-9).
fn share_hostname(containers: &Containers, merged: &mut Merged) {
    let donor = container_of(&merged.host_config.network_mode).map(|other| containers.find(other));
    if let Some(Ok(donor)) = donor {
        let donor = &donor.view().row.config;
        merged.config.hostname.clone_from(&donor.hostname);
        merged.config.domainname.clone_from(&donor.domainname);
    }
}

/// `container:<name>` becomes `container:<id>`, so that a rename does not break it (B-id-4). One that is not there is
/// never a 404, which a client takes for a missing image: it is invalid, or for a network the start's concern.
fn resolve_container_modes(containers: &Containers, host: &mut api::HostConfig) -> Result<()> {
    // These two ask whom they join for its labels already now, unless they need none.
    let own_labels = host.security_opt.iter().flatten().any(|option| option.split('=').next() == Some("label"));
    let asks = !own_labels && !host.privileged && host.ipc_mode != "host" && host.pid_mode != "host";
    for (mode, asks) in [(&mut host.network_mode, false), (&mut host.ipc_mode, asks), (&mut host.pid_mode, asks)] {
        let Some(other) = container_of(mode) else { continue };
        match containers.find(other) {
            Ok(found) => *mode = format!("container:{}", found.id.as_str()),
            Err(error) if asks && !other.is_empty() => return Err(error.with_kind(Kind::InvalidParameter)),
            // The start will say so.
            Err(_) => {}
        }
    }
    Ok(())
}

/// A container that a request names beside its own. When it is missing that is the request's fault: clients take "not found"
/// for the image's being missing, and pull it.
pub fn find_other(containers: &Containers, name: &str) -> Result<Handle> {
    containers.find(name).map_err(|error| match error.kind() {
        Kind::NotFound => Error::invalid(error.message()),
        _ => error,
    })
}

/// `name:alias` becomes `id:alias`, so that a rename does not break it. Whoever has joined the network of another container
/// is linked to by that one's.
fn resolve_links(containers: &Containers, host: &mut api::HostConfig) -> Result<()> {
    if !links::are_lines(&host.network_mode) {
        return Ok(());
    }
    for link in host.links.iter_mut().flatten() {
        let parsed = links::parse(link)?;
        let find = |name: &str| {
            let found = find_other(containers, name);
            found.map_err(|error| error.prefix(format!("could not get container for {name}")))
        };
        let mut other = find(&parsed.name)?;
        // As many as there are, should they lead in a circle.
        for _ in 0..=containers.all().len() {
            let view = other.view();
            match view.row.network_mode() {
                NetworkMode::Container(donor) => other = find(donor)?,
                NetworkMode::Host => {
                    let text = "conflicting options: host type networking can't be used with links. \
                                This would result in undefined behavior";
                    return Err(Error::invalid(text));
                }
                NetworkMode::None | NetworkMode::Network(_) => break,
            }
        }
        *link = format!("{}:{}", other.id.as_str(), parsed.alias);
    }
    Ok(())
}
