//! `POST /containers/create`: what the body means at the client's version.
//!
//! Fields that came later are not heard, defaults that changed are the old ones, and the container-wide MAC address and
//! interface sysctls of older clients move to the endpoint that they meant. The rules are pure: [`adapt`] changes the
//! request and returns the warnings.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{
    ApiVersion, CreateRequest, CreateResponse, EndpointSettings, HostConfig, LegacyHostConfig, NetworkingConfig,
    PortBindings,
};
use engine::container::create::mounts::ReadOnly;
use engine::container::create::{self, CreateArgs};
use model::{Error, Result};

use super::{State, created};
use crate::query::go_quote;
use crate::request::Request;
use crate::routes::Outcome;

/// The driver option that holds the sysctls of one interface.
const ENDPOINT_SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// The network that `default` stands for.
const DEFAULT_NETWORK: &str = "bridge";

/// `POST /containers/create`
pub async fn create(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    request.check_json()?;
    let bytes = request.bytes().await?;
    let mut body = api::decode::create_request(&bytes).map_err(|error| Error::invalid(error.create_message()))?;
    let client = Client { version: request.version, cgroup_v2: state.engine.host.has_cgroup_v2() };
    let older = adapt(&mut body, client)?;
    let text = |key: &str| Some(request.query.text(key)).filter(|text| !text.is_empty()).map(str::to_owned);
    let platform = if request.version.before(41) { None } else { text("platform") };
    let read_only = if request.version.before(44) { ReadOnly::Top } else { ReadOnly::Tree };
    let args = CreateArgs { name: text("name"), platform, read_only, request: body };
    let made = create::create(&state.engine, args).await?;
    let mut warnings = made.warnings;
    warnings.extend(older);
    created(&CreateResponse { id: made.id, warnings })
}

/// What the rules depend on besides the body of the request.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The client's version.
    pub version: ApiVersion,
    /// The host has cgroup v2.
    pub cgroup_v2: bool,
}

/// Makes a request of an older client what it would be today.
pub fn adapt(request: &mut CreateRequest, client: Client) -> Result<Vec<String>> {
    let Some(config) = &mut request.config else {
        return Err(Error::invalid("config cannot be empty in order to create a container"));
    };
    let version = client.version;
    if version.before(44)
        && let Some(check) = &mut config.healthcheck
    {
        check.start_interval = 0;
    }
    let mac_address = std::mem::take(&mut request.legacy_mac_address);
    let mut warnings = judge_legacy(&std::mem::take(&mut request.legacy_host_config), version)?;
    let host = request.host_config.get_or_insert_default();
    let networking = request.networking_config.get_or_insert_default();
    name_default_network(host, networking);
    forget_newer_fields(host, client);
    check_mounts(host, version)?;
    adapt_endpoints(networking, version)?;
    warnings.extend(volume_driver_warning(host, version));
    if version.before(52) {
        warnings.extend(place_mac_address(host, networking, version, &mac_address)?);
    }
    warnings.extend(place_sysctls(host, networking, version)?);
    warnings.extend(fill_port_bindings(host, version));
    host.pids_limit = host.pids_limit.filter(|limit| *limit > 0);
    Ok(warnings)
}

/// What newer versions have no more: refused where it protects, with a warning where it does nothing.
fn judge_legacy(legacy: &LegacyHostConfig, version: ApiVersion) -> Result<Vec<String>> {
    if version.before(41) && legacy.capabilities.as_ref().is_some_and(|names| !names.is_empty()) {
        return Err(Error::invalid(
            "the HostConfig.Capabilities field is not supported by this daemon; use CapAdd and CapDrop to set capabilities",
        ));
    }
    let memory = [
        (version.before(42) && legacy.kernel_memory > 0, "KernelMemory"),
        (version.before(52) && legacy.kernel_memory_tcp > 0, "KernelMemoryTCP"),
    ];
    let warn = |name| format!("{name} has no effect: the memory limit counts the kernel's memory, too.");
    Ok(memory.into_iter().filter(|(asked, _)| *asked).map(|(_, name)| warn(name)).collect())
}

