//! `EXPOSE`: `[ip:][host port:]port[-port][/protocol]`.

use std::net::IpAddr;

use serde_json::Map;

use super::at::{At, Error, Result};
use super::configure::note;
use super::plan::Plan;
use crate::image::Layer;
use crate::instruction::Command;
use crate::lint::{Linter, rule};
use crate::text::{plain_list, quote};

/// Bytes that a port takes.
const PORT: usize = 128;

/// `EXPOSE`
pub(super) fn expose(plan: &mut Plan<'_>, at: &At<'_>, words: &[String], linter: &mut Linter) -> Result<()> {
    let mut ports = Vec::new();
    for word in words {
        // A variable may hold several.
        let found = plan.lexer.expand(word, &plan.stages[at.stage].state.env)?;
        for word in &found.words {
            let read = read(word, &at.step.command, linter)?;
            plan.spend(read.len() * PORT)?;
            ports.extend(read);
        }
    }
    let config = &mut plan.stages[at.stage].image.config;
    config.exposed_ports.extend(ports.iter().map(|port| (port.clone(), Map::new())));
    note(plan, at, format!("EXPOSE {}", plain_list(&ports)), Layer::Unchanged);
    Ok(())
}

/// The ports of a word, each with its protocol.
fn read(word: &str, command: &Command, linter: &mut Linter) -> Result<Vec<String>> {
    let parts: Vec<&str> = word.rsplitn(3, ':').collect();
    let (port, host, ip) = match parts[..] {
        [port] => (port, "", ""),
        [port, host] => (port, host, ""),
        [port, host, ip] => (port, host, ip),
        _ => (word, "", ""),
    };
    let (ports, protocol) = port.split_once('/').unwrap_or((port, ""));
    let invalid = |why: String| Error::new(format!("invalid port: {}: {why}", quote(word)));
    if ports.is_empty() {
        return Err(invalid("no port specified".into()));
    }
    let lower = protocol.to_lowercase();
    let lower = match lower.as_str() {
        "" => "tcp",
        known @ ("tcp" | "udp" | "sctp") => known,
        _ => return Err(invalid(format!("invalid proto: {protocol}"))),
    };
    if protocol != protocol.to_lowercase() {
        let message = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
        linter.report(&rule::EXPOSE_PROTO_CASING, command.place(), message);
    }
    if !ip.is_empty() || !host.is_empty() {
        let message =
            format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'");
        linter.report(&rule::EXPOSE_INVALID_FORMAT, command.place(), message);
    }
    let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !ip.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(Error::new(format!("invalid IP address: {bare}")));
    }
    let (first, last) = range(ports).ok_or_else(|| Error::new(format!("invalid containerPort: {ports}")))?;
    if !host.is_empty() {
        let (low, high) = range(host).ok_or_else(|| Error::new(format!("invalid hostPort: {host}")))?;
        if last - first != high - low && first != last {
            let why = format!("invalid ranges specified for container and host Ports: {ports} and {host}");
            return Err(Error::new(why));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{lower}")).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let digits = text.strip_prefix('+').unwrap_or(text);
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u16>().ok())?
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::Instruction;

    fn command() -> Command {
        Command {
            keyword: "EXPOSE".into(),
            text: String::new(),
            lines: crate::Lines::default(),
            comments: Vec::new(),
            instruction: Instruction::Expose(Vec::new()),
        }
    }

    #[test]
    fn ports_are_read() {
        for (word, ports) in [
            ("80", vec!["80/tcp"]),
            ("80/UDP", vec!["80/udp"]),
            ("80-82/sctp", vec!["80/sctp", "81/sctp", "82/sctp"]),
            ("8080:80", vec!["80/tcp"]),
            ("127.0.0.1:8080:80", vec!["80/tcp"]),
            ("[::1]:8080:80", vec!["80/tcp"]),
            ("0", vec!["0/tcp"]),
        ] {
            assert_eq!(read(word, &command(), &mut Linter::default()).unwrap(), ports, "{word}");
        }
        for (word, why) in [
            ("80/foo", "invalid port: \"80/foo\": invalid proto: foo"),
            ("/tcp", "invalid port: \"/tcp\": no port specified"),
            ("x", "invalid containerPort: x"),
            ("70000", "invalid containerPort: 70000"),
            ("82-80", "invalid containerPort: 82-80"),
            ("x:80", "invalid hostPort: x"),
            ("1.2.3:1:80", "invalid IP address: 1.2.3"),
        ] {
            assert_eq!(read(word, &command(), &mut Linter::default()).unwrap_err().message(), why);
        }
    }

    #[test]
    fn advice_is_given_once_a_word() {
        let mut linter = Linter::default();
        read("127.0.0.1:80:80/TCP", &command(), &mut linter).unwrap();
        let rules: Vec<&str> = linter.into_warnings().iter().map(|warning| warning.rule.name).collect();
        assert_eq!(rules, ["ExposeProtoCasing", "ExposeInvalidFormat"]);
    }
}
