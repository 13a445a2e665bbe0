//! The overlay driver: a layer is a lower directory, a container an upper and a work directory.
//!
//! Whiteouts lie in the layers as overlay wants them, so the kernel merges what was unpacked. A directory that a layer
//! has no entry for but files in ("implicit") would hide the attributes it has below; such directories are made in the
//! container's upper layer with the attributes of the topmost layer that does have an entry.
//!
//! Below all layers lies the tree of [`places`].

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::digest::Digest;
use model::{Context, Result};
use rustix::fs::{FileType, Mode, XattrFlags};
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_string, fsopen};
use store::Lease;

use crate::apply::{Applied, OPAQUE_XATTR, Whiteouts};
use crate::blanks::Blanks;
use crate::changes::Source;
use crate::layers::{Layer, Layers, make_dir, remove_tree};
use crate::view::View;
use crate::{Change, LayerInfo, LayerKey, RootReader, RootStore, Rootfs, Roots, Snapshots};
use crate::{changes, containers, pack, places, tree};

/// The driver's name, as the reference has it.
const NAME: &str = "overlayfs";
/// The kernel's defaults for overlay mounts.
const PARAMETERS: &str = "/sys/module/overlay/parameters";

/// Lower directories that the kernel stacks (`OVL_MAX_STACK`).
const MAX_LOWER: usize = 500;

/// See the module.
pub struct Overlay {
    layers: Arc<Layers>,
    containers: PathBuf,
    places: PathBuf,
    blanks: Blanks,
}

impl Overlay {
    /// Opens the driver's directories.
    pub fn open(roots: Roots) -> Result<Snapshots> {
        let layers = Layers::open(NAME, roots.layers.join("overlay"), Whiteouts::Overlay)?;
        places::make(&layers.path().join(places::DIR))?;
        make_dir(&roots.containers, 0o710)?;
        for name in ["redirect_dir", "metacopy"] {
            if fs::read(Path::new(PARAMETERS).join(name)).is_ok_and(|value| value.starts_with(b"Y")) {
                tracing::warn!("overlay's {name} is on: diff, export and commit miss what was renamed");
            }
        }
        let overlay = Overlay::attach(roots);
        overlay.roots.clear_ahead()?;
        Ok(overlay)
    }

    /// The driver's directories as they are.
    pub(crate) fn attach(roots: Roots) -> Snapshots {
        let layers = Arc::new(Layers::attach(NAME, roots.layers.join("overlay"), Whiteouts::Overlay));
        let (places, blanks) = (layers.path().join(places::DIR), Blanks::new(roots.containers.clone()));
        let roots = Overlay { layers: layers.clone(), containers: roots.containers, places, blanks };
        Snapshots { layers: layers.clone(), roots: Arc::new(roots), survey: layers }
    }

    fn upper(&self, container: &str) -> Result<PathBuf> {
        Ok(containers::rw(&self.containers, container)?.join("upper"))
    }
}

impl RootStore for Overlay {
    fn name(&self) -> &'static str {
        NAME
    }

    fn has_writable(&self, container: &str) -> bool {
        let has = |rw: PathBuf| rw.join("upper").is_dir() && rw.join("work").is_dir();
        containers::rw(&self.containers, container).is_ok_and(has)
    }

    fn prepare(&self, container: &str, layers: &[LayerKey]) -> Result<()> {
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

    fn put_right(&self, container: &str, layers: &[LayerKey], is_new: bool) -> Result<bool> {
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

    fn rootfs(&self, container: &str, layers: &[LayerKey]) -> Result<Rootfs> {
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

    fn commit(&self, container: &str, layers: &[LayerKey], key: &LayerKey, lease: &Lease) -> Result<LayerInfo> {
        self.layers.chain(layers)?;
        let upper = self.upper(container)?;
        let info = self.layers.make_local(key, lease, |place| {
            // Overlay copies a directory's attributes up with it: none is without its own.
            let applied = Applied { size: containers::usage(&upper)?, implicit: BTreeSet::new() };
            let info = self.layers.write_record(place, None, applied)?;
            // Last: what fails before it leaves the container as it was.
            fs::rename(&upper, place.join("fs")).with_context(|| format!("moving {}", upper.display()))?;
            Ok(info)
        })?;
        self.remove(container).map(|()| info)
    }
}

impl RootReader for Overlay {
    fn usage(&self, container: &str) -> Result<u64> {
        containers::usage(&self.upper(container)?)
    }

    fn changes(&self, container: &str, layers: &[LayerKey]) -> Result<Vec<Change>> {
        changes::list(&self.layers.view(layers)?, &self.upper(container)?, Source::Upper)
    }

    fn write_diff(&self, container: &str, layers: &[LayerKey], out: &mut dyn Write) -> Result<Option<Digest>> {
        let packed = pack::diff(&self.layers.view(layers)?, &self.upper(container)?, Source::Upper, out)?;
        Ok(Some(packed.0).filter(|_| packed.1))
    }

    fn export(&self, container: &str, layers: &[LayerKey], out: &mut dyn Write) -> Result<()> {
        let mut below = self.layers.view(layers)?.trees().context("opening an image's layers")?;
        if has_places(below.len()) {
            below.push(File::open(&self.places).context("opening the places of mounts")?.into());
        }
        pack::export(&self.upper(container)?, below, out)
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
