//! What is remembered of a build: while it goes on, when it has ended, and by the next daemon.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

use bollard_buildkit_proto::google::protobuf;
use bollard_buildkit_proto::moby::buildkit::v1::{BuildHistoryRecord, SolveRequest};
use build::export;
use build::history::Past;
use model::time::Timestamp;

use crate::error::Failed;
use crate::progress::Progress;
use crate::time::{moment, proto};

/// What is remembered of a build when it has ended.
pub(crate) struct Account {
    pub(crate) request: SolveRequest,
    pub(crate) progress: Arc<Progress>,
    pub(crate) started: Timestamp,
    /// When, and with what it ended.
    pub(crate) ended: OnceLock<(Timestamp, Result<export::Response, Failed>)>,
    /// How often it has changed since it ended, twice, and whether it is not to be forgotten in the lowest bit.
    kept: AtomicI32,
}

impl Account {
    /// Of a build that begins.
    pub(crate) fn new(request: SolveRequest, progress: Arc<Progress>) -> Account {
        Account { request, progress, started: events::now(), ended: OnceLock::new(), kept: AtomicI32::new(0) }
    }

    /// Of a build of the past.
    pub(crate) fn of_past(Past { record, told }: Past) -> Account {
        let outcome = match record.error {
            Some(status) => Err(Failed::from_status(status)),
            None => Ok(record.exporter_response.into_iter().collect()),
        };
        let request = SolveRequest {
            r#ref: record.r#ref,
            frontend: record.frontend,
            frontend_attrs: record.frontend_attrs,
            exporters: record.exporters,
            ..SolveRequest::default()
        };
        let time = |time: Option<protobuf::Timestamp>| time.map(|time| moment(&time)).unwrap_or_default();
        Account {
            request,
            progress: Arc::new(Progress::of_past(told)),
            started: time(record.created_at),
            ended: OnceLock::from((time(record.completed_at), outcome)),
            kept: AtomicI32::new(record.generation.saturating_sub(1).saturating_mul(2) | i32::from(record.pinned)),
        }
    }

    /// As it is kept for the next daemon.
    pub(crate) fn past(&self) -> Past {
        Past { record: self.record(), told: self.progress.all() }
    }

    /// What the history tells of it.
    pub(crate) fn record(&self) -> BuildHistoryRecord {
        let counts = self.progress.counts();
        let ended = self.ended.get();
        let outcome = ended.map(|(_, outcome)| outcome);
        BuildHistoryRecord {
            r#ref: self.id().to_owned(),
            frontend: self.request.frontend.clone(),
            frontend_attrs: self.request.frontend_attrs.clone(),
            exporters: self.request.exporters.clone(),
            error: outcome.and_then(|outcome| outcome.as_ref().err()).map(Failed::to_proto),
            created_at: Some(proto(self.started)),
            completed_at: ended.map(|(time, _)| proto(*time)),
            exporter_response: outcome
                .and_then(|outcome| outcome.as_ref().ok())
                .map(|response| response.clone().into_iter().collect())
                .unwrap_or_default(),
            generation: self.generation(),
            pinned: self.is_pinned(),
            num_cached_steps: counts.cached,
            num_total_steps: counts.total,
            num_completed_steps: counts.completed,
            num_warnings: counts.warnings,
            ..BuildHistoryRecord::default()
        }
    }

    /// What the build is called.
    pub(crate) fn id(&self) -> &str {
        &self.request.r#ref
    }

    /// Whether it is not to be forgotten.
    pub(crate) fn is_pinned(&self) -> bool {
        self.kept.load(Ordering::Relaxed) & 1 == 1
    }

    /// How often it was changed, the first time among them.
    pub(crate) fn generation(&self) -> i32 {
        (self.kept.load(Ordering::Relaxed) >> 1) + 1
    }

    /// Keeps it from being forgotten, or no longer.
    pub(crate) fn pin(&self, pinned: bool) {
        let changed = |kept: i32| Some((kept & !1).saturating_add(2) | i32::from(pinned));
        // It is never refused.
        let _ = self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }
}
