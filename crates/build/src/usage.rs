//! What the build cache takes, and how it is freed: by whoever asks for a prune, and by the rules of a collector.
//!
//! A record that a build uses stays, and so does one that a record which stays goes on from. Bytes are those of the layers that a record has and
//! its inputs have not.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use events::now;
use model::digest::Digest;
use model::time::Timestamp;
use model::{Context, Result};
use snapshot::LayerKey;

use crate::builder::Builder;
use crate::record::{Kind, Record};

/// Digits of a record's id.
const ID: usize = 25;
/// A record that nobody has used for so long goes.
const UNUSED: Duration = Duration::from_secs(60 * 24 * 3600);
/// Parts of the disk that the cache has for itself, that it may take, and that it leaves free, in hundredths.
const RESERVED: u64 = 10;
const MOST: u64 = 80;
const FREE: u64 = 20;

/// A record, as people see it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its key.
    pub key: Digest,
    /// What is known of it.
    pub record: Arc<Record>,
    /// A build uses it.
    pub in_use: bool,
    /// An image has its layer, too.
    pub shared: bool,
}

impl Entry {
    /// What it is called.
    pub fn id(&self) -> &str {
        id(&self.key)
    }
}

/// What a record of this key is called.
pub fn id(key: &Digest) -> &str {
    key.hex().get(..ID).unwrap_or_default()
}

/// Which records are to go.
pub struct Wanted<'w> {
    /// Those that this takes.
    pub filter: &'w dyn Fn(&Entry) -> bool,
    /// Also those that share their layers with images.
    pub all: bool,
    /// Bytes that may stay, of those that were used last.
    pub keep: u64,
}

/// What a prune has freed.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Ids of the records that are gone.
    pub ids: Vec<String>,
    /// Bytes.
    pub bytes: u64,
}

impl Builder {
    /// All records, the oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        let of_images: HashSet<Digest> = {
            let catalog = self.images.catalog();
            let manifests = catalog.images.values().flat_map(|image| &image.manifests);
            manifests.flat_map(|manifest| manifest.diff_ids.iter().cloned()).collect()
        };
        let is_shared = |record: &Record| {
            let mut tops = record.outputs.values().filter_map(|chain| chain.last());
            tops.any(|layer| match &layer.key {
                LayerKey::Diff(diff_id) => of_images.contains(diff_id),
                local => self.records.packed(local, "").is_some_and(|packed| of_images.contains(&packed.diff_id)),
            })
        };
        let all = self.records.all().into_iter();
        let mut entries: Vec<Entry> =
            all.map(|(key, record, in_use)| Entry { shared: is_shared(&record), key, record, in_use }).collect();
        entries.sort_by(|a, b| (a.record.created, a.key.as_str()).cmp(&(b.record.created, b.key.as_str())));
        entries
    }

    /// Removes records, those first that were not used for the longest time, and what only they kept. Blocks.
    pub fn prune(&self, wanted: &Wanted<'_>) -> Result<Pruned> {
        let mut left = self.entries();
        let mut total: u64 = left.iter().map(|entry| entry.record.size).sum();
        let mut doomed: Vec<Entry> = Vec::new();
        left.sort_by_key(|entry| entry.record.used);
        while wanted.keep == 0 || total > wanted.keep {
            let needed: HashSet<Digest> = left.iter().flat_map(|entry| entry.record.parents.iter().cloned()).collect();
            let may_go = |entry: &Entry| {
                !entry.in_use
                    && !needed.contains(&entry.key)
                    && (wanted.all || !entry.shared)
                    && entry.record.kind != Kind::Internal
                    && (wanted.filter)(entry)
            };
            let Some(at) = left.iter().position(may_go) else { break };
            let entry = left.remove(at);
            total -= entry.record.size;
            doomed.push(entry);
        }
        // What has the same layers and is no step's result goes along.
        let gone: HashSet<&LayerKey> = doomed.iter().filter_map(|entry| top(&entry.record)).collect();
        let along = |entry: &&Entry| entry.record.kind == Kind::Internal && !entry.in_use;
        let has_one = |entry: &&Entry| layers(&entry.record).any(|layer| gone.contains(layer));
        let alone = doomed.is_empty();
        let internal: Vec<Digest> = left
            .iter()
            .filter(along)
            .filter(|entry| has_one(entry) || (wanted.all && !alone))
            .map(|entry| entry.key.clone())
            .collect();
        let keys: Vec<Digest> = doomed.iter().map(|entry| entry.key.clone()).chain(internal).collect();
        let removed: HashSet<Digest> = self.records.remove(&keys)?.into_iter().collect();
        let mut pruned = Pruned::default();
        for entry in doomed.iter().filter(|entry| removed.contains(&entry.key)) {
            pruned.ids.push(entry.id().to_owned());
            pruned.bytes += if entry.shared { 0 } else { entry.record.size };
        }
        if !removed.is_empty() {
            self.images.sweep()?;
        }
        Ok(pruned)
    }

    /// Frees what the rules say: what nobody has used for long, and what is more than the cache's part of the disk. Blocks.
    pub fn collect(&self, data_root: &Path) -> Result<Pruned> {
        let stat = rustix::fs::statvfs(data_root).map_err(std::io::Error::from).context("measuring the disk")?;
        let (size, free) = (stat.f_blocks.saturating_mul(stat.f_frsize), stat.f_bavail.saturating_mul(stat.f_frsize));
        let entries = self.entries();
        let total: u64 = entries.iter().map(|entry| entry.record.size).sum();
        let now = now();
        let is_old = |entry: &Entry| now.after(entry.record.used) > UNUSED;
        if entries.iter().any(|entry| is_old(entry) && !entry.in_use) {
            self.prune(&Wanted { filter: &is_old, all: false, keep: 0 })?;
        }
        let keep = limit(total, size, free);
        if total <= keep {
            return Ok(Pruned::default());
        }
        self.prune(&Wanted { filter: &|_| true, all: false, keep: keep.max(1) })
    }
}

/// Bytes that the cache may keep of so many, on a disk of that size of which so much is free.
fn limit(total: u64, size: u64, free: u64) -> u64 {
    let part = |hundredths: u64| size / 100 * hundredths;
    let lacking = part(FREE).saturating_sub(free);
    total.saturating_sub(lacking).min(part(MOST)).max(part(RESERVED))
}

fn layers(record: &Record) -> impl Iterator<Item = &LayerKey> {
    record.outputs.values().flatten().map(|layer| &layer.key)
}

/// The layer that the record has made.
fn top(record: &Record) -> Option<&LayerKey> {
    record.outputs.values().find_map(|chain| chain.last()).map(|layer| &layer.key)
}

/// Whether a record was not used since a time.
pub fn unused_since(entry: &Entry, time: Timestamp) -> bool {
    entry.record.used < time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_has_its_part_of_the_disk() {
        const GB: u64 = 1_000_000_000;
        // Plenty is free.
        assert_eq!(limit(5 * GB, 100 * GB, 60 * GB), 10 * GB);
        assert_eq!(limit(50 * GB, 100 * GB, 40 * GB), 50 * GB);
        // Too much of the disk.
        assert_eq!(limit(90 * GB, 100 * GB, 30 * GB), 80 * GB);
        // Others need room, down to what is reserved.
        assert_eq!(limit(50 * GB, 100 * GB, 5 * GB), 35 * GB);
        assert_eq!(limit(12 * GB, 100 * GB, 0), 10 * GB);
    }
}
