//! The copying driver (`vfs`): a container gets a full copy of its image's merged tree.
//!
//! For data roots on which overlay cannot have a writable directory (nested overlays, some network file systems).
//! Layers keep their whiteouts as files named `.wh.…`, so it asks nothing of the file system; blocks are shared with
//! the layer where the file system can (reflink).

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::digest::Digest;
use model::{Context, Error, Result};
use store::Lease;

use crate::apply::Whiteouts;
use crate::changes::Source;
use crate::layers::{Layers, make_dir, remove_tree};
use crate::{Change, LayerInfo, LayerKey, RootReader, RootStore, Rootfs, Roots, Snapshots};
use crate::{changes, containers, merge, pack, places, tree};

/// The driver's name, as the reference has it.
const NAME: &str = "native";

/// See the module.
pub struct Copy {
    layers: Arc<Layers>,
    containers: PathBuf,
}

impl Copy {
    /// Opens the driver's directories.
    pub fn open(roots: Roots) -> Result<Snapshots> {
        drop(Layers::open(NAME, roots.layers.join("copy"), Whiteouts::Files)?);
        make_dir(&roots.containers, 0o710)?;
        Ok(Copy::attach(roots))
    }

    /// The driver's directories as they are.
    pub(crate) fn attach(roots: Roots) -> Snapshots {
        let layers = Arc::new(Layers::attach(NAME, roots.layers.join("copy"), Whiteouts::Files));
        let roots = Arc::new(Copy { layers: layers.clone(), containers: roots.containers });
        Snapshots { layers: layers.clone(), roots, survey: layers }
    }

    fn fs(&self, container: &str) -> Result<PathBuf> {
        Ok(containers::rw(&self.containers, container)?.join("fs"))
    }
}

impl RootStore for Copy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn has_writable(&self, container: &str) -> bool {
        self.fs(container).is_ok_and(|fs| fs.is_dir())
    }

    fn prepare(&self, container: &str, layers: &[LayerKey]) -> Result<()> {
        let chain = self.layers.chain(layers)?;
        let fs = containers::new_rw(&containers::dir(&self.containers, container)?)?.join("fs");
        let copy = |fs: &Path| -> Result<()> {
            make_dir(fs, 0o755)?;
            for layer in &chain {
                merge::merge(layer, fs).with_context(|| format!("copying layer {}", layer.fs.display()))?;
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

    fn put_right(&self, container: &str, layers: &[LayerKey], is_new: bool) -> Result<bool> {
        if !is_new || self.has_writable(container) {
            return Ok(false);
        }
        remove_tree(&self.containers, container)?;
        self.prepare(container, layers).map(|()| true)
    }

    fn rootfs(&self, container: &str, layers: &[LayerKey]) -> Result<Rootfs> {
        // The image's layers are in the copy already; asked for only so that both drivers answer alike.
        self.layers.chain(layers)?;
        Ok(Rootfs::Dir(self.fs(container)?))
    }

    /// What was written is told from the image's by comparing, so the diff id is known at once.
    fn commit(&self, container: &str, layers: &[LayerKey], key: &LayerKey, lease: &Lease) -> Result<LayerInfo> {
        let (view, fs) = (self.layers.view(layers)?, self.fs(container)?);
        let info = self.layers.make_local(key, lease, |place| {
            let (reader, mut writer) = std::io::pipe().context("making a pipe")?;
            std::thread::scope(|scope| {
                let packing = scope.spawn(move || pack::diff(&view, &fs, Source::Whole, &mut writer));
                let unpacked = self.layers.unpack_to(place, None, &mut BufReader::new(reader));
                // A packer that failed has cut the archive short: its error says why.
                packing.join().unwrap_or_else(|_| Err(Error::system("internal error: packing a layer failed")))?;
                let (diff_id, applied) = unpacked?;
                self.layers.write_record(place, Some(diff_id), applied)
            })
        })?;
        self.remove(container).map(|()| info)
    }

    fn remove(&self, container: &str) -> Result<()> {
        containers::remove(&self.containers, container)
    }
}

impl RootReader for Copy {
    fn usage(&self, container: &str) -> Result<u64> {
        containers::usage(&self.fs(container)?)
    }

    fn changes(&self, container: &str, layers: &[LayerKey]) -> Result<Vec<Change>> {
        changes::list(&self.layers.view(layers)?, &self.fs(container)?, Source::Whole)
    }

    fn write_diff(&self, container: &str, layers: &[LayerKey], out: &mut dyn Write) -> Result<Option<Digest>> {
        let packed = pack::diff(&self.layers.view(layers)?, &self.fs(container)?, Source::Whole, out)?;
        Ok(Some(packed.0).filter(|_| packed.1))
    }

    fn export(&self, container: &str, _: &[LayerKey], out: &mut dyn Write) -> Result<()> {
        pack::export(&self.fs(container)?, Vec::new(), out)
    }
}
