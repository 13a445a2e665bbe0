//! The directory of layers that both drivers keep: `<hex>/fs` is the tree, `<hex>/layer.json` what is known of it. A layer
//! with a local key lies in `local-<hex>`; by the diff id that was found later it is a link to that.
//!
//! A layer is written under `tmp/<n>` and renamed when whole; one that is removed is renamed back there first. So a
//! name outside `tmp` is always a whole layer.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::CString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::digest::{Digest, Hasher};
use model::lock::{Mutex, MutexGuard};
use model::{Context, Error, Result};
use rustix::fs::{CWD, FileType, RenameFlags};
use serde::{Deserialize, Serialize};
use store::{Lease, Sweep};

use crate::apply::{self, Applied, Whiteouts};
use crate::changes::Source;
use crate::view::View;
use crate::{LayerInfo, LayerKey, LayerStore, Unpacked, merge, pack, tree};

/// Bytes read from the decoder at once.
const BUFFER: usize = 128 << 10;
/// What the directories of layers with local keys begin with.
pub(crate) const LOCAL: &str = "local-";
/// What is known of a layer, beside its tree.
const RECORD: &str = "layer.json";
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
pub(crate) struct Layers {
    name: &'static str,
    root: PathBuf,
    tmp: PathBuf,
    whiteouts: Whiteouts,
    next: AtomicU64,
    known: Mutex<HashMap<LayerKey, Arc<Layer>>>,
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
    pub(crate) fn attach(name: &'static str, root: PathBuf, whiteouts: Whiteouts) -> Layers {
        let tmp = root.join("tmp");
        Layers {
            name,
            root,
            tmp,
            whiteouts,
            next: AtomicU64::new(0),
            known: Mutex::default(),
            working: Mutex::default(),
        }
    }

    /// Opens or makes the directory and empties its `tmp`.
    pub(crate) fn open(name: &'static str, root: PathBuf, whiteouts: Whiteouts) -> Result<Layers> {
        let tmp = root.join("tmp");
        make_dir(&root, 0o710)?;
        make_dir(&tmp, 0o700)?;
        // Emptied, and not made anew: on a full disk it could not be made.
        empty_dir(&tmp)?;
        crate::survey::EARLIER.iter().try_for_each(|name| remove_tree(&root, name))?;
        Ok(Layers::attach(name, root, whiteouts))
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
    pub(crate) fn get(&self, key: &LayerKey) -> Result<Option<Arc<Layer>>> {
        if let Some(layer) = self.known().get(key) {
            return Ok(Some(layer.clone()));
        }
        let Some(layer) = self.read(key)? else { return Ok(None) };
        Ok(Some(self.known().entry(key.clone()).or_insert(Arc::new(layer)).clone()))
    }

    /// The layer as its record on the disk has it.
    pub(crate) fn read(&self, key: &LayerKey) -> Result<Option<Layer>> {
        // By a diff id that was found later it is a link to its local name.
        let dir = fs::canonicalize(self.dir(key)).unwrap_or_else(|_| self.dir(key));
        let file = match File::open(dir.join(RECORD)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("opening layer {key}"))?,
        };
        let record: Record = serde_json::from_reader(BufReader::new(file.take(RECORD_BYTES)))
            .map_err(|e| Error::data_loss(format!("layer {key}: {e}")))?;
        Ok(Some(Layer { info: record.info, fs: dir.join("fs"), implicit: record.implicit }))
    }

    /// The directory of a layer.
    pub(crate) fn dir(&self, key: &LayerKey) -> PathBuf {
        match key {
            LayerKey::Diff(diff_id) => self.root.join(diff_id.hex()),
            LayerKey::Local(name) => self.root.join(format!("{LOCAL}{}", name.hex())),
        }
    }

    /// The layers of a chain, bottom first, each once (see [`topmost`]). `NotFound` names the first that is missing.
    pub(crate) fn chain(&self, keys: &[LayerKey]) -> Result<Vec<Arc<Layer>>> {
        let missing = |key: &LayerKey| Error::not_found(format!("layer {key} does not exist"));
        let found = topmost(keys).into_iter().map(|key| self.get(key)?.ok_or_else(|| missing(key)));
        let found = found.collect::<Result<Vec<_>>>()?;
        // One layer may be named by both of its keys.
        let trees: Vec<_> = found.iter().map(|layer| layer.fs.clone()).collect();
        let kept: HashSet<_> = topmost_places(&trees).into_iter().collect();
        Ok(found.into_iter().enumerate().filter(|(at, _)| kept.contains(at)).map(|(_, layer)| layer).collect())
    }

    /// What a chain shows, merged.
    pub(crate) fn view(&self, keys: &[LayerKey]) -> Result<View> {
        View::open(&self.chain(keys)?, self.whiteouts)
    }

    fn unpack(&self, tmp: &Path, expected: Option<&Digest>, tar: &mut dyn Read, lease: &Lease) -> Result<Unpacked> {
        let (diff_id, applied) = self.unpack_to(tmp, expected, tar)?;
        lease.pin(&diff_id);
        let unpacked = Unpacked { diff_id: diff_id.clone(), size: applied.size };
        self.write_record(tmp, Some(diff_id.clone()), applied)?;
        // Another may have unpacked the same layer meanwhile.
        self.publish(tmp, &LayerKey::Diff(diff_id)).map(|_| unpacked)
    }

