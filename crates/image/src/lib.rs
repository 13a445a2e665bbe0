//! Images: their rows, their content, and one file per verb.
//!
//! Invariants:
//! - an image's id is the digest of its manifest or index, as in the containerd image store (B-im-3);
//! - blobs and layers are durable before the one commit that makes image and name visible; the catalog in memory is
//!   replaced after it, so readers see only what is committed and never wait;
//! - nothing is removed by cascade: [`Images::sweep`] frees what neither an image, nor a container, nor a running
//!   operation's lease names.
//!
//! The verbs block (disk, hashing): call them off the async threads. Look-ups do not.
#![forbid(unsafe_code)]

mod attestations;
pub mod built;
mod catalog;
mod changes;
pub mod collect;
mod commit;
mod distribution;
pub mod exported;
mod history;
mod import;
mod inspect;
pub mod kept;
mod list;
mod load;
pub mod oci;
mod prune;
pub mod pull;
mod push;
mod remove;
pub mod row;
mod save;
mod signatures;
mod size;
mod tag;
mod threads;
mod transfers;
mod unpack;
mod users;
mod why;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use content::Blobs;
use model::digest::Digest;
use model::fault::Faults;
use model::platform::Platform;
use model::{Context, Result};
use registry::Registries;
use signature::Policy;
use snapshot::{LayerKey, LayerStore};
use store::{Pins, Store, WriteTx};

use events::{Draft, Events, now};
use row::{IMAGES, ImageRow, NAMES, NameRow};
use threads::Threads;

pub use attestations::{AttestationArgs, attestations};
pub use catalog::{Catalog, Found, Matched, Wanted, no_platform, no_such, select};
pub use changes::apply as apply_changes;
pub use commit::{CommitImage, commit};
pub use distribution::distribution;
pub use history::history;
pub use import::{ImportArgs, import, repository_tag};
pub use inspect::inspect;
pub use list::{ListArgs, list};
pub use load::load;
pub use prune::prune;
pub use pull::PART_LIFE;
pub use pull::{PullArgs, pull};
pub use push::{Load, PushArgs, push, push_load};
pub use remove::{RemoveArgs, remove};
pub use save::save;
pub use size::add as add_kept;
pub use tag::tag;
pub use transfers::Transfers;
pub use unpack::describe_blobs;
pub use unpack::ensure_unpacked;
pub use users::{USERS, User, UserRow, Users, delete_user, put_user, repair_users, user_key};
pub use why::{Why, WhyImage, why};

/// The version of the rows of images.
pub const FORMAT: u32 = <row::ImageRow as store::Row>::VERSION;

/// All images of a daemon.
pub struct Images {
    store: Store,
    /// Their content.
    pub blobs: Blobs,
    /// What running operations work with.
    pub pins: Pins,
    data_root: PathBuf,
    layers: Arc<dyn LayerStore>,
    /// Where images come from and go to.
    pub registries: Registries,
    catalog: RwLock<Arc<Catalog>>,
    threads: Threads,
    /// Told when an image came, or when the collector's rules may be others.
    changed: Arc<tokio::sync::Notify>,
    /// What is being fetched.
    fetches: pull::Fetches,
    /// Which images must be signed.
    policy: RwLock<Arc<Policy>>,
    /// When images are collected; `None`: never.
    rules: RwLock<Option<collect::Rules>>,
    /// Held by the one change that is being committed; never across an await.
    changing: Mutex<()>,
    /// Held by a running prune.
    pruning: Mutex<()>,
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
        let (images, names) = store.read(|tx| Ok((tx.scan(&IMAGES)?, tx.scan(&NAMES)?)))?;
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
            fetches: pull::Fetches::default(),
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
        self.catalog.read().unwrap_or_else(PoisonError::into_inner).clone()
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
                Matched::Name(name) => catalog::parsed(name).map(|name| name.familiar()),
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

    /// Frees blobs and layers that nothing names; answers the bytes. Blocks.
    pub fn sweep(&self) -> Result<u64> {
        let sweep = self.pins.begin_sweep();
        // Read after the sweep has begun: what a lease lets go of from now on stays pinned.
        let rows = self.store.read(|tx| Ok((tx.scan(&IMAGES)?, tx.scan(&USERS)?, tx.scan(&kept::KEPT)?)))?;
        let (images, containers, kept) = rows;
        let mut blobs = HashSet::new();
        let mut layers: HashSet<Digest> = containers.into_iter().flat_map(|(_, user)| user.layers).collect();
        images.iter().for_each(|(_, image)| size::add(image, &mut blobs, &mut layers));
        self.blobs.expire_parts(pull::PART_LIFE)?;
        let mut live: HashSet<LayerKey> = layers.into_iter().map(LayerKey::Diff).collect();
        for (_, row) in kept {
            live.extend(row.layers);
            blobs.extend(row.blobs);
        }
        Ok(self.blobs.sweep(&blobs, &sweep)? + self.layers.sweep(&live, &sweep)?)
    }

