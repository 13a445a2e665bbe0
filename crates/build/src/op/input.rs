//! What a step takes of the steps before it.

use std::sync::Arc;

use model::digest::Digest;
use model::{Error, Result};

use crate::graph::Vertex;
use crate::record::Chain;
use crate::result::Solved;

/// The layers of an input; -1 stands for an empty root.
pub(super) fn input(vertex: &Vertex, inputs: &[Arc<Solved>], index: i64) -> Result<Chain> {
    let Ok(at) = usize::try_from(index) else { return Ok(Chain::default()) };
    let missing = || Error::invalid(format!("operation {} has no input {index}", vertex.digest));
    let (solved, output) = inputs.get(at).zip(vertex.inputs.get(at)).ok_or_else(missing)?;
    Ok(solved.chain(output.index))
}

/// Something that a step uses of an input is not there, in the words of the reference.
pub(super) fn not_calculated(input: &Digest, path: &str) -> Error {
    let input = crate::usage::id(input);
    Error::not_found(format!(
        "failed to compute cache key: failed to calculate checksum of ref {input}: {path:?}: not found"
    ))
}
