//! `gantryd secret …` and `gantryd config …`: secrets and configs of this host.

use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;
use std::time::Duration;

use api::secret::{Secret, SecretCreateResponse, SecretSpec};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use model::{Error, Result};

use crate::control::{self, Asked};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that are read: more than any may have.
const DATA: u64 = 1 << 20;

/// `create NAME`: the content comes from the standard input.
pub fn create(asked: Asked<'_>, kind: &str) -> Result<ExitCode> {
    if io::stdin().is_terminal() {
        return Err(Error::invalid("the content is not read from a terminal: redirect the standard input"));
    }
    let mut data = Vec::new();
    io::stdin().lock().take(DATA).read_to_end(&mut data)?;
    let data = Some(BASE64_STANDARD.encode(&data));
    let spec = SecretSpec { name: asked.operands[0].clone(), data, ..SecretSpec::default() };
    let body = serde_json::to_string(&spec).map_err(|error| Error::system(error.to_string()))?;
    let answer = control::post(&socket(asked), &format!("/{kind}s/create"), &body, PATIENCE)?;
    let made: SecretCreateResponse = read(&answer)?;
    println!("{}", made.id);
    Ok(ExitCode::SUCCESS)
}

/// `ls`
pub fn list(asked: Asked<'_>, kind: &str) -> Result<ExitCode> {
    let all: Vec<Secret> = read(&control::get(&socket(asked), &format!("/{kind}s"), PATIENCE)?)?;
    let width = all.iter().map(|one| one.spec.name.len()).max().unwrap_or(0).max(4);
    println!("{:<25}   {:<width$}   CREATED", "ID", "NAME");
    for one in all {
        println!("{:<25}   {:<width$}   {}", one.id, one.spec.name, one.created_at);
    }
    Ok(ExitCode::SUCCESS)
}

/// `rm NAME`
pub fn remove(asked: Asked<'_>, kind: &str) -> Result<ExitCode> {
    let name = &asked.operands[0];
    control::delete(&socket(asked), &format!("/{kind}s/{}", control::escaped(name)), PATIENCE)?;
    println!("{name}");
    Ok(ExitCode::SUCCESS)
}

fn socket(asked: Asked<'_>) -> std::path::PathBuf {
    control::socket(asked.exec_root)
}

fn read<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T> {
    serde_json::from_slice(answer).map_err(|error| Error::system(format!("the daemon is of another version: {error}")))
}
