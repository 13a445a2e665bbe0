//! What is read of a definition's wire form, once, at create or when it is loaded: the starts use the typed values.
//!
//! What a start refuses in the reference's words, and what rows of older daemons may have, is kept as an error and returned
//! where the value is used.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Error, Result};
use network::PublishSpec;
use runtime::spec::TmpfsOptions;

use super::modes::{IpcMode, NetworkMode, PidMode};
use super::security::{Capabilities, SecurityOptions};
use super::{mounts, network as networks};

/// A value, or why there is none. It can be copied.
type Read<T> = Result<T, Arc<Error>>;

/// What is read of a definition.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// `NetworkMode`.
    pub network: NetworkMode,
    /// `IpcMode`.
    pub ipc: IpcMode,
    /// `PidMode`.
    pub pid: PidMode,
    /// The UTS namespace is the host's.
    pub has_host_uts: bool,
    /// `SecurityOpt`.
    security: Read<SecurityOptions>,
    /// `CapAdd` and `CapDrop`.
    capabilities: Read<Capabilities>,
    /// `PortBindings`, and with `PublishAllPorts` the exposed ports.
    ports: Read<Vec<PublishSpec>>,
    /// `Tmpfs`, by target.
    tmpfs: BTreeMap<String, Read<TmpfsOptions>>,
    /// The tmpfs among `Mounts`, by target.
    tmpfs_mounts: BTreeMap<String, Read<TmpfsOptions>>,
    /// What the options of the log choose.
    log: Read<logs::Attributes>,
}

impl Parsed {
    /// Reads both halves of a configuration, and the tmpfs among its mounts: target and entry of `Mounts`. What the log carries is
    /// read already.
    pub fn of<'m>(
        config: &api::ContainerConfig,
        host: &api::HostConfig,
        tmpfs_mounts: impl Iterator<Item = (&'m str, Option<&'m api::Mount>)>,
        log: Result<logs::Attributes>,
    ) -> Parsed {
        let tmpfs = |(target, options): (&String, &String)| (target.clone(), read(TmpfsOptions::parse(options)));
        Parsed {
            network: NetworkMode::parse(&host.network_mode, config.network_disabled),
            ipc: IpcMode::parse(&host.ipc_mode),
            pid: PidMode::parse(&host.pid_mode),
            has_host_uts: host.uts_mode == "host",
            security: read(SecurityOptions::parse(host.security_opt.as_deref().unwrap_or_default())),
            capabilities: read(Capabilities::of(host)),
            ports: read(networks::publish_specs(config, host)),
            tmpfs: host.tmpfs.iter().map(tmpfs).collect(),
            tmpfs_mounts: tmpfs_mounts.map(|(at, entry)| (at.to_owned(), read(mounts::tmpfs_options(entry)))).collect(),
            log: read(log),
        }
    }

    /// The capabilities.
    ///
    /// Errors: those of [`Capabilities::of`].
    pub fn capabilities(&self) -> Result<Capabilities> {
        self.capabilities.as_ref().copied().map_err(|error| error.copy())
    }

    /// The security options.
    ///
    /// Errors: those of [`SecurityOptions::parse`].
    pub fn security(&self) -> Result<&SecurityOptions> {
        used(&self.security)
    }

    /// What is published.
    ///
    /// Errors: those of [`networks::publish_specs`].
    pub fn ports(&self) -> Result<&[PublishSpec]> {
        used(&self.ports).map(Vec::as_slice)
    }

    /// The tmpfs of `HostConfig.Tmpfs`: target and options.
    ///
    /// Errors: those of [`TmpfsOptions::parse`].
    pub fn tmpfs(&self) -> impl Iterator<Item = Result<(&str, &TmpfsOptions)>> {
        self.tmpfs.iter().map(|(target, options)| used(options).map(|options| (target.as_str(), options)))
    }

    /// The options of a tmpfs of `HostConfig.Mounts`, by its target.
    ///
    /// Errors: those of [`mounts::tmpfs_options`].
    pub fn tmpfs_mount(&self, target: &str) -> Result<&TmpfsOptions> {
        let missing = || Error::system(format!("{target} is no tmpfs"));
        self.tmpfs_mounts.get(target).ok_or_else(missing).and_then(used)
    }

    /// What every line of the log carries.
    ///
    /// Errors: those of [`logs::Attributes::parse`] and of the driver's check of its options.
    pub fn log(&self) -> Result<&logs::Attributes> {
        used(&self.log)
    }
}

