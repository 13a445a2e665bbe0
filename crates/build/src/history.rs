//! Builds of the past: a file for each, with what is known of the build and all that it told.
//!
//! Invariants:
//! - a file is whole or not there: it is written beside its place and renamed. It is not synced, since a build that is forgotten
//!   after a power cut harms nobody; one that is cut off is not read;
//! - what is remembered in memory decides what is on the disk ([`History::settle`]), whatever order changes come in.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::{BuildHistoryRecord, StatusResponse};
use model::digest::{Algorithm, Digest};
use model::lock::Mutex;
use model::{Context, Error, Result};
use prost::Message;

/// The form of the files.
const VERSION: u32 = 1;
/// Files that are read, and bytes of one.
const FILES: usize = 2000;
const BYTES: u64 = 128 << 20;
/// Before the name of a file that is being written.
const UNFINISHED: &str = "new-";

/// A build that has ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// What is known of it.
    pub record: BuildHistoryRecord,
    /// What it told, in order.
    pub told: Vec<Arc<StatusResponse>>,
}

/// A file. Its parts may come one after the other, as those of any message.
#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(uint32, tag = "1")]
    version: u32,
    /// Messages that were told: fewer, and the file was cut off.
    #[prost(uint64, tag = "2")]
    count: u64,
    #[prost(message, optional, tag = "3")]
    record: Option<BuildHistoryRecord>,
    #[prost(message, repeated, tag = "4")]
    told: Vec<StatusResponse>,
}

/// All of them, below one directory.
pub struct History {
    dir: PathBuf,
    /// Held while files change.
    turn: Mutex<()>,
}

impl History {
    /// Below a directory, which need not be there.
    pub fn new(dir: PathBuf) -> History {
        History { dir, turn: Mutex::default() }
    }

    /// Reads them, the one that ended first in front. Those that cannot be read are told of in the log and stay. Blocks.
    pub fn load(&self) -> Vec<Past> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten().take(FILES);
        let mut all = Vec::new();
        for path in entries.map(|entry| entry.path()) {
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED)) {
                // A daemon that was killed has left it.
                drop(fs::remove_file(&path));
                continue;
            }
            match read(&path) {
                Ok(past) => all.push(past),
                Err(error) => tracing::warn!(%error, path = %path.display(), "a build of the past is not read"),
            }
        }
        let ended = |past: &Past| past.record.completed_at.map_or((0, 0), |time| (time.seconds, time.nanos));
        all.sort_by_key(ended);
        all
    }

    /// Writes the file of a build as it is remembered now, or removes it when it is forgotten. Blocks.
    pub fn settle(&self, id: &str, remembered: impl FnOnce() -> Option<Past>) -> Result<()> {
        let _turn = self.turn.lock();
        let name = Digest::of(Algorithm::Sha256, id.as_bytes()).hex().to_owned();
        let path = self.dir.join(&name);
        match remembered() {
            Some(past) => {
                let unfinished = self.dir.join(format!("{UNFINISHED}{name}"));
                self.write(&unfinished, &past).and_then(|()| fs::rename(&unfinished, &path)).context("keeping a build")
            }
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("forgetting a build"),
                _ => Ok(()),
            },
        }
    }

    fn write(&self, path: &Path, past: &Past) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut file = BufWriter::new(File::create(path)?);
        let count = past.told.len() as u64;
        let head = Kept { version: VERSION, count, record: Some(past.record.clone()), told: Vec::new() };
        file.write_all(&head.encode_to_vec())?;
        for message in &past.told {
            let part = Kept { told: vec![StatusResponse::clone(message)], ..Kept::default() };
            file.write_all(&part.encode_to_vec())?;
        }
        file.flush()
    }
}

fn read(path: &Path) -> Result<Past> {
    let mut bytes = Vec::new();
    let count = File::open(path).and_then(|file| file.take(BYTES + 1).read_to_end(&mut bytes)).context("reading it")?;
    if count as u64 > BYTES {
        return Err(Error::invalid(format!("it is longer than {BYTES} bytes")));
    }
    let kept = Kept::decode(bytes.as_slice()).map_err(|error| Error::invalid(error.to_string()))?;
    match kept.record {
        _ if kept.version != VERSION => Err(Error::invalid(format!("its form is {}, not {VERSION}", kept.version))),
        Some(record) if kept.told.len() as u64 == kept.count => {
            Ok(Past { record, told: kept.told.into_iter().map(Arc::new).collect() })
        }
        _ => Err(Error::invalid("it was cut off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard_buildkit_proto::google::protobuf::Timestamp;
    use bollard_buildkit_proto::moby::buildkit::v1::VertexLog;

    fn past(id: &str, seconds: i64) -> Past {
        let completed_at = Some(Timestamp { seconds, nanos: 0 });
        let record = BuildHistoryRecord { r#ref: id.into(), completed_at, ..BuildHistoryRecord::default() };
        let log = |text: &str| VertexLog { msg: text.into(), ..VertexLog::default() };
        let told = |text| StatusResponse { logs: vec![log(text)], ..StatusResponse::default() };
        Past { record, told: vec![Arc::new(told("a")), Arc::new(told("b"))] }
    }

    #[test]
    fn what_is_remembered_is_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::new(dir.path().join("history"));
        assert_eq!(history.load(), []);
        history.settle("none", || None).unwrap();
        history.settle("late", || Some(past("late", 9))).unwrap();
        history.settle("../early", || Some(past("../early", 1))).unwrap();
        assert_eq!(history.load(), [past("../early", 1), past("late", 9)]);
        history.settle("late", || Some(past("late", 0))).unwrap();
        history.settle("../early", || None).unwrap();
        assert_eq!(history.load(), [past("late", 0)]);
        assert_eq!(fs::read_dir(&history.dir).unwrap().count(), 1);
    }

    #[test]
    fn files_that_are_cut_off_or_of_another_form_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::new(dir.path().to_owned());
        history.settle("a", || Some(past("a", 1))).unwrap();
        let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(history.load(), [], "{length}");
        }
        fs::write(&path, Kept { version: 2, ..Kept::decode(whole.as_slice()).unwrap() }.encode_to_vec()).unwrap();
        assert_eq!(history.load(), []);
        fs::write(&path, &whole).unwrap();
        fs::write(dir.path().join("new-x"), "x").unwrap();
        assert_eq!(history.load(), [past("a", 1)]);
        assert!(!dir.path().join("new-x").exists());
    }
}
