//! The cache of builds: what it takes, and what of it goes.

use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::{DiskUsageRequest, PruneRequest, UsageRecord};
use build::Builder;
use build::record::Kind;
use build::usage::{self, Entry, Wanted};
use model::time::Timestamp;
use model::{Error, Result};

use crate::time::proto;

/// Filters of one request.
const FILTERS: usize = 64;

/// What is in the cache.
pub(super) fn list(builder: &Builder, request: &DiskUsageRequest) -> Result<Vec<UsageRecord>> {
    let filters = Filter::read(&request.filter)?;
    let entries = builder.entries();
    Ok(entries.iter().filter(|entry| filters.iter().all(|filter| filter.takes(entry))).map(record).collect())
}

/// Removes from the cache; what has gone.
pub(super) async fn prune(builder: &Arc<Builder>, request: PruneRequest) -> Result<Vec<UsageRecord>> {
    let filters = Filter::read(&request.filter)?;
    let keep = [request.reserved_space, request.max_used_space].into_iter().max().unwrap_or(0);
    let unused = (request.keep_duration > 0)
        .then(|| Timestamp::from_unix_nanos(events::now().unix_nanos().saturating_sub(request.keep_duration)));
    let own = builder.clone();
    let work = move |_: &_| {
        let before = own.entries();
        let filter = |entry: &Entry| {
            unused.is_none_or(|time| usage::unused_since(entry, time)) && filters.iter().all(|one| one.takes(entry))
        };
        let wanted = Wanted { filter: &filter, all: request.all, keep: u64::try_from(keep).unwrap_or(0) };
        let pruned = own.prune(&wanted)?;
        Ok(before.iter().filter(|entry| pruned.ids.iter().any(|id| id == entry.id())).map(record).collect())
    };
    builder.threads.run(work).await
}

fn record(entry: &Entry) -> UsageRecord {
    let record = &entry.record;
    UsageRecord {
        id: entry.id().to_owned(),
        mutable: record.kind == Kind::CacheMount,
        in_use: entry.in_use,
        size: i64::try_from(record.size).unwrap_or(i64::MAX),
        created_at: Some(proto(record.created)),
        last_used_at: Some(proto(record.used)),
        usage_count: i64::try_from(record.uses).unwrap_or(i64::MAX),
        description: record.description.clone(),
        record_type: record.kind.as_str().to_owned(),
        shared: entry.shared,
        parents: record.parents.iter().map(|parent| usage::id(parent).to_owned()).collect(),
        ..UsageRecord::default()
    }
}

/// A filter as containerd writes them: `field==value`, `field!=value`, `field~=value`; the field alone: it is set. Several with
/// commas all have to hold.
struct Filter(Vec<Rule>);

struct Rule {
    field: String,
    operator: Operator,
    value: String,
}

#[derive(Clone, Copy)]
enum Operator {
    Equal,
    Unequal,
    Has,
    Set,
}

impl Filter {
    fn read(filters: &[String]) -> Result<Vec<Filter>> {
        if filters.len() > FILTERS {
            return Err(Error::invalid(format!("more than {FILTERS} filters")));
        }
        let rules = |text: &String| text.split(',').map(Rule::read).collect::<Result<Vec<_>>>().map(Filter);
        filters.iter().filter(|text| !text.is_empty()).map(rules).collect()
    }

    fn takes(&self, entry: &Entry) -> bool {
        self.0.iter().all(|rule| rule.takes(entry))
    }
}

impl Rule {
    fn read(text: &str) -> Result<Rule> {
        let operators = [("==", Operator::Equal), ("!=", Operator::Unequal), ("~=", Operator::Has)];
        let parsed = operators.iter().find_map(|(sign, operator)| {
            let (field, value) = text.split_once(sign)?;
            Some((field, *operator, value))
        });
        let (field, operator, value) = parsed.unwrap_or((text, Operator::Set, ""));
        let known = ["id", "type", "description", "inuse", "mutable", "immutable", "private", "shared", "parents"];
        if !known.contains(&field) {
            return Err(Error::invalid(format!("failed to parse prune filters {text}")));
        }
        let value = value.trim_matches('"').to_owned();
        Ok(Rule { field: field.to_owned(), operator, value })
    }

    fn takes(&self, entry: &Entry) -> bool {
        let record = &entry.record;
        let is_mutable = record.kind == Kind::CacheMount;
        let flag = |is: bool| if is { "true" } else { "" }.to_owned();
        let found = match self.field.as_str() {
            "id" => entry.id().to_owned(),
            "type" => record.kind.as_str().to_owned(),
            "description" => record.description.clone(),
            "inuse" => flag(entry.in_use),
            "mutable" => flag(is_mutable),
            "immutable" => flag(!is_mutable),
            "private" => flag(!entry.shared),
            "shared" => flag(entry.shared),
            _ => record.parents.iter().map(usage::id).collect::<Vec<_>>().join(";"),
        };
        match self.operator {
            Operator::Equal => found == self.value,
            Operator::Unequal => found != self.value,
            Operator::Has => found.contains(&self.value),
            Operator::Set => !found.is_empty(),
        }
    }
}