fn read<T>(value: Result<T>) -> Read<T> {
    value.map_err(Arc::new)
}

fn used<T>(value: &Read<T>) -> Result<&T> {
    value.as_ref().map_err(|error| error.copy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::definition::Definition;
    use crate::container::row;

    fn definition(host: api::HostConfig) -> Definition {
        let definition = (*row::sample(1, model::lifecycle::State::Created).definition).clone();
        definition.changed(|definition| definition.host_config = host)
    }

    #[test]
    fn ports_tmpfs_and_log_options_are_read_once() {
        let host: api::HostConfig = serde_json::from_str(
            r#"{"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080-8081"}]},
                "Tmpfs": {"/a": "size=1m,exec", "/b": "what"},
                "LogConfig": {"Type": "json-file", "Config": {"tag": "{{.FullID}}"}}}"#,
        )
        .unwrap();
        let row = definition(host);
        let parsed = row.parsed();
        let ports = parsed.ports().unwrap();
        assert_eq!((ports.len(), ports[0].container_port, ports[0].host_ports), (1, 80, Some((8080, 8081))));
        let tmpfs: Vec<_> =
            parsed.tmpfs().map(|one| one.map(|(at, options)| (at, options.words().join(",")))).collect();
        assert_eq!(tmpfs[0].as_ref().unwrap(), &("/a", "nosuid,nodev,rprivate,size=1m,exec".to_owned()));
        assert_eq!(tmpfs[1].as_ref().unwrap_err().message(), "invalid tmpfs option \"what\"");
        assert_eq!(parsed.log().unwrap().json().unwrap(), format!("{{\"tag\":\"{}\"}}", row.id.as_str()));
        assert!(std::ptr::eq(parsed, row.parsed()));
    }

    #[test]
    fn what_a_start_refuses_is_an_error_of_its_use() {
        let host: api::HostConfig = serde_json::from_str(
            r#"{"PortBindings": {"80/tcp": [{"HostPort": "9-8"}]}, "NetworkMode": "none",
                "LogConfig": {"Type": "json-file", "Config": {"labels-regex": "("}}}"#,
        )
        .unwrap();
        let row = definition(host);
        let parsed = row.parsed();
        assert_eq!(parsed.network, NetworkMode::None);
        assert!(parsed.ports().unwrap_err().message().contains("9-8"));
        assert!(parsed.log().unwrap_err().message().starts_with("error parsing regexp"));
    }

    #[test]
    fn capabilities_are_read() {
        let of = |add: &str, drop: &str, privileged| {
            let list = |names: &str| Some(names.split_whitespace().map(str::to_owned).collect());
            let host = api::HostConfig { cap_add: list(add), cap_drop: list(drop), privileged, ..Default::default() };
            definition(host).parsed().capabilities()
        };
        let (plain, all) = (of("", "", false).unwrap(), of("", "", true).unwrap());
        assert!(!plain.wants_all && all.wants_all && of("all", "", false).unwrap().wants_all);
        assert_eq!(all.names().count(), model::capability::ALL.len());
        let mut default = model::capability::resolve(&[], &[], false).unwrap();
        default.sort_by_key(|name| model::capability::ALL.iter().position(|other| other == name));
        assert_eq!(plain.names().collect::<Vec<_>>(), default);
        let own: Vec<_> = of("net_admin CAP_SYS_TIME", "ALL", false).unwrap().names().collect();
        assert_eq!(own, ["CAP_NET_ADMIN", "CAP_SYS_TIME"]);
        assert!(of("nonsense", "", false).unwrap_err().message().contains("CAP_NONSENSE"));
    }

    #[test]
    fn bad_security_options_of_an_older_row_are_an_error_of_their_use() {
        let host = api::HostConfig { security_opt: Some(vec!["nonsense".into()]), ..Default::default() };
        assert!(definition(host).parsed().security().unwrap_err().message().contains("nonsense"));
    }
}
