//! What a check compares: the rows as they are, and what lies on the disk. Plain data, gathered elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use image::UserRow;
use image::kept::KeptRow;
use image::row::{ImageRow, NameRow};
use model::digest::Digest;
use volume::Volume;

use crate::container::row::{ContainerRow, RunRecord};

/// One look at a data root.
#[derive(Debug, Default)]
pub struct Inventory {
    /// What the store says.
    pub rows: Rows,
    /// What lies beside it.
    pub disk: Disk,
    /// What operations that go on speak for.
    pub busy: Busy,
}

/// The store.
#[derive(Debug, Default)]
pub struct Rows {
    /// By id.
    pub images: BTreeMap<Digest, ImageRow>,
    /// By full name.
    pub names: BTreeMap<String, NameRow>,
    /// By id.
    pub containers: BTreeMap<String, ContainerRow>,
    /// Those of them whose run record is missing.
    pub unrecorded: HashSet<String>,
    /// Run records of no container, by its id.
    pub undefined: BTreeMap<String, RunRecord>,
    /// Who uses which image, by image and container.
    pub users: BTreeMap<String, UserRow>,
    /// By name.
    pub volumes: BTreeMap<String, Volume>,
    /// What is kept for others than images and containers, by keeper.
    pub kept: BTreeMap<String, KeptRow>,
    /// What the build cache has to keep, by keeper, with the table and the key of what it is kept for.
    pub kept_for: BTreeMap<String, (&'static str, String)>,
    /// What cannot be read.
    pub damaged: Vec<DamagedRow>,
    /// Why the store may not be the one that belongs here: what it does not name may be in use all the same.
    pub doubt: Option<String>,
}

/// A row that cannot be read.
#[derive(Clone, Debug)]
pub struct DamagedRow {
    /// Of which table.
    pub table: &'static str,
    /// The row.
    pub row: store::Damaged,
}

/// The files.
#[derive(Debug, Default)]
pub struct Disk {
    /// The name of the snapshotter in use, as container rows have it; empty: none.
    pub storage: String,
    /// Where its layers lie, below the data root.
    pub layers_at: PathBuf,
    /// Every file that is named as a blob.
    pub blobs: BTreeMap<Digest, Blob>,
    /// What the documents say of each image in the rows whose target is here.
    pub described: BTreeMap<Digest, Result<ImageRow, String>>,
    /// Every directory that is named as a layer.
    pub layers: BTreeMap<Digest, Layer>,
    /// Every layer that has no diff id of its own, by its name, with the diff ids that lead to it.
    pub local_layers: BTreeMap<Digest, Vec<Digest>>,
    /// Every directory that is named as a container, and whether it has a writable layer.
    pub containers: BTreeMap<String, bool>,
    /// Every directory of a volume, and whether it has data.
    pub volumes: BTreeMap<String, bool>,
    /// What else there is.
    pub strays: Vec<Stray>,
}

/// A blob's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blob {
    /// It holds what its name says; its bytes.
    Sound(u64),
    /// It holds something else: digest and bytes.
    Damaged(Digest, u64),
    /// It could not be read.
    Unreadable(String),
}

impl Blob {
    /// Whether it holds what its name says.
    pub fn is_sound(&self) -> bool {
        matches!(self, Blob::Sound(_))
    }
}

/// A layer's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Just like its archive; the bytes it takes.
    Sound(u64),
    /// It has a record and a tree, but was not compared, for this reason.
    Unverified(u64, String),
    /// It is not what it should be.
    Damaged(String),
}

impl Layer {
    /// The bytes its record speaks of.
    pub fn size(&self) -> Option<u64> {
        match self {
            Layer::Sound(size) | Layer::Unverified(size, _) => Some(*size),
            Layer::Damaged(_) => None,
        }
    }
}

/// A file that is none of the above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Below the data root.
    pub place: PathBuf,
    /// What it is.
    pub kind: StrayKind,
}

/// What a stray file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrayKind {
    /// Unfinished work that nobody goes on with; the next start of a daemon removes it.
    Leftover,
    /// A part of a blob that nobody has added to for too long.
    ExpiredPart,
    /// Nothing that Gantry has made.
    Unknown,
}

/// What operations that go on speak for. Empty when no daemon runs.
#[derive(Debug, Default)]
pub struct Busy {
    /// Blobs and layers on the disk that are pinned.
    pub pinned: BTreeSet<Digest>,
    /// Containers that are being made, live or are being removed.
    pub containers: HashSet<String>,
    /// Volumes that are being made or removed.
    pub volumes: HashSet<String>,
}
