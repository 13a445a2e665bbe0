//! `gantryd ports add|rm CONTAINER PORT`: changes the published ports of a container, also while it runs.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use model::{Error, Result};

use crate::control;

/// Longest wait for sockets and rules.
const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes one more port.
pub fn add(exec_root: &Path, operands: &[String]) -> Result<ExitCode> {
    let add = port(&operands[1])?;
    ask(exec_root, &operands[0], &api::PortsChange { add, ..api::PortsChange::default() })
}

/// Publishes a port no longer.
pub fn remove(exec_root: &Path, operands: &[String]) -> Result<ExitCode> {
    let mut remove = port(&operands[1])?;
    for bindings in remove.values_mut() {
        let any = |binding: &api::PortBinding| *binding == api::PortBinding::default();
        *bindings = bindings.take().filter(|bindings| !bindings.iter().all(any));
    }
    ask(exec_root, &operands[0], &api::PortsChange { remove, ..api::PortsChange::default() })
}

fn ask(exec_root: &Path, container: &str, change: &api::PortsChange) -> Result<ExitCode> {
    let socket = control::socket(exec_root);
    let path = format!("/containers/{}/ports", control::escaped(container));
    let body = serde_json::to_string(change).map_err(|error| Error::system(error.to_string()))?;
    let answer = control::post(&socket, &path, &body, PATIENCE)?;
    let changed: api::PortsChanged = serde_json::from_slice(&answer)
        .map_err(|error| Error::system(format!("the daemon is of another version: {error}")))?;
    for (port, bindings) in &changed.ports {
        for binding in bindings.iter().flatten() {
            println!("{port} -> {}:{}", binding.host_ip, binding.host_port);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `[[ADDRESS:]HOST_PORT:]PORT[/PROTOCOL]`, as `docker run -p` has it; each port may be a range (`FIRST-LAST`), that of the host
/// as long as the container's, or of any length for a single port.
fn port(text: &str) -> Result<api::PortMap> {
    let invalid = || Error::invalid(format!("{text:?} is not of the form [[ADDRESS:]HOST_PORT:]PORT[/PROTOCOL]"));
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let (before, container) = rest.rsplit_once(':').map_or(("", rest), |(before, port)| (before, port));
    let (first, last) = range(container).ok_or_else(invalid)?;
    let (host_ip, host) = match before.rsplit_once(':') {
        Some((ip, port)) => (ip.trim_start_matches('[').trim_end_matches(']'), port),
        None => ("", before),
    };
    if !host_ip.is_empty() && host_ip.parse::<std::net::IpAddr>().is_err() {
        return Err(invalid());
    }
    let hosts = match host {
        "" => None,
        host => Some(range(host).ok_or_else(invalid)?),
    };
    if let Some((host_first, host_last)) = hosts
        && first != last
        && host_last - host_first != last - first
    {
        let text = format!("invalid ranges specified for container and host Ports: {container} and {host}");
        return Err(Error::invalid(text));
    }
    let entry = |number: u16| {
        let host_port = match hosts {
            Some((host_first, _)) if first != last => (host_first + (number - first)).to_string(),
            _ => host.to_owned(),
        };
        let binding = api::PortBinding { host_ip: host_ip.to_owned(), host_port };
        (format!("{number}/{protocol}"), Some(vec![binding]))
    };
    Ok((first..=last).map(entry).collect())
}

/// `FIRST-LAST`, or one port.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_on_the_command_line() {
        let of = |text: &str| {
            let map = port(text).unwrap();
            let (key, bindings) = map.into_iter().next().unwrap();
            let binding = bindings.unwrap().remove(0);
            (key, binding.host_ip, binding.host_port)
        };
        let is =
            |text: &str, key: &str, ip: &str, port: &str| assert_eq!(of(text), (key.into(), ip.into(), port.into()));
        is("80", "80/tcp", "", "");
        is("8080:80/udp", "80/udp", "", "8080");
        is("127.0.0.1:8080:80", "80/tcp", "127.0.0.1", "8080");
        is("127.0.0.1::80", "80/tcp", "127.0.0.1", "");
        is("[::1]:8080:80", "80/tcp", "::1", "8080");
        is("8080-8090:80", "80/tcp", "", "8080-8090");
        let many = port("127.0.0.1:9000-9002:80-82/udp").unwrap();
        let host_ports: Vec<_> =
            many.iter().map(|(key, at)| (key.as_str(), &*at.as_ref().unwrap()[0].host_port)).collect();
        assert_eq!(host_ports, [("80/udp", "9000"), ("81/udp", "9001"), ("82/udp", "9002")]);
        assert_eq!(port("1-65535:1-65535").unwrap().len(), 65_535);
        assert!(port("80-82").unwrap().values().all(|at| at.as_ref().unwrap()[0].host_port.is_empty()));
        let uneven = port("9000-9001:80-82").unwrap_err();
        assert_eq!(uneven.message(), "invalid ranges specified for container and host Ports: 80-82 and 9000-9001");
        for wrong in ["", "x", "80:x", "nowhere:80:80", "82-80", "80-", "-80", "9-1:80", "1-99999"] {
            assert!(port(wrong).is_err(), "{wrong}");
        }
    }
}
