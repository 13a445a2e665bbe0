//! Layers of images and the writable layers of containers: layer chain in, what to mount out.
//!
//! Invariants:
//! - a layer is a directory of its own, keyed by its diff-id (the digest of its uncompressed tar); layers do not look
//!   at each other, so those of one image are unpacked side by side;
//! - a layer appears by a rename when it is whole; a crash leaves only what lies under `tmp`, emptied at open;
//! - **referent before referrer**, on the disk as well: nothing is synced layer by layer; whoever commits a row that names
//!   layers calls [`Snapshotter::sync`] once before, and whoever commits that a container runs
//!   [`Snapshotter::make_durable`]. What no row names is swept;
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
mod layers;
mod merge;
mod overlay;
mod pack;
mod pax;
mod places;
mod sparse;
mod survey;
mod trash;
mod view;
mod walk;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::digest::Digest;
use model::{Error, Result};
use serde::{Deserialize, Serialize};
use store::{Lease, Sweep};
use sys::tree;

pub use ahead::ahead;
pub use compress::Gzip;
pub use copy::Copy;
pub use decompress::{Compression, decompress, to_layer};
pub use layers::{Layers, topmost};
pub use overlay::Overlay;
pub use survey::{Examined, Strays};
pub use trash::Trash;

/// Keeps layers and containers' writable layers, and says how a root file system is put together from them.
///
/// Life cycle: `apply_layer` for every layer of an image → `sync` → the image's row is committed. `prepare` once per
/// container → `rootfs` at every start → `remove` with the container. `sweep` at boot and on prune.
///
/// All calls block (run them off the async threads) and may run at the same time; two that apply the same layer both
/// succeed and one result is kept.
pub trait Snapshotter: Send + Sync {
    /// The name shown by `info` (`overlayfs`, `native`).
    fn name(&self) -> &'static str;

    /// What is known of a layer, if it is here. Pin it first when the answer has to last.
    fn layer(&self, diff_id: &Digest) -> Result<Option<LayerInfo>>;

    /// Bytes on disk of a layer with its directories and its record; 0 when it is not here.
    fn layer_usage(&self, diff_id: &Digest) -> Result<u64>;

    /// Unpacks an uncompressed tar to a layer and pins it in `lease`. The whole stream is read, padding included.
    ///
    /// Errors: `InvalidParameter` when the archive is malformed, leaves the layer, or its digest is not `expected`;
    /// `System` when the disk refuses. Nothing is left of a failed layer.
    fn apply_layer(&self, expected: Option<&Digest>, tar: &mut dyn Read, lease: &Lease) -> Result<LayerInfo>;

    /// The directory of layers, for looking them over.
    fn layers(&self) -> &Layers;

    /// Makes every layer written so far durable.
    fn sync(&self) -> Result<()>;

    /// Makes ready what [`Snapshotter::prepare`] can take then; nothing depends on it. `fill` puts into a container's new
    /// directory what else it will need there.
    fn make_ahead(&self, _fill: &dyn Fn(&Path) -> Result<()>) -> Result<()> {
        Ok(())
    }

    /// Removes what was made ahead: nobody will take it.
    fn clear_ahead(&self) -> Result<()> {
        Ok(())
    }

    /// Makes the writable layer of a container over `layers` (bottom first), and the container's directory around it if
    /// there is none. What is put into it is durable; the empty directories need not be ([`Snapshotter::make_durable`]). Cheap with overlay: a rename, or a few directories.
    fn prepare(&self, container: &str, layers: &[Digest]) -> Result<()>;

    /// Whether the container has a writable layer, with all that a start needs of it.
    fn has_writable(&self, container: &str) -> bool;

    /// Makes a writable layer durable that a container is about to be started in for the first time. Until then it holds
    /// nothing that [`Snapshotter::put_right`] cannot make again, so `prepare` need not wait for the disk.
    fn make_durable(&self, container: &str) -> Result<()>;

    /// Makes again what a power cut may have taken of a writable layer; `is_new`: nothing was ever started in it. Tells
    /// whether something was missing.
    fn put_right(&self, container: &str, layers: &[Digest], is_new: bool) -> Result<bool>;

    /// What to mount as the container's root. `NotFound` when a layer is missing.
    fn rootfs(&self, container: &str, layers: &[Digest]) -> Result<Rootfs>;

