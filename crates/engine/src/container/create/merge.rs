//! Create's merge rules: what the image says, unless the request says otherwise, and the defaults that inspect shows
//! (B-cr-1 to B-cr-4). Pure.

use std::collections::{BTreeMap, HashSet};

use model::id::ContainerId;
use model::own_label;
use model::{Error, Result};

use crate::container::validate::Merged;
use crate::container::validate::host::Host;

/// Merges the image into the request and fills in the defaults.
pub fn merge(
    config: api::ContainerConfig,
    host_config: api::HostConfig,
    image: &api::ImageConfig,
    host: &Host,
    id: &ContainerId,
) -> Result<Merged> {
    let config = merge_config(config, image, &host_config, host, id)?;
    let host_config = fill_host_config(host_config, host);
    Ok(Merged { config, host_config })
}

fn merge_config(
    mut config: api::ContainerConfig,
    image: &api::ImageConfig,
    host_config: &api::HostConfig,
    host: &Host,
    id: &ContainerId,
) -> Result<api::ContainerConfig> {
    inherit(&mut config.user, &image.user);
    inherit(&mut config.working_dir, &image.working_dir);
    inherit(&mut config.stop_signal, &image.stop_signal);
    for (port, empty) in &image.exposed_ports {
        config.exposed_ports.entry(port.clone()).or_insert(*empty);
    }
    // No variables at all are shown as null.
    let env = merge_env(config.env.take().unwrap_or_default(), &image.env);
    config.env = Some(env).filter(|env| !env.is_empty());
    let inherited = image.labels.iter().filter(|(name, _)| !own_label::is_own(name));
    let mut labels: BTreeMap<String, String> = inherited.map(|(name, value)| (name.clone(), value.clone())).collect();
    labels.extend(config.labels.take().unwrap_or_default());
    config.labels = Some(labels);
    let mut volumes = config.volumes.take().unwrap_or_default();
    volumes.extend(image.volumes.clone());
    config.volumes = Some(volumes).filter(|volumes| !volumes.is_empty());
    merge_command(&mut config, image)?;
    merge_health(&mut config, image);
    if config.working_dir.starts_with('/') {
        config.working_dir = model::mount::clean(&config.working_dir);
    }
    if config.hostname.is_empty() {
        let of_host = host_config.network_mode == "host";
        config.hostname = if of_host { host.hostname.clone() } else { id.short().to_string() };
    }
    Ok(config)
}

fn inherit(own: &mut String, image: &str) {
    if own.is_empty() {
        *own = image.to_string();
    }
}

/// Own variables first in their order, then those of the image whose key is not given.
fn merge_env(mut own: Vec<String>, image: &[String]) -> Vec<String> {
    let key = |entry: &str| entry.split('=').next().unwrap_or(entry).to_string();
    let mut given: HashSet<String> = own.iter().map(|entry| key(entry)).collect();
    for entry in image {
        if given.insert(key(entry)) {
            own.push(entry.clone());
        }
    }
    own
}

/// An own entrypoint, be it empty, drops the image's, one with words its command too; `[""]` is no entrypoint.
fn merge_command(config: &mut api::ContainerConfig, image: &api::ImageConfig) -> Result<()> {
    let empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    let list = |list: &[String]| Some(list.to_vec()).filter(|l| !l.is_empty());
    if empty(&config.entrypoint) {
        if empty(&config.cmd) {
            config.cmd = list(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint = list(&image.entrypoint);
        }
    }
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = None;
    }
    match empty(&config.entrypoint) && empty(&config.cmd) {
        true => Err(Error::invalid("no command specified")),
        false => Ok(()),
    }
}

fn merge_health(config: &mut api::ContainerConfig, image: &api::ImageConfig) {
    let Some(of_image) = &image.healthcheck else {
        return;
    };
    let own = config.healthcheck.get_or_insert_default();
    if own.test.is_empty() {
        own.test.clone_from(&of_image.test);
    }
    let numbers = [
        (&mut own.interval, of_image.interval),
        (&mut own.timeout, of_image.timeout),
        (&mut own.start_period, of_image.start_period),
        (&mut own.start_interval, of_image.start_interval),
        (&mut own.retries, of_image.retries),
    ];
    for (own, image) in numbers {
        if *own == 0 {
            *own = image;
        }
    }
}

