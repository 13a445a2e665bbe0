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

/// `[[ADDRESS:]HOST_PORT:]PORT[/PROTOCOL]`, as `docker run -p` has it, without ranges of container ports.
fn port(text: &str) -> Result<api::PortMap> {
    let invalid = || Error::invalid(format!("{text:?} is not of the form [[ADDRESS:]HOST_PORT:]PORT[/PROTOCOL]"));
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let (before, container_port) = rest.rsplit_once(':').map_or(("", rest), |(before, port)| (before, port));
    container_port.parse::<u16>().map_err(|_| invalid())?;
    let (host_ip, host_port) = match before.rsplit_once(':') {
        Some((ip, port)) => (ip.trim_start_matches('[').trim_end_matches(']'), port),
        None => ("", before),
    };
    if !host_ip.is_empty() && host_ip.parse::<std::net::IpAddr>().is_err() {
        return Err(invalid());
    }
    let binding = api::PortBinding { host_ip: host_ip.to_owned(), host_port: host_port.to_owned() };
    Ok([(format!("{container_port}/{protocol}"), Some(vec![binding]))].into())
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
        for wrong in ["", "x", "80:x", "nowhere:80:80"] {
            assert!(port(wrong).is_err(), "{wrong}");
        }
    }
}
