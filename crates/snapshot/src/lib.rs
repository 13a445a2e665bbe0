//! Layers of images and the writable layers of containers: layer chain in, what to mount out.
//!
//! Invariants:
//! - a layer is a directory of its own, keyed by its diff-id (the digest of its uncompressed tar); layers do not look
//!   at each other, so those of one image are unpacked side by side;
//! - a layer appears by a rename when it is whole; a crash leaves only what lies under `tmp`, emptied at open;
//! - **referent before referrer**, on the disk as well: nothing is synced layer by layer; whoever commits a row that names
//!   layers calls [`LayerStore::sync`] once before, and whoever commits that a container runs
//!   [`RootStore::make_durable`]. What no row names is swept;
//! - nothing is mounted here: a container's init mounts [`Rootfs`] in its own namespace;
//! - paths that come out of an archive are resolved by [`sys::rooted::Rooted`] only, never by `std::path`.
#![forbid(unsafe_code)]

mod ahead;
mod apply;
pub mod archive;
pub mod blanks;
mod changes;
mod compare;
mod compress;
mod containers;
mod copy;
mod copy_out;
mod decompress;
mod extract;
mod layers;
mod merge;
mod overlay;
mod pack;
mod pax;
mod places;
mod sparse;
mod survey;
mod trash;
mod tree_copy;
mod view;
mod walk;

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::digest::Digest;
use model::{Error, Result};
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};
use store::{Lease, Sweep};
use sys::tree;

pub use ahead::ahead;
pub use compress::{Gzip, Zstd};
pub use copy::Copy;
pub use decompress::{Compression, decompress, to_layer};
pub use extract::{Extraction, extract};
pub use layers::topmost;
pub use overlay::Overlay;
pub use pack::{pack, pack_tree};
pub use survey::{Examined, Strays};
pub use trash::Trash;
pub use tree_copy::copy_tree;

/// What a layer is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LayerKey {
    /// Its diff id: the digest of its uncompressed tar.
    Diff(Digest),
    /// A name of 32 random bytes, in the form of a digest. The layer has not been packed, so nobody knows its diff id.
    Local(Digest),
}

impl LayerKey {
    /// What a lease pins for the layer.
    pub fn pin(&self) -> &Digest {
        match self {
            LayerKey::Diff(digest) | LayerKey::Local(digest) => digest,
        }
    }
}

impl From<&Digest> for LayerKey {
    fn from(diff_id: &Digest) -> LayerKey {
        LayerKey::Diff(diff_id.clone())
    }
}

impl std::fmt::Display for LayerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LayerKey::Diff(digest) => write!(f, "{digest}"),
            LayerKey::Local(name) => write!(f, "local-{}", name.hex()),
        }
    }
}

/// The keys of a chain of diff ids.
pub fn keys(diff_ids: &[Digest]) -> Vec<LayerKey> {
    diff_ids.iter().map(LayerKey::from).collect()
}

/// A layer on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Digest of the uncompressed tar; `None`: it has not been packed.
    pub diff_id: Option<Digest>,
    /// Bytes the unpacked files take.
    pub size: u64,
}

/// A layer that was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes the unpacked files take.
    pub size: u64,
}

/// Makes layers, keeps them and reads them. It knows nothing of containers.
///
/// Life cycle: [`LayerStore::apply_layer`] for every layer of an image → [`LayerStore::sync`] → the row that names the
/// layers is committed. What no row names and no lease pins goes with [`LayerStore::sweep`]. A layer that a root was
/// committed to ([`RootStore::commit`]) has a local key; [`LayerStore::pack_layer`] computes its diff id and
/// [`LayerStore::identify`] makes the layer known by it as well.
///
/// All calls block (run them off the async threads) and may run at the same time; two that apply the same layer both
/// succeed and one result is kept. The conformance suite is `tests/it/conformance.rs`.
pub trait LayerStore: Send + Sync {
    /// The name shown by `info` and by `inspect` (`overlayfs`, `native`).
    fn name(&self) -> &'static str;

    /// What is known of a layer, if it is here. Pin it first when the answer has to last.
    fn layer(&self, key: &LayerKey) -> Result<Option<LayerInfo>>;

    /// Bytes on disk of a layer with its directories and its record; 0 when it is not here.
    fn layer_usage(&self, key: &LayerKey) -> Result<u64>;

    /// Unpacks an uncompressed tar to a layer and pins it in `lease`. The whole stream is read, padding included.
    ///
    /// Errors: `InvalidParameter` when the archive is malformed, leaves the layer, or its digest is not `expected`;
    /// `System` when the disk refuses. Nothing is left of a failed layer.
    fn apply_layer(&self, expected: Option<&Digest>, tar: &mut dyn Read, lease: &Lease) -> Result<Unpacked>;

    /// Writes a layer over `below` (bottom first) as an uncompressed tar; returns the digest of what was written. The
    /// same layer gives the same bytes. `latest`: no file is told to be newer than this many seconds since 1970.
    ///
    /// Errors: `NotFound` when a layer is missing.
    fn pack_layer(
        &self,
        key: &LayerKey,
        below: &[LayerKey],
        latest: Option<i64>,
        out: &mut dyn Write,
    ) -> Result<Digest>;

