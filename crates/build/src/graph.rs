//! A build's graph, from the definition in which front ends and clients send it (LLB: a protobuf message with one operation
//! a vertex, named by the SHA-256 of its bytes).
//!
//! Invariants:
//! - a vertex names its inputs by their digests, so there is no circle; every vertex comes behind its inputs in
//!   [`Graph::order`];
//! - numbers of vertices, inputs and bytes are bounded, and an index that leads nowhere is refused before anything runs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use model::digest::{Algorithm, Digest};
use model::{Error, Result};
use prost::Message;

/// Vertices of one definition.
const VERTICES: usize = 20_000;
/// Bytes of all operations of one definition.
const BYTES: usize = 64 << 20;
/// Inputs of one vertex.
const INPUTS: usize = 4096;
/// Outputs of one vertex.
const OUTPUTS: i64 = 4096;

/// One output of a vertex.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Output {
    /// The vertex.
    pub vertex: Digest,
    /// Which of its outputs.
    pub index: i64,
}

/// One operation.
#[derive(Debug)]
pub struct Vertex {
    /// Of the operation's bytes.
    pub digest: Digest,
    /// What it does.
    pub op: pb::op::Op,
    /// What it works on.
    pub inputs: Vec<Output>,
    /// Where it runs; `None`: here.
    pub platform: Option<pb::Platform>,
    /// As people are told of it.
    pub name: String,
    /// An earlier result is not used.
    pub ignore_cache: bool,
    /// The platform in bytes, for its key.
    pub(crate) platform_bytes: Vec<u8>,
}

impl Vertex {
    /// The outputs that it makes, in order.
    pub fn outputs(&self) -> Vec<i64> {
        let mut outputs: Vec<i64> = match &self.op {
            pb::op::Op::Exec(exec) => exec.mounts.iter().map(|mount| mount.output).collect(),
            pb::op::Op::File(file) => file.actions.iter().map(|action| action.output).collect(),
            _ => vec![0],
        };
        outputs.retain(|output| *output >= 0);
        outputs.sort_unstable();
        outputs.dedup();
        outputs
    }
}

/// A definition, checked.
#[derive(Debug, Default)]
pub struct Graph {
    vertices: HashMap<Digest, Arc<Vertex>>,
    /// What the definition is of; `None`: of nothing (an empty root file system).
    pub target: Option<Output>,
}

impl Graph {
    /// Reads a definition. Its last operation has one input, which is what the definition is of.
    ///
    /// Errors: `InvalidParameter` for what is malformed, too large, or names what is not there.
    pub fn read(definition: &pb::Definition) -> Result<Graph> {
        let bytes: usize = definition.def.iter().map(Vec::len).sum();
        if definition.def.len() > VERTICES || bytes > BYTES {
            return Err(Error::invalid(format!(
                "invalid definition: more than {VERTICES} operations or {BYTES} bytes"
            )));
        }
        let mut graph = Graph::default();
        let Some((last, rest)) = definition.def.split_last() else { return Ok(graph) };
        for bytes in rest {
            let vertex = vertex(bytes, definition)?;
            graph.vertices.insert(vertex.digest.clone(), Arc::new(vertex));
        }
        let end = pb::Op::decode(last.as_slice()).map_err(malformed)?;
        if let Some(input) = end.inputs.first() {
            graph.target = Some(output(input)?);
        }
        for output in graph.vertices.values().flat_map(|vertex| &vertex.inputs).chain(&graph.target) {
            graph.check(output)?;
        }
        for vertex in graph.vertices.values() {
            check_indexes(vertex)?;
        }
        Ok(graph)
    }

    /// The vertex of this digest.
    pub fn vertex(&self, digest: &Digest) -> Result<&Arc<Vertex>> {
        let missing = || Error::invalid(format!("invalid definition: operation {digest} is missing"));
        self.vertices.get(digest).ok_or_else(missing)
    }

    /// The vertices that a target needs, each behind its inputs.
    pub fn order(&self, target: &Output) -> Result<Vec<Arc<Vertex>>> {
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        // A vertex, and which of its inputs is to be looked at next.
        let mut path = vec![(self.vertex(&target.vertex)?, 0)];
        seen.insert(&target.vertex);
        while let Some((vertex, next)) = path.last_mut() {
            let Some(input) = vertex.inputs.get(*next) else {
                order.push(vertex.clone());
                path.pop();
                continue;
            };
            *next += 1;
            let input = self.vertex(&input.vertex)?;
            if seen.insert(&input.digest) {
                path.push((input, 0));
            }
        }
        Ok(order)
    }

