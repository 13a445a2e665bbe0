//! Volumes as the API shows them. Who uses a volume is read off the containers' published views.

pub mod copies;
mod freeze;
pub mod upkeep;

use std::collections::{BTreeMap, HashMap, HashSet};

use ::volume::{Claim, CreateVolume, Volume, Volumes};
use blocking::Blocking;
use events::Events;
use model::filter::Filters;
use model::id::ContainerId;
use model::{Kind, Result};

use crate::container::Containers;
use crate::container::view::ContainerView;
use crate::disk::{self, Disk};

const KEYS: &[&str] = &["dangling", "driver", "label", "name"];
const PRUNE_KEYS: &[&str] = &["all", "label", "label!"];

/// Containers that refer to the volume, running or not.
pub fn users(containers: &Containers, name: &str) -> Vec<ContainerId> {
    let refers = |view: &ContainerView| view.row.volumes().any(|mount| mount.name == name);
    containers.all().into_iter().filter(|h| refers(&h.view())).map(|h| h.id).collect()
}

/// Makes a volume, or answers the one that is there.
pub async fn create(
    volumes: &Volumes,
    events: &Events,
    request: api::volume::VolumeCreateRequest,
) -> Result<api::volume::Volume> {
    let request = CreateVolume {
        name: request.name,
        driver: request.driver,
        options: request.driver_opts,
        labels: request.labels,
    };
    let (volume, is_new) = volumes.create(request).await?;
    if is_new {
        publish_create(events, &volume);
    }
    Ok(wire(&volume))
}

/// As [`create`], for a container to come (`user`), whose volume is not removed while it has the claim; tells whether the
/// volume is new.
pub(crate) async fn create_claimed(
    volumes: &Volumes,
    events: &Events,
    request: CreateVolume,
    user: &ContainerId,
) -> Result<(Volume, bool, Claim)> {
    let (volume, is_new, claim) = volumes.create_claimed(request, user.as_str()).await?;
    if is_new {
        publish_create(events, &volume);
    }
    Ok((volume, is_new, claim))
}

fn publish_create(events: &Events, volume: &Volume) {
    events.publish("volume", "create", &volume.name, [("driver", volume.driver.clone())]);
}

/// Containers that refer to the volume, as a removal asks for them.
pub(crate) fn named_by(containers: &Containers, name: &str) -> Result<Vec<String>> {
    let mut ids = users(containers, name);
    ids.extend(containers.unloaded.iter().filter(|one| one.may_use(name)).map(|one| one.id.clone()));
    Ok(ids.iter().map(|id| id.as_str().to_owned()).collect())
}

/// One volume.
pub async fn inspect(volumes: &Volumes, name: &str) -> Result<api::volume::Volume> {
    let (volume, found) = volumes.look_up(name).await?;
    Ok(api::volume::Volume { status: found.status, ..wire(&volume) })
}

/// All volumes that pass the filters, and which drivers did not answer.
pub async fn list(
    volumes: &Volumes,
    containers: &Containers,
    filters: &Filters,
) -> Result<(Vec<api::volume::Volume>, Vec<String>)> {
    filters.validate(KEYS)?;
    let dangling = filters.contains("dangling").then(|| filters.flag("dangling", false)).transpose()?;
    let used = used_names(containers);
    let any = |key: &str, test: &dyn Fn(&str) -> bool| !filters.contains(key) || filters.get(key).any(test);
    let (mut volumes, warnings) = volumes.list_all().await?;
    volumes.retain(|volume| {
        any("name", &|name| volume.name.contains(name))
            && any("driver", &|driver| volume.driver == driver)
            && filters.match_kv_list("label", volume.labels.as_ref().unwrap_or(&BTreeMap::new()))
            && dangling.is_none_or(|dangling| dangling != used.contains(&volume.name))
    });
    Ok((volumes.iter().map(wire).collect(), warnings))
}

fn used_names(containers: &Containers) -> HashSet<String> {
    let names = |view: &ContainerView| view.row.volumes().map(|mount| mount.name.clone()).collect::<Vec<_>>();
    containers.all().into_iter().flat_map(|handle| names(&handle.view())).collect()
}

