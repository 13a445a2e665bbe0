//! Builds that go on, and those that have ended.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, UpdateBuildHistoryRequest,
};
use build::Builder;
use model::{Error, Result};
use tokio::sync::mpsc;
use tonic::Status;

use super::filter::Filter;
use crate::account::Account;
use crate::answers::{Messages, answers};
use crate::builds::Builds;

/// Where events for a client are put.
type Sender = mpsc::Sender<Result<BuildHistoryEvent, Status>>;

/// Tells of builds; a client that does not leave at once hears of what happens to them until it leaves.
///
/// Errors: `InvalidParameter` for filters and limits that are none.
pub(super) fn listen(builds: &Builds, request: BuildHistoryRequest) -> Result<Messages<BuildHistoryEvent>> {
    let filters = Filter::read(&request.filter)?;
    let limit =
        usize::try_from(request.limit).map_err(|_| Error::invalid(format!("invalid limit {}", request.limit)))?;
    let mut listener = Listener { builds: builds.clone(), only: request.r#ref, seen: HashMap::new() };
    let mut changed = builds.changed();
    changed.mark_unchanged();
    let mut first = listener.news();
    let is_active = |event: &BuildHistoryEvent| event.r#type == BuildHistoryEventType::Started as i32;
    let mut ended: Vec<BuildHistoryEvent> = first.extract_if(.., |event| !is_active(event)).collect();
    let takes = |event: &BuildHistoryEvent| {
        event.record.as_ref().is_some_and(|record| filters.iter().any(|filter| filter.takes(record)))
    };
    ended.retain(|event| !request.active_only && (filters.is_empty() || takes(event)));
    if limit > 0 {
        // The newest ones, these first.
        ended.sort_by_key(|event| std::cmp::Reverse(started(event)));
        ended.truncate(limit);
    }
    first.extend(ended);
    let (sender, stream) = answers();
    let stays = !request.early_exit;
    tokio::spawn(async move {
        if !send(&sender, first).await || !stays {
            return;
        }
        loop {
            tokio::select! {
                told = changed.changed() => if told.is_err() { return },
                () = sender.closed() => return,
            }
            let news = listener.news();
            if !send(&sender, news).await {
                return;
            }
        }
    });
    Ok(stream)
}

/// Whether the client hears of them.
async fn send(sender: &Sender, events: Vec<BuildHistoryEvent>) -> bool {
    for event in events {
        if sender.send(Ok(event)).await.is_err() {
            return false;
        }
    }
    true
}

fn started(event: &BuildHistoryEvent) -> i64 {
    let created = event.record.as_ref().and_then(|record| record.created_at.as_ref());
    created.map_or(0, crate::time::nanos)
}

/// What one client has heard.
struct Listener {
    builds: Builds,
    /// The one build that it listens to; empty: to all.
    only: String,
    /// Builds that it knows of, and how often they have changed.
    seen: HashMap<String, (bool, i32)>,
}

impl Listener {
    /// What it has not heard of.
    fn news(&mut self) -> Vec<BuildHistoryEvent> {
        let all = self.builds.list();
        let wanted = all.iter().filter(|build| !build.request.internal);
        let wanted = wanted.filter(|build| self.only.is_empty() || self.only == build.id());
        let mut now = HashMap::new();
        let mut news = Vec::new();
        for build in wanted {
            let state = (build.ended.get().is_some(), build.generation());
            if self.seen.get(build.id()) != Some(&state) {
                news.push(event(build));
            }
            now.insert(build.id().to_owned(), state);
        }
        for id in self.seen.keys().filter(|id| !now.contains_key(*id)) {
            let record = BuildHistoryRecord { r#ref: id.clone(), ..BuildHistoryRecord::default() };
            news.push(BuildHistoryEvent { r#type: BuildHistoryEventType::Deleted.into(), record: Some(record) });
        }
        self.seen = now;
        news
    }
}

/// Forgets a build, or keeps it from being forgotten.
///
/// Errors: `NotFound`.
pub(super) async fn update(builds: &Builds, builder: &Arc<Builder>, request: &UpdateBuildHistoryRequest) -> Result<()> {
    let id = &request.r#ref;
    if request.delete {
        if builds.forget(id) {
            builds.settle(builder, id).await;
            return Ok(());
        }
        return Err(Error::not_found(format!("failed to retrieve bucket: build record {id} not found")));
    }
    // What a build tells is at hand when it has ended: there is nothing to be finished first.
    if request.finalize {
        return Ok(());
    }
    if builds.pin(id, request.pinned) {
        builds.settle(builder, id).await;
        return Ok(());
    }
    Err(Error::not_found(format!("failed to retrieve ref {id}: file does not exist")))
}

fn event(build: &Account) -> BuildHistoryEvent {
    let is_over = build.ended.get().is_some();
    let kind = if is_over { BuildHistoryEventType::Complete } else { BuildHistoryEventType::Started };
    BuildHistoryEvent { r#type: kind.into(), record: Some(build.record()) }
}
