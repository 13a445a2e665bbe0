//! File systems of steps: a writable root over layers, which becomes a layer of its own, and a view of layers to read from.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use model::digest::Digest;
use model::id::ContainerId;
use model::{Context, Result};
use runtime::view::{Origin, View};
use snapshot::{LayerKey, RootStore, Rootfs, Snapshots};
use store::Lease;
use sys::rooted::Rooted;

/// Where file systems of steps come from.
#[derive(Clone)]
pub struct Roots {
    /// Layers and writable roots.
    pub snapshots: Snapshots,
    /// The directory of containers, which has those of steps, too: what a killed daemon leaves there the next one removes.
    pub containers: PathBuf,
}

/// A writable root over layers. It is removed when it is dropped, unless it has become a layer.
pub struct Work {
    roots: Arc<dyn RootStore>,
    snapshots: Snapshots,
    dir: PathBuf,
    /// What it is known by: an id like that of a container.
    pub id: ContainerId,
    /// What lies below it, bottom first.
    pub layers: Vec<LayerKey>,
}

impl Work {
    /// Makes one. Blocks.
    pub fn prepare(roots: &Roots, layers: &[LayerKey]) -> Result<Work> {
        let id = ContainerId::from_bytes(sys::random::bytes32());
        let (snapshots, dir) = (roots.snapshots.clone(), roots.containers.join(id.as_str()));
        let work = Work { roots: snapshots.roots.clone(), snapshots, dir, id, layers: layers.to_vec() };
        work.roots.prepare(work.id.as_str(), layers)?;
        Ok(work)
    }

    /// Its file system, for the daemon to write to, without the places that a container's own mounts need. Blocks.
    pub fn open(&self) -> Result<View> {
        let below = self.snapshots.layers.directories(&self.layers)?;
        let rootfs = match self.roots.rootfs(self.id.as_str(), &self.layers)? {
            Rootfs::Overlay { upper, .. } if below.is_empty() => runtime::Rootfs::Dir(upper),
            Rootfs::Overlay { upper, work, .. } => runtime::Rootfs::Overlay { lower: below, upper, work },
            Rootfs::Dir(path) => runtime::Rootfs::Dir(path),
        };
        View::open(Origin::Write(rootfs), Vec::new())
    }

    /// A detached mount of a part of it, to be written to. Blocks.
    pub fn mount(&self, part: &str) -> Result<OwnedFd> {
        let below = self.snapshots.layers.directories(&self.layers)?;
        let writable = match self.roots.rootfs(self.id.as_str(), &self.layers)? {
            Rootfs::Overlay { upper, .. } if below.is_empty() => runtime::Rootfs::Dir(upper),
            Rootfs::Overlay { upper, work, .. } => runtime::Rootfs::Overlay { lower: below, upper, work },
            Rootfs::Dir(path) => runtime::Rootfs::Dir(path),
        };
        runtime::layers::mount_writable(&writable, part).context("mounting the root of a step")
    }

    /// Where what is written lies, if it lies apart from what is below.
    pub fn upper(&self) -> Result<Option<PathBuf>> {
        Ok(match self.roots.rootfs(self.id.as_str(), &self.layers)? {
            Rootfs::Overlay { upper, .. } => Some(upper),
            Rootfs::Dir(_) => None,
        })
    }

    /// Turns what was written into a layer, pinned in `lease`; answers its key and the bytes that it takes. Nothing may have
    /// it mounted any more.
    pub fn commit(self, lease: &Lease) -> Result<(LayerKey, u64)> {
        let key = LayerKey::Local(Digest::from_sha256(&sys::random::bytes32()));
        let info = self.roots.commit(self.id.as_str(), &self.layers, &key, lease).context("committing a step")?;
        Ok((key, info.size))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let removed = self.roots.remove(self.id.as_str()).and_then(|()| match std::fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        });
        if let Err(error) = removed {
            tracing::warn!(step = self.id.short(), %error, "the root of a step stays until the next start");
        }
    }
}

/// Layers to read from.
pub struct Tree {
    root: Rooted,
    _held: Option<(View, Work)>,
}

impl Tree {
    /// Mounts them, for the daemon alone. Blocks.
    pub fn open(roots: &Roots, layers: &[LayerKey]) -> Result<Tree> {
        if let Some(mount) = mount(roots, layers, "")? {
            return Ok(Tree { root: Rooted::from_fd(mount), _held: None });
        }
        let work = Work::prepare(roots, layers)?;
        let view = work.open()?;
        let root = Rooted::from_fd(view.root().as_fd().try_clone_to_owned()?);
        Ok(Tree { root, _held: Some((view, work)) })
    }

    /// Their `/`.
    pub fn root(&self) -> &Rooted {
        &self.root
    }
}

/// A detached read-only mount of a part of layers; `None`: the driver has no directories that could be mounted together.
pub fn mount(roots: &Roots, layers: &[LayerKey], part: &str) -> Result<Option<OwnedFd>> {
    let Snapshots { layers: store, roots: writable, .. } = &roots.snapshots;
    let is_overlay = writable.name() == "overlayfs";
    if !is_overlay && layers.len() > 1 {
        return Ok(None);
    }
    let mounted = runtime::layers::mount(&store.directories(layers)?, part);
    Ok(Some(mounted.context("mounting the layers of a step")?))
}
