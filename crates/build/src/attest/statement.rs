//! Statements (in-toto, <https://in-toto.io/Statement/v1>): a predicate, and what it is said of.

use std::collections::BTreeMap;
use std::io::Read;

use model::digest::Digest;
use model::{Context as _, Error, Result};
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sys::tree;

use crate::content as files;
use crate::export::{Attestation, Content, Subject};
use crate::record::keys;
use crate::root::{Roots, Tree};

/// Of a statement.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// What predicates of provenance begin with: only the daemon itself says where something comes from.
const PROVENANCE: &str = "https://slsa.dev/provenance/";
/// Bytes of one predicate.
const PREDICATE: u64 = 40 << 20;
/// Statements of one bundle.
const BUNDLE: usize = 1024;
/// Subjects of one statement.
const SUBJECTS: usize = 100_000;

/// A statement as it is written.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Statement {
    #[serde(rename = "_type")]
    kind: &'static str,
    /// What kind of predicate it has.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    subject: Vec<Named>,
    predicate: Value,
    /// The name of its file.
    #[serde(skip)]
    pub path: String,
}

/// Something with a name and digests by algorithm.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Named {
    /// What it is called.
    pub name: String,
    /// In hexadecimal digits.
    pub digest: BTreeMap<String, String>,
}

impl Named {
    /// Something of this name and digest.
    pub(crate) fn new(name: &str, digest: &Digest) -> Named {
        Named { name: name.to_owned(), digest: digests([digest]) }
    }
}

/// A statement of a bundle.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Given {
    #[serde(rename = "predicateType")]
    predicate_type: String,
    subject: Vec<Named>,
    predicate: Value,
}

fn digests<'d>(digests: impl IntoIterator<Item = &'d Digest>) -> BTreeMap<String, String> {
    digests.into_iter().map(|digest| (digest.algorithm().name().to_owned(), digest.hex().to_owned())).collect()
}

/// Attestations as statements about `itself`, the main list of packages first. Blocks.
///
/// Errors: `InvalidParameter` for one whose file is none, is too large or no JSON, and for provenance of a front end.
pub(crate) fn statements(roots: &Roots, attestations: &[&Attestation], itself: &[Named]) -> Result<Vec<Statement>> {
    let mut core = Vec::new();
    let mut others = Vec::new();
    for attestation in attestations {
        for (statement, path) in of(roots, attestation, itself)? {
            let name = path.rsplit('/').next().unwrap_or_default();
            let is_core = !attestation.core.is_empty() && name.split('.').next() == Some(&attestation.core);
            if is_core { core.push(statement) } else { others.push(statement) }
        }
    }
    core.append(&mut others);
    Ok(core)
}

fn of(roots: &Roots, attestation: &Attestation, itself: &[Named]) -> Result<Vec<(Statement, String)>> {
    let path = attestation.path.clone();
    if path.is_empty() && !matches!(attestation.content, Content::Bundle(_)) {
        return Err(Error::invalid("attestation does not have set path"));
    }
    let made = |predicate: Value| Statement {
        kind: STATEMENT,
        predicate_type: attestation.predicate_type.clone(),
        subject: subjects(&attestation.subjects, itself),
        predicate,
        path: path.clone(),
    };
    let refuse_provenance = |predicate_type: &str, verb: &str| match predicate_type.starts_with(PROVENANCE) {
        true => Err(Error::invalid(format!("frontend may not {verb} provenance attestations"))),
        false => Ok(()),
    };
    match &attestation.content {
        Content::Bytes(bytes) => Ok(vec![(made(predicate(bytes)?), path.clone())]),
        Content::File(chain) => {
            refuse_provenance(&attestation.predicate_type, "set")?;
            let tree = Tree::open(roots, &keys(chain))?;
            let node = tree.root().locate(format!("/{path}")).context("cannot read in-toto attestation")?;
            Ok(vec![(made(predicate(&read(&node, &path)?)?), path.clone())])
        }
        Content::Bundle(chain) => {
            let tree = Tree::open(roots, &keys(chain))?;
            let node =
                tree.root().locate(format!("/{path}")).with_context(|| format!("opening the bundle {path:?}"))?;
            let mut found = Vec::new();
            for name in tree::names(files::open_directory(&node)?)? {
                if found.len() == BUNDLE {
                    return Err(Error::invalid(format!("more than {BUNDLE} attestations in one bundle")));
                }
                let path = files::join(&path, &name);
                let node = tree.root().locate(format!("/{path}")).with_context(|| format!("opening {path}"))?;
                let given: Given = serde_json::from_slice(&read(&node, &path)?)
                    .map_err(|error| Error::invalid(format!("cannot decode in-toto statement: {error}")))?;
                let Given { predicate_type, subject, predicate } = given;
                if !attestation.predicate_type.is_empty() && predicate_type != attestation.predicate_type {
                    return Err(Error::invalid(format!(
                        "bundle entry {predicate_type} does not match required predicate type {}",
                        attestation.predicate_type
                    )));
                }
                refuse_provenance(&predicate_type, "bundle")?;
                if subject.len() > SUBJECTS {
                    return Err(Error::invalid(format!("more than {SUBJECTS} subjects of one attestation")));
                }
                let subject = if subject.is_empty() { itself.to_vec() } else { subject };
                found.push((
                    Statement { kind: STATEMENT, predicate_type, subject, predicate, path: path.clone() },
                    path,
                ));
            }
            Ok(found)
        }
    }
}

fn subjects(given: &[Subject], itself: &[Named]) -> Vec<Named> {
    if given.is_empty() {
        return itself.to_vec();
    }
    let mut found = Vec::new();
    for subject in given {
        match subject {
            Subject::Itself(name) => {
                for own in itself {
                    found.push(own.clone());
                    if !name.is_empty() && name != "_" {
                        found.push(Named { name: name.clone(), digest: own.digest.clone() });
                    }
                }
            }
            Subject::Other(name, of) => {
                let name = if name.is_empty() { "_".to_owned() } else { name.clone() };
                found.push(Named { name, digest: digests(of) });
            }
        }
    }
    found
}

/// A predicate; `null` for no bytes.
fn predicate(bytes: &[u8]) -> Result<Value> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|error| Error::invalid(format!("failed to marshal attestation: {error}")))
}

/// A regular file, whole.
fn read(node: &std::os::fd::OwnedFd, path: &str) -> Result<Vec<u8>> {
    let stat = rustix::fs::fstat(node).map_err(std::io::Error::from)?;
    if tree::file_type(&stat) != FileType::RegularFile {
        return Err(Error::invalid(format!("{path} is not a regular file")));
    }
    let mut bytes = Vec::new();
    files::open_file(node)?.take(PREDICATE + 1).read_to_end(&mut bytes).with_context(|| format!("reading {path}"))?;
    if bytes.len() as u64 > PREDICATE {
        return Err(Error::invalid(format!("{path} exceeds {PREDICATE} bytes")));
    }
    Ok(bytes)
}