    /// Makes a layer with a local key known by its diff id as well. Both must be pinned. Nothing happens when another
    /// layer has that diff id already.
    ///
    /// Errors: `NotFound`; `InvalidParameter` when the key is not a local one; `Conflict` when the layer has another
    /// diff id.
    fn identify(&self, key: &LayerKey, diff_id: &Digest) -> Result<()>;

    /// The directories of a chain, top first, to be mounted without a writable one. `NotFound` when a layer is missing.
    fn directories(&self, layers: &[LayerKey]) -> Result<Vec<PathBuf>>;

    /// What an absolute path of the chain leads to, links followed within it; `None`: nothing.
    fn file_type(&self, layers: &[LayerKey], path: &str) -> Result<Option<FileType>>;

    /// Copies what the chain has at `path` (absolute, a directory) into the empty directory `target`: content, owners,
    /// modes, times, xattrs, hard links; the directory's own attributes too. Links on the way are followed within the
    /// chain. Nothing happens when nothing is there.
    ///
    /// Errors: `System` for what is no directory.
    fn copy_out(&self, layers: &[LayerKey], path: &str, target: &Path) -> Result<()>;

    /// Makes every layer written so far durable.
    fn sync(&self) -> Result<()>;

    /// Removes layers that are neither live nor pinned; returns the bytes that became free.
    fn sweep(&self, live: &HashSet<LayerKey>, sweep: &Sweep<'_>) -> Result<u64>;
}

/// Makes, keeps and removes the writable roots of containers (and of whatever else runs over layers).
///
/// Life cycle: [`RootStore::prepare`] once → [`RootStore::rootfs`] at every start → [`RootStore::remove`], or
/// [`RootStore::commit`]. All calls block and may run at the same time.
pub trait RootStore: RootReader {
    /// The name that rows of containers have for the driver of their root (`overlayfs`, `native`).
    fn name(&self) -> &'static str;

    /// Makes the writable root of a container over `layers` (bottom first), and the container's directory around it if
    /// there is none. What is put into it is durable; the empty directories need not be ([`RootStore::make_durable`]).
    /// Cheap with overlay: a rename, or a few directories.
    ///
    /// Errors: `NotFound` when a layer is missing, `Conflict` when the container has a root, `InvalidParameter` for an
    /// id that cannot be the name of a directory.
    fn prepare(&self, container: &str, layers: &[LayerKey]) -> Result<()>;

    /// Prepares roots that [`RootStore::prepare`] can take; nothing depends on it. `fill` puts into a container's new
    /// directory what else it will need there.
    fn make_ahead(&self, _fill: &dyn Fn(&Path) -> Result<()>) -> Result<()> {
        Ok(())
    }

    /// Removes what was made ahead.
    fn clear_ahead(&self) -> Result<()> {
        Ok(())
    }

    /// Whether the container has a writable root, with all that a start needs of it.
    fn has_writable(&self, container: &str) -> bool;

    /// Makes a writable root durable that a container is about to be started in for the first time. Until then it holds
    /// nothing that [`RootStore::put_right`] cannot make again, so `prepare` need not wait for the disk.
    fn make_durable(&self, container: &str) -> Result<()>;

    /// Makes again what a power cut may have taken of a writable root; `is_new`: nothing was ever started in it. Returns
    /// whether something was missing.
    fn put_right(&self, container: &str, layers: &[LayerKey], is_new: bool) -> Result<bool>;

    /// What to mount as the container's root. `NotFound` when a layer is missing.
    fn rootfs(&self, container: &str, layers: &[LayerKey]) -> Result<Rootfs>;

    /// Turns what the container wrote over `layers` into a layer of this local key, which is pinned in `lease`, and
    /// removes the root. Nothing may run in it. With overlay this costs a rename and no copy.
    ///
    /// Errors: `NotFound` when there is no root, `InvalidParameter` when the key is not a local one, `Conflict` when
    /// there is such a layer.
    fn commit(&self, container: &str, layers: &[LayerKey], key: &LayerKey, lease: &Lease) -> Result<LayerInfo>;

    /// Removes the container's writable root; absent is fine.
    fn remove(&self, container: &str) -> Result<()>;
}

/// Reads writable roots, in which processes may run meanwhile. `NotFound` when there is none.
pub trait RootReader: Send + Sync {
    /// Bytes on disk of the container's writable root; a file with several links counts once.
    fn usage(&self, container: &str) -> Result<u64>;

    /// What the container changed over `layers`, ordered by path.
    fn changes(&self, container: &str, layers: &[LayerKey]) -> Result<Vec<Change>>;

    /// Writes what the container changed over `layers` as the tar of a layer, and returns its diff id; `None` when
    /// nothing changed (what was written is an empty archive then).
    fn write_diff(&self, container: &str, layers: &[LayerKey], out: &mut dyn Write) -> Result<Option<Digest>>;

