//! What the build cache takes, and how it is freed: by whoever asks for a prune, and by the rules of a collector.
//!
//! A record that a build uses stays, and so does one that a record which stays goes on from. Bytes are those of the layers that a record has and
//! its inputs have not.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use events::now;
use model::digest::Digest;
use model::filter::Filters;
use model::time::Timestamp;
use model::{Context, Result};
use snapshot::LayerKey;

use crate::builder::Builder;
use crate::policy::{Disk, Limits};
use crate::record::{Kind, Record};

/// Digits of a record's id.
const ID: usize = 25;

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
    /// The directory of a cache mount, by its name; `None`: it is a step's result.
    pub(crate) cache: Option<String>,
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
    /// All records and cache mounts, the oldest first. Blocks.
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
        let mut entries: Vec<Entry> = all
            .map(|(key, record, in_use)| Entry { shared: is_shared(&record), key, record, in_use, cache: None })
            .collect();
        entries.extend(self.caches.all().into_iter().map(|cache| Entry {
            key: cache.key,
            in_use: cache.in_use,
            shared: false,
            cache: Some(cache.name),
            record: Arc::new(Record {
                outputs: Default::default(),
                kind: Kind::CacheMount,
                description: cache.about.description,
                created: cache.about.created,
                used: cache.about.used,
                uses: cache.about.uses,
                size: cache.about.size,
                parents: Vec::new(),
            }),
        }));
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
        let steps = doomed.iter().filter(|entry| entry.cache.is_none());
        let keys: Vec<Digest> = steps.map(|entry| entry.key.clone()).chain(internal).collect();
        let mut removed: HashSet<Digest> = self.records.remove(&keys)?.into_iter().collect();
        for (entry, name) in doomed.iter().filter_map(|entry| Some((entry, entry.cache.as_ref()?))) {
            if self.caches.remove(name)? {
                removed.insert(entry.key.clone());
            }
        }
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

    /// Frees what the rules of the configuration say, one after the other. Blocks.
    pub fn collect(&self, data_root: &Path) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let stat = rustix::fs::statvfs(data_root).map_err(std::io::Error::from).context("measuring the disk")?;
        let disk = |stat: &rustix::fs::StatVfs| Disk {
            size: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
        };
        for rule in self.settings().collection.rules(disk(&stat)) {
            let now = now();
            let total: u64 = self.entries().iter().filter(|entry| !entry.shared).map(|entry| entry.record.size).sum();
            let stat = rustix::fs::statvfs(data_root).map_err(std::io::Error::from).context("measuring the disk")?;
            let keep = rule.limits.keep(total, disk(&stat));
            let is_limited = rule.limits != Limits::default();
            if is_limited && total <= keep {
                continue;
            }
            let filter = |entry: &Entry| now.after(entry.record.used) >= rule.unused && is_meant(entry, &rule.filters);
            // Where there are limits something always stays.
            let keep = if is_limited { keep.max(1) } else { 0 };
            let freed = self.prune(&Wanted { filter: &filter, all: rule.all, keep })?;
            pruned.ids.extend(freed.ids);
            pruned.bytes += freed.bytes;
        }
        Ok(pruned)
    }
}

/// Whether filters take a record; those of labels count for nothing, as with the reference.
pub fn is_meant(entry: &Entry, filters: &Filters) -> bool {
    let has = |key: &str, is: &dyn Fn(&str) -> bool| !filters.contains(key) || filters.get(key).any(is);
    let flag = |key: &str, is: bool| has(key, &|value| value.is_empty() || value == is.to_string());
    has("id", &|value| entry.id().contains(value))
        && has("parent", &|value| entry.record.parents.iter().any(|parent| id(parent) == value))
        && has("type", &|value| entry.record.kind.as_str() == value)
        && has("description", &|value| entry.record.description == value)
        && flag("inuse", entry.in_use)
        && flag("shared", entry.shared)
        && flag("private", !entry.shared)
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