/// Removes a volume that no container refers to; `force` hides one that is not there (B-vol-9).
pub async fn remove(
    volumes: &Volumes,
    containers: &Containers,
    events: &Events,
    name: &str,
    force: bool,
) -> Result<()> {
    let volume = match volumes.look_up(name).await {
        Err(error) if error.kind() == Kind::NotFound && force && volumes.get(name).is_err() => return Ok(()),
        // Of one whose driver is gone there is a row at least.
        Err(error) if force => volumes.get(name).map_err(|_| error)?,
        other => other?.0,
    };
    match volumes.remove(name, || named_by(containers, name)).await {
        Err(error) if force && volume.driver != ::volume::LOCAL && error.kind() != Kind::Conflict => {
            tracing::warn!(volume = name, %error, "a volume is forgotten that its driver has not removed");
            volumes.forget_row(name).await?;
        }
        removed => removed?,
    }
    events.publish("volume", "destroy", name, [("driver", volume.driver)]);
    Ok(())
}

/// How many containers refer to each volume, running or not.
fn users_by_name(containers: &Containers) -> HashMap<String, i64> {
    let mut users = HashMap::new();
    for handle in containers.all() {
        let view = handle.view();
        let volumes = view.row.volumes().map(|mount| &mount.name);
        volumes.collect::<HashSet<_>>().into_iter().for_each(|name| *users.entry(name.clone()).or_default() += 1);
    }
    users
}

/// The volumes whose data is their own, with its size and their users.
pub fn measured(_on: &Blocking, volumes: &Volumes, containers: &Containers) -> Result<Vec<api::volume::Volume>> {
    let mut all = volumes.list()?;
    all.retain(|volume| volume.driver == ::volume::LOCAL && !volume.has_mount_options());
    let users = users_by_name(containers);
    let one = |volume: &Volume| {
        let size = volumes.usage(&volume.name);
        let size = size.inspect_err(|error| tracing::warn!(volume = volume.name, %error, "size not known"));
        let usage_data = api::UsageData {
            ref_count: users.get(&volume.name).copied().unwrap_or(0),
            size: size.map_or(-1, |size| size as i64),
        };
        api::volume::Volume { usage_data: Some(usage_data), ..wire(volume) }
    };
    Ok(all.iter().map(one).collect())
}

/// Removes unused volumes, anonymous ones only unless `all` is set (B-vol-11); names and bytes.
pub async fn prune(
    volumes: &Volumes,
    containers: &Containers,
    events: &Events,
    disk: &Disk,
    filters: &Filters,
) -> Result<(Vec<String>, u64)> {
    let _turn = disk::turn(&disk.pruning.volumes)?;
    filters.validate(PRUNE_KEYS)?;
    let all = filters.flag("all", false)?;
    let (mut removed, mut bytes) = (Vec::new(), 0);
    for volume in volumes.list()? {
        let labels = volume.labels.clone().unwrap_or_default();
        let chosen = (all || volume.is_anonymous())
            && volume.driver == ::volume::LOCAL
            && !volume.has_mount_options()
            && filters.match_labels(&labels)
            && users(containers, &volume.name).is_empty();
        if !chosen {
            continue;
        }
        let (measured, name) = (volumes.clone(), volume.name.clone());
        let size = disk.walks.run(move |_| measured.usage(&name)).await.unwrap_or(0);
        match volumes.remove(&volume.name, || named_by(containers, &volume.name)).await {
            Ok(()) => {}
            // Named or removed by somebody else meanwhile.
            Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => continue,
            Err(error) => {
                tracing::warn!(volume = volume.name, %error, "not pruned");
                continue;
            }
        }
        events.publish("volume", "destroy", &volume.name, [("driver", volume.driver)]);
        removed.push(volume.name);
        bytes += size;
    }
    events.publish("volume", "prune", "", [("reclaimed", bytes.to_string())]);
    Ok((removed, bytes))
}

fn wire(volume: &Volume) -> api::volume::Volume {
    api::volume::Volume {
        created_at: volume.created.rfc3339(),
        driver: volume.driver.clone(),
        labels: volume.labels.clone(),
        mountpoint: volume.mountpoint.display().to_string(),
        name: volume.name.clone(),
        options: volume.options.clone(),
        scope: volume.scope.as_str().into(),
        ..Default::default()
    }
}
