//! [`Images`]: what the verbs share, and the one way in which rows change.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use content::Blobs;
use events::{Draft, Events, now};
use model::digest::Digest;
use model::fault::Faults;
use model::lock::{Mutex, RwLock};
use model::platform::Platform;
use model::{Context, Result};
use registry::Registries;
use signature::Policy;
use snapshot::{LayerKey, LayerStore};
use store::{Pins, Store, WriteTx};

use crate::catalog::{Catalog, Matched, Wanted, no_such, parsed, select};
use crate::collect::{Rules, uses};
use crate::pull::Fetches;
use crate::row::{self, IMAGES, ImageRow, NAMES, NameRow};
use crate::threads::Threads;
use crate::users::{self, USERS, User, Users};
use crate::{kept, oci};

/// How long what was fetched of an unfinished blob is kept.
pub const PART_LIFE: Duration = Duration::from_secs(24 * 3600);

/// All images of a daemon.
pub struct Images {
    /// Where the rows are.
    pub(crate) store: Store,
    /// Their content.
    pub blobs: Blobs,
    /// What running operations work with.
    pub pins: Pins,
    /// The daemon's data root.
    pub(crate) data_root: PathBuf,
    /// Their layers.
    pub(crate) layers: Arc<dyn LayerStore>,
    /// Where images come from and go to.
    pub registries: Registries,
    catalog: RwLock<Arc<Catalog>>,
    /// Threads of the verbs.
    pub(crate) threads: Threads,
    /// Told when an image came, or when the collector's rules may be others.
    pub(crate) changed: Arc<tokio::sync::Notify>,
    /// What is being fetched.
    pub(crate) fetches: Fetches,
    /// Which images must be signed.
    pub(crate) policy: RwLock<Arc<Policy>>,
    /// When images are collected; `None`: never.
    pub(crate) rules: RwLock<Option<Rules>>,
    /// Held by the one change that is being committed; never across an await.
    changing: Mutex<()>,
    /// Held by a running prune.
    pub(crate) pruning: Mutex<()>,
    /// Held by a running check.
    pub checking: Mutex<()>,
    /// What a test makes fail; nothing otherwise.
    pub faults: Faults,
}

/// An image as a container needs it.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The digest of the manifest or index.
    pub id: Digest,
    /// The name it was found by, as users write it; `None` when found by id.
    pub name: Option<String>,
    /// What a container of it does.
    pub config: api::ImageConfig,
    /// Diff-ids, bottom first.
    pub layers: Vec<Digest>,
    /// `linux/amd64`.
    pub platform: String,
    /// The chosen manifest: media type, digest, size in bytes.
    pub manifest: Option<(String, Digest, u64)>,
}