/// `default` and nothing at all are the default network.
fn name_default_network(host: &mut HostConfig, networking: &mut NetworkingConfig) {
    if matches!(host.network_mode.as_str(), "" | "default") {
        host.network_mode = DEFAULT_NETWORK.to_owned();
        if let Some(endpoint) = networking.endpoints_config.remove("default") {
            networking.endpoints_config.insert(DEFAULT_NETWORK.to_owned(), endpoint);
        }
    }
}

fn forget_newer_fields(host: &mut HostConfig, client: Client) {
    let version = client.version;
    if version.before(40) && host.ipc_mode.is_empty() {
        host.ipc_mode = "shareable".to_owned();
    }
    if version.before(41) && host.cgroupns_mode.is_empty() && !client.cgroup_v2 {
        host.cgroupns_mode = "host".to_owned();
    }
    if version.before(42) {
        host.console_size = [0, 0];
    }
    if version.before(43) {
        host.annotations.clear();
    }
    for mount in &mut host.mounts {
        if let Some(options) = &mut mount.bind_options {
            options.non_recursive &= !version.before(40);
            options.create_mountpoint &= !version.before(42);
        }
        // Options of another kind of mount were not looked at.
        if version.before(42) {
            mount.volume_options = mount.volume_options.take().filter(|_| mount.kind == "volume");
            mount.tmpfs_options = mount.tmpfs_options.take().filter(|_| mount.kind == "tmpfs");
        }
    }
}

fn check_mounts(host: &HostConfig, version: ApiVersion) -> Result<()> {
    for mount in &host.mounts {
        let kind = mount.kind.as_str();
        if !version.before(42) {
            for (name, there, own) in [
                ("VolumeOptions", mount.volume_options.is_some(), "volume"),
                ("BindOptions", mount.bind_options.is_some(), "bind"),
                ("TmpfsOptions", mount.tmpfs_options.is_some(), "tmpfs"),
            ] {
                if there && kind != own {
                    let kind = go_quote(kind);
                    return Err(Error::invalid(format!("{name} must not be specified on mount type {kind}")));
                }
            }
        }
        let forced = mount.bind_options.as_ref().is_some_and(|options| options.read_only_force_recursive);
        if version.before(44) && kind == "bind" && forced {
            return Err(Error::invalid("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"));
        }
        let subpath = mount.volume_options.as_ref().is_some_and(|options| !options.subpath.is_empty());
        if version.before(45) && subpath {
            return Err(Error::invalid("VolumeOptions.Subpath needs API v1.45 or newer"));
        }
        if version.before(48) && kind == "image" {
            return Err(Error::invalid("Mount type \"Image\" needs API v1.48 or newer"));
        }
    }
    Ok(())
}

fn adapt_endpoints(networking: &mut NetworkingConfig, version: ApiVersion) -> Result<()> {
    let endpoints = &mut networking.endpoints_config;
    if version.before(44) && endpoints.len() > 1 {
        let names = endpoints.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(Error::invalid(format!("Container cannot be created with multiple network endpoints: {names}")));
    }
    if version.before(48) {
        endpoints.values_mut().flatten().for_each(|endpoint| endpoint.gw_priority = 0);
    }
    Ok(())
}

fn volume_driver_warning(host: &HostConfig, version: ApiVersion) -> Option<String> {
    if host.volume_driver.is_empty() || version.before(48) {
        return None;
    }
    let has_driver = |mount: &api::Mount| {
        let options = mount.volume_options.as_ref();
        options.and_then(|options| options.driver_config.as_ref()).is_some_and(|driver| !driver.name.is_empty())
    };
    let ambiguous = host.mounts.iter().any(|mount| mount.kind == "volume" && !has_driver(mount));
    ambiguous.then(|| {
        "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use \
         '--mount type=volume,volume-driver=...' instead"
            .to_owned()
    })
}

fn is_container(mode: &str) -> bool {
    mode.starts_with("container:")
}

/// The bridge or a network made by the user.
fn can_have_address(mode: &str) -> bool {
    !matches!(mode, "host" | "none" | "default") && !is_container(mode)
}

