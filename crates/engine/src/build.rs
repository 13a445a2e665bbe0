//! The build cache, as far as there is one: no builder exists yet, so it is empty. What a prune is asked for is checked
//! all the same, since clients prune it together with everything else.

use api::BuildCachePruneReport;
use model::filter::Filters;
use model::{Error, Result, time};

use events::{Events, now};

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
