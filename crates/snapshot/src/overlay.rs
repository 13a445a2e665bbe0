//! The overlay driver: a layer is a lower directory, a container an upper and a work directory.
//!
//! Whiteouts lie in the layers as overlay wants them, so the kernel merges what was unpacked. A directory that a layer
//! has no entry for but files in ("implicit") would hide the attributes it has below; such directories are made in the
//! container's upper layer with the attributes of the topmost layer that does have an entry.
//!
//! Below all layers lies the tree of [`places`].

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::digest::Digest;
use model::{Context, Result};
use rustix::fs::{FileType, Mode, XattrFlags};
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_string, fsopen};
use store::{Lease, Sweep};

use crate::apply::{OPAQUE_XATTR, Whiteouts};
use crate::blanks::Blanks;
use crate::changes::Source;
use crate::layers::{Layer, Layers, make_dir, remove_tree};
use crate::view::View;
use crate::{Change, LayerInfo, Live, Rootfs, Roots, Snapshotter, changes, containers, pack, places, tree};

/// The kernel's defaults for overlay mounts.
const PARAMETERS: &str = "/sys/module/overlay/parameters";

/// Lower directories that the kernel stacks (`OVL_MAX_STACK`).
const MAX_LOWER: usize = 500;

/// See the module.
pub struct Overlay {
    layers: Layers,
    containers: PathBuf,
    places: PathBuf,
    blanks: Blanks,
}

impl Overlay {
    /// Opens the driver's directories.
    pub fn open(roots: Roots) -> Result<Overlay> {
        let layers = Layers::open(roots.layers.join("overlay"), Whiteouts::Overlay)?;
        places::make(&layers.root().join(places::DIR))?;
        make_dir(&roots.containers, 0o710)?;
        for name in ["redirect_dir", "metacopy"] {
            if fs::read(Path::new(PARAMETERS).join(name)).is_ok_and(|value| value.starts_with(b"Y")) {
                tracing::warn!("overlay's {name} is on: diff, export and commit miss what was renamed");
            }
        }
        let overlay = Overlay::attach(roots);
        overlay.blanks.clear()?;
        Ok(overlay)
    }

    /// The driver's directories as they are.
    pub(crate) fn attach(roots: Roots) -> Overlay {
        let layers = Layers::attach(roots.layers.join("overlay"), Whiteouts::Overlay);
        let (places, blanks) = (layers.root().join(places::DIR), Blanks::new(roots.containers.clone()));
        Overlay { layers, containers: roots.containers, places, blanks }
    }

    fn upper(&self, container: &str) -> Result<PathBuf> {
        Ok(containers::rw(&self.containers, container)?.join("upper"))
    }

    fn view(&self, layers: &[Digest]) -> Result<View> {
        View::open(&self.layers.chain(layers)?, Whiteouts::Overlay)
    }
}