/// Moves the container-wide address to the endpoint of the container's main network.
fn place_mac_address(
    host: &HostConfig,
    networking: &mut NetworkingConfig,
    version: ApiVersion,
    address: &str,
) -> Result<Option<String>> {
    let mode = host.network_mode.as_str();
    if version.before(44) {
        if address.is_empty() {
            // The field of the endpoint was not heard.
            networking.endpoints_config.values_mut().flatten().for_each(|endpoint| endpoint.mac_address.clear());
            return Ok(None);
        }
        if !can_have_address(mode) {
            return Err(Error::invalid("conflicting options: mac-address and the network mode"));
        }
        address.clone_into(&mut main_endpoint(networking, version, mode)?.mac_address);
        return Ok(None);
    }
    if address.is_empty() {
        return Ok(None);
    }
    if can_have_address(mode) {
        let endpoint = main_endpoint(networking, version, mode)
            .map_err(|error| error.prefix("unable to migrate container-wide MAC address to a specific network"))?;
        if endpoint.mac_address.is_empty() {
            address.clone_into(&mut endpoint.mac_address);
        } else if !endpoint.mac_address.eq_ignore_ascii_case(address) {
            return Err(Error::invalid(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or \
                 be left empty",
            ));
        }
    }
    let warning = "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig \
                   instead.";
    Ok(Some(warning.to_owned()))
}

/// The endpoint of the main network. It is made when there is none at all; when there are others it has to be named as
/// the mode names it, since nobody can tell whether another name means the same network.
fn main_endpoint<'n>(
    networking: &'n mut NetworkingConfig,
    version: ApiVersion,
    mode: &str,
) -> Result<&'n mut EndpointSettings> {
    let endpoints = &mut networking.endpoints_config;
    let key = if endpoints.is_empty() {
        mode.to_owned()
    } else if version.before(44) {
        endpoints.keys().next().cloned().unwrap_or_default()
    } else if endpoints.contains_key(mode) {
        mode.to_owned()
    } else {
        return Err(Error::invalid(
            "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
        ));
    };
    Ok(endpoints.entry(key).or_default().get_or_insert_default())
}

/// `net.ipv6.conf.eth0.forwarding` → (`eth0`, `net.ipv6.conf.IFNAME.forwarding`).
fn interface_sysctl(name: &str) -> Option<(&str, String)> {
    let mut parts = name.splitn(5, '.');
    let (net, family, conf, interface, rest) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (net == "net" && interface.starts_with("eth")).then(|| (interface, format!("net.{family}.{conf}.IFNAME.{rest}")))
}

/// Moves sysctls of the first interface to its endpoint, where they can be set once it exists.
fn place_sysctls(
    host: &mut HostConfig,
    networking: &mut NetworkingConfig,
    version: ApiVersion,
) -> Result<Option<String>> {
    let mode = host.network_mode.clone();
    if mode == "host" || is_container(&mode) {
        return Ok(None);
    }
    let mut moved: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &host.sysctls {
        let Some((interface, per_interface)) = interface_sysctl(name) else { continue };
        if !version.before(48) {
            let name = go_quote(name);
            return Err(Error::system(format!(
                "interface specific sysctl setting {name} must be supplied using driver option '{ENDPOINT_SYSCTLS}'"
            )));
        }
        if interface != "eth0" {
            return Err(Error::system(format!(
                "unable to determine network endpoint for sysctl {name}, use driver option '{ENDPOINT_SYSCTLS}' to \
                 set per-interface sysctls"
            )));
        }
        moved.insert(name.clone(), format!("{per_interface}={value}"));
    }
    let Some(first) = moved.keys().next() else { return Ok(None) };
    let endpoint = main_endpoint(networking, version, &mode)
        .map_err(|error| error.prefix(format!("unable to find a network for sysctl {first}")))?;
    let mut option = moved.values().cloned().collect::<Vec<_>>().join(",");
    let names = moved.keys().cloned().collect::<Vec<_>>().join(",");
    let warning = format!(
        "Migrated sysctl {} to DriverOpts{{{}:{}}}.",
        go_quote(&names),
        go_quote(ENDPOINT_SYSCTLS),
        go_quote(&option)
    );
    let options = endpoint.driver_opts.get_or_insert_default();
    // What the endpoint itself says comes last and wins.
    if let Some(own) = options.get(ENDPOINT_SYSCTLS) {
        option = format!("{option},{own}");
    }
    options.insert(ENDPOINT_SYSCTLS.to_owned(), option);
    host.sysctls.retain(|name, _| !moved.contains_key(name));
    Ok(Some(warning))
}

