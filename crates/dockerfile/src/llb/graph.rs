//! The graph itself. A vertex takes only what was made before it, so that there are no circles and one pass suffices.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use model::digest::{Algorithm, Digest};
use prost::Message as _;

use super::action::{self, Action};
use super::exec::{self, Exec};
use super::input::{Inputs, NOTHING, Output};
use crate::error::{Error, Result};
use crate::lines::Lines;

/// Vertices of a definition that somebody else made.
const MAX_IMPORTED: usize = 100_000;

/// The name of a vertex: the digest of its encoded operation.
pub fn name(op: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, op)
}

/// What is said of a vertex and is no part of its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// Descriptions, capabilities, whether its result may come from the cache.
    pub metadata: pb::OpMetadata,
    /// Lines of the Dockerfile that it is made from.
    pub lines: Vec<Lines>,
}

impl About {
    /// With the name that users see.
    pub fn named(name: impl Into<String>) -> About {
        let mut about = About::default();
        about.describe("llb.customname", name);
        about
    }

    /// Adds a description.
    pub fn describe(&mut self, key: &str, text: impl Into<String>) {
        self.metadata.description.insert(key.to_owned(), text.into());
    }

    /// Says what a solver has to be able to do.
    pub fn needs(&mut self, capability: &str) {
        self.metadata.caps.insert(capability.to_owned(), true);
    }
}

/// An operation.
#[derive(Clone, Debug)]
pub enum Vertex {
    /// Files from outside: identifier, attributes, the platform where it matters.
    Source(pb::SourceOp, Option<pb::Platform>),
    /// A command.
    Exec(Box<Exec>, pb::Platform),
    /// Changes of files, the first of them to this.
    File(Option<Output>, Vec<Action>),
    /// Layers over each other.
    Merge(Vec<Output>),
    /// An operation that somebody else made, in their encoding.
    Encoded(Vec<u8>, Vec<usize>),
}

/// A definition that became part of a graph.
pub type Imported = Option<Output>;

/// Vertices and what is said of them.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    vertices: Vec<(Vertex, About)>,
}

impl Graph {
    /// Adds a vertex; its first result.
    pub fn add(&mut self, vertex: Vertex, about: About) -> Output {
        self.vertices.push((vertex, about));
        Output { vertex: self.vertices.len() - 1, index: 0 }
    }

    /// Sets an attribute of a source that was added before.
    pub fn set_attribute(&mut self, of: Output, key: &str, value: String) {
        if let Some((Vertex::Source(source, _), about)) = self.vertices.get_mut(of.vertex) {
            source.attrs.insert(key.to_owned(), value);
            about.needs(&format!("source.{key}"));
        }
    }

    /// Adds what a definition describes; `None`: nothing, an empty file system.
    pub fn import(&mut self, definition: &pb::Definition) -> Result<Imported> {
        let invalid = |why: &str| Error::new(format!("invalid definition of an input: {why}"));
        let Some((head, ops)) = definition.def.split_last() else { return Ok(None) };
        if ops.len() > MAX_IMPORTED {
            return Err(invalid("too many vertices"));
        }
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for bytes in ops {
            let op = pb::Op::decode(bytes.as_slice()).map_err(|_| invalid("a vertex is no operation"))?;
            let inputs = op.inputs.iter().map(|input| known.get(&input.digest).copied());
            let inputs = inputs.collect::<Option<Vec<usize>>>().ok_or_else(|| invalid("an input is not there"))?;
            let name = name(bytes).to_string();
            let metadata = definition.metadata.get(&name).cloned().unwrap_or_default();
            let output = self.add(Vertex::Encoded(bytes.clone(), inputs), About { metadata, lines: Vec::new() });
            known.insert(name, output.vertex);
        }
        let head = pb::Op::decode(head.as_slice()).map_err(|_| invalid("the last vertex is no operation"))?;
        let Some(input) = head.inputs.first() else { return Ok(None) };
        let vertex = known.get(&input.digest).copied().ok_or_else(|| invalid("the result is not there"))?;
        Ok(Some(Output { vertex, index: input.index }))
    }

    /// The definition of a result, with everything that it needs and nothing else. `file` is what the lines are lines of.
    pub fn definition(&self, result: Option<Output>, file: Option<&pb::SourceInfo>) -> pb::Definition {
        let Some(result) = result else { return pb::Definition::default() };
        let mut encoder = Encoder::default();
        for (at, needed) in self.needed(result).into_iter().enumerate() {
            if needed {
                let (vertex, about) = &self.vertices[at];
                encoder.add(at, vertex, about);
            }
        }
        encoder.finish(result, file)
    }

