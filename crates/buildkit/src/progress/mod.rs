//! What a build tells, collected: every client that asks for it hears all of it from the beginning.
//!
//! Invariants:
//! - what is kept is bounded: the output of a step as by BuildKit's limits, everything together by [`KEPT`];
//! - a listener that is slow holds nobody up.

mod log;

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use build::job::Event;
use model::digest::{Algorithm, Digest};
use model::lock::{Mutex, MutexGuard};
use prost::Message;
use tokio::sync::watch;

use self::log::Limit;
use crate::time::now;

/// Bytes of what a build has told; beyond that no output of steps is kept.
const KEPT: usize = 32 << 20;
/// Warnings of one build.
const WARNINGS: usize = 1000;
/// Messages that are given at one time.
const GIVEN: usize = 64;

/// See the module.
#[derive(Default)]
pub(crate) struct Progress {
    record: Mutex<Record>,
    changed: watch::Sender<usize>,
}

#[derive(Default)]
struct Record {
    messages: Vec<Arc<StatusResponse>>,
    bytes: usize,
    vertexes: HashMap<String, Vertex>,
    logs: HashMap<(String, u8), Limit>,
    warnings: usize,
    ended: bool,
}

/// How many steps there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) total: i32,
    pub(crate) completed: i32,
    pub(crate) cached: i32,
    pub(crate) warnings: i32,
}

impl Progress {
    /// What a build of the past has record.
    pub(crate) fn of_past(messages: Vec<Arc<StatusResponse>>) -> Progress {
        let mut record = Record { ended: true, ..Record::default() };
        for message in &messages {
            record.bytes += message.encoded_len();
            record.warnings += message.warnings.len();
            let vertexes = message.vertexes.iter().map(|vertex| (vertex.digest.clone(), vertex.clone()));
            record.vertexes.extend(vertexes);
        }
        record.messages = messages;
        Progress { record: Mutex::new(record), changed: watch::Sender::default() }
    }

    /// All that was record.
    pub(crate) fn all(&self) -> Vec<Arc<StatusResponse>> {
        self.record().messages.clone()
    }

    /// Takes what a job tells.
    pub(crate) fn event(&self, event: Event) {
        match event {
            Event::Started { step, name, inputs } => {
                let inputs = inputs.iter().map(ToString::to_string).collect();
                let vertex = Vertex { digest: step.to_string(), inputs, name, ..Vertex::default() };
                self.begin(vertex);
            }
            Event::Running { .. } => {}
            Event::Output { step, stream, bytes } => self.output(step.as_str(), stream, bytes),
            Event::Ended { step, cached, error } => {
                self.flush(step.as_str());
                self.finish(step.as_str(), |vertex| {
                    vertex.cached = cached;
                    vertex.error = error.unwrap_or_default();
                });
            }
        }
    }

    /// Bytes of what is kept.
    pub(crate) fn bytes(&self) -> usize {
        self.record().bytes
    }

