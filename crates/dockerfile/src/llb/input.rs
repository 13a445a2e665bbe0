//! What operations take from one another.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;

/// No input, no output.
pub(super) const NOTHING: i64 = -1;
/// One of the results of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Output {
    /// Its place in the graph.
    pub(super) vertex: usize,
    /// Which of its results.
    pub(super) index: i64,
}

/// The inputs of one operation: each only once.
pub(super) struct Inputs<'a> {
    names: &'a BTreeMap<usize, String>,
    /// As the operation lists them.
    pub(super) list: Vec<pb::Input>,
}

impl<'a> Inputs<'a> {
    /// Of an operation that takes nothing yet; vertices have these names.
    pub(super) fn new(names: &'a BTreeMap<usize, String>) -> Inputs<'a> {
        Inputs { names, list: Vec::new() }
    }

    /// The number of an input.
    pub(super) fn index(&mut self, output: Option<Output>) -> i64 {
        let Some(output) = output else { return NOTHING };
        let digest = self.names.get(&output.vertex).cloned().unwrap_or_default();
        let input = pb::Input { digest, index: output.index };
        let at = self.list.iter().position(|known| *known == input).unwrap_or_else(|| {
            self.list.push(input);
            self.list.len() - 1
        });
        i64::try_from(at).unwrap_or(NOTHING)
    }
}