impl Images {
    /// Runs a short piece of work that blocks.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.threads.documents.run(move |_| work()).await
    }

    /// Opens the images under the data root.
    pub fn open(data_root: &Path, store: Store, layers: Arc<dyn LayerStore>, registries: Registries) -> Result<Images> {
        let blobs = Blobs::open(&data_root.join("content"))?;
        let (images, names) = store.read(|tx| Ok((tx.readable(&IMAGES)?, tx.readable(&NAMES)?)))?;
        let images: BTreeMap<_, _> =
            images.into_iter().map(|(_, row)| (row.target.digest.clone(), Arc::new(row))).collect();
        let names = names.into_iter().filter(|(_, row)| images.contains_key(&row.image)).collect();
        Ok(Images {
            store,
            blobs,
            pins: Pins::default(),
            data_root: data_root.to_owned(),
            layers,
            registries,
            catalog: RwLock::new(Arc::new(Catalog { images, names })),
            threads: Threads::default(),
            changed: Arc::default(),
            fetches: Fetches::default(),
            policy: RwLock::default(),
            rules: RwLock::default(),
            changing: Mutex::new(()),
            pruning: Mutex::new(()),
            checking: Mutex::new(()),
            faults: Faults::default(),
        })
    }

    /// What is here now.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().clone()
    }

    /// How many images there are.
    pub fn count(&self) -> usize {
        self.catalog().images.len()
    }

    /// The ids of images that a text leads to: none or one.
    pub fn ids_of(&self, text: &str) -> Vec<String> {
        self.catalog().find(text).map(|found| found.image.target.digest.to_string()).into_iter().collect()
    }

    /// The image that a container is to be made of; `platform` as given by the client.
    ///
    /// Errors: `NotFound` `No such image: nosuch:latest` (clients pull then), `InvalidParameter` for a bad reference,
    /// `Forbidden` for an image that the signature policy refuses.
    pub fn resolve(&self, text: &str, platform: Option<&str>) -> Result<ResolvedImage> {
        let catalog = self.catalog();
        let found = catalog.find(text)?;
        self.admit(&catalog, &found)?;
        let wished = platform.filter(|p| !p.is_empty()).map(|p| Platform::parse(p, &oci::host())).transpose()?;
        let wanted = Wanted::exactly(wished.as_ref());
        let manifest = select(&found.image, wanted, text)?;
        Ok(ResolvedImage {
            id: found.image.target.digest.clone(),
            name: match &found.matched {
                Matched::Name(name) => parsed(name).map(|name| name.familiar()),
                Matched::Id | Matched::Repository(_) => None,
            },
            config: manifest.document.as_ref().map(|d| d.config.clone()).unwrap_or_default(),
            layers: manifest.diff_ids.clone(),
            platform: oci::platform(&manifest.platform).to_string(),
            manifest: Some((
                manifest.content.media_type.clone(),
                manifest.content.digest.clone(),
                manifest.content.size,
            )),
        })
    }

    /// All containers by their images. `shown` tells of a container, by its full id, for people. Blocks.
    pub fn users(&self, shown: impl Fn(&str) -> String) -> Result<Users> {
        let mut users = Users::default();
        for (key, row) in self.store.read(|tx| tx.readable(&USERS))? {
            if let Some((image, id)) = users::split(&key) {
                users.add(&image, User { id: id.to_owned(), shown: shown(id), row });
            }
        }
        Ok(users)
    }

    /// Frees blobs and layers that nothing names; answers the bytes. While a row cannot be read that may name some, none.
    /// Blocks.
    pub fn sweep(&self) -> Result<u64> {
        let sweep = self.pins.begin_sweep();
        if !self.names_are_known()? {
            tracing::warn!("no content is removed: a row that cannot be read may name it");
            return Ok(0);
        }
        // Read after the sweep has begun: what a lease lets go of from now on stays pinned.
        let rows = self.store.read(|tx| Ok((tx.scan(&IMAGES)?, tx.scan(&USERS)?, tx.scan(&kept::KEPT)?)))?;
        let (images, containers, kept) = rows;
        let mut blobs = HashSet::new();
        let mut layers: HashSet<Digest> = containers.into_iter().flat_map(|(_, user)| user.layers).collect();
        images.iter().for_each(|(_, image)| row::add_kept(image, &mut blobs, &mut layers));
        self.blobs.expire_parts(PART_LIFE)?;
        let mut live: HashSet<LayerKey> = layers.into_iter().map(LayerKey::Diff).collect();
        for (_, row) in kept {
            live.extend(row.layers);
            blobs.extend(row.blobs);
        }
        Ok(self.blobs.sweep(&blobs, &sweep)? + self.layers.sweep(&live, &sweep)?)
    }

    /// Whether every row can be read that names blobs or layers.
    fn names_are_known(&self) -> Result<bool> {
        self.store.read(|tx| Ok(tx.is_whole(&IMAGES)? && tx.is_whole(&USERS)? && tx.is_whole(&kept::KEPT)?))
    }

    /// Commits a change and then shows it. `f` runs in the store's writer over the catalog as committed so far.
    pub(crate) fn change<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Catalog, &mut Edit<'_, '_, '_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _turn = self.changing.lock();
        let before = self.catalog();
        let (value, after) = self.store.write_blocking(move |tx| {
            let mut edit = Edit { tx, after: Catalog::clone(&before) };
            let value = f(&before, &mut edit)?;
            Ok((value, edit.after))
        })?;
        *self.catalog.write() = Arc::new(after);
        Ok(value)
    }

    /// The same, with events that ride in the commit and are published behind it.
    pub(crate) fn change_telling<T: Send + 'static>(
        &self,
        events: &Events,
        f: impl FnOnce(&Catalog, &mut Edit<'_, '_, '_>) -> Result<(T, Vec<Draft>)> + Send + 'static,
    ) -> Result<T> {
        let events = events.clone();
        let (value, told) = self.change(move |catalog, edit| {
            let (value, drafts) = f(catalog, edit)?;
            let told = events.ride(drafts);
            told.rows().put(edit.tx)?;
            Ok((value, told))
        })?;
        told.publish();
        Ok(value)
    }

    /// Makes what was written durable and then, in one commit, the image and its names visible.
    pub(crate) fn publish(&self, row: ImageRow, names: Vec<String>) -> Result<()> {
        self.publish_all(vec![(row, names)])
    }

    /// The same for several images: one wait for the disk, one commit.
    pub(crate) fn publish_all(&self, images: Vec<(ImageRow, Vec<String>)>) -> Result<()> {
        self.layers.sync()?;
        self.blobs.barrier()?;
        self.change(move |_, edit| {
            images.iter().try_for_each(|(row, names)| {
                edit.put_image(row)?;
                names.iter().try_for_each(|name| edit.put_name(name, &row.target.digest))
            })
        })?;
        self.look_at_disk();
        Ok(())
    }

    /// Has the collector look whether there is room enough.
    pub fn look_at_disk(&self) {
        self.changed.notify_one();
    }

    /// Sweeps after a failed or removing operation; a failure is only logged, the next sweep tries again.
    pub(crate) fn tidy_up(&self) -> u64 {
        // It may have failed for want of space.
        self.look_at_disk();
        self.sweep()
            .inspect_err(|error| tracing::warn!(%error, "content that nothing names could not be removed"))
            .unwrap_or(0)
    }
}

