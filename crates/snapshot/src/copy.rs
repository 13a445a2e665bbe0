//! The copying driver (`vfs`): a container gets a full copy of its image's merged tree.
//!
//! For data roots on which overlay cannot have a writable directory (nested overlays, some network file systems).
//! Layers keep their whiteouts as files named `.wh.…`, so it asks nothing of the file system; blocks are shared with
//! the layer where the file system can (reflink).

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use model::digest::Digest;
use model::{Context, Result};
use store::{Lease, Sweep};

use crate::apply::Whiteouts;
use crate::changes::Source;
use crate::layers::{Layers, make_dir, remove_tree};
use crate::view::View;
use crate::{Change, LayerInfo, Live, Rootfs, Roots, Snapshotter, changes, containers, merge, pack, places, tree};

/// See the module.
pub struct Copy {
    layers: Layers,
    containers: PathBuf,
}

impl Copy {
    /// Opens the driver's directories.
    pub fn open(roots: Roots) -> Result<Copy> {
        drop(Layers::open(roots.layers.join("copy"), Whiteouts::Files)?);
        make_dir(&roots.containers, 0o710)?;
        Ok(Copy::attach(roots))
    }

    /// The driver's directories as they are.
    pub(crate) fn attach(roots: Roots) -> Copy {
        let layers = Layers::attach(roots.layers.join("copy"), Whiteouts::Files);
        Copy { layers, containers: roots.containers }
    }

    fn fs(&self, container: &str) -> Result<PathBuf> {
        Ok(containers::rw(&self.containers, container)?.join("fs"))
    }

    fn view(&self, layers: &[Digest]) -> Result<View> {
        View::open(&self.layers.chain(layers)?, Whiteouts::Files)
    }
}

impl Snapshotter for Copy {
    fn name(&self) -> &'static str {
        "native"
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
        self.fs(container).is_ok_and(|fs| fs.is_dir())
    }

    fn sync(&self) -> Result<()> {
        self.layers.sync()
    }

    fn prepare(&self, container: &str, layers: &[Digest]) -> Result<()> {
        let chain = self.layers.chain(layers)?;
        let fs = containers::new_rw(&containers::dir(&self.containers, container)?)?.join("fs");
        let copy = |fs: &Path| -> Result<()> {
            make_dir(fs, 0o755)?;
            for layer in &chain {
                merge::merge(layer, fs).with_context(|| format!("copying layer {}", layer.info.diff_id))?;
            }
            places::mark(fs)?;
            // What a container has of its image cannot be told from what it wrote.
            tree::sync(File::open(fs)?.into()).context("syncing a writable layer")
        };
        copy(&fs).inspect_err(|_| drop(self.remove(container)))
    }

    fn make_durable(&self, _container: &str) -> Result<()> {
        // It was made so.
        Ok(())
    }

    fn put_right(&self, container: &str, layers: &[Digest], is_new: bool) -> Result<bool> {
        if !is_new || self.has_writable(container) {
            return Ok(false);
        }
        remove_tree(&self.containers, container)?;
        self.prepare(container, layers).map(|()| true)
    }

    fn rootfs(&self, container: &str, layers: &[Digest]) -> Result<Rootfs> {
        // The image's layers are in the copy already; asked for only so that both drivers answer alike.
        self.layers.chain(layers)?;
        Ok(Rootfs::Dir(self.fs(container)?))
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
        containers::usage(&self.fs(container)?)
    }

    fn changes(&self, container: &str, layers: &[Digest]) -> Result<Vec<Change>> {
        changes::list(&self.view(layers)?, &self.fs(container)?, Source::Whole)
    }

    fn write_diff(&self, container: &str, layers: &[Digest], out: &mut dyn Write) -> Result<Option<Digest>> {
        pack::diff(&self.view(layers)?, &self.fs(container)?, Source::Whole, out)
    }

    fn export(&self, container: &str, _: &[Digest], out: &mut dyn Write) -> Result<()> {
        pack::export(&self.fs(container)?, Vec::new(), out)
    }

    fn sweep(&self, live: &Live, sweep: &Sweep<'_>) -> Result<u64> {
        let containers = match &live.containers {
            Some(live) => containers::sweep(&self.containers, live)?,
            None => 0,
        };
        Ok(self.layers.sweep(&live.layers, sweep)? + containers)
    }
}
