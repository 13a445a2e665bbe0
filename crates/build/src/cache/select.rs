//! Which results of a build are exported.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use bollard_buildkit_proto::pb::op::Op;
use model::Result;
use model::digest::Digest;
use model::time::Timestamp;

use super::request::Mode;
use crate::graph::{Graph, Output, Vertex};
use crate::job::Job;
use crate::key::Key;
use crate::record::Chain;
use crate::result::Solved;

/// A step of a build, and what of its result is exported.
#[derive(Clone, Debug)]
pub struct Selected {
    /// What it depends on.
    pub key: Digest,
    /// By output; empty: only steps that go on from it are exported.
    pub outputs: BTreeMap<i64, Chain>,
    /// When it was made.
    pub created: Timestamp,
    /// The step itself.
    pub(super) vertex: Arc<Vertex>,
    /// Its whole result.
    pub(super) solved: Arc<Solved>,
    /// What it was made of, and whether that is a directory of the client.
    pub(super) inputs: Vec<(Chain, bool)>,
}

/// What the output of a step is named by in a cache.
pub(super) fn name(key: &Digest, output: i64) -> Digest {
    let mut name = Key::new("cache-record");
    name.part(key.as_str().as_bytes()).part(&output.to_le_bytes());
    name.finish()
}

/// Whether a vertex is a directory of the client.
pub(super) fn is_local(vertex: &Vertex) -> bool {
    matches!(&vertex.op, Op::Source(source) if source.identifier.starts_with("local://"))
}

/// The steps of a definition that was solved by this build, each behind those that it needs.
pub fn select(job: &Arc<Job>, definition: &pb::Definition, mode: Mode) -> Result<Vec<Selected>> {
    let graph = Graph::read(definition)?;
    let Some(target) = &graph.target else { return Ok(Vec::new()) };
    let whole = job.solved(&target.vertex).map(|solved| solved.chain(target.index)).unwrap_or_default();
    let mut found = Vec::new();
    let mut locals = HashSet::new();
    for vertex in graph.order(target)? {
        if is_local(&vertex) {
            locals.insert(vertex.digest.clone());
        }
        let Some(solved) = job.solved(&vertex.digest) else { continue };
        let is_step = matches!(vertex.op, Op::Exec(_) | Op::File(_));
        let is_part = |chain: &Chain| whole.starts_with(chain);
        let is_wanted = is_step && (mode == Mode::Max || solved.outputs.values().all(is_part));
        let record = job.builder.records.find(&solved.key);
        let input = |input: &Output| {
            let chain = job.solved(&input.vertex).map(|solved| solved.chain(input.index)).unwrap_or_default();
            (chain, locals.contains(&input.vertex))
        };
        found.push(Selected {
            key: solved.key.clone(),
            outputs: if is_wanted { solved.outputs.clone() } else { BTreeMap::new() },
            created: record.map_or_else(Timestamp::default, |(_, record)| record.created),
            inputs: vertex.inputs.iter().map(input).collect(),
            solved,
            vertex,
        });
    }
    Ok(found)
}