    /// Removes the container's writable layer; absent is fine.
    fn remove(&self, container: &str) -> Result<()>;

    /// Whether `path` (absolute) leads to something that is no directory: none can be made or mounted there.
    fn is_file(&self, layers: &[Digest], path: &str) -> Result<bool>;

    /// Copies what the chain has at `path` (absolute, a directory) into the empty directory `target`: content, owners,
    /// modes, times, xattrs, hard links; the directory's own attributes too. Links on the way are followed within the
    /// chain. Nothing happens when there is no directory.
    fn copy_out(&self, layers: &[Digest], path: &str, target: &Path) -> Result<()>;

    /// Bytes on disk of the container's writable layer; a file with several links counts once.
    fn usage(&self, container: &str) -> Result<u64>;

    /// What the container changed over `layers`, ordered by path.
    fn changes(&self, container: &str, layers: &[Digest]) -> Result<Vec<Change>>;

    /// Writes what the container changed over `layers` as the tar of a layer, and answers its diff-id; `None` when
    /// nothing changed (what was written is an empty archive then).
    fn write_diff(&self, container: &str, layers: &[Digest], out: &mut dyn Write) -> Result<Option<Digest>>;

    /// Writes the container's whole root file system as a tar, without what is mounted in it. The container may run:
    /// what vanishes meanwhile is left out. An error when the container itself is removed meanwhile.
    fn export(&self, container: &str, layers: &[Digest], out: &mut dyn Write) -> Result<()>;

    /// Removes layers and writable layers that are neither live nor pinned; answers the bytes that became free.
    fn sweep(&self, live: &Live, sweep: &Sweep<'_>) -> Result<u64>;
}

/// What rows name: the roots of a sweep.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Diff-ids of all images' and containers' layers.
    pub layers: HashSet<Digest>,
    /// Ids of all containers; `None`: leave writable layers alone. Given at boot only, when none is being made.
    pub containers: Option<HashSet<String>>,
}

/// A layer on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes the unpacked files take.
    pub size: u64,
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
pub fn attach(data_root: &Path, driver: &str) -> Result<Option<Arc<dyn Snapshotter>>> {
    let roots = Roots { layers: data_root.join("snapshots"), containers: data_root.join("containers") };
    let used = |name: &str| roots.layers.join(name).is_dir();
    let (overlay, copy) = match driver {
        "" => (used("overlay"), !used("overlay") && used("copy")),
        "overlay2" | "overlayfs" | "overlay" => (used("overlay"), false),
        "vfs" | "native" | "copy" => (false, used("copy")),
        other => return Err(Error::invalid(format!("unknown storage driver: {other}"))),
    };
    Ok(match (overlay, copy) {
        (true, _) => Some(Arc::new(Overlay::attach(roots))),
        (_, true) => Some(Arc::new(Copy::attach(roots))),
        _ => None,
    })
}

/// Opens the snapshotter of this name under the data root; an empty name asks for the best that works on this disk.
///
/// Names are those of `--storage-driver`. `InvalidParameter` for an unknown one, `System` when the named one does not
/// work here.
pub fn open(data_root: &Path, driver: &str) -> Result<Arc<dyn Snapshotter>> {
    let roots = Roots { layers: data_root.join("snapshots"), containers: data_root.join("containers") };
    // What a data root was begun with it goes on with: its containers can be read by that driver only, and a probe may
    // fail for a passing reason (a full disk).
    let used = |name: &str| roots.layers.join(name).is_dir();
    match driver {
        "" if used("overlay") => Ok(Arc::new(Overlay::open(roots)?)),
        "" if used("copy") => Ok(Arc::new(Copy::open(roots)?)),
        "" => match overlay::probe(&roots.layers) {
            Ok(()) => Ok(Arc::new(Overlay::open(roots)?)),
            Err(error) => {
                tracing::warn!(%error, "overlay does not work on this data root: every container gets a full copy");
                Ok(Arc::new(Copy::open(roots)?))
            }
        },
        "overlay2" | "overlayfs" | "overlay" => {
            if !used("overlay") {
                overlay::probe(&roots.layers)?;
            }
            Ok(Arc::new(Overlay::open(roots)?))
        }
        "vfs" | "native" | "copy" => Ok(Arc::new(Copy::open(roots)?)),
        other => Err(Error::invalid(format!("unknown storage driver: {other}"))),
    }
}
