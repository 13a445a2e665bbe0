//! The garbage collector of images: when the disk is fuller than the high mark, it takes the least recently used images
//! that nothing needs, until the disk is at the low mark.
//!
//! - Off unless the configuration has rules. The disk is looked at once per interval, when a pull begins, and after every
//!   image that came. What a running pull still awaits counts as used, unless there could never be room for it.
//! - What may be taken, in which order, and why the rest stays is decided by [`policy`], over their uses; what has got a
//!   reason to stay meanwhile is spared in the transaction that would have taken it.
//! - What nothing names goes first; of images only as many go as bring the bytes that are needed.
//! - An image that goes is told of by the same events as with `docker rmi`.

mod policy;
mod rules;
pub(crate) mod uses;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use model::digest::Digest;
use model::time::Timestamp;
use model::{Context, Result};
use store::Pins;

pub use policy::{ImageUse, Part, Reason, order, reasons};
pub use rules::{Mark, Rules};

use super::catalog::{Catalog, parsed};
use super::event::labels;
use super::images::{Images, PART_LIFE};
use super::prune::BATCH;
use super::remove::{report_deleted, report_untagged};
use super::row::{ImageRow, ManifestKind};
use super::users::Users;
use events::{Events, now};
use uses::{USED, UsedRow};

/// How full a file system is, as `df` counts: what is reserved for root is neither used nor there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes in use.
    pub used: u64,
    /// Bytes in use and available.
    pub capacity: u64,
}

impl Room {
    /// Of the file system that this path lies on.
    pub fn of(path: &Path) -> Result<Room> {
        let stat = rustix::fs::statvfs(path).map_err(std::io::Error::from);
        let stat = stat.with_context(|| format!("measuring the file system of {}", path.display()))?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize);
        Ok(Room { used, capacity: used.saturating_add(stat.f_bavail.saturating_mul(stat.f_frsize)) })
    }
}

/// The table of when images were used last.
pub fn table() -> &'static dyn store::AnyTable {
    &USED
}

/// The use of every image, and the parts that containers need.
pub struct Survey {
    /// Of every image.
    pub uses: Vec<ImageUse>,
    /// Layers of containers, whose image may be gone.
    pub kept: Vec<Part>,
}

impl Survey {
    /// Looks at everything. Blocks.
    pub fn take(images: &Images, users: &Users) -> Result<Survey> {
        let catalog = images.catalog();
        let used: HashMap<String, UsedRow> = images.store.read(|tx| tx.readable(&USED))?.into_iter().collect();
        let blobs: HashMap<Digest, u64> = images.blobs.on_disk()?.into_iter().collect();
        let (holders, names) = (holders(&catalog), catalog.names_by_image());
        let one = |(id, image): (&Digest, &Arc<ImageRow>)| -> Result<ImageUse> {
            let names = names.get(id).into_iter().flatten();
            let tagged = names.clone().filter_map(|name| catalog.names.get(*name)).map(|row| row.tagged);
            let arrived = tagged.fold(image.created, Timestamp::max);
            Ok(ImageUse {
                id: id.clone(),
                names: names.map(|name| (*name).to_owned()).collect(),
                labels: labels(image),
                arrived,
                used: used.get(id.as_str()).map_or(arrived, |row| row.at.max(arrived)),
                users: users.of(id).map(|user| user.shown.clone()).collect(),
                holders: holders.get(id).cloned().unwrap_or_default(),
                is_busy: is_busy(&images.pins, image),
                parts: parts(images, image, &blobs)?,
            })
        };
        let uses = catalog.images.iter().map(one).collect::<Result<_>>()?;
        Ok(Survey { uses, kept: users.layers().map(Part::Layer).collect() })
    }
}

/// Whether an operation works with an image or a manifest of it. That it needs a layer of it says nothing of the image.
fn is_busy(pins: &Pins, image: &ImageRow) -> bool {
    let manifests = image.manifests.iter().map(|manifest| &manifest.content.digest);
    manifests.chain([&image.target.digest]).any(|digest| pins.holds(digest))
}