impl Snapshotter for Overlay {
    fn name(&self) -> &'static str {
        "overlayfs"
    }

    fn layer(&self, diff_id: &Digest) -> Result<Option<LayerInfo>> {
        Ok(self.layers.get(diff_id)?.map(|layer| layer.info.clone()))
    }

    fn layer_usage(&self, diff_id: &Digest) -> Result<u64> {
        self.layers.usage(diff_id)
    }

    fn apply_layer(&self, expected: Option<&Digest>, tar: &mut dyn Read, lease: &Lease) -> Result<LayerInfo> {
        self.layers.apply(expected, tar, lease)
    }

    fn layers(&self) -> &Layers {
        &self.layers
    }

    fn has_writable(&self, container: &str) -> bool {
        let has = |rw: PathBuf| rw.join("upper").is_dir() && rw.join("work").is_dir();
        containers::rw(&self.containers, container).is_ok_and(has)
    }

    fn sync(&self) -> Result<()> {
        self.layers.sync()
    }

    fn prepare(&self, container: &str, layers: &[Digest]) -> Result<()> {
        let chain = self.layers.chain(layers)?;
        let dir = containers::dir(&self.containers, container)?;
        if !self.blanks.take(&dir) {
            blank(&dir)?;
        }
        let upper = dir.join(containers::RW).join("upper");
        let fill = || {
            if chain.iter().any(|layer| !layer.implicit.is_empty()) {
                View::open(&chain, Whiteouts::Overlay)?.fill_implicit(&upper)?;
            }
            if lacks_mark(&chain) {
                places::mark(&upper)?;
            }
            Ok(())
        };
        fill().inspect_err(|_| drop(self.remove(container)))
    }

    fn make_ahead(&self, fill: &dyn Fn(&Path) -> Result<()>) -> Result<()> {
        self.blanks.refill(|dir| blank(dir).and_then(|()| fill(dir)))
    }

    fn clear_ahead(&self) -> Result<()> {
        self.blanks.clear()
    }

    fn make_durable(&self, container: &str) -> Result<()> {
        // Where there is no journal, the kernel takes the new directories above along; where there is one, they are in it
        // before a change that is made now. The rename that gave a spare its name did not change this directory.
        let upper = self.upper(container)?;
        let sync = |dir: File| {
            dir.set_permissions(dir.metadata()?.permissions())?;
            tree::sync(dir.into())
        };
        File::open(&upper).and_then(sync).with_context(|| format!("syncing {}", upper.display()))
    }

    fn put_right(&self, container: &str, layers: &[Digest], is_new: bool) -> Result<bool> {
        // What it was filled with may be there in part only.
        let is_filled = || Ok::<_, model::Error>(is_filled(&self.layers.chain(layers)?));
        if self.has_writable(container) && !(is_new && is_filled()?) {
            return Ok(false);
        }
        let rw = containers::rw(&self.containers, container)?;
        if rw.join("upper").is_dir() && !is_new {
            return make_dir(&rw.join("work"), 0o700).map(|()| true);
        }
        if !is_new {
            return Ok(false);
        }
        remove_tree(&self.containers, container)?;
        self.prepare(container, layers).map(|()| true)
    }

    fn rootfs(&self, container: &str, layers: &[Digest]) -> Result<Rootfs> {
        let rw = containers::rw(&self.containers, container)?;
        let mut lower: Vec<PathBuf> = self.layers.chain(layers)?.iter().rev().map(|layer| layer.fs.clone()).collect();
        if has_places(lower.len()) {
            lower.push(self.places.clone());
        }
        Ok(Rootfs::Overlay { lower, upper: rw.join("upper"), work: rw.join("work") })
    }

    fn remove(&self, container: &str) -> Result<()> {
        containers::remove(&self.containers, container)
    }

    fn is_file(&self, layers: &[Digest], path: &str) -> Result<bool> {
        Ok(self.view(layers)?.is_file(path.trim_matches('/').as_bytes())?)
    }

    fn copy_out(&self, layers: &[Digest], path: &str, target: &Path) -> Result<()> {
        crate::copy_out::copy_out(&self.view(layers)?, path, target)
    }

    fn usage(&self, container: &str) -> Result<u64> {
        containers::usage(&self.upper(container)?)
    }

    fn changes(&self, container: &str, layers: &[Digest]) -> Result<Vec<Change>> {
        changes::list(&self.view(layers)?, &self.upper(container)?, Source::Upper)
    }

    fn write_diff(&self, container: &str, layers: &[Digest], out: &mut dyn Write) -> Result<Option<Digest>> {
        pack::diff(&self.view(layers)?, &self.upper(container)?, Source::Upper, out)
    }

    fn export(&self, container: &str, layers: &[Digest], out: &mut dyn Write) -> Result<()> {
        let mut below = self.view(layers)?.trees().context("opening an image's layers")?;
        if has_places(below.len()) {
            below.push(File::open(&self.places).context("opening the places of mounts")?.into());
        }
        pack::export(&self.upper(container)?, below, out)
    }

    fn sweep(&self, live: &Live, sweep: &Sweep<'_>) -> Result<u64> {
        let containers = match &live.containers {
            Some(live) => containers::sweep(&self.containers, live)?,
            None => 0,
        };
        Ok(self.layers.sweep(&live.layers, sweep)? + containers)
    }
}

/// Whether a container's own layer has to have the mark.
fn lacks_mark(chain: &[Arc<Layer>]) -> bool {
    !has_places(chain.len()) && !chain.iter().any(|layer| places::is_marked(&layer.fs))
}

/// Whether a new writable layer over the chain has something in it.
fn is_filled(chain: &[Arc<Layer>]) -> bool {
    chain.iter().any(|layer| !layer.implicit.is_empty()) || lacks_mark(chain)
}

/// Whether the places lie below a chain of so many layers.
fn has_places(layers: usize) -> bool {
    layers < MAX_LOWER
}

/// A container's directory with an empty writable layer. `Conflict` when it has one.
fn blank(dir: &Path) -> Result<()> {
    let rw = containers::new_rw(dir)?;
    let made = make_dir(&rw.join("work"), 0o700).and_then(|()| make_dir(&rw.join("upper"), 0o755));
    made.inspect_err(|_| drop(remove_tree(dir, containers::RW)))
}

/// Whether overlay works with its writable directories under `root`: mounts one (attached nowhere), and makes what
/// layers need. Nested overlays and some network file systems cannot do it.
pub(crate) fn probe(root: &Path) -> Result<()> {
    make_dir(root, 0o710)?;
    remove_tree(root, "probe")?;
    let result = try_overlay(&root.join("probe")).context("overlay on the data root");
    remove_tree(root, "probe")?;
    result
}

fn try_overlay(probe: &Path) -> io::Result<()> {
    let dir = |name: &str| -> io::Result<OwnedFd> {
        fs::create_dir_all(probe.join(name))?;
        Ok(File::open(probe.join(name))?.into())
    };
    let (lower, upper, work) = (dir("lower")?, dir("upper")?, dir("work")?);
    rustix::fs::mknodat(&lower, c"gone", FileType::CharacterDevice, Mode::empty(), 0)?;
    rustix::fs::fsetxattr(&lower, OPAQUE_XATTR, b"y", XattrFlags::empty())?;
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Through descriptors: a path with a colon or comma in it would be taken apart.
    for (key, fd) in [("lowerdir", &lower), ("upperdir", &upper), ("workdir", &work)] {
        fsconfig_set_string(&overlay, key, format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    }
    fsconfig_create(&overlay)?;
    Ok(())
}
