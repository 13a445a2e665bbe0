//! Builds that go on, and those that have ended lately. They are remembered until the daemon ends.

use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, UpdateBuildHistoryRequest,
};
use model::{Error, Result};

use crate::answers::{Messages, answers};
use crate::build::Account;
use crate::builds::Builds;
use crate::time::proto;

/// Tells of builds; a client that does not leave at once hears of what is there, and then of nothing more until it leaves.
pub(super) fn listen(builds: &Builds, request: BuildHistoryRequest) -> Result<Messages<BuildHistoryEvent>> {
    if !request.filter.is_empty() {
        return Err(Error::not_implemented("filters of the history of builds are not supported"));
    }
    let mut wanted: Vec<BuildHistoryEvent> = builds
        .list()
        .iter()
        .filter(|build| !build.request.internal)
        .filter(|build| request.r#ref.is_empty() || request.r#ref == build.id())
        .filter(|build| !request.active_only || build.ended.get().is_none())
        .map(|build| event(build))
        .collect();
    if let Ok(limit @ 1..) = usize::try_from(request.limit) {
        wanted.drain(..wanted.len().saturating_sub(limit));
    }
    let (sender, stream) = answers();
    let stays = !request.early_exit;
    tokio::spawn(async move {
        for event in wanted {
            if sender.send(Ok(event)).await.is_err() {
                return;
            }
        }
        if stays {
            sender.closed().await;
        }
    });
    Ok(stream)
}

/// Forgets a build.
pub(super) fn update(builds: &Builds, request: &UpdateBuildHistoryRequest) -> Result<()> {
    if request.pinned {
        return Err(Error::not_implemented("records of builds cannot be pinned"));
    }
    if request.delete && !builds.forget(&request.r#ref) {
        return Err(Error::not_found(format!("failed to retrieve bucket: build record {} not found", request.r#ref)));
    }
    Ok(())
}

fn event(build: &Account) -> BuildHistoryEvent {
    let counts = build.progress.counts();
    let ended = build.ended.get();
    let outcome = ended.map(|(_, outcome)| outcome);
    let record = BuildHistoryRecord {
        r#ref: build.id().to_owned(),
        frontend: build.request.frontend.clone(),
        frontend_attrs: build.request.frontend_attrs.clone(),
        exporters: build.request.exporters.clone(),
        error: outcome.and_then(|outcome| outcome.as_ref().err()).map(crate::error::Failed::to_proto),
        created_at: Some(proto(build.started)),
        completed_at: ended.map(|(time, _)| proto(*time)),
        exporter_response: outcome
            .and_then(|outcome| outcome.as_ref().ok())
            .map(|response| response.clone().into_iter().collect())
            .unwrap_or_default(),
        generation: 1,
        num_cached_steps: counts.cached,
        num_total_steps: counts.total,
        num_completed_steps: counts.completed,
        num_warnings: counts.warnings,
        ..BuildHistoryRecord::default()
    };
    let kind = if ended.is_some() { BuildHistoryEventType::Complete } else { BuildHistoryEventType::Started };
    BuildHistoryEvent { r#type: kind.into(), record: Some(record) }
}
