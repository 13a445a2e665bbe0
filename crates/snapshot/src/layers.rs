//! The directory of layers that both drivers keep: `<hex>/fs` is the tree, `<hex>/layer.json` what is known of it.
//!
//! A layer is written under `tmp/<n>` and renamed when whole; one that is removed is renamed back there first. So a
//! name outside `tmp` is always a whole layer.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::CString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::digest::{Digest, Hasher};
use model::{Context, Error, Result};
use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};
use store::{Lease, Sweep};

use crate::apply::{self, Applied, Whiteouts};
use crate::{LayerInfo, tree};

/// Bytes read from the decoder at once.
const BUFFER: usize = 128 << 10;
/// Bound of a `layer.json`.
const RECORD_BYTES: u64 = 64 << 20;

/// What `layer.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    v: u32,
    info: LayerInfo,
    /// Directories without an entry in the archive. Names that are not UTF-8 are left out.
    implicit: BTreeSet<String>,
}

/// A layer as the drivers use it.
#[derive(Debug)]
pub(crate) struct Layer {
    pub info: LayerInfo,
    /// The tree.
    pub fs: PathBuf,
    /// See [`Applied::implicit`].
    pub implicit: BTreeSet<String>,
}

/// The layers of one driver.
pub struct Layers {
    root: PathBuf,
    tmp: PathBuf,
    whiteouts: Whiteouts,
    next: AtomicU64,
    known: Mutex<HashMap<Digest, Arc<Layer>>>,
    /// The names in `tmp` that somebody works on.
    working: Mutex<HashSet<String>>,
}

/// A name in `tmp` to work under; given back on drop, whatever lies there then is a leftover.
pub(crate) struct Workplace<'l> {
    layers: &'l Layers,
    pub name: String,
}

impl Workplace<'_> {
    pub(crate) fn path(&self) -> PathBuf {
        self.layers.tmp.join(&self.name)
    }

    /// Removes what lies there.
    pub(crate) fn clear(&self) -> Result<()> {
        remove_tree(&self.layers.tmp, &self.name)
    }
}

impl Drop for Workplace<'_> {
    fn drop(&mut self) {
        self.layers.working().remove(&self.name);
    }
}

impl Layers {
    /// The directory as it is: nothing is made, nothing emptied.
    pub(crate) fn attach(root: PathBuf, whiteouts: Whiteouts) -> Layers {
        let tmp = root.join("tmp");
        Layers { root, tmp, whiteouts, next: AtomicU64::new(0), known: Mutex::default(), working: Mutex::default() }
    }

    /// Opens or makes the directory and empties its `tmp`.
    pub(crate) fn open(root: PathBuf, whiteouts: Whiteouts) -> Result<Layers> {
        let tmp = root.join("tmp");
        make_dir(&root, 0o710)?;
        make_dir(&tmp, 0o700)?;
        // Emptied, and not made anew: on a full disk it could not be made.
        empty_dir(&tmp)?;
        crate::survey::EARLIER.iter().try_for_each(|name| remove_tree(&root, name))?;
        Ok(Layers::attach(root, whiteouts))
    }