    /// Writes the container's whole root file system as a tar, without what is mounted in it. The container may run:
    /// what vanishes meanwhile is left out. An error when the container itself is removed meanwhile.
    fn export(&self, container: &str, layers: &[LayerKey], out: &mut dyn Write) -> Result<()>;
}

/// Looks layers over and puts them right, for `gantryd check`. Only layers that are known by their diff ids: of others
/// there is no archive to compare with.
pub trait LayerSurvey: Send + Sync {
    /// The directory of layers.
    fn root(&self) -> &Path;

    /// Every layer that has a directory here, whatever is in it.
    fn list(&self) -> Result<Vec<Digest>>;

    /// Every layer with a local key, by its name, and the diff ids that lead to it.
    fn list_local(&self) -> Result<BTreeMap<Digest, Vec<Digest>>>;

    /// What lies beside the layers.
    fn strays(&self) -> Result<Strays>;

    /// Looks a layer over; `tar` is its archive, uncompressed.
    ///
    /// Errors: the archive is not this layer's (`InvalidParameter`), or the disk refuses.
    fn examine(&self, diff_id: &Digest, tar: Option<&mut dyn Read>) -> Result<Examined>;

    /// Unpacks a layer anew. What lies in its place is moved to `aside` first, which must not exist.
    fn replace(&self, diff_id: &Digest, tar: &mut dyn Read, aside: &Path) -> Result<Unpacked>;

    /// Moves a layer away; absent is fine.
    fn set_aside(&self, diff_id: &Digest, aside: &Path) -> Result<()>;

    /// Removes a layer; absent is fine.
    fn remove(&self, diff_id: &Digest) -> Result<()>;
}

/// The snapshotter of a data root: what one driver has for each purpose.
#[derive(Clone)]
pub struct Snapshots {
    /// Layers.
    pub layers: Arc<dyn LayerStore>,
    /// Writable roots over layers.
    pub roots: Arc<dyn RootStore>,
    /// Layers, looked over.
    pub survey: Arc<dyn LayerSurvey>,
}

/// How a container's root file system comes about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// An overlay mount.
    Overlay {
        /// Lower directories, top first; at least one.
        lower: Vec<PathBuf>,
        /// The writable layer.
        upper: PathBuf,
        /// Overlay's work directory, on the same file system as `upper`.
        work: PathBuf,
    },
    /// A directory that is the root itself.
    Dir(PathBuf),
}

/// One entry of `GET /containers/{id}/changes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Absolute within the container.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// The numbers are the API's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Content or attributes differ, or something below does.
    Modified = 0,
    /// Not in the image.
    Added = 1,
    /// In the image only.
    Deleted = 2,
}

/// Where a snapshotter keeps its things. Both must lie on one file system.
#[derive(Clone, Debug)]
pub struct Roots {
    /// `<data-root>/snapshots`: layers, a directory per driver.
    pub layers: PathBuf,
    /// `<data-root>/containers`: the writable layer of `<id>` is `<id>/rw`.
    pub containers: PathBuf,
}

/// The snapshotter that a data root was begun with, as it is: nothing is made, nothing emptied. `None`: it has none yet.
pub fn attach(data_root: &Path, driver: &str) -> Result<Option<Snapshots>> {
    let roots = Roots { layers: data_root.join("snapshots"), containers: data_root.join("containers") };
    let used = |name: &str| roots.layers.join(name).is_dir();
    let (overlay, copy) = match driver {
        "" => (used("overlay"), !used("overlay") && used("copy")),
        "overlay2" | "overlayfs" | "overlay" => (used("overlay"), false),
        "vfs" | "native" | "copy" => (false, used("copy")),
        other => return Err(unknown_driver(other)),
    };
    Ok(match (overlay, copy) {
        (true, _) => Some(Overlay::attach(roots)),
        (_, true) => Some(Copy::attach(roots)),
        _ => None,
    })
}

/// Opens the snapshotter of this name under the data root; an empty name asks for the best that works on this disk.
///
/// Names are those of `--storage-driver`. `InvalidParameter` for an unknown one, `System` when the named one does not
/// work here.
pub fn open(data_root: &Path, driver: &str) -> Result<Snapshots> {
    let roots = Roots { layers: data_root.join("snapshots"), containers: data_root.join("containers") };
    // What a data root was begun with it goes on with: its containers can be read by that driver only, and a probe may
    // fail for a passing reason (a full disk).
    let used = |name: &str| roots.layers.join(name).is_dir();
    match driver {
        "" if used("overlay") => Overlay::open(roots),
        "" if used("copy") => Copy::open(roots),
        "" => match overlay::probe(&roots.layers) {
            Ok(()) => Overlay::open(roots),
            Err(error) => {
                tracing::warn!(%error, "overlay does not work on this data root: every container gets a full copy");
                Copy::open(roots)
            }
        },
        "overlay2" | "overlayfs" | "overlay" => {
            if !used("overlay") {
                overlay::probe(&roots.layers)?;
            }
            Overlay::open(roots)
        }
        "vfs" | "native" | "copy" => Copy::open(roots),
        other => Err(unknown_driver(other)),
    }
}

fn unknown_driver(name: &str) -> Error {
    Error::invalid(format!("unknown storage driver: {name}"))
}
