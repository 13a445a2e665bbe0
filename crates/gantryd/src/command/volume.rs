//! `gantryd volume …`: snapshots, clones, exports and imports of volumes.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use api::{VolumeCloneRequest, VolumeSnapshot, VolumeSnapshotList, VolumeSnapshotRequest};
use model::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::control::{self, Asked};

/// Longest silence of a daemon that copies: as long as a large volume on a slow disk may take.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// `gantryd volume snapshot VOLUME SNAPSHOT`
pub fn take_snapshot(asked: Asked<'_>) -> Result<ExitCode> {
    let [volume, name] = asked.operands else { return Ok(ExitCode::FAILURE) };
    let request = VolumeSnapshotRequest { name: name.clone(), freeze: asked.has("--freeze"), labels: None };
    let taken: VolumeSnapshot = post(asked, &format!("/volumes/{}/snapshots", control::escaped(volume)), &request)?;
    println!("{}", taken.name);
    Ok(ExitCode::SUCCESS)
}

/// `gantryd volume snapshot ls [VOLUME]`
pub fn list_snapshots(asked: Asked<'_>) -> Result<ExitCode> {
    let volume = asked.operands.first().map(|volume| control::escaped(volume)).unwrap_or_default();
    let answer = control::get(&socket(asked), &format!("/volume-snapshots?size=1&volume={volume}"), PATIENCE)?;
    if asked.has("--json") {
        print!("{}", String::from_utf8_lossy(&answer));
        return Ok(ExitCode::SUCCESS);
    }
    let list: VolumeSnapshotList = read(&answer)?;
    print!("{}", table(&list.snapshots));
    Ok(ExitCode::SUCCESS)
}

fn table(snapshots: &[VolumeSnapshot]) -> String {
    let head = ["SNAPSHOT", "VOLUME", "CREATED", "SCHEDULE", "SIZE"].map(str::to_owned);
    let row = |one: &VolumeSnapshot| {
        let size = if one.size < 0 { "N/A".to_owned() } else { model::units::human_size(one.size as f64) };
        [one.name.clone(), one.volume.clone(), one.created_at.clone(), one.schedule.clone(), size]
    };
    let rows: Vec<_> = std::iter::once(head).chain(snapshots.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let line = |row: &[String; 5]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect();
        format!("{}{}\n", cells.concat(), row[4])
    };
    rows.iter().map(line).collect()
}

/// `gantryd volume snapshot rm SNAPSHOT`
pub fn remove_snapshot(asked: Asked<'_>) -> Result<ExitCode> {
    control::delete(&socket(asked), &format!("/volume-snapshots/{}", control::escaped(&asked.operands[0])), PATIENCE)?;
    println!("{}", asked.operands[0]);
    Ok(ExitCode::SUCCESS)
}

/// `gantryd volume clone SNAPSHOT VOLUME`
pub fn clone(asked: Asked<'_>) -> Result<ExitCode> {
    let [snapshot, name] = asked.operands else { return Ok(ExitCode::FAILURE) };
    let request = VolumeCloneRequest { name: name.clone(), labels: None };
    let made: api::Volume = post(asked, &format!("/volume-snapshots/{}/clone", control::escaped(snapshot)), &request)?;
    println!("{}", made.name);
    Ok(ExitCode::SUCCESS)
}

/// `gantryd volume export VOLUME`
pub fn export(asked: Asked<'_>) -> Result<ExitCode> {
    if io::stdout().is_terminal() {
        return Err(Error::invalid("an archive is not written to a terminal: redirect the standard output"));
    }
    let kind = if asked.has("--snapshot") { "volume-snapshots" } else { "volumes" };
    let path = format!("/{kind}/{}/export", control::escaped(&asked.operands[0]));
    control::download(&socket(asked), &path, &mut io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

/// `gantryd volume import VOLUME`
pub fn import(asked: Asked<'_>) -> Result<ExitCode> {
    if io::stdin().is_terminal() {
        return Err(Error::invalid("an archive is not read from a terminal: redirect the standard input"));
    }
    let path = format!("/volumes/{}/import", control::escaped(&asked.operands[0]));
    let made: api::Volume = read(&control::upload(&socket(asked), &path, &mut io::stdin().lock())?)?;
    println!("{}", made.name);
    Ok(ExitCode::SUCCESS)
}

fn socket(asked: Asked<'_>) -> std::path::PathBuf {
    control::socket(asked.exec_root)
}

fn post<T: DeserializeOwned>(asked: Asked<'_>, path: &str, body: &impl Serialize) -> Result<T> {
    let body = serde_json::to_string(body).map_err(|error| Error::system(error.to_string()))?;
    read(&control::post(&socket(asked), path, &body, PATIENCE)?)
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T> {
    serde_json::from_slice(answer).map_err(|error| Error::system(format!("the daemon is of another version: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_their_heads() {
        let one = VolumeSnapshot {
            name: "long-name".into(),
            volume: "v".into(),
            created_at: "2026-01-01T00:00:00Z".into(),
            size: 2_000_000,
            ..VolumeSnapshot::default()
        };
        let text = table(&[one]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "SNAPSHOT    VOLUME   CREATED                SCHEDULE   SIZE");
        assert_eq!(lines[1], "long-name   v        2026-01-01T00:00:00Z              2MB");
    }
}
