//! What a step takes of the steps before it.

use std::sync::Arc;

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
