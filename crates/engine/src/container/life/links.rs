//! Links between containers on the default bridge: lines of the hosts file of the one that has the link, kept up to date
//! when the other one starts anew (B-lk-1).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::{Error, Result};

use crate::container::definition::links::{are_lines, parse};
use crate::container::definition::places::Places;
use crate::container::view::ContainerView;

/// The switch for the variables that links once set.
const VARIABLES: &str = "DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS";
/// The network whose addresses the lines have.
const NETWORK: &str = "bridge";

/// Finds a container by name or id.
pub type Find<'a> = &'a dyn Fn(&str) -> Option<Arc<ContainerView>>;

/// A container that another one has a link to.
pub struct Linked {
    /// What it is called there.
    pub alias: String,
    /// The container.
    pub view: Arc<ContainerView>,
}

/// The containers that one with this configuration has links to; those that are gone are left out.
pub fn of(find: Find<'_>, host: &api::HostConfig) -> Vec<Linked> {
    let links = host.links.iter().flatten().filter(|_| are_lines(&host.network_mode));
    let parsed = links.filter_map(|link| parse(link).ok());
    parsed.filter_map(|link| Some(Linked { view: find(&link.name)?, alias: link.alias })).collect()
}

/// As inspect shows them: `/db:/web/alias`. Links that are aliases on a network are shown there.
pub fn shown(find: Find<'_>, name: &str, host: &api::HostConfig) -> Option<Vec<String>> {
    let linked = of(find, host).into_iter();
    let shown: Vec<_> = linked.map(|link| format!("/{}:/{name}/{}", link.view.row.name, link.alias)).collect();
    Some(shown).filter(|shown| !shown.is_empty())
}

/// The names that containers have by links, by their ids: `/web/alias`.
pub fn names(find: Find<'_>, views: &[Arc<ContainerView>]) -> HashMap<String, Vec<String>> {
    let mut names: HashMap<String, Vec<String>> = HashMap::new();
    for view in views {
        for link in of(find, &view.row.host_config) {
            let name = format!("/{}/{}", view.row.name, link.alias);
            names.entry(link.view.row.id.as_str().to_owned()).or_default().push(name);
        }
    }
    names.values_mut().for_each(|names| names.sort());
    names
}

/// What a container with this configuration calls the one with this id.
pub fn aliases(host: &api::HostConfig, id: &str) -> Vec<String> {
    let links = host.links.iter().flatten().filter(|_| are_lines(&host.network_mode));
    let links = links.filter_map(|link| parse(link).ok()).filter(|link| link.name == id);
    links.map(|link| link.alias).collect()
}

/// What the start of a container takes of its links.
#[derive(Debug, Default)]
pub struct Taken {
    /// Lines of its hosts file: names and address.
    pub lines: Vec<(String, IpAddr)>,
    /// Variables of its environment, where the daemon is to keep them.
    pub environment: Vec<String>,
}

/// Errors: a container that is not on the default network, or does not run.
pub fn take(find: Find<'_>, name: &str, host: &api::HostConfig) -> Result<Taken> {
    let mut taken = Taken::default();
    if !matches!(host.network_mode.as_str(), "" | "default" | "bridge") {
        return Ok(taken);
    }
    let keeps = std::env::var_os(VARIABLES).is_some_and(|value| value == "1");
    for link in of(find, host) {
        let other = &link.view.row;
        if !Places::of(other).wanted().contains_key(NETWORK) {
            return Err(Error::system(format!(
                "Cannot link to /{}, as it does not belong to the default network",
                other.name
            )));
        }
        if link.view.pid == 0 {
            let text = format!("Cannot link to a non running container: /{} AS /{name}/{}", other.name, link.alias);
            return Err(Error::system(text));
        }
        let mut names = format!("{} {}", link.alias, other.config.hostname);
        if link.alias != other.name {
            names = format!("{names} {}", other.name);
        }
        let addresses = addresses(other.endpoints.first());
        taken.lines.extend(addresses.iter().map(|address| (names.clone(), *address)));
        if let Some(address) = addresses.first().filter(|_| keeps) {
            taken.environment.extend(variables(&format!("/{name}/{}", link.alias), *address, &other.config));
        }
    }
    Ok(taken)
}

