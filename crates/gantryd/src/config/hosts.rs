//! Listening addresses: `unix://PATH`, `tcp://HOST:PORT`, `HOST:PORT`, `fd://NAME`.
//!
//! - [`parse`] gives the address in normal form, with the reference's texts for bad ones.
//! - A tcp address without a port gets 2375; the TLS default (`tcp://localhost:2376`) applies only when no host is given at all.

use super::{Host, go};

/// Default socket.
pub const DEFAULT_UNIX: &str = "unix:///var/run/docker.sock";
/// Default address when TLS is on and no host is given.
pub const DEFAULT_TLS: &str = "tcp://localhost:2376";
const DEFAULT_TCP_HOST: &str = "localhost";
const DEFAULT_TCP_PORT: u16 = 2375;
const DEFAULT_UNIX_PATH: &str = "/var/run/docker.sock";

/// Parses one address (blank ones are the caller's business).
pub fn parse(address: &str) -> Result<Host, String> {
    let (proto, rest) = address.split_once("://").unwrap_or(("tcp", address));
    match proto {
        "tcp" => tcp(rest).map_err(|why| format!("invalid bind address ({address}): {why}")),
        "unix" if rest.contains("://") => {
            Err(format!("invalid bind address ({address}): invalid unix address: {rest}"))
        }
        "unix" if rest.is_empty() => Ok(Host::Unix(DEFAULT_UNIX_PATH.into())),
        "unix" => Ok(Host::Unix(rest.into())),
        "fd" => Ok(Host::Fd(rest.to_string())),
        other => Err(format!("invalid bind address ({address}): unsupported proto '{other}'")),
    }
}

fn tcp(rest: &str) -> Result<Host, String> {
    if rest.contains('/') {
        return Err("should not contain a path element".into());
    }
    let (host, port) = split_port(rest)?;
    let host = if host.is_empty() { DEFAULT_TCP_HOST } else { host };
    let port = match port {
        None | Some("") => DEFAULT_TCP_PORT,
        Some(text) => match text.parse::<u32>() {
            Ok(0) | Err(_) => return Err(format!("invalid port: {text}")),
            Ok(n) => u16::try_from(n).map_err(|_| format!("invalid port: {text}"))?,
        },
    };
    Ok(Host::Tcp { host: host.to_string(), port })
}

/// Host (without brackets) and port, if a colon stands there.
fn split_port(rest: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(inner) = rest.strip_prefix('[') {
        let (host, tail) = inner.split_once(']').ok_or("missing ']' in host")?;
        return Ok((host, tail.strip_prefix(':')));
    }
    match rest.rsplit_once(':') {
        Some((host, port)) if !port.chars().all(|c| c.is_ascii_digit()) => {
            let _ = host;
            Err(format!(
                "parse {}: invalid port {} after host",
                go::quote(&format!("tcp://{rest}")),
                go::quote(&format!(":{port}"))
            ))
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((rest, None)),
    }
}

/// Parses all addresses, sorts them and removes duplicates.
pub fn normalize(specs: &[String]) -> Result<Vec<Host>, String> {
    let mut hosts = specs.iter().map(|s| parse(s.trim())).collect::<Result<Vec<_>, _>>()?;
    hosts.sort();
    hosts.dedup();
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp_host(host: &str, port: u16) -> Result<Host, String> {
        Ok(Host::Tcp { host: host.into(), port })
    }

    #[test]
    fn accepted_forms() {
        assert_eq!(parse("unix:///run/x.sock"), Ok(Host::Unix("/run/x.sock".into())));
        assert_eq!(parse("unix://"), Ok(Host::Unix("/var/run/docker.sock".into())));
        assert_eq!(parse("tcp://0.0.0.0:4000"), tcp_host("0.0.0.0", 4000));
        assert_eq!(parse("tcp://"), tcp_host("localhost", 2375));
        assert_eq!(parse("tcp://:7777"), tcp_host("localhost", 7777));
        assert_eq!(parse("0.0.0.1:5555"), tcp_host("0.0.0.1", 5555));
        assert_eq!(parse("tcp://[::1]:5555"), tcp_host("::1", 5555));
        assert_eq!(parse("tcp://[::1]"), tcp_host("::1", 2375));
        assert_eq!(parse("fd://"), Ok(Host::Fd(String::new())));
        assert_eq!(parse("fd://docker.socket"), Ok(Host::Fd("docker.socket".into())));
    }

    #[test]
    fn refused_forms_name_the_reason() {
        let text = |a: &str| parse(a).unwrap_err();
        assert_eq!(text("udp://127.0.0.1"), "invalid bind address (udp://127.0.0.1): unsupported proto 'udp'");
        assert_eq!(text("tcp://127.0.0.1:0"), "invalid bind address (tcp://127.0.0.1:0): invalid port: 0");
        assert_eq!(
            text("tcp://unix:///x"),
            "invalid bind address (tcp://unix:///x): should not contain a path element"
        );
        assert_eq!(text("unix://tcp://x"), "invalid bind address (unix://tcp://x): invalid unix address: tcp://x");
        assert!(text("tcp://localhost:fool").contains(r#"invalid port ":fool" after host"#));
    }

    #[test]
    fn duplicates_fall_together() {
        let specs: Vec<String> = ["unix:///a", "tcp://:1", "unix:///a"].map(String::from).into();
        assert_eq!(normalize(&specs).unwrap().len(), 2);
    }
}
