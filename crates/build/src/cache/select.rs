//! Which results of a build are exported.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use bollard_buildkit_proto::pb::op::Op;
use model::Result;
use model::digest::Digest;
use model::time::Timestamp;

use super::request::Mode;
use crate::graph::Graph;
use crate::job::Job;
use crate::key::Key;
use crate::record::Chain;

/// The result of a step.
#[derive(Clone, Debug)]
pub struct Selected {
    /// What it depends on.
    pub key: Digest,
    /// By output.
    pub outputs: BTreeMap<i64, Chain>,
    /// When it was made.
    pub created: Timestamp,
}

/// What the output of a step is named by in a cache.
pub(super) fn name(key: &Digest, output: i64) -> Digest {
    let mut name = Key::new("cache-record");
    name.part(key.as_str().as_bytes()).part(&output.to_le_bytes());
    name.finish()
}

/// The results of a definition that was solved by this build.
pub fn select(job: &Arc<Job>, definition: &pb::Definition, mode: Mode) -> Result<Vec<Selected>> {
    let graph = Graph::read(definition)?;
    let Some(target) = &graph.target else { return Ok(Vec::new()) };
    let whole = job.solved(&target.vertex).map(|solved| solved.chain(target.index)).unwrap_or_default();
    let mut found = Vec::new();
    for vertex in graph.order(target)? {
        if !matches!(vertex.op, Op::Exec(_) | Op::File(_)) {
            continue;
        }
        let Some(solved) = job.solved(&vertex.digest) else { continue };
        let is_part = |chain: &Chain| whole.starts_with(chain);
        if mode == Mode::Min && !solved.outputs.values().all(is_part) {
            continue;
        }
        let record = job.builder.records.find(&solved.key);
        let created = record.map_or_else(Timestamp::default, |(_, record)| record.created);
        found.push(Selected { key: solved.key.clone(), outputs: solved.outputs.clone(), created });
    }
    Ok(found)
}