    /// Commits a change and then shows it. `f` runs in the store's writer over the catalog as committed so far.
    fn change<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Catalog, &mut Edit<'_, '_, '_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.catalog();
        let (value, after) = self.store.write_blocking(move |tx| {
            let mut edit = Edit { tx, after: Catalog::clone(&before) };
            let value = f(&before, &mut edit)?;
            Ok((value, edit.after))
        })?;
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
        Ok(value)
    }

    /// The same, with events that ride in the commit and are published behind it.
    fn change_telling<T: Send + 'static>(
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
    fn publish(&self, row: ImageRow, names: Vec<String>) -> Result<()> {
        self.publish_all(vec![(row, names)])
    }

    /// The same for several images: one wait for the disk, one commit.
    fn publish_all(&self, images: Vec<(ImageRow, Vec<String>)>) -> Result<()> {
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
    fn tidy_up(&self) -> u64 {
        // It may have failed for want of space.
        self.look_at_disk();
        self.sweep()
            .inspect_err(|error| tracing::warn!(%error, "content that nothing names could not be removed"))
            .unwrap_or(0)
    }
}

/// A change of the tables and of the catalog that mirrors them.
struct Edit<'e, 'r, 'txn> {
    tx: &'e mut WriteTx<'r, 'txn>,
    after: Catalog,
}

impl Edit<'_, '_, '_> {
    /// Writes an image's row; its parent and the signatures that were kept of it stay.
    fn put_image(&mut self, row: &ImageRow) -> Result<()> {
        let id = &row.target.digest;
        let mut row = row.clone();
        if let Some(before) = self.after.images.get(id) {
            signatures::keep(&mut row.signatures, &before.signatures);
            row.parent = row.parent.or_else(|| before.parent.clone());
        }
        self.tx.put(&IMAGES, id.as_str(), &row)?;
        self.after.images.insert(id.clone(), Arc::new(row));
        Ok(())
    }

    fn put_name(&mut self, name: &str, image: &Digest) -> Result<()> {
        let row = NameRow { image: image.clone(), tagged: now() };
        self.tx.put(&NAMES, name, &row)?;
        self.after.names.insert(name.to_owned(), row);
        Ok(())
    }

    fn delete_image(&mut self, id: &Digest) -> Result<()> {
        self.tx.delete(&IMAGES, id.as_str())?;
        collect::forget_use(self.tx, id)?;
        self.after.images.remove(id);
        Ok(())
    }

    fn delete_name(&mut self, name: &str) -> Result<()> {
        self.tx.delete(&NAMES, name)?;
        self.after.names.remove(name);
        Ok(())
    }

    /// Every image that a container is made of.
    fn images_in_use(&self) -> Result<HashSet<Digest>> {
        let keys = self.tx.scan(&USERS)?.into_iter();
        Ok(keys.filter_map(|(key, _)| Some(users::split(&key)?.0)).collect())
    }

    /// Full ids of the containers made of an image.
    fn users(&self, image: &Digest) -> Result<Vec<String>> {
        let found = self.tx.scan_prefix(&USERS, &users::user_key(image, ""))?;
        Ok(found.iter().filter_map(|(key, _)| Some(users::split(key)?.1.to_owned())).collect())
    }
}

/// Notes that a container is being made of an image; refuses when the image was removed since it was resolved.
pub fn use_by_container(tx: &mut WriteTx<'_, '_>, image: &Digest) -> Result<()> {
    match tx.get(&IMAGES, image.as_str()).with_context(|| format!("image {image}"))? {
        Some(_) => collect::note_use(tx, image),
        None => Err(no_such(image.as_str())),
    }
}

/// Publishes an event of an image; `labels` are those of its configuration.
fn publish(events: &Events, action: &str, id: &Digest, name: &str, labels: &BTreeMap<String, String>) {
    events.publish_all(vec![draft(action, id, name, labels)]);
}

/// An event of an image.
fn draft(action: &str, id: &Digest, name: &str, labels: &BTreeMap<String, String>) -> Draft {
    let mut attributes = labels.clone();
    attributes.insert("name".to_owned(), name.to_owned());
    Draft::new("image", action, id.as_str(), attributes)
}

/// The labels of the image's manifest for this host.
fn labels(image: &ImageRow) -> BTreeMap<String, String> {
    let manifest = select(image, Wanted::Any, "").ok().or(image.manifests.first());
    manifest.and_then(|m| m.document.as_ref()).map(|d| d.config.labels.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