    /// Which vertices a result is made from.
    fn needed(&self, result: Output) -> Vec<bool> {
        let mut needed = vec![false; result.vertex + 1];
        needed[result.vertex] = true;
        for at in (0..=result.vertex).rev().filter(|at| *at < self.vertices.len()) {
            if needed[at] {
                inputs(&self.vertices[at].0).into_iter().for_each(|input| needed[input] = true);
            }
        }
        needed
    }
}

fn inputs(vertex: &Vertex) -> Vec<usize> {
    match vertex {
        Vertex::Source(..) => Vec::new(),
        Vertex::Exec(exec, _) => exec.mounts.iter().filter_map(|mount| mount.input).map(|input| input.vertex).collect(),
        Vertex::File(first, actions) => {
            let others = actions.iter().filter_map(Action::input);
            first.iter().copied().chain(others).map(|input| input.vertex).collect()
        }
        Vertex::Merge(inputs) => inputs.iter().map(|input| input.vertex).collect(),
        Vertex::Encoded(_, inputs) => inputs.clone(),
    }
}

/// Encodes vertices in their order.
#[derive(Default)]
struct Encoder {
    names: BTreeMap<usize, String>,
    definition: pb::Definition,
    locations: BTreeMap<String, pb::Locations>,
}

impl Encoder {
    fn add(&mut self, at: usize, vertex: &Vertex, about: &About) {
        let bytes = match vertex {
            Vertex::Encoded(bytes, _) => bytes.clone(),
            vertex => self.operation(vertex).encode_to_vec(),
        };
        let name = name(&bytes).to_string();
        self.names.insert(at, name.clone());
        if !about.lines.is_empty() {
            let locations = &mut self.locations.entry(name.clone()).or_default().locations;
            let located = about.lines.iter().map(|lines| pb::Location { source_index: 0, ranges: lines.ranges() });
            locations.extend(located);
        }
        match self.definition.metadata.entry(name) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(about.metadata.clone());
                self.definition.def.push(bytes);
            }
            // The same operation twice: what is said of both is said of it.
            std::collections::btree_map::Entry::Occupied(mut entry) => merge(entry.get_mut(), &about.metadata),
        }
    }

    fn operation(&self, vertex: &Vertex) -> pb::Op {
        let mut inputs = Inputs::new(&self.names);
        let constraints = Some(pb::WorkerConstraints::default());
        let (op, platform) = match vertex {
            Vertex::Source(source, platform) => (Some(pb::op::Op::Source(source.clone())), platform.clone()),
            Vertex::Exec(exec, platform) => {
                (Some(pb::op::Op::Exec(exec::encoded(exec, &mut inputs))), Some(platform.clone()))
            }
            Vertex::File(first, actions) => {
                (Some(pb::op::Op::File(action::encoded(*first, actions, &mut inputs))), None)
            }
            Vertex::Merge(layers) => {
                // The same layer twice is listed twice.
                for layer in layers {
                    let digest = self.names.get(&layer.vertex).cloned().unwrap_or_default();
                    inputs.list.push(pb::Input { digest, index: layer.index });
                }
                let numbers =
                    (0..layers.len()).map(|at| pb::MergeInput { input: i64::try_from(at).unwrap_or(NOTHING) });
                (Some(pb::op::Op::Merge(pb::MergeOp { inputs: numbers.collect() })), None)
            }
            Vertex::Encoded(..) => (None, None),
        };
        pb::Op { inputs: inputs.list, platform, constraints, op }
    }

    fn finish(mut self, result: Output, file: Option<&pb::SourceInfo>) -> pb::Definition {
        let digest = self.names.get(&result.vertex).cloned().unwrap_or_default();
        let head = pb::Op { inputs: vec![pb::Input { digest, index: result.index }], ..pb::Op::default() };
        let bytes = head.encode_to_vec();
        let mut about = About::default();
        about.needs("constraints");
        about.needs("platform");
        let known = self.definition.metadata.values();
        for (capability, needed) in [
            ("meta.ignorecache", known.clone().any(|metadata| metadata.ignore_cache)),
            ("meta.description", known.clone().any(|metadata| !metadata.description.is_empty())),
            ("meta.exportcache", known.clone().any(|metadata| metadata.export_cache.is_some())),
        ] {
            if needed {
                about.needs(capability);
            }
        }
        self.definition.metadata.insert(name(&bytes).to_string(), about.metadata);
        self.definition.def.push(bytes);
        let infos = file.into_iter().cloned().collect();
        let locations = if file.is_some() { self.locations } else { BTreeMap::new() };
        self.definition.source = Some(pb::Source { locations, infos });
        self.definition
    }
}

fn merge(known: &mut pb::OpMetadata, other: &pb::OpMetadata) {
    known.ignore_cache |= other.ignore_cache;
    known.description.extend(other.description.clone());
    known.caps.extend(other.caps.clone());
    known.export_cache = other.export_cache.or(known.export_cache);
    known.progress_group = other.progress_group.clone().or(known.progress_group.take());
}
