//! Records by which BuildKit finds steps: written for an export, and followed while a build is solved that imports them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bollard_buildkit_proto::pb::op::Op;
use model::Result;
use model::digest::Digest;
use model::lock::{Mutex, MutexGuard};

use super::document::{CacheRecord, Link, TopLayer};
use super::keys::{self, Keyed, Used};
use super::select::{Selected, is_local};
use crate::graph::Vertex;
use crate::record::{Chain, keys as layer_keys};
use crate::result::Solved;
use crate::root::{Roots, Tree};

/// Records that one output of a step may have.
const SAME: usize = 64;

/// An output of a step.
type Place = (Digest, i64);

/// The records of what a step uses of an input. Blocks.
fn contents(roots: &Roots, (chain, bare): (&Chain, bool), used: &Used) -> Result<Vec<Digest>> {
    let Some(selectors) = &used.content else { return Ok(Vec::new()) };
    let tree = Tree::open(roots, &layer_keys(chain))?;
    match keys::digests(tree.root(), selectors, bare) {
        Ok(digests) => Ok(digests.iter().map(keys::content).collect()),
        // A step that needs what is not there says so itself.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// Adds the records of steps; `top` is the place of a chain's topmost layer. Blocks.
pub(super) fn write(
    roots: &Roots,
    selected: &[Selected],
    records: &mut Vec<CacheRecord>,
    top: &mut dyn FnMut(&Selected, &Chain) -> Result<Option<usize>>,
) -> Result<()> {
    let mut writer = Writer { roots, records, places: HashMap::new(), known: HashMap::new() };
    for step in selected {
        writer.step(step, top)?;
    }
    Ok(())
}

struct Writer<'w> {
    roots: &'w Roots,
    records: &'w mut Vec<CacheRecord>,
    /// Records of outputs of steps.
    places: HashMap<Place, Vec<usize>>,
    /// Records without inputs.
    known: HashMap<Digest, usize>,
}

impl Writer<'_> {
    fn step(&mut self, step: &Selected, top: &mut dyn FnMut(&Selected, &Chain) -> Result<Option<usize>>) -> Result<()> {
        if let Op::Source(source) = &step.vertex.op {
            let chain = step.solved.chain(0);
            let is_image =
                ["docker-image://", "oci-layout://"].iter().any(|scheme| source.identifier.starts_with(scheme));
            if let Some(digest) = is_image.then(|| keys::image(&chain)).flatten() {
                let at = self.root(digest);
                self.places.insert((step.vertex.digest.clone(), 0), vec![at]);
            }
            return Ok(());
        }
        let Some(keyed) = keys::of(&step.vertex) else { return Ok(()) };
        let mut inputs = Vec::new();
        for ((input, used), (chain, bare)) in step.vertex.inputs.iter().zip(&keyed.inputs).zip(&step.inputs) {
            let before = self.places.get(&(input.vertex.clone(), input.index)).cloned().unwrap_or_default();
            let mut links: Vec<Link> =
                before.into_iter().map(|link| Link { selector: used.selector.clone(), link }).collect();
            for digest in contents(self.roots, (chain, *bare), used)? {
                links.push(Link { selector: String::new(), link: self.root(digest) });
            }
            if links.is_empty() {
                // Nobody finds it.
                return Ok(());
            }
            inputs.push(links);
        }
        for output in step.vertex.outputs() {
            let result = match step.outputs.get(&output) {
                Some(chain) => top(step, chain)?,
                None => None,
            };
            let created_at = step.created.rfc3339_nano();
            let results: Vec<TopLayer> =
                result.into_iter().map(|layer| TopLayer { layer, created_at: created_at.clone() }).collect();
            for digest in &keyed.digests {
                let digest = keys::record(digest, output).to_string();
                self.records.push(CacheRecord {
                    results: results.clone(),
                    digest,
                    inputs: inputs.clone(),
                    ..CacheRecord::default()
                });
                let at = self.records.len() - 1;
                self.places.entry((step.vertex.digest.clone(), output)).or_default().push(at);
            }
        }
        Ok(())
    }

    /// The record without inputs that has this digest.
    fn root(&mut self, digest: Digest) -> usize {
        if let Some(at) = self.known.get(&digest) {
            return *at;
        }
        self.records.push(CacheRecord { digest: digest.to_string(), ..CacheRecord::default() });
        self.known.insert(digest, self.records.len() - 1);
        self.records.len() - 1
    }
}