fn fill_host_config(mut host_config: api::HostConfig, host: &Host) -> api::HostConfig {
    let default = |own: &mut String, default: &str| {
        if own.is_empty() {
            *own = default.to_string();
        }
    };
    if matches!(host_config.network_mode.as_str(), "" | "default") {
        host_config.network_mode = "bridge".into();
    }
    default(&mut host_config.restart_policy.name, "no");
    default(&mut host_config.ipc_mode, &host.ipc_mode);
    let cgroupns = if host_config.privileged && host.cgroup_v1 { "host" } else { host.cgroupns_mode.as_str() };
    default(&mut host_config.cgroupns_mode, cgroupns);
    default(&mut host_config.runtime, &host.default_runtime);
    if host_config.shm_size == 0 {
        host_config.shm_size = host.shm_size;
    }
    if host_config.memory > 0 && host_config.memory_swap == 0 {
        host_config.memory_swap = host_config.memory.saturating_mul(2);
    }
    if host_config.oom_kill_disable.is_none() && host.cgroup_v1 {
        host_config.oom_kill_disable = Some(false);
    }
    if !host_config.privileged {
        let list = |paths: &[&str]| Some(paths.iter().map(ToString::to_string).collect());
        host_config.masked_paths = host_config.masked_paths.or_else(|| list(&runtime::spec::MASKED_PATHS));
        host_config.readonly_paths = host_config.readonly_paths.or_else(|| list(&runtime::spec::READONLY_PATHS));
    }
    disable_labels(&mut host_config);
    merge_log(&mut host_config.log_config, host);
    host_config
}

/// A container that shares the host's processes or is privileged has no SELinux label of its own; inspect says so.
fn disable_labels(host_config: &mut api::HostConfig) {
    let chosen = |options: &[String]| options.iter().any(|option| option.split('=').next() == Some("label"));
    let open = host_config.privileged || host_config.ipc_mode == "host" || host_config.pid_mode == "host";
    if open && !host_config.security_opt.as_deref().is_some_and(chosen) {
        host_config.security_opt.get_or_insert_default().push("label=disable".into());
    }
}

