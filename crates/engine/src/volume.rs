//! Volumes as the API shows them. Who uses a volume is read off the containers' published views.

use std::collections::{BTreeMap, HashMap, HashSet};

use ::volume::{CreateVolume, Volume, Volumes};
use blocking::Blocking;
use model::filter::Filters;
use model::id::ContainerId;
use model::{Kind, Result};

use crate::container::Containers;
use crate::container::row::MountKind;
use crate::disk::{self, Disk};
use crate::events::Events;

const KEYS: &[&str] = &["dangling", "driver", "label", "name"];
const PRUNE_KEYS: &[&str] = &["all", "label", "label!"];

/// Containers that refer to the volume, running or not.
pub fn users(containers: &Containers, name: &str) -> Vec<ContainerId> {
    let refers = |view: &crate::container::view::ContainerView| {
        view.row.mounts.iter().any(|m| m.kind == MountKind::Volume && m.name == name)
    };
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
    make(volumes, events, request).await.map(|(volume, _)| wire(&volume))
}

/// As [`create`], telling whether the volume is new.
pub(crate) async fn make(volumes: &Volumes, events: &Events, request: CreateVolume) -> Result<(Volume, bool)> {
    let (volume, is_new) = volumes.create(request).await?;
    if is_new {
        events.publish("volume", "create", &volume.name, [("driver", volume.driver.clone())]);
    }
    Ok((volume, is_new))
}

/// One volume.
pub fn inspect(volumes: &Volumes, name: &str) -> Result<api::volume::Volume> {
    volumes.get(name).map(|volume| wire(&volume))
}

/// All volumes that pass the filters.
pub fn list(volumes: &Volumes, containers: &Containers, filters: &Filters) -> Result<Vec<api::volume::Volume>> {
    filters.validate(KEYS)?;
    let dangling = filters.contains("dangling").then(|| filters.flag("dangling", false)).transpose()?;
    let used = used_names(containers);
    let any = |key: &str, test: &dyn Fn(&str) -> bool| !filters.contains(key) || filters.get(key).any(test);
    let mut volumes = volumes.list()?;
    volumes.retain(|volume| {
        any("name", &|name| volume.name.contains(name))
            && any("driver", &|driver| volume.driver == driver)
            && filters.match_kv_list("label", volume.labels.as_ref().unwrap_or(&BTreeMap::new()))
            && dangling.is_none_or(|dangling| dangling != used.contains(&volume.name))
    });
    Ok(volumes.iter().map(wire).collect())
}

fn used_names(containers: &Containers) -> HashSet<String> {
    let mounts = containers.all().into_iter().flat_map(|h| h.view().row.mounts.clone());
    mounts.filter(|m| m.kind == MountKind::Volume).map(|m| m.name).collect()
}

/// Removes a volume that no container refers to; `force` hides one that is not there (B-vol-9).
pub async fn remove(
    volumes: &Volumes,
    containers: &Containers,
    events: &Events,
    name: &str,
    force: bool,
) -> Result<()> {
    let volume = match volumes.get(name) {
        Err(error) if error.kind() == Kind::NotFound && force => return Ok(()),
        other => other?,
    };
    let users = users(containers, name);
    if !users.is_empty() {
        let ids: Vec<String> = users.iter().map(|id| id.as_str().to_string()).collect();
        return Err(::volume::in_use(name, &ids));
    }
    volumes.remove(name).await?;
    events.publish("volume", "destroy", name, [("driver", volume.driver)]);
    Ok(())
}

/// How many containers refer to each volume, running or not.
fn users_by_name(containers: &Containers) -> HashMap<String, i64> {
    let mut users = HashMap::new();
    for handle in containers.all() {
        let view = handle.view();
        let volumes = view.row.mounts.iter().filter(|m| m.kind == MountKind::Volume).map(|m| &m.name);
        volumes.collect::<HashSet<_>>().into_iter().for_each(|name| *users.entry(name.clone()).or_default() += 1);
    }
    users
}

/// The volumes whose data is their own, with its size and their users.
pub fn measured(_on: &Blocking, volumes: &Volumes, containers: &Containers) -> Result<Vec<api::volume::Volume>> {
    let mut all = volumes.list()?;
    all.retain(|volume| !volume.has_mount_options());
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
            && !volume.has_mount_options()
            && filters.match_labels(&labels)
            && users(containers, &volume.name).is_empty();
        if !chosen {
            continue;
        }
        let (measured, name) = (volumes.clone(), volume.name.clone());
        let size = disk.walks.run(move |_| measured.usage(&name)).await.unwrap_or(0);
        if let Err(error) = volumes.remove(&volume.name).await {
            tracing::warn!(volume = volume.name, %error, "not pruned");
            continue;
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
