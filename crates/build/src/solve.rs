//! The solver: a task a vertex, each waiting for those that it needs.
//!
//! Invariants:
//! - a vertex runs when all of its inputs have results; those that need nothing of each other run beside each other;
//! - of equal steps of any builds one runs and the others take its result ([`crate::result::Locks`]);
//! - a step that fails or is cancelled leaves no record and no files; the first that fails cancels the others of its graph;
//! - a vertex that several graphs of a build have is solved once ([`crate::result::Memo`]);
//! - when [`Job::solve`] returns, nothing of it runs any more.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use bollard_buildkit_proto::pb::op::Op;
use events::now;
use model::digest::Digest;
use model::{Error, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cancel::cancelled;
use crate::graph::{Graph, Output, Vertex};
use crate::job::{Event, Job};
use crate::key;
use crate::op;
use crate::record::{Kind, Record, chains};
use crate::result::{Failure, Files, Made, Solved, Unmade};

/// `None`: not yet; then a result, or nothing when it failed.
type Slot = watch::Receiver<Option<Option<Arc<Solved>>>>;

impl Job {
    /// Solves what a definition is of; `None`: of nothing, an empty root.
    pub async fn solve_definition(self: &Arc<Job>, definition: &pb::Definition) -> Result<Option<Files>, Failure> {
        let graph = Graph::read(definition)?;
        let Some(target) = &graph.target else { return Ok(None) };
        let solved = self.solve(&graph, target).await?;
        Ok(Some(Files { solved, index: target.index }))
    }

    /// Solves a target of the graph. A failure ends what runs for this target, not the build.
    pub async fn solve(self: &Arc<Job>, graph: &Graph, target: &Output) -> Result<Arc<Solved>, Failure> {
        self.part().solve_part(graph, target).await
    }

    async fn solve_part(self: &Arc<Job>, graph: &Graph, target: &Output) -> Result<Arc<Solved>, Failure> {
        let order = graph.order(target)?;
        let mut slots: HashMap<Digest, Slot> = HashMap::new();
        let mut tasks = JoinSet::new();
        for vertex in order {
            let inputs: Vec<Slot> =
                vertex.inputs.iter().filter_map(|input| slots.get(&input.vertex).cloned()).collect();
            let (sender, slot) = watch::channel(None);
            slots.insert(vertex.digest.clone(), slot);
            let job = self.clone();
            tasks.spawn(async move {
                let outcome = job.vertex(&vertex, inputs).await;
                let (result, failure) = match outcome {
                    Ok(solved) => (solved, None),
                    Err(failure) => (None, Some(failure)),
                };
                sender.send_replace(Some(result));
                failure
            });
        }
        let mut first = None;
        while let Some(ended) = tasks.join_next().await {
            let failure = match ended {
                Ok(failure) => failure,
                Err(panicked) => {
                    Some(Error::system("internal error: a step of a build failed").with_source(panicked).into())
                }
            };
            if let Some(failure) = failure
                && first.is_none()
            {
                self.cancel.cancel();
                first = Some(failure);
            }
        }
        if let Some(failure) = first {
            return Err(failure);
        }
        let slot = slots.remove(&target.vertex).and_then(|slot| slot.borrow().clone().flatten());
        slot.ok_or_else(|| cancelled().into())
    }

    /// A vertex, when its inputs are there; `None`: one of them failed.
    async fn vertex(self: &Arc<Job>, vertex: &Arc<Vertex>, slots: Vec<Slot>) -> Result<Option<Arc<Solved>>, Failure> {
        let mut inputs = Vec::with_capacity(slots.len());
        for mut slot in slots {
            let ended = slot.wait_for(Option::is_some).await.map(|state| state.clone().flatten());
            match ended {
                Ok(Some(solved)) => inputs.push(solved),
                _ => return Ok(None),
            }
        }
        let stopped = || Failure { vertex: Some(vertex.digest.clone()), ..cancelled().into() };
        let mut slot = tokio::select! {
            slot = self.memo.slot(&vertex.digest) => slot?,
            () = self.cancel.cancelled() => return Err(stopped()),
        };
        if self.cancel.is_cancelled() {
            return Err(stopped());
        }
        if let Some(solved) = &*slot {
            return Ok(Some(solved.clone()));
        }
        let step = vertex.digest.clone();
        let names = vertex.inputs.iter().map(|input| input.vertex.clone()).collect();
        self.tell(Event::Started { step: step.clone(), name: vertex.name.clone(), inputs: names }).await;
        let is_source = matches!(vertex.op, Op::Source(_));
        if !is_source {
            self.follow(vertex, &inputs).await;
        }
        let outcome = self.result(vertex, &inputs, None).await;
        let (cached, error) = match &outcome {
            Ok(solved) => (solved.cached, None),
            Err(unmade) => (false, Some(unmade.error.message().to_owned())),
        };
        self.tell(Event::Ended { step: step.clone(), cached, error }).await;
        match outcome {
            Ok(solved) => {
                let solved = Arc::new(solved);
                if is_source {
                    self.follow(vertex, std::slice::from_ref(&solved)).await;
                }
                Ok(slot.insert(solved).clone().into())
            }
            Err(Unmade { error, exit_code }) => Err(Failure { vertex: Some(step), error, exit_code }),
        }
    }

    /// The result of a vertex: one that was kept, or one that is made now. `content`: its content key, where that is known.
    pub(crate) async fn result(
        self: &Arc<Job>,
        vertex: &Arc<Vertex>,
        inputs: &[Arc<Solved>],
        content: Option<Digest>,
    ) -> Result<Solved, Unmade> {
        match &vertex.op {
            // These are made anew in each build: they cost nothing, or are told apart by their content.
            Op::Source(source) => return Ok(crate::sources::solve(self, vertex, source).await?),
            Op::Merge(merge) => return Ok(op::layers::merge(vertex, merge, inputs)?),
            Op::Diff(diff) => return Ok(op::layers::diff(vertex, diff, inputs)?),
            Op::Build(_) => {
                return Err(Error::not_implemented("an operation that builds within a build is not supported").into());
            }
            Op::Exec(_) | Op::File(_) => {}
        }
        let keys: Vec<Digest> = inputs.iter().map(|input| input.key.clone()).collect();
        let definition = key::of(vertex, &keys);
        let content = match content {
            Some(content) => content,
            None => match self.found(vertex, &definition, None) {
                Some(found) => return Ok(found),
                None => op::content_key(self, vertex, inputs).await?,
            },
        };
        let _turn = tokio::select! {
            turn = self.builder.steps.lock(&content) => turn,
            () = self.cancel.cancelled() => return Err(cancelled().into()),
        };
        if let Some(found) = self.found(vertex, &content, Some(&definition)) {
            return Ok(found);
        }
        let imported = self.imported(vertex, &content).await;
        let cached = imported.is_some();
        let made = match imported {
            Some(made) => made,
            None => op::run(self, vertex, inputs).await?,
        };
        let now = now();
        let record = Arc::new(Record {
            outputs: made.outputs.iter().map(|(index, chain)| (*index, chain.to_vec())).collect(),
            kind: Kind::Regular,
            description: vertex.name.clone(),
            created: now,
            used: now,
            uses: 1,
            size: made.size,
            parents: keys,
        });
        let outputs = made.outputs;
        self.keep(&content, record, Some(definition));
        Ok(Solved { key: content, outputs, cached })
    }

    /// Looks in the caches that the build imports for what they have of a vertex. A cache that cannot tell has nothing.
    async fn follow(self: &Arc<Job>, vertex: &Arc<Vertex>, solved: &[Arc<Solved>]) {
        if vertex.ignore_cache {
            return;
        }
        let imports = self.pending().imports.clone();
        for cache in imports {
            if let Err(error) = cache.follow(self, vertex, solved).await {
                tracing::warn!(%error, step = %vertex.name, "looking for a step in an imported cache");
            }
        }
    }

    /// A result of a cache that the build imports; one that cannot be fetched is none.
    async fn imported(self: &Arc<Job>, vertex: &Vertex, content: &Digest) -> Option<Made> {
        let imports = self.pending().imports.clone();
        if vertex.ignore_cache || imports.is_empty() {
            return None;
        }
        for cache in imports {
            match cache.find(self, content, vertex).await {
                Ok(Some(outputs)) => {
                    let layers = &self.builder.roots.snapshots.layers;
                    let tops = outputs.values().filter_map(|chain| chain.last());
                    let sizes = tops.filter_map(|layer| Some(layers.layer(&layer.key).ok()??.size));
                    return Some(Made { size: sizes.sum(), outputs });
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, step = %vertex.name, "a cached result cannot be fetched: the step runs")
                }
            }
        }
        None
    }

    /// A result that was kept, if the build may use one. `alias` leads to it from now on.
    pub(crate) fn found(&self, vertex: &Vertex, key: &Digest, alias: Option<&Digest>) -> Option<Solved> {
        if vertex.ignore_cache {
            return None;
        }
        let solved = self.look_up(key)?;
        if let Some((own, record)) = alias.and_then(|_| self.builder.records.find(key)) {
            self.keep(&own, record, alias.cloned());
        }
        Some(solved)
    }

    /// A result that was kept under this key.
    pub fn look_up(&self, key: &Digest) -> Option<Solved> {
        let records = &self.builder.records;
        let (own, _) = records.find(key)?;
        let busy = records.busy(&own);
        // Held from before it is looked at: a prune takes it no more.
        let (_, record) = records.find(&own)?;
        let layers = || record.outputs.values().flat_map(|chain| chain.iter());
        for layer in layers() {
            self.lease.pin(layer.key.pin());
            if let Some(blob) = &layer.blob {
                self.lease.pin(&blob.digest);
            }
        }
        let store = &self.builder.roots.snapshots.layers;
        if !layers().all(|layer| store.layer(&layer.key).is_ok_and(|found| found.is_some())) {
            return None;
        }
        self.pending().busy.push(busy);
        records.note_use(&own, now());
        Some(Solved { key: own, outputs: chains(&record.outputs), cached: true })
    }

    /// Shows a result to later steps, and makes it durable while the build goes on.
    pub fn keep(&self, key: &Digest, record: Arc<Record>, alias: Option<Digest>) {
        let records = self.builder.records.clone();
        records.show(key, record.clone(), alias.as_ref());
        let (busy, key, builder) = (records.busy(key), key.clone(), self.builder.clone());
        let keep = tokio::spawn(async move {
            let layers = builder.roots.snapshots.layers.clone();
            builder.threads.run(move |_| layers.sync()).await?;
            records.keep(key, record, alias).await
        });
        let mut pending = self.pending();
        pending.keeps.push(keep);
        pending.busy.push(busy);
    }

    fn pending(&self) -> model::lock::MutexGuard<'_, crate::job::Pending> {
        self.records.lock()
    }
}
