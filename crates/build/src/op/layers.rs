//! Operations on whole layers: merge puts chains on each other, diff takes one off another. No file is read.

use std::sync::Arc;

use bollard_buildkit_proto::pb;
use model::{Error, Result};

use super::input::input;
use crate::graph::Vertex;
use crate::key;
use crate::record::Layer;
use crate::result::Solved;

fn solved(vertex: &Vertex, inputs: &[Arc<Solved>], layers: Vec<Layer>) -> Solved {
    let keys: Vec<_> = inputs.iter().map(|input| input.key.clone()).collect();
    let cached = inputs.iter().all(|input| input.cached);
    Solved { key: key::of(vertex, &keys), outputs: [(0, Arc::new(layers))].into(), cached }
}

/// The layers of all inputs, those of later ones above.
pub(crate) fn merge(vertex: &Vertex, merge: &pb::MergeOp, inputs: &[Arc<Solved>]) -> Result<Solved> {
    let mut layers = Vec::new();
    for given in &merge.inputs {
        layers.extend(input(vertex, inputs, given.input)?.iter().cloned());
    }
    Ok(solved(vertex, inputs, layers))
}

/// The layers that one chain has above another.
///
/// Errors: `NotImplemented` when the one is not the beginning of the other.
pub(crate) fn diff(vertex: &Vertex, diff: &pb::DiffOp, inputs: &[Arc<Solved>]) -> Result<Solved> {
    let lower = input(vertex, inputs, diff.lower.map_or(-1, |lower| lower.input))?;
    let upper = input(vertex, inputs, diff.upper.map_or(-1, |upper| upper.input))?;
    let Some(above) = upper.strip_prefix(lower.as_slice()) else {
        let text = "the difference of file systems of which one does not go on from the other is not supported";
        return Err(Error::not_implemented(text));
    };
    Ok(solved(vertex, inputs, above.to_vec()))
}
