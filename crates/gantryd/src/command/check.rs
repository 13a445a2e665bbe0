//! `gantryd check [--repair]`: the store against the disk.
//!
//! Who holds the lock of the data root is asked: a daemon that does checks for itself what it works on. Without one the
//! lock is taken, so that none starts meanwhile. Ends with 0 when nothing is wrong, with 1 when something is (still,
//! after a repair), with 2 when it could not be checked.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use engine::boot::LOCK_ATTEMPTS;
use engine::check::{Report, at_rest};
use model::{Context, Error, Kind, Result};
use rustix::fs::{FlockOperation, flock};

use super::call::Call;
use crate::{control, mask};

/// Longest wait for a daemon that hashes everything it has.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Checks, prints what was found.
pub fn check(call: &Call) -> Result<ExitCode> {
    let paths = &call.config.paths;
    let repair = call.has("--repair");
    let report = match lock(&paths.data_root, &paths.exec_root, repair)? {
        Held::Here(lock) => {
            mask::set();
            at_rest(&paths.data_root, &call.config.storage.driver, repair, &lock)?
        }
        Held::ByDaemon(report) => report,
    };
    if call.has("--json") {
        println!("{}", serde_json::to_string(&report).map_err(|e| Error::system(e.to_string()))?);
    } else {
        print!("{}", text(&report));
    }
    Ok(if report.clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Who holds the data root.
enum Held {
    /// This process.
    Here(File),
    /// A daemon, and what it says.
    ByDaemon(Report),
}

fn lock(data_root: &Path, exec_root: &Path, repair: bool) -> Result<Held> {
    let path = data_root.join("lock");
    let mut file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    let mut refused = Error::unavailable("its lock is held");
    for _ in 0..LOCK_ATTEMPTS.0 {
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(Held::Here(file));
        }
        let socket = control::socket(&noted_exec_root(&mut file).unwrap_or_else(|| exec_root.to_owned()));
        match if repair { no_repair(&socket, data_root) } else { asked(&socket) } {
            Ok(report) => return Ok(Held::ByDaemon(report)),
            Err(error) if error.kind() == Kind::Unavailable => refused = error,
            Err(error) => return Err(error),
        }
        std::thread::sleep(LOCK_ATTEMPTS.1);
    }
    Err(refused.prefix(format!("{} is in use", data_root.display())))
}

/// What the daemon there says.
fn asked(socket: &Path) -> Result<Report> {
    let answer = control::get(socket, "/check", PATIENCE)?;
    serde_json::from_slice(&answer).map_err(|e| Error::system(format!("the daemon is of another version: {e}")))
}

/// A repair is refused where a daemon answers, whatever it says; one that only ends is waited for.
fn no_repair(socket: &Path, data_root: &Path) -> Result<Report> {
    match control::get(socket, "/", PATIENCE) {
        Err(error) if error.kind() == Kind::Unavailable => Err(error),
        _ => {
            let text = "a daemon works on it: stop the daemon (containers may go on running), then repair";
            Err(Error::conflict(format!("{} cannot be repaired now: {text}", data_root.display())))
        }
    }
}

/// Where the daemon that holds the lock has its exec root, as it wrote into it.
fn noted_exec_root(lock: &mut File) -> Option<PathBuf> {
    let mut text = String::new();
    std::io::Seek::rewind(lock).ok()?;
    lock.take(4096).read_to_string(&mut text).ok()?;
    // A line without an end, or something behind it, is a note that is just being written.
    let path = PathBuf::from(text.split_once('\n')?.0);
    path.is_absolute().then_some(path)
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |text: String| out.push_str(&(text + "\n"));
    report.repaired.iter().for_each(|done| line(format!("repaired: {done}")));
    report.faults.iter().for_each(|fault| line(fault.to_string()));
    report.unverified.iter().for_each(|note| line(format!("note: {note}")));
    let c = &report.checked;
    let outcome = match report.faults.len() {
        0 => "no faults".to_owned(),
        1 => "1 fault".to_owned(),
        n => format!("{n} faults"),
    };
    line(format!(
        "checked {} images, {} blobs ({} bytes hashed), {} layers compared with their archives, {} containers, {} volumes: {outcome}",
        c.images, c.blobs, c.bytes, c.layers, c.containers, c.volumes
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::check::{Checked, FaultReport};

    #[test]
    fn every_fault_is_a_line() {
        let fault = FaultReport {
            name: "blob-damaged".into(),
            subject: "blob sha256:ab".into(),
            place: "content/blobs/sha256/ab".into(),
            detail: "its content has the digest sha256:cd (5 bytes)".into(),
            repair: "the blob is moved to the quarantine".into(),
        };
        let checked = Checked { images: 1, blobs: 3, bytes: 10, layers: 1, ..Checked::default() };
        let report = Report { faults: vec![fault], unverified: vec!["x".into()], checked, ..Report::default() };
        let expected = "blob-damaged: blob sha256:ab: its content has the digest sha256:cd (5 bytes) \
                        (content/blobs/sha256/ab); repair: the blob is moved to the quarantine\nnote: x\n\
                        checked 1 images, 3 blobs (10 bytes hashed), 1 layers compared with their archives, \
                        0 containers, 0 volumes: 1 fault\n";
        assert_eq!(text(&report), expected);
    }
}