/// The addresses of the only endpoint of a container on the default network, or of its first.
pub fn addresses(endpoint: Option<&network::Endpoint>) -> Vec<IpAddr> {
    endpoint.map(|endpoint| endpoint.addresses.iter().map(|own| own.address).collect()).unwrap_or_default()
}

/// What links once put into the environment: where the exposed ports are, and the other's own variables.
fn variables(link: &str, address: IpAddr, config: &api::ContainerConfig) -> Vec<String> {
    let alias = link.rsplit('/').next().unwrap_or(link).to_uppercase().replace('-', "_");
    let number = |port: &str| port.split('/').next().and_then(|number| number.parse::<u16>().ok());
    let protocol = |port: &str| port.split_once('/').map_or("tcp", |(_, protocol)| protocol).to_lowercase();
    let mut ports: Vec<(String, u16)> =
        config.exposed_ports.keys().filter_map(|port| Some((protocol(port), number(port)?))).collect();
    // TCP before the others.
    ports.sort_by_key(|(protocol, number)| (protocol != "tcp", protocol.clone(), *number));
    let mut all = Vec::new();
    if let Some((protocol, number)) = ports.first() {
        all.push(format!("{alias}_PORT={protocol}://{address}:{number}"));
    }
    for run in ports.chunk_by(|(a, first), (b, second)| a == b && first.checked_add(1) == Some(*second)) {
        for (protocol, number) in run {
            let name = format!("{alias}_PORT_{number}_{}", protocol.to_uppercase());
            all.push(format!("{name}={protocol}://{address}:{number}"));
            all.push(format!("{name}_ADDR={address}"));
            all.push(format!("{name}_PORT={number}"));
            all.push(format!("{name}_PROTO={protocol}"));
        }
        if let [(protocol, first), .., (_, last)] = run {
            let name = format!("{alias}_PORT_{first}_{}", protocol.to_uppercase());
            all.push(format!("{name}_START={protocol}://{address}:{first}"));
            all.push(format!("{name}_PORT_START={first}"));
            all.push(format!("{name}_END={protocol}://{address}:{last}"));
            all.push(format!("{name}_PORT_END={last}"));
        }
    }
    all.push(format!("{alias}_NAME={link}"));
    let own = config.env.iter().flatten().filter_map(|variable| variable.split_once('='));
    let own = own.filter(|(name, _)| !matches!(*name, "HOME" | "PATH"));
    all.extend(own.map(|(name, value)| format!("{alias}_ENV_{name}={value}")));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_links() {
        let config = api::ContainerConfig {
            exposed_ports: ["53/udp", "6380/tcp", "6379/tcp"].map(|port| (port.to_owned(), Default::default())).into(),
            env: Some(vec!["PATH=/bin".into(), "A=b=c".into(), "bare".into()]),
            ..api::ContainerConfig::default()
        };
        let all = variables("/web/my-db", "172.17.0.2".parse().unwrap(), &config);
        let expected = [
            "MY_DB_PORT=tcp://172.17.0.2:6379",
            "MY_DB_PORT_6379_TCP=tcp://172.17.0.2:6379",
            "MY_DB_PORT_6379_TCP_ADDR=172.17.0.2",
            "MY_DB_PORT_6379_TCP_PORT=6379",
            "MY_DB_PORT_6379_TCP_PROTO=tcp",
            "MY_DB_PORT_6380_TCP=tcp://172.17.0.2:6380",
            "MY_DB_PORT_6380_TCP_ADDR=172.17.0.2",
            "MY_DB_PORT_6380_TCP_PORT=6380",
            "MY_DB_PORT_6380_TCP_PROTO=tcp",
            "MY_DB_PORT_6379_TCP_START=tcp://172.17.0.2:6379",
            "MY_DB_PORT_6379_TCP_PORT_START=6379",
            "MY_DB_PORT_6379_TCP_END=tcp://172.17.0.2:6380",
            "MY_DB_PORT_6379_TCP_PORT_END=6380",
            "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
            "MY_DB_PORT_53_UDP_ADDR=172.17.0.2",
            "MY_DB_PORT_53_UDP_PORT=53",
            "MY_DB_PORT_53_UDP_PROTO=udp",
            "MY_DB_NAME=/web/my-db",
            "MY_DB_ENV_A=b=c",
        ];
        assert_eq!(all, expected);
    }
}