    /// Every vertex, in no order.
    pub fn vertices(&self) -> impl Iterator<Item = &Arc<Vertex>> {
        self.vertices.values()
    }

    fn check(&self, output: &Output) -> Result<()> {
        let vertex = self.vertex(&output.vertex)?;
        let count = match &vertex.op {
            pb::op::Op::Exec(exec) => exec.mounts.iter().map(|mount| mount.output).max().map_or(0, |most| most + 1),
            pb::op::Op::File(file) => file.actions.iter().map(|action| action.output).max().map_or(0, |most| most + 1),
            _ => 1,
        };
        if (0..count.min(OUTPUTS)).contains(&output.index) {
            return Ok(());
        }
        Err(Error::invalid(format!("invalid definition: operation {} has no output {}", output.vertex, output.index)))
    }
}

fn malformed(error: prost::DecodeError) -> Error {
    Error::invalid(format!("invalid definition: {error}"))
}

fn output(input: &pb::Input) -> Result<Output> {
    let vertex = Digest::parse(&input.digest).map_err(|error| error.prefix("invalid definition"))?;
    Ok(Output { vertex, index: input.index })
}

fn vertex(bytes: &[u8], definition: &pb::Definition) -> Result<Vertex> {
    let digest = Digest::of(Algorithm::Sha256, bytes);
    let op = pb::Op::decode(bytes).map_err(malformed)?;
    if op.inputs.len() > INPUTS {
        return Err(Error::invalid(format!("invalid definition: an operation with more than {INPUTS} inputs")));
    }
    let metadata = definition.metadata.get(digest.as_str()).cloned().unwrap_or_default();
    let name = metadata.description.get("llb.customname").cloned();
    let body = op.op.ok_or_else(|| Error::invalid(format!("invalid definition: operation {digest} does nothing")))?;
    Ok(Vertex {
        digest,
        inputs: op.inputs.iter().map(output).collect::<Result<_>>()?,
        platform_bytes: op.platform.as_ref().map(Message::encode_to_vec).unwrap_or_default(),
        platform: op.platform,
        name: name.unwrap_or_else(|| name_of(&body)),
        op: body,
        ignore_cache: metadata.ignore_cache,
    })
}

/// The name of a vertex that its front end has not named.
fn name_of(op: &pb::op::Op) -> String {
    match op {
        pb::op::Op::Source(source) => source.identifier.clone(),
        pb::op::Op::Exec(exec) => exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default(),
        pb::op::Op::File(file) => {
            let name = |action: &pb::FileAction| match &action.action {
                Some(pb::file_action::Action::Copy(copy)) => format!("copy {} {}", copy.src, copy.dest),
                Some(pb::file_action::Action::Mkfile(file)) => format!("mkfile {}", file.path),
                Some(pb::file_action::Action::Mkdir(dir)) => format!("mkdir {}", dir.path),
                Some(pb::file_action::Action::Rm(rm)) => format!("rm {}", rm.path),
                Some(pb::file_action::Action::Symlink(link)) => format!("symlink {} -> {}", link.newpath, link.oldpath),
                None => "unknown".to_owned(),
            };
            file.actions.iter().map(name).collect::<Vec<_>>().join(", ")
        }
        pb::op::Op::Build(_) => "build".to_owned(),
        pb::op::Op::Merge(_) => "merge".to_owned(),
        pb::op::Op::Diff(_) => "diff".to_owned(),
    }
}

/// Refuses indexes of inputs that lead nowhere. -1 stands for an empty root.
fn check_indexes(vertex: &Vertex) -> Result<()> {
    let check = |index: i64, actions: usize| {
        let inputs = vertex.inputs.len() + actions;
        if index == -1 || usize::try_from(index).is_ok_and(|index| index < inputs) {
            return Ok(());
        }
        Err(Error::invalid(format!("invalid definition: operation {} has no input {index}", vertex.digest)))
    };
    match &vertex.op {
        pb::op::Op::Exec(exec) => exec.mounts.iter().try_for_each(|mount| check(mount.input, 0)),
        pb::op::Op::File(file) => {
            let actions = file.actions.iter().enumerate();
            // An action may take what one before it has made: its index stands behind those of the inputs.
            actions.into_iter().try_for_each(|(at, action)| {
                check(action.input, at)?;
                check(action.secondary_input, at)?;
                owners(action).try_for_each(|owner| check(owner, at))
            })
        }
        pb::op::Op::Merge(merge) => merge.inputs.iter().try_for_each(|input| check(input.input, 0)),
        pb::op::Op::Diff(diff) => {
            check(diff.lower.map_or(-1, |lower| lower.input), 0)?;
            check(diff.upper.map_or(-1, |upper| upper.input), 0)
        }
        pb::op::Op::Source(_) | pb::op::Op::Build(_) => Ok(()),
    }
}