    /// A place in `tmp` that nobody else has.
    pub(crate) fn workplace(&self) -> Workplace<'_> {
        loop {
            let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
            // One that a crash has left may be there still.
            if !self.tmp.join(&name).exists() {
                self.working().insert(name.clone());
                return Workplace { layers: self, name };
            }
        }
    }

    /// The layer, if it is here.
    pub(crate) fn get(&self, diff_id: &Digest) -> Result<Option<Arc<Layer>>> {
        if let Some(layer) = self.known().get(diff_id) {
            return Ok(Some(layer.clone()));
        }
        let Some(layer) = self.read(diff_id)? else { return Ok(None) };
        Ok(Some(self.known().entry(diff_id.clone()).or_insert(Arc::new(layer)).clone()))
    }

    /// The layer as its record on the disk has it.
    pub(crate) fn read(&self, diff_id: &Digest) -> Result<Option<Layer>> {
        let dir = self.dir(diff_id);
        let file = match File::open(dir.join("layer.json")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("opening layer {diff_id}"))?,
        };
        let record: Record = serde_json::from_reader(BufReader::new(file.take(RECORD_BYTES)))
            .map_err(|e| Error::data_loss(format!("layer {diff_id}: {e}")))?;
        Ok(Some(Layer { info: record.info, fs: dir.join("fs"), implicit: record.implicit }))
    }

    /// The directory of a layer.
    pub(crate) fn dir(&self, diff_id: &Digest) -> PathBuf {
        self.root.join(diff_id.hex())
    }

    /// See [`crate::Snapshotter::layer_usage`].
    pub(crate) fn usage(&self, diff_id: &Digest) -> Result<u64> {
        let Some(layer) = self.get(diff_id)? else { return Ok(0) };
        let dir = self.root.join(diff_id.hex());
        let own = [dir.join("layer.json"), layer.fs.clone(), dir];
        let blocks = |path: &PathBuf| fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
        Ok(layer.info.size + own.iter().map(blocks).sum::<u64>())
    }

    /// The layers of a chain, bottom first, each once (see [`topmost`]). `NotFound` names the first that is missing.
    pub(crate) fn chain(&self, diff_ids: &[Digest]) -> Result<Vec<Arc<Layer>>> {
        let missing = |diff_id: &Digest| Error::not_found(format!("layer {diff_id} does not exist"));
        topmost(diff_ids).into_iter().map(|diff_id| self.get(diff_id)?.ok_or_else(|| missing(diff_id))).collect()
    }

    /// See [`crate::Snapshotter::apply_layer`]. A layer that is here already is not read again.
    pub(crate) fn apply(&self, expected: Option<&Digest>, tar: &mut dyn Read, lease: &Lease) -> Result<LayerInfo> {
        if let Some(expected) = expected {
            lease.pin(expected);
            if let Some(layer) = self.get(expected)? {
                return Ok(layer.info.clone());
            }
        }
        let place = self.workplace();
        let result = self.unpack(&place.path(), expected, tar, lease);
        if let Err(error) = place.clear() {
            tracing::warn!(%error, "a discarded layer stays until the next start");
        }
        result
    }

    fn unpack(&self, tmp: &Path, expected: Option<&Digest>, tar: &mut dyn Read, lease: &Lease) -> Result<LayerInfo> {
        let (diff_id, applied) = self.unpack_to(tmp, expected, tar)?;
        lease.pin(&diff_id);
        let info = self.write_record(tmp, diff_id, applied)?;
        match rustix::fs::renameat_with(CWD, tmp, CWD, self.dir(&info.diff_id), RenameFlags::NOREPLACE) {
            // Another unpacked the same layer meanwhile.
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(info),
            Err(e) => Err(Error::from(io::Error::from(e)).prefix("publishing a layer")),
        }
    }

    /// Unpacks a layer to `tmp/fs`; `tmp` is made.
    pub(crate) fn unpack_to(
        &self,
        tmp: &Path,
        expected: Option<&Digest>,
        tar: &mut dyn Read,
    ) -> Result<(Digest, Applied)> {
        make_dir(&tmp.join("fs"), 0o755)?;
        let fs: OwnedFd = File::open(tmp.join("fs")).context("opening a new layer")?.into();
        let mut reader = BufReader::with_capacity(BUFFER, Hashed { inner: tar, hash: Hasher::to_match(expected) });
        let applied = apply::apply(fs, &mut reader, self.whiteouts).map_err(|error| malformed(error, expected))?;
        let diff_id = reader.into_inner().hash.finish();
        if let Some(expected) = expected
            && *expected != diff_id
        {
            return Err(Error::invalid(format!(
                "wrong diff id calculated on extraction {diff_id:?}, want {expected:?}"
            )));
        }
        Ok((diff_id, applied))
    }

    /// Writes what is known of an unpacked layer beside it.
    pub(crate) fn write_record(&self, tmp: &Path, diff_id: Digest, applied: Applied) -> Result<LayerInfo> {
        let info = LayerInfo { diff_id, size: applied.size };
        let implicit = applied.implicit.into_iter().filter_map(|path| String::from_utf8(path).ok()).collect();
        let record = Record { v: 1, info: info.clone(), implicit };
        let bytes =
            serde_json::to_vec(&record).map_err(|e| Error::system(format!("encoding a layer's record: {e}")))?;
        fs::write(tmp.join("layer.json"), bytes).context("writing a layer's record")?;
        Ok(info)
    }

    /// Removes what is neither live nor pinned; answers the bytes that became free.
    pub(crate) fn sweep(&self, live: &HashSet<Digest>, sweep: &Sweep<'_>) -> Result<u64> {
        let mut freed = 0;
        for entry in fs::read_dir(&self.root).context("listing layers")? {
            let name = entry.context("listing layers")?.file_name();
            let digest = name.to_str().and_then(Digest::from_hex);
            let Some(digest) = digest.filter(|d| !live.contains(d)) else { continue };
            let size = self.get(&digest).ok().flatten().map_or(0, |layer| layer.info.size);
            let doomed = self.workplace();
            let renamed = sweep.unless_pinned(&digest, || {
                self.forget(&digest);
                fs::rename(self.dir(&digest), doomed.path())
            });
            if let Some(renamed) = renamed {
                renamed.with_context(|| format!("removing layer {digest}"))?;
                doomed.clear()?;
                freed += size;
            }
        }
        Ok(freed)
    }

    /// Makes all layers durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let root = File::open(&self.root).context("syncing layers")?;
        rustix::fs::syncfs(root).map_err(io::Error::from).context("syncing layers")
    }

    /// The directory of layers.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where layers are made and taken apart, and what somebody works on there.
    pub(crate) fn tmp(&self) -> (&Path, HashSet<String>) {
        (&self.tmp, self.working().clone())
    }

    /// The next look at the layer reads the disk.
    pub(crate) fn forget(&self, diff_id: &Digest) {
        self.known().remove(diff_id);
    }

    fn working(&self) -> MutexGuard<'_, HashSet<String>> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Layer>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The chain without the lower ones of equal layers, in the same order.