/// By id of an image the images that hold it as one of their manifests.
fn holders(catalog: &Catalog) -> HashMap<Digest, Vec<Digest>> {
    let mut holders: HashMap<Digest, Vec<Digest>> = HashMap::new();
    for (index, image) in &catalog.images {
        for manifest in image.manifests.iter().map(|m| &m.content.digest).filter(|digest| *digest != index) {
            if catalog.images.contains_key(manifest) {
                holders.entry(manifest.clone()).or_default().push(index.clone());
            }
        }
    }
    holders
}

/// What an image consists of on the disk, each piece once.
fn parts(images: &Images, image: &ImageRow, blobs: &HashMap<Digest, u64>) -> Result<Vec<(Part, u64)>> {
    let mut parts = HashMap::new();
    let mut blob = |digest: &Digest| {
        if let Some(size) = blobs.get(digest) {
            parts.insert(Part::Blob(digest.clone()), *size);
        }
    };
    blob(&image.target.digest);
    image.manifests.iter().flat_map(|manifest| manifest.blobs()).for_each(|content| blob(&content.digest));
    let runnable = image.manifests.iter().filter(|manifest| manifest.kind == ManifestKind::Image);
    for diff_id in runnable.flat_map(|manifest| &manifest.diff_ids) {
        match images.layers.layer_usage(&diff_id.into())? {
            0 => {}
            size => drop(parts.insert(Part::Layer(diff_id.clone()), size)),
        }
    }
    Ok(parts.into_iter().collect())
}

impl Images {
    /// When images are collected from now on; `None`: never.
    pub fn replace_rules(&self, rules: Option<Rules>) {
        *self.rules.write() = rules;
        self.look_at_disk();
    }

    /// When images are collected.
    pub fn rules(&self) -> Option<Rules> {
        self.rules.read().clone()
    }
}

/// Tells which containers use images now; `None` when nobody is left to ask.
type AskUsers = Arc<dyn Fn() -> Option<Result<Users>> + Send + Sync>;

/// Watches the disk for as long as the images are used, and looks at it once now.
pub fn start(images: &Arc<Images>, events: Events, users: impl Fn() -> Option<Result<Users>> + Send + Sync + 'static) {
    images.look_at_disk();
    tokio::spawn(watch(Arc::downgrade(images), events, Arc::new(users)));
}