/// A port with an empty list of bindings is published on any port.
fn fill_port_bindings(host: &mut HostConfig, version: ApiVersion) -> Option<String> {
    let filled = host.port_bindings.as_mut().map(PortBindings::fill).unwrap_or_default();
    (!filled.is_empty() && !version.before(52)).then(|| {
        format!(
            "Following container port(s) have an empty list of port-bindings: {}. Such bindings will be discarded in \
             a future version.",
            filled.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V43: ApiVersion = ApiVersion::v1(43);
    const V45: ApiVersion = ApiVersion::v1(45);

    fn adapted(version: ApiVersion, body: &str) -> Result<(CreateRequest, Vec<String>)> {
        let mut request = api::decode::create_request(body.as_bytes()).expect("valid JSON");
        let warnings = adapt(&mut request, Client { version, cgroup_v2: false })?;
        Ok((request, warnings))
    }

    fn host(version: ApiVersion, body: &str) -> HostConfig {
        adapted(version, body).expect("accepted").0.host_config.expect("made")
    }

    fn refused(version: ApiVersion, body: &str) -> String {
        adapted(version, body).expect_err("refused").message().to_owned()
    }

    #[test]
    fn a_configuration_is_needed() {
        assert_eq!(refused(V45, "{}"), "config cannot be empty in order to create a container");
    }

    #[test]
    fn the_default_network_is_the_bridge() {
        assert_eq!(host(V45, r#"{"Image":"a"}"#).network_mode, "bridge");
        let body = r#"{"Image":"a","HostConfig":{"NetworkMode":"default"},
            "NetworkingConfig":{"EndpointsConfig":{"default":{"Aliases":["x"]}}}}"#;
        let (request, _) = adapted(V45, body).expect("accepted");
        assert_eq!(request.networking_config.expect("kept").endpoints_config.keys().next().expect("one"), "bridge");
    }

    #[test]
    fn defaults_of_old_versions() {
        let body = r#"{"Image":"a","HostConfig":{"ConsoleSize":[1,2],"Annotations":{"a":"b"},"PidsLimit":-1}}"#;
        let old = host(ApiVersion::v1(39), body);
        assert_eq!((old.ipc_mode.as_str(), old.cgroupns_mode.as_str()), ("shareable", "host"));
        assert_eq!((old.console_size, old.annotations.len(), old.pids_limit), ([0, 0], 0, None));
        let new = host(V45, body);
        assert_eq!((new.ipc_mode.as_str(), new.cgroupns_mode.as_str()), ("", ""));
        assert_eq!((new.console_size, new.annotations.len()), ([1, 2], 1));
    }

    #[test]
    fn mounts_are_checked_by_version() {
        let mount = |mount: &str| format!(r#"{{"Image":"a","HostConfig":{{"Mounts":[{mount}]}}}}"#);
        let wrong = mount(r#"{"Type":"bind","VolumeOptions":{"NoCopy":true}}"#);
        assert_eq!(refused(V45, &wrong), "VolumeOptions must not be specified on mount type \"bind\"");
        assert_eq!(host(ApiVersion::v1(41), &wrong).mounts[0].volume_options, None);
        let image = mount(r#"{"Type":"image"}"#);
        assert_eq!(refused(V45, &image), "Mount type \"Image\" needs API v1.48 or newer");
        let subpath = mount(r#"{"Type":"volume","VolumeOptions":{"Subpath":"x"}}"#);
        assert_eq!(refused(ApiVersion::v1(44), &subpath), "VolumeOptions.Subpath needs API v1.45 or newer");
        let forced = mount(r#"{"Type":"bind","BindOptions":{"ReadOnlyForceRecursive":true}}"#);
        assert_eq!(refused(V43, &forced), "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer");
    }

    #[test]
    fn one_network_below_1_44() {
        let body = r#"{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}"#;
        assert_eq!(refused(V43, body), "Container cannot be created with multiple network endpoints: a, b");
        assert!(adapted(V45, body).is_ok());
    }

    #[test]
    fn fields_that_are_gone_are_refused_or_warned_about() {
        let exact = r#"{"Image":"a","HostConfig":{"Capabilities":["CAP_CHOWN"]}}"#;
        let v40 = ApiVersion::v1(40);
        assert!(refused(v40, exact).starts_with("the HostConfig.Capabilities field is not supported"));
        assert!(adapted(V43, exact).is_ok(), "no field of that version");
        let memory = r#"{"Image":"a","HostConfig":{"KernelMemory":9000000,"KernelMemoryTCP":9000000}}"#;
        let warnings = |version| adapted(version, memory).expect("accepted").1.len();
        assert_eq!((warnings(v40), warnings(V43)), (2, 1));
    }

    #[test]
    fn the_container_wide_address_moves_to_its_endpoint() {
        let body = r#"{"Image":"a","MacAddress":"aa:bb:cc:dd:ee:ff"}"#;
        let address = |request: CreateRequest| {
            let endpoints = request.networking_config.expect("made").endpoints_config;
            endpoints["bridge"].as_ref().expect("made").mac_address.clone()
        };
        let (request, warnings) = adapted(V43, body).expect("accepted");
        assert_eq!((address(request).as_str(), warnings.len()), ("aa:bb:cc:dd:ee:ff", 0));
        let (request, warnings) = adapted(V45, body).expect("accepted");
        assert_eq!((address(request).as_str(), warnings.len()), ("aa:bb:cc:dd:ee:ff", 1));
        let on_host = r#"{"Image":"a","MacAddress":"aa:bb:cc:dd:ee:ff","HostConfig":{"NetworkMode":"host"}}"#;
        assert_eq!(refused(V43, on_host), "conflicting options: mac-address and the network mode");
        let other = r#"{"Image":"a","MacAddress":"aa:bb:cc:dd:ee:ff",
            "NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"aa:bb:cc:dd:ee:00"}}}}"#;
        assert!(refused(V45, other).starts_with("the container-wide MAC address must match"));
    }

    #[test]
    fn sysctls_of_the_first_interface_move_to_its_endpoint() {
        let body = r#"{"Image":"a","HostConfig":{"Sysctls":{"net.ipv6.conf.eth0.forwarding":"1","net.core.x":"2"}}}"#;
        let (request, warnings) = adapted(V45, body).expect("accepted");
        assert_eq!(warnings.len(), 1);
        assert_eq!(request.host_config.expect("kept").sysctls.len(), 1);
        let endpoints = request.networking_config.expect("made").endpoints_config;
        let options = endpoints["bridge"].as_ref().and_then(|endpoint| endpoint.driver_opts.clone()).expect("options");
        assert_eq!(options[ENDPOINT_SYSCTLS], "net.ipv6.conf.IFNAME.forwarding=1");
        assert!(refused(ApiVersion::MAX, body).starts_with("interface specific sysctl setting"));
        let second = r#"{"Image":"a","HostConfig":{"Sysctls":{"net.ipv6.conf.eth1.forwarding":"1"}}}"#;
        assert!(refused(V45, second).starts_with("unable to determine network endpoint for sysctl"));
    }

    #[test]
    fn empty_port_bindings_mean_any_port() {
        let body = r#"{"Image":"a","HostConfig":{"PortBindings":{"80":[],"81/tcp":null}}}"#;
        let (request, warnings) = adapted(V45, body).expect("accepted");
        let ports = request.host_config.expect("kept").port_bindings.expect("kept").to_map();
        assert_eq!(ports["80/tcp"].as_ref().map(Vec::len), Some(1));
        assert_eq!(ports["81/tcp"].as_ref().map(Vec::len), Some(1));
        assert!(warnings.is_empty());
        let (_, warnings) = adapted(ApiVersion::MAX, body).expect("accepted");
        assert!(warnings[0].contains("80/tcp, 81/tcp"));
    }
}
