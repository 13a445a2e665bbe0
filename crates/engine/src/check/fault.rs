//! Faults and what a repair does about each.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use model::digest::Digest;
use model::{Context, Result};
use serde::{Deserialize, Serialize};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// A stable name, for programs (`blob-damaged`).
    pub name: &'static str,
    /// What it is about.
    pub subject: String,
    /// Where: a path below the data root, or a table of the store.
    pub place: String,
    /// What is wrong.
    pub detail: String,
    /// What a repair does.
    pub repair: Repair,
}

/// What a repair does about a fault. The order is the order in which a repair works: what is wrong goes aside before
/// what relies on it is put right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repair {
    /// Saves the row's bytes in the quarantine and deletes it.
    SetRowAside { table: &'static str, key: String },
    /// Saves the run record of a container that has no definition in the quarantine and deletes it.
    SetRecordAside(String),
    /// Writes the run record of a container that has none: it ended, nobody knows how.
    MakeRecord(String),
    /// Moves the blob to the quarantine.
    SetBlobAside(Digest),
    /// Writes an image's row anew from its documents.
    Describe(Digest),
    /// Marks these manifests of an image as not here: the row and the names stay, a pull completes it.
    Withdraw { image: Digest, manifests: Vec<Digest> },
    /// Drops a name.
    DropName(String),
    /// Writes what the index of who uses which image has to say of a container.
    IndexUser(String),
    /// Drops a row of that index, by its key.
    DropUser(String),
    /// Unpacks a layer from its blob; what lies in its place goes to the quarantine.
    Unpack { layer: Digest, blob: Digest },
    /// Moves the layer to the quarantine.
    SetLayerAside(Digest),
    /// Deletes what the build cache knows of a step, by its row of kept content.
    Forget(String),
    /// Makes a container's directory and writable layer where they are missing.
    MakeWritable(String),
    /// Writes the row of a volume whose directory is here, or makes the directory too.
    MakeVolume(String),
    /// Removes a blob that nothing names.
    RemoveBlob(Digest),
    /// Removes a layer that nothing names.
    RemoveLayer(Digest),
    /// Removes unfinished work.
    Remove(PathBuf),
    /// Moves a file or directory to the quarantine.
    SetAside(PathBuf),
    /// Takes the store for the one that belongs here, once what it does not name is in the quarantine.
    ApproveStore,
    /// Moves all content to the quarantine: there are no rows for it.
    SetContentAside,
    /// Nothing can be done here, for this reason.
    Nothing(String),
}

impl Repair {
    /// What it does, for people.
    pub fn text(&self) -> String {
        match self {
            Repair::SetRowAside { .. } => "the row is saved in the quarantine and deleted".into(),
            Repair::SetRecordAside(_) => "the run record is saved in the quarantine and deleted".into(),
            Repair::MakeRecord(_) => "it is recorded as ended with an unknown exit code".into(),
            Repair::SetBlobAside(_) => "the blob is moved to the quarantine".into(),
            Repair::Describe(_) => "the row is written anew from the image's documents".into(),
            Repair::Withdraw { .. } => {
                "the image is marked as not available; it keeps its names, and a pull completes it".into()
            }
            Repair::DropName(_) => "the name is dropped".into(),
            Repair::IndexUser(_) => "the row of the index is written anew".into(),
            Repair::DropUser(_) => "the row of the index is dropped".into(),
            Repair::Unpack { .. } => {
                "the layer is unpacked again from its blob; what is there goes to the quarantine".into()
            }
            Repair::SetLayerAside(_) => "the layer is moved to the quarantine; a pull unpacks it again".into(),
            Repair::Forget(_) => "the build cache forgets it; the next build makes it anew".into(),
            Repair::MakeWritable(_) => "what is missing is made anew, empty".into(),
            Repair::MakeVolume(_) => "the volume is made anew around what is there".into(),
            Repair::RemoveBlob(_) | Repair::RemoveLayer(_) | Repair::Remove(_) => "it is removed".into(),
            Repair::SetAside(_) => "it is moved to the quarantine".into(),
            Repair::ApproveStore => {
                "what the store does not name is moved to the quarantine, and the store taken for the right one; put the \
                 right one back instead if there is one"
                    .into()
            }
            Repair::SetContentAside => {
                "everything is moved to the quarantine, and the next start begins a new store; put the store back instead \
                 if there is a copy"
                    .into()
            }
            Repair::Nothing(why) => format!("nothing: {why}"),
        }
    }
}

/// A fault as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// See [`Fault`].
    pub name: String,
    /// See [`Fault`].
    pub subject: String,
    /// See [`Fault`].
    pub place: String,
    /// See [`Fault`].
    pub detail: String,
    /// What a repair does.
    pub repair: String,
}

impl From<&Fault> for FaultReport {
    fn from(fault: &Fault) -> FaultReport {
        FaultReport {
            name: fault.name.to_owned(),
            subject: fault.subject.clone(),
            place: fault.place.clone(),
            detail: fault.detail.clone(),
            repair: fault.repair.text(),
        }
    }
}

impl std::fmt::Display for FaultReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let FaultReport { name, subject, place, detail, repair } = self;
        write!(f, "{name}: {subject}: {detail} ({place}); repair: {repair}")
    }
}

/// The outcome of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Nothing is wrong (any more).
    pub clean: bool,
    /// What is wrong (still, after a repair).
    pub faults: Vec<FaultReport>,
    /// What a repair did, a line each.
    pub repaired: Vec<String>,
    /// What could not be compared, and why; no faults.
    pub unverified: Vec<String>,
    /// What was looked at.
    pub checked: Checked,
    /// What it takes of the disk.
    #[serde(default)]
    pub on_disk: OnDisk,
}

/// Blocks that directories of the data root take on the disk with all that is in them, in bytes, as `du` counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDisk {
    /// Blobs, whole and in part.
    pub content: u64,
    /// Unpacked layers.
    pub snapshots: u64,
    /// Writable layers, logs, and what else containers have.
    pub containers: u64,
    /// Data of volumes.
    pub volumes: u64,
    /// Cache mounts of builds.
    #[serde(default)]
    pub build: u64,
}

impl OnDisk {
    /// Measures a data root; what is not there takes nothing.
    pub fn of(data_root: &Path) -> Result<OnDisk> {
        let measured = |name: &str| {
            let path = data_root.join(name);
            let usage = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
                other => other.and_then(|dir| sys::tree::disk_usage(dir.into())),
            };
            usage.with_context(|| format!("measuring {}", path.display()))
        };
        Ok(OnDisk {
            content: measured("content")?,
            snapshots: measured("snapshots")?,
            containers: measured("containers")?,
            volumes: measured("volumes")?,
            build: measured("build")?,
        })
    }
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Image rows.
    pub images: usize,
    /// Blobs, all of them hashed.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Layers, compared with their archives.
    pub layers: usize,
    /// Container rows.
    pub containers: usize,
    /// Volume rows.
    pub volumes: usize,
    /// Results of steps and packed layers in the build cache.
    #[serde(default)]
    pub steps: usize,
}