/// The inputs in which an action looks names of users up.
fn owners(action: &pb::FileAction) -> impl Iterator<Item = i64> {
    let owner = match &action.action {
        Some(pb::file_action::Action::Copy(copy)) => copy.owner.as_ref(),
        Some(pb::file_action::Action::Mkfile(file)) => file.owner.as_ref(),
        Some(pb::file_action::Action::Mkdir(dir)) => dir.owner.as_ref(),
        Some(pb::file_action::Action::Symlink(link)) => link.owner.as_ref(),
        _ => None,
    };
    let parts = owner.into_iter().flat_map(|owner| [&owner.user, &owner.group]).flatten();
    parts.filter_map(|part| match &part.user {
        Some(pb::user_opt::User::ByName(named)) => Some(named.input),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A definition of these operations; the target is the last.
    fn definition(ops: Vec<pb::Op>) -> pb::Definition {
        let mut def: Vec<Vec<u8>> = ops.iter().map(Message::encode_to_vec).collect();
        let last = def.last().map(|bytes| input(bytes, 0));
        def.push(pb::Op { inputs: last.into_iter().collect(), ..pb::Op::default() }.encode_to_vec());
        pb::Definition { def, ..pb::Definition::default() }
    }

    fn input(bytes: &[u8], index: i64) -> pb::Input {
        pb::Input { digest: Digest::of(Algorithm::Sha256, bytes).to_string(), index }
    }

    fn source(name: &str) -> pb::Op {
        let source = pb::SourceOp { identifier: name.into(), ..pb::SourceOp::default() };
        pb::Op { op: Some(pb::op::Op::Source(source)), ..pb::Op::default() }
    }

    fn copy(inputs: Vec<pb::Input>, from: i64) -> pb::Op {
        let action = pb::FileAction {
            input: 0,
            secondary_input: from,
            output: 0,
            action: Some(pb::file_action::Action::Copy(pb::FileActionCopy::default())),
        };
        let file = pb::FileOp { actions: vec![action] };
        pb::Op { inputs, op: Some(pb::op::Op::File(file)), ..pb::Op::default() }
    }

    #[test]
    fn vertices_come_behind_their_inputs() {
        let (a, b) = (source("local://a"), source("local://b"));
        let inputs = vec![input(&a.encode_to_vec(), 0), input(&b.encode_to_vec(), 0)];
        let read = Graph::read(&definition(vec![a, b, copy(inputs, 1)])).unwrap();
        let order = read.order(read.target.as_ref().unwrap()).unwrap();
        let names: Vec<_> = order.iter().map(|vertex| vertex.name.as_str()).collect();
        assert_eq!(names, ["local://a", "local://b", "copy  "]);
    }

    #[test]
    fn nothing_is_an_empty_root() {
        assert!(Graph::read(&pb::Definition::default()).unwrap().target.is_none());
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        let a = source("local://a");
        let there = input(&a.encode_to_vec(), 0);
        let refused = |ops: Vec<pb::Op>| Graph::read(&definition(ops)).unwrap_err().message().to_owned();
        assert!(refused(vec![copy(vec![there.clone()], 0)]).ends_with("is missing"));
        assert!(refused(vec![a.clone(), copy(vec![there.clone()], 7)]).ends_with("has no input 7"));
        assert!(refused(vec![a.clone(), copy(vec![there.clone()], -2)]).ends_with("has no input -2"));
        let other = pb::Input { index: 3, ..there };
        assert!(refused(vec![a, copy(vec![other], 0)]).ends_with("has no output 3"));
        assert!(refused(vec![pb::Op::default(), source("x")]).ends_with("does nothing"));
        let broken = pb::Definition { def: vec![vec![0xff], vec![]], ..pb::Definition::default() };
        assert!(Graph::read(&broken).unwrap_err().message().starts_with("invalid definition: "));
    }
}