/// A change of the tables and of the catalog that mirrors them.
pub(crate) struct Edit<'e, 'r, 'txn> {
    /// The transaction.
    pub(crate) tx: &'e mut WriteTx<'r, 'txn>,
    /// The catalog as it will be.
    pub(crate) after: Catalog,
}

impl Edit<'_, '_, '_> {
    /// Writes an image's row; its parent and the signatures that were kept of it stay.
    pub(crate) fn put_image(&mut self, row: &ImageRow) -> Result<()> {
        let id = &row.target.digest;
        let mut row = row.clone();
        if let Some(before) = self.after.images.get(id) {
            row::keep_signatures(&mut row.signatures, &before.signatures);
            row.parent = row.parent.or_else(|| before.parent.clone());
        }
        self.tx.put(&IMAGES, id.as_str(), &row)?;
        self.after.images.insert(id.clone(), Arc::new(row));
        Ok(())
    }

    /// Writes a name.
    pub(crate) fn put_name(&mut self, name: &str, image: &Digest) -> Result<()> {
        let row = NameRow { image: image.clone(), tagged: now() };
        self.tx.put(&NAMES, name, &row)?;
        self.after.names.insert(name.to_owned(), row);
        Ok(())
    }

    /// Deletes an image's row and what is noted of its use.
    pub(crate) fn delete_image(&mut self, id: &Digest) -> Result<()> {
        self.tx.delete(&IMAGES, id.as_str())?;
        uses::forget(self.tx, id)?;
        self.after.images.remove(id);
        Ok(())
    }

    /// Deletes a name.
    pub(crate) fn delete_name(&mut self, name: &str) -> Result<()> {
        self.tx.delete(&NAMES, name)?;
        self.after.names.remove(name);
        Ok(())
    }

    /// Every image that a container is made of.
    pub(crate) fn images_in_use(&self) -> Result<HashSet<Digest>> {
        let keys = self.tx.keys(&USERS)?.into_iter();
        Ok(keys.filter_map(|key| Some(users::split(&key)?.0)).collect())
    }

    /// Full ids of the containers made of an image.
    pub(crate) fn users(&self, image: &Digest) -> Result<Vec<String>> {
        let found = self.tx.keys_prefix(&USERS, &users::user_key(image, ""))?;
        Ok(found.iter().filter_map(|key| Some(users::split(key)?.1.to_owned())).collect())
    }
}

/// Notes that a container is being made of an image; refuses when the image was removed since it was resolved.
pub fn use_by_container(tx: &mut WriteTx<'_, '_>, image: &Digest) -> Result<()> {
    match tx.get(&IMAGES, image.as_str()).with_context(|| format!("image {image}"))? {
        Some(_) => uses::note(tx, image),
        None => Err(no_such(image.as_str())),
    }
}