async fn watch(images: Weak<Images>, events: Events, users: AskUsers) {
    let Some(changed) = images.upgrade().map(|images| images.changed.clone()) else { return };
    let mut is_stuck = false;
    loop {
        let Some(interval) = images.upgrade().map(|images| images.rules().map(|rules| rules.interval)) else {
            return;
        };
        match interval {
            Some(interval) => drop(tokio::time::timeout(interval, changed.notified()).await),
            // Off: only a new configuration can change that, and it says so.
            None => changed.notified().await,
        }
        let Some(images) = images.upgrade() else { return };
        let Some(rules) = images.rules() else { continue };
        let was_stuck = is_stuck;
        let (events, users) = (events.clone(), users.clone());
        let documents = images.threads.documents.clone();
        match documents.run(move |_| collect(&images, &events, &users, &rules)).await {
            Ok(outcome) => {
                is_stuck = outcome == Outcome::NothingToTake;
                if is_stuck && !was_stuck {
                    tracing::warn!(
                        "the disk is above the mark and every image has a reason to stay (gantryd images why)"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "images could not be collected"),
        }
    }
}

/// How a look at the disk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// There was room enough, or there is now.
    Enough,
    /// All that is left has a reason to stay.
    NothingToTake,
}

fn collect(images: &Images, events: &Events, users: &AskUsers, rules: &Rules) -> Result<Outcome> {
    let before = Room::of(&images.data_root)?;
    let awaited =
        || Some(images.fetches.awaited()).filter(|bytes| *bytes <= rules.low.bytes(before.capacity)).unwrap_or(0);
    if before.used.saturating_add(awaited()) <= rules.high.bytes(before.capacity) {
        return Ok(Outcome::Enough);
    }
    // A prune frees what it can by itself.
    let Some(_turn) = images.pruning.try_lock() else { return Ok(Outcome::Enough) };
    tracing::info!(used = before.used, high = %rules.high, low = %rules.low, "the disk is above the high mark");
    // Pulls that broke off can be resumed as long as their images would be recent.
    let mut freed = images.blobs.expire_parts(rules.min_age.min(PART_LIFE))? + images.sweep()?;
    let mut count = 0;
    loop {
        let room = Room::of(&images.data_root)?;
        // A file system may tell late of what became free.
        let used = room.used.min(before.used.saturating_sub(freed)).saturating_add(awaited());
        let need = used.saturating_sub(rules.low.bytes(room.capacity));
        if need == 0 {
            break;
        }
        let Some(users) = users() else { return Ok(Outcome::Enough) };
        let survey = Survey::take(images, &users?)?;
        let taken = round(images, events, &survey, rules, need)?;
        count += taken;
        freed += images.sweep()?;
        if taken == 0 {
            tracing::info!(images = count, freed, "images are collected; the disk stays above the low mark");
            return Ok(Outcome::NothingToTake);
        }
    }
    tracing::info!(images = count, freed, "images are collected");
    Ok(Outcome::Enough)
}

/// Takes as many as the need asks for; how many went.
fn round(images: &Images, events: &Events, survey: &Survey, rules: &Rules, need: u64) -> Result<usize> {
    let now = now();
    for uses in &survey.uses {
        for reason in policy::reasons(uses, Some(rules), now) {
            tracing::debug!(image = %uses.id, names = ?uses.names, %reason, "kept");
        }
    }
    let order = policy::order(&survey.uses, rules, now);
    let chosen = policy::enough(&order, &survey.uses, &survey.kept, need);
    let mut count = 0;
    for uses in chosen.chunks(BATCH) {
        count += remove(images, events, uses.iter().copied().cloned().collect())?;
    }
    Ok(count)
}

/// Takes images in one commit, unless they have got a reason to stay since they were looked at; how many went.
fn remove(images: &Images, events: &Events, chosen: Vec<ImageUse>) -> Result<usize> {
    let pins = images.pins.clone();
    let gone = images.change_telling(events, move |catalog, edit| {
        let in_use = edit.images_in_use()?;
        let names = catalog.names_by_image();
        let (mut gone, mut told) = (Vec::new(), Vec::new());
        for uses in chosen {
            let id = &uses.id;
            let is_idle = |image: &Arc<ImageRow>| image.created <= uses.arrived && !is_busy(&pins, image);
            let tagged = |name: &&str| catalog.names.get(*name).is_some_and(|row| row.tagged <= uses.arrived);
            let found = names.get(id).into_iter().flatten();
            let is_as_seen = catalog.images.get(id).is_some_and(is_idle)
                && found.clone().copied().eq(uses.names.iter().map(String::as_str))
                && found.clone().all(tagged);
            if is_as_seen && !in_use.contains(id) {
                uses.names.iter().try_for_each(|name| edit.delete_name(name))?;
                edit.delete_image(id)?;
                let names: Vec<_> = uses.names.iter().filter_map(|name| parsed(name)).collect();
                told.extend(names.iter().map(|name| report_untagged(id, &name.familiar()).1));
                told.push(report_deleted(id, id.as_str()).1);
                gone.push(uses);
            }
        }
        Ok((gone, told))
    })?;
    for uses in &gone {
        tracing::info!(image = %uses.id, names = ?uses.names, last_used = %uses.used.rfc3339(), "collected");
    }
    Ok(gone.len())
}