    /// Gives a layer in `tmp` its name; `false` when there is a layer of that name.
    fn publish(&self, tmp: &Path, key: &LayerKey) -> Result<bool> {
        match rustix::fs::renameat_with(CWD, tmp, CWD, self.dir(key), RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(e) => Err(Error::from(io::Error::from(e)).prefix("publishing a layer")),
        }
    }

    /// Makes a layer of a local key. `make` puts its tree (`fs`) and its record into the directory that it is given.
    ///
    /// Errors: `InvalidParameter` when the key is not a local one, `Conflict` when there is such a layer.
    pub(crate) fn make_local(
        &self,
        key: &LayerKey,
        lease: &Lease,
        make: impl FnOnce(&Path) -> Result<LayerInfo>,
    ) -> Result<LayerInfo> {
        let exists = || Error::conflict(format!("layer {key} exists already"));
        if !matches!(key, LayerKey::Local(_)) {
            return Err(Error::invalid(format!("layer {key} is not a local one")));
        }
        lease.pin(key.pin());
        let place = self.workplace();
        if self.dir(key).exists() {
            return Err(exists());
        }
        let made = make_dir(&place.path(), 0o700)
            .and_then(|()| make(&place.path()))
            .and_then(|info| if self.publish(&place.path(), key)? { Ok(info) } else { Err(exists()) });
        place.clear()?;
        made
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
    pub(crate) fn write_record(&self, tmp: &Path, diff_id: Option<Digest>, applied: Applied) -> Result<LayerInfo> {
        let info = LayerInfo { diff_id, size: applied.size };
        let implicit = applied.implicit.into_iter().filter_map(|path| String::from_utf8(path).ok()).collect();
        let record = Record { v: 1, info: info.clone(), implicit };
        let bytes =
            serde_json::to_vec(&record).map_err(|e| Error::system(format!("encoding a layer's record: {e}")))?;
        fs::write(tmp.join(RECORD), bytes).context("writing a layer's record")?;
        Ok(info)
    }

    /// The directory of layers.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// Where layers are made and taken apart, and what somebody works on there.
    pub(crate) fn tmp(&self) -> (&Path, HashSet<String>) {
        (&self.tmp, self.working().clone())
    }

    /// The next look at the layer reads the disk.
    pub(crate) fn forget(&self, key: &LayerKey) {
        self.known().remove(key);
    }

    /// Removes a layer unless it is pinned; returns the bytes that became free.
    fn discard(&self, key: &LayerKey, sweep: &Sweep<'_>) -> Result<u64> {
        let size = self.get(key).ok().flatten().map_or(0, |layer| layer.info.size);
        let doomed = self.workplace();
        let renamed = sweep.unless_pinned(key.pin(), || {
            self.forget(key);
            fs::rename(self.dir(key), doomed.path())
        });
        let Some(renamed) = renamed else { return Ok(0) };
        renamed.with_context(|| format!("removing layer {key}"))?;
        doomed.clear()?;
        Ok(size)
    }

    fn working(&self) -> MutexGuard<'_, HashSet<String>> {
        self.working.lock()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<LayerKey, Arc<Layer>>> {
        self.known.lock()
    }
}

impl LayerStore for Layers {
    fn name(&self) -> &'static str {
        self.name
    }

    fn layer(&self, key: &LayerKey) -> Result<Option<LayerInfo>> {
        Ok(self.get(key)?.map(|layer| layer.info.clone()))
    }

    fn layer_usage(&self, key: &LayerKey) -> Result<u64> {
        let Some(layer) = self.get(key)? else { return Ok(0) };
        let dir = self.dir(key);
        let own = [dir.join(RECORD), layer.fs.clone(), dir];
        let blocks = |path: &PathBuf| fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
        Ok(layer.info.size + own.iter().map(blocks).sum::<u64>())
    }

    /// A layer that is here already is not read again.
    fn apply_layer(&self, expected: Option<&Digest>, tar: &mut dyn Read, lease: &Lease) -> Result<Unpacked> {
        if let Some(expected) = expected {
            lease.pin(expected);
            if let Some(layer) = self.get(&expected.into())? {
                return Ok(Unpacked { diff_id: expected.clone(), size: layer.info.size });
            }
        }
        let place = self.workplace();
        let result = self.unpack(&place.path(), expected, tar, lease);
        if let Err(error) = place.clear() {
            tracing::warn!(%error, "a discarded layer stays until the next start");
        }
        result
    }