/// Records of a cache that is read, and which of them are those of steps of a build.
#[derive(Default)]
pub(super) struct Followed {
    records: Vec<CacheRecord>,
    /// Places of records by their digests.
    by_digest: HashMap<String, Vec<usize>>,
    /// Never held while files are read.
    known: Mutex<Known>,
}

/// What is known of the steps of a build.
#[derive(Default)]
struct Known {
    /// The records of outputs.
    found: HashMap<Place, Vec<usize>>,
    /// Sources that are directories of the client.
    locals: HashSet<Digest>,
}

impl Followed {
    pub(super) fn new(records: Vec<CacheRecord>) -> Followed {
        let mut by_digest: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, record) in records.iter().enumerate() {
            by_digest.entry(record.digest.clone()).or_default().push(at);
        }
        Followed { records, by_digest, ..Followed::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// The records of an output of a step; none before [`Followed::step`] or [`Followed::source`] has looked for them.
    pub(super) fn of(&self, vertex: &Digest, output: i64) -> Vec<usize> {
        self.known().found.get(&(vertex.clone(), output)).cloned().unwrap_or_default()
    }

    /// Looks for the records of a source that is solved.
    pub(super) fn source(&self, vertex: &Vertex, solved: &Solved) {
        if is_local(vertex) {
            self.known().locals.insert(vertex.digest.clone());
        } else if let Some(digest) = keys::image(&solved.chain(0)) {
            self.note(&vertex.digest, 0, self.at(&digest));
        }
    }

    /// Looks for the records of a step whose inputs are solved. Files are read if a record asks for their content. Blocks.
    pub(super) fn step(&self, roots: &Roots, vertex: &Vertex, inputs: &[Arc<Solved>]) -> Result<()> {
        let Some(keyed) = keys::of(vertex) else { return Ok(()) };
        let mut meeting = Meeting { roots, vertex, inputs, keyed: &keyed, contents: HashMap::new() };
        for output in vertex.outputs() {
            let candidates = keyed.digests.iter().flat_map(|digest| self.at(&keys::record(digest, output)));
            let mut found = Vec::new();
            for at in candidates {
                if meeting.fits(self, at)? {
                    found.push(at);
                }
            }
            self.note(&vertex.digest, output, found);
        }
        Ok(())
    }

    fn at(&self, digest: &Digest) -> Vec<usize> {
        self.by_digest.get(digest.as_str()).cloned().unwrap_or_default()
    }

    fn note(&self, vertex: &Digest, output: i64, mut found: Vec<usize>) {
        found.truncate(SAME);
        if !found.is_empty() {
            self.known().found.insert((vertex.clone(), output), found);
        }
    }
}

/// A step that is looked for among records.
struct Meeting<'m> {
    roots: &'m Roots,
    vertex: &'m Vertex,
    inputs: &'m [Arc<Solved>],
    keyed: &'m Keyed,
    /// Records of the contents of inputs that were read.
    contents: HashMap<usize, Vec<Digest>>,
}

impl Meeting<'_> {
    /// Whether every input is one that the record goes on from.
    fn fits(&mut self, followed: &Followed, at: usize) -> Result<bool> {
        let links = &followed.records[at].inputs;
        if links.len() != self.keyed.inputs.len() {
            return Ok(false);
        }
        for (index, links) in links.iter().enumerate() {
            if !self.goes_on(followed, index, links)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn goes_on(&mut self, followed: &Followed, index: usize, links: &[Link]) -> Result<bool> {
        let (input, used) = (&self.vertex.inputs[index], &self.keyed.inputs[index]);
        let before = followed.of(&input.vertex, input.index);
        if links.iter().any(|link| link.selector == used.selector && before.contains(&link.link)) {
            return Ok(true);
        }
        let digests = match self.contents.entry(index) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let bare = followed.known().locals.contains(&input.vertex);
                let chain = self.inputs.get(index).map(|solved| solved.chain(input.index)).unwrap_or_default();
                vacant.insert(contents(self.roots, (&chain, bare), used)?)
            }
        };
        let is_content = |link: &Link| {
            let own = followed.records.get(link.link).map(|record| record.digest.as_str());
            link.selector.is_empty() && digests.iter().any(|digest| Some(digest.as_str()) == own)
        };
        Ok(links.iter().any(is_content))
    }
}