/// The daemon's driver unless one is named; its options too when the driver is the same (B-cr-4).
fn merge_log(log: &mut api::LogConfig, host: &Host) {
    if log.kind.is_empty() {
        log.kind.clone_from(&host.log_driver);
    }
    let mut options = log.config.take().unwrap_or_default();
    if log.kind == host.log_driver {
        for (key, value) in &host.log_opts {
            options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    log.config = Some(options);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::validate::host::DEFAULT_SHM_SIZE;

    fn image() -> api::ImageConfig {
        api::ImageConfig {
            env: vec!["PATH=/bin".into(), "A=image".into()],
            cmd: vec!["sh".into()],
            user: "www".into(),
            labels: [("l".to_string(), "image".to_string())].into(),
            working_dir: "/srv//x/../y/".into(),
            ..Default::default()
        }
    }

    fn merged(config: api::ContainerConfig, host_config: api::HostConfig) -> Result<Merged> {
        let host = Host { ipc_mode: "private".into(), shm_size: DEFAULT_SHM_SIZE, ..Host::default() };
        merge(config, host_config, &image(), &host, &ContainerId::from_bytes([1; 32]))
    }

    /// B-cr-1: keys not given come from the image.
    #[test]
    fn the_image_fills_what_the_request_leaves_out() {
        let config = api::ContainerConfig { env: Some(vec!["A=own".into()]), ..Default::default() };
        let merged = merged(config, Default::default()).expect("merges").config;
        assert_eq!(merged.env.as_deref(), Some(&["A=own".to_string(), "PATH=/bin".into()][..]));
        assert_eq!((merged.user.as_str(), merged.working_dir.as_str()), ("www", "/srv/y"));
        assert_eq!(merged.cmd.as_deref(), Some(&["sh".to_string()][..]));
        assert_eq!(merged.hostname, "010101010101");
    }

    /// An image decides nothing of what the engine's own labels decide.
    #[test]
    fn labels_of_the_engine_are_not_inherited() {
        let names = ["gantry.egress", "gantry.keep", "gantry", "org.x"];
        let labels = names.map(|name| (name.to_string(), "image".to_string())).into();
        let image = api::ImageConfig { labels, ..image() };
        let own = [("gantry.keep".to_string(), "own".to_string())].into();
        let config = api::ContainerConfig { labels: Some(own), ..Default::default() };
        let (host, id) = (Host::default(), ContainerId::from_bytes([1; 32]));
        let merged = merge(config, Default::default(), &image, &host, &id).expect("merges").config.labels;
        let expected = [("gantry", "image"), ("gantry.keep", "own"), ("org.x", "image")];
        let expected = expected.map(|(name, value)| (name.to_string(), value.to_string())).into();
        assert_eq!(merged, Some(expected));
    }

    /// B-cr-1 and B-cr-2: an own entrypoint drops the image's command; nothing to run is refused.
    #[test]
    fn commands_merge_as_the_reference() {
        let own = |entrypoint: &[&str]| api::ContainerConfig {
            entrypoint: Some(entrypoint.iter().map(ToString::to_string).collect()),
            ..Default::default()
        };
        let config = merged(own(&["/bin/true"]), Default::default()).expect("merges").config;
        assert_eq!(config.cmd, None);
        assert_eq!(merged(own(&[""]), Default::default()).expect_err("nothing").message(), "no command specified");
        // An empty list is no entrypoint, but drops the image's; the command is the image's.
        let config = merged(own(&[]), Default::default()).expect("merges").config;
        assert_eq!((config.entrypoint, config.cmd), (Some(vec![]), Some(vec!["sh".to_string()])));
    }

    /// B-cr-1: nothing given, by neither side, is shown as the reference shows it.
    #[test]
    fn absent_lists_stay_absent() {
        let config = api::ContainerConfig { cmd: Some(vec!["x".into()]), ..Default::default() };
        let (host, id) = (Host::default(), ContainerId::from_bytes([1; 32]));
        let config = merge(config, Default::default(), &Default::default(), &host, &id).expect("merges").config;
        assert_eq!((config.env, config.volumes, config.entrypoint), (None, None, None));
        assert_eq!(config.labels, Some(BTreeMap::new()));
        assert!(config.exposed_ports.is_empty());
    }

    /// The reference notes that such containers have no label.
    #[test]
    fn open_containers_have_no_label() {
        let options = |host_config| merged(Default::default(), host_config).expect("merges").host_config.security_opt;
        let privileged = api::HostConfig { privileged: true, ..Default::default() };
        assert_eq!(options(privileged.clone()), Some(vec!["label=disable".to_string()]));
        let own = Some(vec!["label=level:x".to_string()]);
        assert_eq!(options(api::HostConfig { security_opt: own.clone(), ..privileged }), own);
        assert_eq!(options(Default::default()), None);
    }

    /// B-cr-4: the daemon's options only go with the daemon's driver.
    #[test]
    fn log_options_go_with_their_driver() {
        let opts = BTreeMap::from([("max-size".to_string(), "1m".to_string())]);
        let host = Host { log_driver: "json-file".into(), log_opts: opts.clone(), ..Host::default() };
        let filled = |kind: &str| {
            let log_config = api::LogConfig { kind: kind.into(), config: None };
            fill_host_config(api::HostConfig { log_config, ..Default::default() }, &host).log_config
        };
        assert_eq!(filled(""), api::LogConfig { kind: "json-file".into(), config: Some(opts) });
        assert_eq!(filled("none").config, Some(BTreeMap::new()));
    }

    /// B-cr-3: defaults are written back and visible in inspect.
    #[test]
    fn defaults_are_written_back() {
        let host = merged(Default::default(), api::HostConfig { memory: 10, ..Default::default() }).expect("merges");
        let host = host.host_config;
        assert_eq!((host.memory_swap, host.shm_size, host.ipc_mode.as_str()), (20, DEFAULT_SHM_SIZE, "private"));
        assert!(host.masked_paths.is_some());
        let privileged = api::HostConfig { privileged: true, ..Default::default() };
        assert_eq!(merged(Default::default(), privileged).expect("merges").host_config.masked_paths, None);
    }
}
