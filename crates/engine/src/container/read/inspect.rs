//! `GET /containers/{id}/json`: the published view in the wire's shape. Nothing waits for the actor.

use std::collections::BTreeMap;
use std::sync::Arc;

use blocking::Blocking;
use model::Result;
use model::lifecycle::State;
use network::Networks;

use crate::Engine;
use crate::container::definition::{Definition, MountRow};
use crate::container::definition::{log, places};
use crate::container::life::{files, links};
use crate::container::row::ContainerRow;
use crate::container::view::ContainerView;

/// Everything about one container, with its sizes if wished; and the MAC address that was asked for, which only clients of
/// old look for.
pub async fn inspect(engine: &Arc<Engine>, name: &str, size: bool) -> Result<(api::ContainerInspect, String)> {
    let view = engine.containers.find(name)?.view();
    let mut answer = assemble(engine, &view);
    if size {
        let (writable, root) = sizes(engine, &view.row.definition).await?;
        (answer.size_rw, answer.size_root_fs) = (Some(writable), Some(root));
    }
    let endpoint = view.row.network_mode().network().and_then(|network| view.row.networks.get(network));
    Ok((answer, endpoint.map(|endpoint| endpoint.mac_address.clone()).unwrap_or_default()))
}

fn assemble(engine: &Engine, view: &ContainerView) -> api::ContainerInspect {
    let (row, settings) = (&view.row, engine.settings());
    let owner = files::owner(&engine.containers, row).unwrap_or_else(|_| row.id.clone());
    let dir = settings.roots.container(owner.as_str());
    // The reference's files, and what it knows of a network, come with the first start.
    let is_new = matches!(row.state, State::Created);
    let file = |name: &str| if is_new { String::new() } else { dir.join(name).display().to_string() };
    let command = crate::container::definition::command_line(&row.config);
    let log_path = log::driver(row).ok().and_then(|driver| driver.public_path(&log::place(&settings.roots, row)));
    let log_path = log_path.map(|path| path.display().to_string()).unwrap_or_default();
    let driver = driver_name(&row.storage);
    let storage = api::container::SnapshotStorage { name: driver.into() };
    let os = row.image.platform.split('/').next().unwrap_or_default();
    api::ContainerInspect {
        id: row.id.as_str().into(),
        created: row.created.rfc3339_nano(),
        path: command.first().cloned().unwrap_or_default(),
        args: command.iter().skip(1).cloned().collect(),
        state: Some(state(view)),
        image: row.image.id.as_str().into(),
        resolv_conf_path: file(run::files::RESOLV_CONF),
        hostname_path: file(run::files::HOSTNAME),
        hosts_path: file(run::files::HOSTS),
        log_path,
        name: format!("/{}", row.name),
        restart_count: i64::from(row.run.restart_count),
        driver: driver.into(),
        platform: os.into(),
        exec_ids: Some(view.exec_ids.clone()).filter(|ids| !ids.is_empty()),
        host_config: Some(api::HostConfig {
            links: links::shown(&|name| engine.containers.view_of(name), &row.name, &row.host_config),
            ..host_config(&row.host_config, &settings.containers.ulimits)
        }),
        storage: Some(api::container::Storage {
            root_fs: Some(api::container::RootFsStorage { snapshot: Some(storage) }),
        }),
        mounts: row.mounts.iter().map(mount_point).collect(),
        config: Some(row.config.clone()),
        network_settings: Some(network_settings(&engine.networks, view)),
        image_manifest_descriptor: manifest(row),
        ..api::ContainerInspect::default()
    }
}

/// A storage driver's name as clients know it.
pub fn driver_name(storage: &str) -> &str {
    match storage {
        "overlay" => "overlayfs",
        other => other,
    }
}

/// The daemon's limits are shown with the container's, where it does not set its own.
fn host_config(own: &api::HostConfig, defaults: &[api::Ulimit]) -> api::HostConfig {
    let mut shown = own.clone();
    let mut limits = shown.ulimits.take().unwrap_or_default();
    for limit in defaults {
        if !limits.iter().any(|own| own.name == limit.name) {
            limits.push(limit.clone());
        }
    }
    shown.ulimits = if limits.is_empty() { own.ulimits.clone() } else { Some(limits) };
    shown
}

/// The manifest the container was made from.
pub(super) fn manifest(row: &Definition) -> Option<api::Descriptor> {
    let (media_type, digest, size) = row.image.manifest.as_ref()?;
    let mut words = row.image.platform.splitn(3, '/').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    let (os, architecture, variant) = (word(), word(), word());
    Some(api::Descriptor {
        media_type: media_type.clone(),
        digest: digest.as_str().into(),
        size: i64::try_from(*size).unwrap_or(i64::MAX),
        platform: Some(api::oci::Platform { architecture, os, variant, ..api::oci::Platform::default() }),
        ..api::Descriptor::default()
    })
}

fn state(view: &ContainerView) -> api::ContainerState {
    let (state, run) = (view.row.state, &view.row.run);
    api::ContainerState {
        status: state.word().into(),
        running: state.is_running(),
        paused: state.is_paused(),
        restarting: state.is_restarting(),
        oom_killed: run.oom_killed,
        dead: state.is_dead(),
        pid: i64::from(view.pid),
        exit_code: i64::from(run.exit_code),
        error: run.error.clone(),
        started_at: run.started_at.rfc3339_nano(),
        finished_at: run.finished_at.rfc3339_nano(),
        health: run.health.as_deref().map(health),
    }
}

