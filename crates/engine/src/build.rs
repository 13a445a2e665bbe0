//! Builds, as the engine runs them, and their cache.

use std::sync::Arc;

use api::BuildCachePruneReport;
use build::job::{self, Inputs, Job};
use events::{Events, now};
use model::filter::Filters;
use model::{Error, Result, time};
use tokio::sync::mpsc;

use crate::Engine;
use crate::container::life::step::Steps;

/// A build whose steps run as containers do.
pub fn job(engine: &Arc<Engine>, inputs: Arc<dyn Inputs>, events: mpsc::Sender<job::Event>) -> Job {
    Job::new(&engine.builder, Arc::new(Steps(engine.clone())), inputs, events)
}

/// The end of a build: what it has made is durable, and what it leaves to nobody is removed.
pub async fn end(engine: &Arc<Engine>, job: Arc<Job>) {
    job.settle().await;
    let images = engine.images.clone();
    let swept = engine.builder.threads.run(move |_| {
        // Its lease ends with it.
        drop(job);
        images.sweep()
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

/// Prunes the cache. Event: prune.
pub fn prune(events: &Events, filters: &Filters) -> Result<BuildCachePruneReport> {
    check(filters).map_err(|error| error.prefix("failed to prune build cache"))?;
    events.publish("builder", "prune", "", [("reclaimed", "0".to_owned())]);
    Ok(BuildCachePruneReport::default())
}

fn check(filters: &Filters) -> Result<()> {
    filters.validate(KEYS)?;
    if filters.contains("until") && filters.contains("unused-for") {
        return Err(Error::invalid("conflicting filters: \"until\" and \"unused-for\""));
    }
    let key = if filters.contains("unused-for") { "unused-for" } else { "until" };
    let times: Vec<_> = filters.get(key).collect();
    if times.len() > 1 || SINGLE.iter().any(|key| filters.get(key).count() > 1) {
        return Err(Error::invalid("filters expect only one value"));
    }
    if let Some(text) = times.first() {
        let expected = format!("{key:?} filter expects a duration (e.g., '24h') or a timestamp");
        time::parse(text, now()).map_err(|error| error.prefix(expected))?;
    }
    Ok(())
}
