//! A directory of the client: what differs from what the client has sent under the same key before comes over the session, and
//! lies as a layer over what was there.

use std::sync::Arc;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use build::job::{Attributes, Job, Local};
use build::key::Key;
use build::record::{Chain, Kind, Layer, Record, keys};
use build::root::Work;
use model::digest::Digest;
use model::{Error, Result};
use runtime::view::View;
use sys::rooted::Rooted;
use tokio::sync::mpsc;
use tonic::Request;

use super::bytes::Queue;
use crate::error::answered;
use crate::metadata;
use crate::progress::Progress;
use crate::session::Session;
use crate::sync::transfer::{self, Exchange};
use crate::sync::{Differ, Receiver};
use crate::time::now;

const METHOD: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// Layers of one directory; then it is sent as a whole again.
const LAYERS: usize = 32;
/// Values of one attribute.
const VALUES: usize = 100_000;
/// Bytes from one word of progress to the next.
const TOLD: u64 = 256 << 10;

/// See the module.
pub(super) struct Transfer<'t> {
    pub(super) job: &'t Arc<Job>,
    pub(super) session: &'t Arc<Session>,
    pub(super) progress: &'t Arc<Progress>,
}

/// A writable root over what was there, and its receiver.
struct Begun {
    work: Work,
    view: View,
    receiver: Receiver,
}

impl Transfer<'_> {
    /// Files that differ come over; the layers of all of them.
    pub(super) async fn run(&self, name: &str, attributes: &Attributes) -> Result<Local> {
        let options = Options::read(attributes)?;
        let key = self.key(name, &options);
        let differ = options.differ;
        let before = (differ == Differ::Metadata).then(|| self.job.look_up(&key)).flatten();
        let before = before.map(|solved| solved.chain(0)).filter(|chain| (1..LAYERS).contains(&chain.len()));
        let exchange = self.call(name, &options).await?;
        let (roots, below) = (self.job.builder.roots.clone(), before.clone().unwrap_or_default());
        let threads = &self.job.builder.threads;
        let begin = move |_: &_| {
            let work = Work::prepare(&roots, &keys(&below))?;
            let view = work.open()?;
            let root = Rooted::from_fd(view.root().as_fd().try_clone_to_owned()?);
            Ok(Begun { receiver: Receiver::new(root, differ)?, work, view })
        };
        let Begun { work, view, receiver } = threads.run(begin).await?;
        let transferred = Transferred::new(self.progress, name);
        let count = |bytes| transferred.bytes(bytes);
        let received = tokio::select! {
            received = transfer::receive(exchange, receiver, threads, &count) => received,
            () = self.job.cancel.cancelled() => Err(Error::system("context canceled")),
            () = self.session.ended() => Err(Error::unavailable("no active session: the client has left")),
        };
        transferred.done();
        let (lease, kept) = (self.job.lease.clone(), before.clone());
        let commit = move |_: &_| {
            let changed = received.and_then(Receiver::finish);
            drop(view);
            // What is left of a transfer that failed goes with the root.
            if !changed? && let Some(before) = kept {
                return Ok((before, 0));
            }
            let (key, size) = work.commit(&lease)?;
            let below = kept.iter().flat_map(|chain| chain.iter().cloned());
            Ok((Arc::new(below.chain([Layer { key, blob: None }]).collect()), size))
        };
        let (chain, size): (Chain, u64) = threads.run(commit).await?;
        if differ == Differ::Metadata && before.as_ref() != Some(&chain) {
            self.keep(&key, name, (&chain, size));
        }
        Ok(Local { key: build::key_of(&chain), chain })
    }

    /// What the files are kept under.
    fn key(&self, name: &str, options: &Options) -> Digest {
        let mut key = Key::new("local");
        for part in [name, &options.hint, &self.session.offer.shared_key] {
            key.part(part.as_bytes());
        }
        key.finish()
    }

    /// Notes the files for the next build. Of a directory that has changed a lot nothing is noted but that it is to be sent as a
    /// whole: what was replaced would be kept with it.
    fn keep(&self, key: &Digest, name: &str, (chain, size): (&Chain, u64)) {
        let before = self.job.builder.records.find(key).map(|(_, record)| record);
        let base = before.filter(|_| chain.len() > 1).map_or(0, |record| record.size);
        let grown = base + size;
        let now = events::now();
        let is_worth_it = chain.len() == 1 || size <= base / 2 + GROWTH;
        let outputs = if is_worth_it { [(0, chain.to_vec())].into() } else { Default::default() };
        let record = Record {
            outputs,
            kind: Kind::Local,
            description: format!("local source for {name}"),
            created: now,
            used: now,
            uses: 1,
            size: if is_worth_it { grown } else { 0 },
            parents: Vec::new(),
        };
        self.job.keep(key, Arc::new(record), None);
    }

    async fn call(&self, name: &str, options: &Options) -> Result<Exchange> {
        let channel = self.session.calling(METHOD)?;
        let (answers, queue) = mpsc::channel(transfer::QUEUE);
        let mut request = Request::new(Queue(queue));
        let fields = request.metadata_mut();
        metadata::append(fields, "dir-name", &[name.to_owned()]);
        for (key, values) in &options.patterns {
            metadata::append(fields, key, values);
        }
        let answer = channel.file_sync().diff_copy(request).await.map_err(|status| answered(&status))?;
        Ok(Exchange { packets: answer.into_inner(), answers })
    }
}