fn health(health: &model::health::Health) -> api::Health {
    let result = |one: &model::health::Probed| api::HealthcheckResult {
        start: one.start.rfc3339_nano(),
        end: one.end.rfc3339_nano(),
        exit_code: i64::from(one.exit_code),
        output: one.output.clone(),
    };
    api::Health {
        status: health.status.word().into(),
        failing_streak: i64::from(health.failing_streak),
        log: Some(health.log.iter().map(result).collect()),
    }
}

/// A mount as inspect and list show it.
pub(super) fn mount_point(row: &MountRow) -> api::MountPoint {
    api::MountPoint {
        kind: row.kind.as_str().into(),
        name: row.name.clone(),
        source: row.source.clone(),
        destination: row.destination.clone(),
        driver: row.driver.clone(),
        mode: row.mode.clone(),
        rw: row.writable,
        propagation: row.propagation.clone(),
    }
}

fn network_settings(known: &Networks, view: &ContainerView) -> api::NetworkSettings {
    let row = &view.row;
    // One that has joined another's network has none of its own.
    let running = view.pid != 0 && row.network_mode().container().is_none();
    let place = row.run.place.as_ref().filter(|_| running);
    let sandbox_key = place.map(|place| run::place::sandbox_key(&place.dir).display().to_string()).unwrap_or_default();
    let mut networks = networks(known, row);
    if matches!(row.state, State::Created) {
        networks.values_mut().for_each(|endpoint| endpoint.network_id.clear());
    }
    api::NetworkSettings {
        sandbox_id: if running { row.id.as_str().into() } else { String::new() },
        sandbox_key,
        ports: Some(if running { ports(known, row) } else { BTreeMap::new() }),
        networks: Some(networks),
    }
}

/// Whether the ports that a container exposes are shown: a bridge has been told of them.
pub(super) fn shows_exposed(known: &Networks, row: &ContainerRow) -> bool {
    let on_bridge = |network| known.row(network).is_ok_and(|network| network.driver == "bridge");
    row.endpoints.iter().any(|endpoint| on_bridge(&endpoint.network))
}

/// Published ports with their bindings, exposed ones with `null` (B-nw-11).
pub fn ports(known: &Networks, row: &ContainerRow) -> api::PortMap {
    let exposed = row.config.exposed_ports.keys().filter(|_| shows_exposed(known, row));
    let mut ports: api::PortMap = exposed.map(|port| (port.clone(), None)).collect();
    for port in row.endpoints.iter().flat_map(|e| e.ports.iter()) {
        let bindings = ports.entry(format!("{}/{}", port.container_port, port.protocol)).or_default();
        // A routed network publishes without a port of the host.
        let host_port = Some(port.host_port).filter(|number| *number != 0).map(|number| number.to_string());
        let host_port = host_port.unwrap_or_default();
        let binding = api::PortBinding { host_ip: port.host_ip.to_string(), host_port };
        bindings.get_or_insert_default().push(binding);
    }
    ports
}

/// The container's networks: as asked for, with addresses while it runs. One whose network is disabled is on none.
pub(super) fn networks(known: &Networks, row: &ContainerRow) -> BTreeMap<String, api::EndpointSettings> {
    let mut all = places::Places::of(row).wanted();
    for (name, endpoint) in &mut all {
        let Ok(network) = known.look_up(name) else { continue };
        endpoint.network_id = network.id.as_str().into();
        let live = row.endpoints.iter().find(|e| e.network == network.id);
        if let Some(names) = dns_names(row, &network, endpoint, live) {
            endpoint.dns_names = Some(names).filter(|names| !names.is_empty());
        }
        places::show(endpoint, live);
    }
    all
}

/// What the container is called in a network: as it is, as its last run was, and before the first start as connect has noted
/// it; `None`: as noted.
fn dns_names(
    row: &ContainerRow,
    network: &network::row::NetworkRow,
    noted: &api::EndpointSettings,
    live: Option<&network::Endpoint>,
) -> Option<Vec<String>> {
    match live {
        Some(live) => Some(live.dns_names.clone()),
        None if matches!(row.state, State::Created) => None,
        None => Some(places::Places::of(row).dns_names(network, noted.aliases.as_deref().unwrap_or_default())),
    }
}

/// Bytes of the writable layer, and of the whole root file system.
pub(super) async fn sizes(engine: &Engine, row: &Arc<Definition>) -> Result<(i64, i64)> {
    let (snapshots, row) = (engine.snapshots.clone(), row.clone());
    let walk = move |_: &Blocking| {
        let writable = snapshots.roots.usage(row.id.as_str())?;
        let mut root = writable;
        for layer in snapshot::topmost(&row.image.layers) {
            root += snapshots.layers.layer(&layer.into())?.map_or(0, |info| info.size);
        }
        Ok((writable as i64, root as i64))
    };
    engine.disk.walks.run(walk).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, soft: i64) -> api::Ulimit {
        api::Ulimit { name: name.into(), soft, hard: soft }
    }

    #[test]
    fn the_daemons_limits_are_shown_unless_the_container_has_its_own() {
        let own = api::HostConfig { ulimits: Some(vec![limit("nofile", 1)]), ..Default::default() };
        let shown = host_config(&own, &[limit("nofile", 9), limit("core", 0)]).ulimits;
        assert_eq!(shown, Some(vec![limit("nofile", 1), limit("core", 0)]));
        assert_eq!(host_config(&Default::default(), &[]).ulimits, None);
    }
}
