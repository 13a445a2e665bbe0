//! The steps of a build as provenance shows them: each operation with the steps that it goes on from, and the file they are from.

use std::collections::{BTreeMap, HashMap, HashSet};

use bollard_buildkit_proto::pb;
use model::digest::{Algorithm, Digest};
use model::{Error, Result};
use prost::Message;
use serde_json::{Map, Value, json};

use super::operation;
use crate::graph::Graph;

/// Steps and files.
pub(super) struct Config {
    /// `llbDefinition` and `digestMapping`.
    pub steps: Value,
    /// Files with their lines; `None`: the definition says nothing of them.
    pub files: Option<Value>,
}

/// Reads a definition.
pub(super) fn config(definition: &pb::Definition) -> Result<Config> {
    let (steps, indexes) = steps(definition)?;
    let files = definition.source.as_ref().filter(|source| !source.infos.is_empty());
    let files = files.map(|source| files_of(source, &indexes)).transpose()?;
    Ok(Config { steps: mapped(steps, &indexes).into(), files })
}

fn mapped(steps: Vec<Value>, indexes: &HashMap<Digest, usize>) -> Map<String, Value> {
    let mut config = Map::new();
    if !steps.is_empty() {
        config.insert("llbDefinition".into(), steps.into());
        let mapping: BTreeMap<String, String> =
            indexes.iter().map(|(digest, at)| (digest.to_string(), format!("step{at}"))).collect();
        config.insert("digestMapping".into(), json!(mapping));
    }
    config
}

/// Operations in the order in which they need each other, and the place of each.
fn steps(definition: &pb::Definition) -> Result<(Vec<Value>, HashMap<Digest, usize>)> {
    // Checks that there is no circle, and bounds.
    Graph::read(definition)?;
    let malformed = |error: prost::DecodeError| Error::invalid(format!("failed to parse llb proto op: {error}"));
    let mut operations: HashMap<Digest, pb::Op> = HashMap::new();
    let mut last = None;
    for bytes in &definition.def {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        operations.insert(digest.clone(), pb::Op::decode(bytes.as_slice()).map_err(malformed)?);
        last = Some(digest);
    }
    let Some(last) = last else { return Ok(Default::default()) };
    let mut order: Vec<Digest> = Vec::new();
    let mut seen = HashSet::from([last.clone()]);
    let mut path = vec![(last, 0)];
    while let Some((digest, next)) = path.last_mut() {
        let operation =
            operations.get(digest).ok_or_else(|| Error::invalid(format!("failed to find input {digest}")))?;
        let Some(input) = operation.inputs.get(*next) else {
            order.push(digest.clone());
            path.pop();
            continue;
        };
        *next += 1;
        let input = Digest::parse(&input.digest)?;
        if seen.insert(input.clone()) {
            path.push((input, 0));
        }
    }
    let indexes: HashMap<Digest, usize> = order.iter().cloned().enumerate().map(|(at, digest)| (digest, at)).collect();
    let mut steps = Vec::with_capacity(order.len());
    for (at, digest) in order.iter().enumerate() {
        let operation = &operations[digest];
        let mut inputs = Vec::with_capacity(operation.inputs.len());
        for input in &operation.inputs {
            let place = indexes.get(&Digest::parse(&input.digest)?).copied().unwrap_or_default();
            inputs.push(format!("step{place}:{}", input.index));
        }
        let mut step = Map::new();
        step.insert("id".into(), format!("step{at}").into());
        step.insert("op".into(), operation::json(operation));
        if !inputs.is_empty() {
            step.insert("inputs".into(), inputs.into());
        }
        steps.push(step.into());
    }
    Ok((steps, indexes))
}

fn files_of(source: &pb::Source, indexes: &HashMap<Digest, usize>) -> Result<Value> {
    let mut infos = Vec::new();
    for info in &source.infos {
        let mut shown = Map::new();
        shown.insert("filename".into(), info.filename.clone().into());
        if !info.language.is_empty() {
            shown.insert("language".into(), info.language.clone().into());
        }
        shown.insert("data".into(), operation::base64(&info.data).into());
        if let Some(definition) = &info.definition {
            let (steps, indexes) = steps(definition)?;
            shown.extend(mapped(steps, &indexes));
        }
        infos.push(Value::from(shown));
    }
    let position = |position: &pb::Position| json!({"line": position.line, "character": position.character});
    let range = |range: &pb::Range| json!({"start": range.start.as_ref().map(position), "end": range.end.as_ref().map(position)});
    let location = |location: &pb::Location| {
        let ranges: Vec<Value> = location.ranges.iter().map(range).collect();
        match location.source_index {
            0 => json!({"ranges": ranges}),
            index => json!({"sourceIndex": index, "ranges": ranges}),
        }
    };
    let mut locations: BTreeMap<String, Value> = BTreeMap::new();
    for (digest, found) in &source.locations {
        let Some(at) = Digest::parse(digest).ok().and_then(|digest| indexes.get(&digest).copied()) else { continue };
        let all: Vec<Value> = found.locations.iter().map(location).collect();
        locations.insert(format!("step{at}"), if all.is_empty() { json!({}) } else { json!({"locations": all}) });
    }
    Ok(json!({"locations": locations, "infos": infos}))
}