/// Bytes that may be added in any case before a directory is sent as a whole again.
const GROWTH: u64 = 64 << 20;

/// The attributes of a directory of the client.
struct Options {
    hint: String,
    differ: Differ,
    /// Lists, by what the client calls them.
    patterns: Vec<(&'static str, Vec<String>)>,
}

impl Options {
    fn read(attributes: &Attributes) -> Result<Options> {
        let text = |key: &str| attributes.get(key).map(String::as_str).unwrap_or_default();
        if !matches!(text("local.metadatatransfer"), "" | "false" | "0") {
            return Err(Error::not_implemented("transfers of metadata alone are not supported"));
        }
        let list = |key: &str| -> Result<Vec<String>> {
            if text(key).is_empty() {
                return Ok(Vec::new());
            }
            let invalid = |error: serde_json::Error| Error::invalid(format!("invalid {key}: {error}"));
            let values: Vec<String> = serde_json::from_str(text(key)).map_err(invalid)?;
            if values.len() > VALUES {
                return Err(Error::invalid(format!("more than {VALUES} values of {key}")));
            }
            Ok(values)
        };
        let differ = match text("local.differ") {
            "" | "metadata" => Differ::Metadata,
            "none" => Differ::None,
            other => return Err(Error::invalid(format!("invalid differ {other:?} of a local source"))),
        };
        Ok(Options {
            hint: text("local.sharedkeyhint").to_owned(),
            differ,
            patterns: vec![
                ("include-patterns", list("local.includepattern")?),
                ("exclude-patterns", list("local.excludepatterns")?),
                ("followpaths", list("local.followpaths")?),
            ],
        })
    }
}

/// Tells how much has come.
struct Transferred<'t> {
    progress: &'t Arc<Progress>,
    /// The step that loads the directory.
    step: Option<String>,
    id: String,
    begun: Timestamp,
    bytes: std::sync::atomic::AtomicU64,
}

impl Transferred<'_> {
    fn new<'t>(progress: &'t Arc<Progress>, name: &str) -> Transferred<'t> {
        // Of what goes on only loads have this in their names.
        let what = match name {
            "dockerfile" => "load build definition",
            "context" => "load build context",
            _ => name,
        };
        let step = progress.going(|vertex| vertex.name.contains(what)).or_else(|| {
            progress.going(|vertex| vertex.name.contains(".dockerignore") || vertex.name.contains(" load "))
        });
        Transferred { progress, step, id: format!("transferring {name}:"), begun: now(), bytes: 0.into() }
    }

    fn bytes(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, std::sync::atomic::Ordering::Relaxed);
        if bytes / TOLD != before / TOLD {
            self.tell(None);
        }
    }

    fn done(&self) {
        self.tell(Some(now()));
    }

    fn tell(&self, completed: Option<Timestamp>) {
        let Some(step) = &self.step else { return };
        let bytes = i64::try_from(self.bytes.load(std::sync::atomic::Ordering::Relaxed)).unwrap_or(i64::MAX);
        self.progress.status(step, &self.id, bytes, [Some(self.begun), completed]);
    }
}
