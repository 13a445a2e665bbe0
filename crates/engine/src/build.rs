//! Builds, as the engine runs them, and their cache.

use std::sync::Arc;

use api::{BuildCachePruneReport, BuildCacheRecord, Usage};
use build::Builder;
use build::job::{self, Inputs, Job};
use build::record::Kind;
use build::usage::{self, Entry, Wanted};
use events::now;
use model::filter::Filters;
use model::time::{self, Timestamp};
use model::{Error, Result};
use tokio::sync::mpsc;

use crate::Engine;
use crate::container::life::step::Steps;

/// A build whose steps run as containers do.
pub fn job(engine: &Arc<Engine>, inputs: Arc<dyn Inputs>, events: mpsc::Sender<job::Event>) -> Job {
    let mut job = Job::new(&engine.builder, Arc::new(Steps(engine.clone())), inputs, events);
    job.transfers = engine.settings().services.transfers;
    job
}

/// The end of a build: what it has made is durable, and what it leaves to nobody is removed.
pub async fn end(engine: &Arc<Engine>, job: Arc<Job>) {
    job.await_kept().await;
    let images = engine.images.clone();
    let (builder, data) = (engine.builder.clone(), engine.settings().roots.data.clone());
    let swept = engine.builder.threads.run(move |_| {
        // Its lease ends with it.
        drop(job);
        images.sweep()?;
        builder.collect(&data)
    });
    if let Err(error) = swept.await {
        tracing::warn!(%error, "what a build has left stays until the next sweep");
    }
}

/// The filters that a prune takes.
const KEYS: &[&str] =
    &["until", "unused-for", "label", "label!", "id", "parent", "type", "description", "inuse", "shared", "private"];
/// Those that take one value.
const SINGLE: &[&str] = &["id", "parent", "type", "description", "inuse", "shared", "private"];

/// What a prune of the cache takes.
#[derive(Clone, Debug, Default)]
pub struct PruneArgs {
    /// Which records.
    pub filters: Filters,
    /// Also those that share their layers with images.
    pub all: bool,
    /// Bytes that may stay; 0: none.
    pub keep: u64,
}

/// Prunes the cache. Event: prune.
pub async fn prune(engine: &Arc<Engine>, args: PruneArgs) -> Result<BuildCachePruneReport> {
    let unused = check(&args.filters).map_err(|error| error.prefix("failed to prune build cache"))?;
    let builder = engine.builder.clone();
    let work = move |_: &_| {
        let filter = |entry: &Entry| {
            unused.is_none_or(|time| usage::unused_since(entry, time)) && usage::is_meant(entry, &args.filters)
        };
        builder.prune(&Wanted { filter: &filter, all: args.all, keep: args.keep })
    };
    let pruned = engine.builder.threads.run(work).await?;
    engine.events.publish("builder", "prune", "", [("reclaimed", pruned.bytes.to_string())]);
    let caches_deleted = Some(pruned.ids).filter(|ids| !ids.is_empty());
    Ok(BuildCachePruneReport { caches_deleted, space_reclaimed: pruned.bytes })
}

/// What the cache takes, as `GET /system/df` shows it. Blocks.
pub fn cache_usage(builder: &Builder) -> Usage<BuildCacheRecord> {
    let mut shown = Usage::default();
    for entry in builder.entries() {
        let record = &entry.record;
        if record.kind == Kind::Internal {
            continue;
        }
        let size = record.size as i64;
        shown.total_count += 1;
        shown.active_count += i64::from(entry.in_use);
        if !entry.shared {
            shown.total_size += size;
            shown.reclaimable += if entry.in_use { 0 } else { size };
        }
        shown.items.push(BuildCacheRecord {
            id: entry.id().to_owned(),
            parents: record.parents.iter().map(|parent| usage::id(parent).to_owned()).collect(),
            kind: record.kind.as_str().to_owned(),
            description: record.description.clone(),
            in_use: entry.in_use,
            shared: entry.shared,
            size,
            created_at: record.created.rfc3339_nano(),
            last_used_at: Some(record.used.rfc3339_nano()),
            usage_count: record.uses as i64,
        });
    }
    shown
}

/// Refuses filters that make no sense; answers the time since which records were not used.
fn check(filters: &Filters) -> Result<Option<Timestamp>> {
    filters.validate(KEYS)?;
    if filters.contains("until") && filters.contains("unused-for") {
        return Err(Error::invalid("conflicting filters: \"until\" and \"unused-for\""));
    }
    let key = if filters.contains("unused-for") { "unused-for" } else { "until" };
    let times: Vec<_> = filters.get(key).collect();
    if times.len() > 1 || SINGLE.iter().any(|key| filters.get(key).count() > 1) {
        return Err(Error::invalid("filters expect only one value"));
    }
    let expected = || format!("{key:?} filter expects a duration (e.g., '24h') or a timestamp");
    times.first().map(|text| time::parse(text, now()).map_err(|error| error.prefix(expected()))).transpose()
}
