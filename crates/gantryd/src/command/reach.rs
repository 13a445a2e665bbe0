//! `gantryd reach [CONTAINER]`: who can reach which container, in sentences.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use engine::reach::Reached;
use model::{Error, Result};

use crate::control;

/// Longest wait for an answer that is read from memory.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the daemon with this exec root and prints what it says.
pub fn reach(exec_root: &Path, operands: &[String], switches: &[String]) -> Result<ExitCode> {
    let socket = control::socket(exec_root);
    let path = match operands.first() {
        Some(name) => format!("/reach?container={}", control::escaped(name)),
        None => "/reach".to_owned(),
    };
    let answer = control::get(&socket, &path, PATIENCE)?;
    if !switches.is_empty() {
        print!("{}", String::from_utf8_lossy(&answer));
        return Ok(ExitCode::SUCCESS);
    }
    let all: Vec<Reached> = serde_json::from_slice(&answer)
        .map_err(|error| Error::system(format!("the daemon is of another version: {error}")))?;
    all.iter().for_each(|one| print!("{}", text(one)));
    Ok(ExitCode::SUCCESS)
}

fn text(one: &Reached) -> String {
    let mut out = format!("{}\n", one.name);
    match one.mode.as_str() {
        "" if one.texts.is_empty() => out.push_str("  nobody by a bridge network\n"),
        "" => one.texts.iter().for_each(|text| out.push_str(&format!("  {text}\n"))),
        "host" => out.push_str("  whoever can reach this host, at the ports that its programs listen at\n"),
        joined => out.push_str(&format!("  who can reach {joined}\n")),
    }
    for rule in &one.egress {
        let where_else = if rule.by.starts_with("network ") { " and containers there" } else { "" };
        let all = rule.destinations.join(", ");
        out.push_str(&format!("  reaches only {all}{where_else} (egress rules of the {})\n", rule.by));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_has_its_line() {
        let one = |mode: &str, texts: &[&str]| {
            let texts = texts.iter().map(|text| (*text).to_owned()).collect();
            text(&Reached { name: "web".into(), mode: mode.into(), texts, ..Reached::default() })
        };
        assert_eq!(one("", &["a", "b"]), "web\n  a\n  b\n");
        assert_eq!(one("", &[]), "web\n  nobody by a bridge network\n");
        assert_eq!(one("container:db", &[]), "web\n  who can reach container:db\n");
    }
}