    fn begin(&self, mut vertex: Vertex) {
        vertex.started = Some(now());
        let mut record = self.record();
        // A step that several parts of a build have is told of once.
        if record.vertexes.get(&vertex.digest).is_some_and(|known| known.error.is_empty()) {
            return;
        }
        record.vertexes.insert(vertex.digest.clone(), vertex.clone());
        self.add(record, StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() });
    }

    fn finish(&self, step: &str, how: impl FnOnce(&mut Vertex)) {
        let mut record = self.record();
        let Some(vertex) = record.vertexes.get_mut(step).filter(|vertex| vertex.completed.is_none()) else { return };
        how(vertex);
        vertex.completed = Some(now());
        let vertex = vertex.clone();
        self.add(record, StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() });
    }

    /// What a step has written.
    pub(crate) fn output(&self, step: &str, stream: u8, bytes: Vec<u8>) {
        let mut record = self.record();
        let limit = record.logs.entry((step.to_owned(), stream)).or_default();
        let msg = limit.take(bytes);
        self.log(record, step, stream, msg);
    }

    /// Tells the end of what was clipped.
    fn flush(&self, step: &str) {
        for stream in [1, 2] {
            let mut record = self.record();
            let Some(msg) = record.logs.remove(&(step.to_owned(), stream)).and_then(Limit::rest) else { continue };
            self.log(record, step, stream, msg);
        }
    }

    fn log(&self, record: MutexGuard<'_, Record>, step: &str, stream: u8, msg: Vec<u8>) {
        if msg.is_empty() || record.bytes > KEPT {
            return;
        }
        let log = VertexLog { vertex: step.to_owned(), timestamp: Some(now()), stream: stream.into(), msg };
        self.add(record, StatusResponse { logs: vec![log], ..StatusResponse::default() });
    }

    /// A finding about the build.
    pub(crate) fn warn(&self, warning: VertexWarning) {
        let mut record = self.record();
        if record.warnings < WARNINGS {
            record.warnings += 1;
            self.add(record, StatusResponse { warnings: vec![warning], ..StatusResponse::default() });
        }
    }

    /// How far a step is; `done`: when it has come to its end.
    pub(crate) fn status(&self, step: &str, id: &str, current: i64, times: [Option<Timestamp>; 2]) {
        let [started, completed] = times;
        let status = VertexStatus {
            id: id.to_owned(),
            vertex: step.to_owned(),
            name: id.to_owned(),
            current,
            total: 0,
            timestamp: Some(now()),
            started,
            completed,
        };
        let record = self.record();
        self.add(record, StatusResponse { statuses: vec![status], ..StatusResponse::default() });
    }

    /// The step that was begun under this name and goes on, if any.
    pub(crate) fn going(&self, is_it: impl Fn(&Vertex) -> bool) -> Option<String> {
        let record = self.record();
        let mut going = record.vertexes.values().filter(|vertex| vertex.completed.is_none());
        going.find(|vertex| is_it(vertex)).map(|vertex| vertex.digest.clone())
    }

    /// Something that is no step of the graph, but is told of like one.
    pub(crate) fn span(self: &Arc<Progress>, name: &str) -> Span {
        let digest = Digest::of(Algorithm::Sha256, format!("{name} {}", self.record().messages.len()).as_bytes());
        let digest = digest.to_string();
        self.begin(Vertex { digest: digest.clone(), name: name.to_owned(), ..Vertex::default() });
        Span { progress: self.clone(), digest }
    }

    /// Nothing follows.
    pub(crate) fn end(&self) {
        let open: Vec<String> = {
            let record = self.record();
            let open = record.vertexes.values().filter(|vertex| vertex.completed.is_none());
            open.map(|vertex| vertex.digest.clone()).collect()
        };
        for step in open {
            self.finish(&step, |vertex| "context canceled".clone_into(&mut vertex.error));
        }
        self.record().ended = true;
        self.changed.send_modify(|count| *count += 1);
    }

    /// What was told behind the first `seen` messages; waits for some. `None`: nothing follows.
    pub(crate) async fn after(&self, seen: usize) -> Option<Vec<Arc<StatusResponse>>> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            {
                let record = self.record();
                let rest = record.messages.get(seen..).unwrap_or_default();
                if !rest.is_empty() {
                    return Some(rest.iter().take(GIVEN).cloned().collect());
                }
                if record.ended {
                    return None;
                }
            }
            changed.changed().await.ok()?;
        }
    }

    /// How many steps there were until now.
    pub(crate) fn counts(&self) -> Counts {
        let record = self.record();
        let count = |is: &dyn Fn(&Vertex) -> bool| {
            i32::try_from(record.vertexes.values().filter(|vertex| is(vertex)).count()).unwrap_or(i32::MAX)
        };
        Counts {
            total: count(&|_| true),
            completed: count(&|vertex| vertex.completed.is_some()),
            cached: count(&|vertex| vertex.cached),
            warnings: i32::try_from(record.warnings).unwrap_or(i32::MAX),
        }
    }

    fn add(&self, mut record: MutexGuard<'_, Record>, message: StatusResponse) {
        record.bytes += message.encoded_len();
        record.messages.push(Arc::new(message));
        drop(record);
        self.changed.send_modify(|count| *count += 1);
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock()
    }
}

/// See [`Progress::span`].
pub(crate) struct Span {
    progress: Arc<Progress>,
    /// By what it is told of.
    digest: String,
}

impl Span {
    /// How far a part of it is: when it began and ended.
    pub(crate) fn status(&self, id: &str, times: [Option<Timestamp>; 2]) {
        self.progress.status(&self.digest, id, 0, times);
    }

    /// It is done.
    pub(crate) fn done(&self, outcome: Result<(), &str>) {
        self.progress.finish(&self.digest, |vertex| vertex.error = outcome.err().unwrap_or_default().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str) -> Digest {
        Digest::of(Algorithm::Sha256, name.as_bytes())
    }

    fn started(name: &str) -> Event {
        Event::Started { step: step(name), name: name.into(), inputs: Vec::new() }
    }

    #[tokio::test]
    async fn who_comes_late_hears_everything() {
        let progress = Arc::new(Progress::default());
        let listener = tokio::spawn({
            let progress = progress.clone();
            async move {
                let mut seen = 0;
                while let Some(some) = progress.after(seen).await {
                    seen += some.len();
                }
                seen
            }
        });
        progress.event(started("a"));
        progress.event(Event::Output { step: step("a"), stream: 1, bytes: b"x".to_vec() });
        progress.event(Event::Ended { step: step("a"), cached: false, error: None });
        // A second time adds nothing.
        progress.event(started("a"));
        progress.event(Event::Ended { step: step("a"), cached: true, error: None });
        progress.event(started("b"));
        progress.end();
        assert_eq!(listener.await.unwrap(), 5);
        let all = progress.after(0).await.unwrap();
        let last = &all[4].vertexes[0];
        assert_eq!((last.name.as_str(), last.error.as_str()), ("b", "context canceled"));
        assert_eq!(all[1].logs[0].msg, b"x");
        assert_eq!(progress.counts(), Counts { total: 2, completed: 2, cached: 0, warnings: 0 });
        assert!(progress.after(5).await.is_none());
    }
}