///
/// An image may name one layer several times; overlay refuses one directory twice in a mount (`ELOOP`). Only the topmost
/// occurrence counts: a layer sets or deletes a fixed set of paths, so whatever a lower occurrence did to a path, the
/// upper one does again, and what lies between them is covered by the upper one all the same.
pub fn topmost(diff_ids: &[Digest]) -> Vec<&Digest> {
    let mut above = HashSet::with_capacity(diff_ids.len());
    let mut chain: Vec<&Digest> = diff_ids.iter().rev().filter(|diff_id| above.insert(*diff_id)).collect();
    chain.reverse();
    chain
}

/// An archive that is wrong is the client's fault, a disk that refuses is ours. The layer is named where it has a name.
fn malformed(error: io::Error, layer: Option<&Digest>) -> Error {
    let told = match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
            Error::invalid(error.to_string())
        }
        _ => Error::from(error),
    };
    match layer {
        Some(layer) => told.prefix(format!("failed to extract layer {layer}")),
        None => told,
    }
}

struct Hashed<'r> {
    inner: &'r mut dyn Read,
    hash: Hasher,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// Makes a directory (and its parents) of exactly this mode; an existing one is left as it is.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        // The mode above is cut by the umask.
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .with_context(|| format!("creating {}", path.display()))
}

/// Removes what is in a directory of ours: all names in it are ASCII.
pub(crate) fn empty_dir(dir: &Path) -> Result<()> {
    let left = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    left.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).try_for_each(|name| remove_tree(dir, &name))
}

/// Removes the tree `name` of the directory `parent`; absent is fine.
pub(crate) fn remove_tree(parent: &Path, name: &str) -> Result<()> {
    let context = || format!("removing {}", parent.join(name).display());
    let dir = match File::open(parent) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(context)?,
    };
    let name = CString::new(name).map_err(|_| Error::invalid("name with a zero byte"))?;
    tree::remove(&dir, &name).with_context(context)
}