    fn pack_layer(
        &self,
        key: &LayerKey,
        below: &[LayerKey],
        latest: Option<i64>,
        out: &mut dyn Write,
    ) -> Result<Digest> {
        let missing = || Error::not_found(format!("layer {key} does not exist"));
        let (layer, view) = (self.get(key)?.ok_or_else(missing)?, self.view(below)?);
        if self.whiteouts == Whiteouts::Overlay {
            let packed = pack::diff_until(latest, &view, (&layer.fs, Source::Upper), out);
            return packed.map(|(diff_id, _)| diff_id);
        }
        // Whiteouts that are files are no deletions to the packer: it compares the merged tree with what is below.
        let place = self.workplace();
        let tree = place.path().join("fs");
        let packed = make_dir(&tree, 0o755).and_then(|()| {
            for layer in self.chain(below)?.into_iter().chain([layer.clone()]) {
                merge::merge(&layer, &tree).with_context(|| format!("merging layer {key}"))?;
            }
            pack::diff_until(latest, &view, (&tree, Source::Whole), out).map(|(diff_id, _)| diff_id)
        });
        place.clear()?;
        packed
    }

    fn identify(&self, key: &LayerKey, diff_id: &Digest) -> Result<()> {
        let LayerKey::Local(_) = key else { return Err(Error::invalid(format!("layer {key} is not a local one"))) };
        let layer = self.get(key)?.ok_or_else(|| Error::not_found(format!("layer {key} does not exist")))?;
        if layer.info.diff_id.as_ref().is_some_and(|known| known != diff_id) {
            return Err(Error::conflict(format!("layer {key} has another diff id than {diff_id}")));
        }
        let dir = self.dir(key);
        let place = self.workplace();
        let recorded = make_dir(&place.path(), 0o700).and_then(|()| {
            let applied = Applied { size: layer.info.size, implicit: bytes_of(&layer.implicit) };
            self.write_record(&place.path(), Some(diff_id.clone()), applied)?;
            fs::rename(place.path().join(RECORD), dir.join(RECORD)).context("writing a layer's record")
        });
        place.clear()?;
        recorded?;
        self.forget(key);
        match std::os::unix::fs::symlink(dir.file_name().unwrap_or_default(), self.dir(&diff_id.into())) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::from(e).prefix("naming a layer")),
            _ => Ok(()),
        }
    }

    fn directories(&self, layers: &[LayerKey]) -> Result<Vec<PathBuf>> {
        Ok(self.chain(layers)?.iter().rev().map(|layer| layer.fs.clone()).collect())
    }

    fn file_type(&self, layers: &[LayerKey], path: &str) -> Result<Option<FileType>> {
        Ok(self.view(layers)?.file_type(path.trim_matches('/').as_bytes())?)
    }

    fn copy_out(&self, layers: &[LayerKey], path: &str, target: &Path) -> Result<()> {
        crate::copy_out::copy_out(&self.view(layers)?, path, target)
    }

    fn sync(&self) -> Result<()> {
        let root = File::open(&self.root).context("syncing layers")?;
        rustix::fs::syncfs(root).map_err(io::Error::from).context("syncing layers")
    }

    fn sweep(&self, live: &HashSet<LayerKey>, sweep: &Sweep<'_>) -> Result<u64> {
        let mut freed = 0;
        let mut dirs = Vec::new();
        // What a link that stays leads to.
        let mut named = HashSet::new();
        for entry in fs::read_dir(&self.root).context("listing layers")? {
            let entry = entry.context("listing layers")?;
            let Some(key) = entry.file_name().to_str().and_then(layer_key) else { continue };
            if !entry.file_type().context("listing layers")?.is_symlink() {
                dirs.push(key);
                continue;
            }
            // The bytes are its local name's.
            if !live.contains(&key) {
                self.discard(&key, sweep)?;
            }
            let target = fs::read_link(self.dir(&key)).ok();
            named.extend(target.as_deref().and_then(Path::to_str).and_then(layer_key));
        }
        for key in dirs.iter().filter(|key| !live.contains(key) && !named.contains(key)) {
            freed += self.discard(key, sweep)?;
        }
        Ok(freed)
    }
}

/// The layer that has this name in the directory of layers.
pub(crate) fn layer_key(name: &str) -> Option<LayerKey> {
    match name.strip_prefix(LOCAL) {
        Some(hex) => Digest::from_hex(hex).map(LayerKey::Local),
        None => Digest::from_hex(name).map(LayerKey::Diff),
    }
}

fn bytes_of(paths: &BTreeSet<String>) -> BTreeSet<Vec<u8>> {
    paths.iter().map(|path| path.as_bytes().to_vec()).collect()
}

/// The chain without the lower ones of equal layers, in the same order.
///
/// An image may name one layer several times; overlay refuses one directory twice in a mount (`ELOOP`). Only the topmost
/// occurrence counts: a layer sets or deletes a fixed set of paths, so whatever a lower occurrence did to a path, the
/// upper one does again, and what lies between them is covered by the upper one all the same.
pub fn topmost<K: Eq + std::hash::Hash>(keys: &[K]) -> Vec<&K> {
    topmost_places(keys).into_iter().map(|at| &keys[at]).collect()
}

/// The indexes of [`topmost`], in order.
fn topmost_places<K: Eq + std::hash::Hash>(keys: &[K]) -> Vec<usize> {
    let mut above = HashSet::with_capacity(keys.len());
    let mut chain: Vec<usize> = (0..keys.len()).rev().filter(|at| above.insert(&keys[*at])).collect();
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
