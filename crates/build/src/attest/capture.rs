//! What a result was made of, read from its definition and from what its sources turned out to be.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb::{self, op::Op};
use model::digest::Digest;
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Result};
use serde_json::{Value, json};

use super::purl;
use crate::graph::Graph;

/// What sources turned out to be, by their identifiers: an image's digest, a commit, the digest of a file.
pub(crate) type Pins = BTreeMap<String, String>;

/// A material: its address, and digests by algorithm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Material {
    /// A package URL, or the address of a repository or file.
    pub uri: String,
    /// In hexadecimal digits.
    pub digest: BTreeMap<String, String>,
}

/// See the module. Everything is in order and there once.
#[derive(Clone, Debug, Default)]
pub(super) struct Capture {
    /// Images, repositories and files of servers.
    pub materials: Vec<Material>,
    /// Directories of the client.
    pub locals: Vec<String>,
    /// Secrets that steps use, and whether they can do without.
    pub secrets: BTreeMap<String, bool>,
    /// Agents, likewise.
    pub agents: BTreeMap<String, bool>,
    /// A step has a network.
    pub has_network: bool,
    /// Not every material is known.
    pub is_incomplete: bool,
}

impl Material {
    pub(super) fn json(&self) -> Value {
        match self.digest.is_empty() {
            true => json!({"uri": self.uri}),
            false => json!({"uri": self.uri, "digest": self.digest}),
        }
    }
}

impl Capture {
    /// Reads a definition.
    pub(super) fn of(definition: &pb::Definition, pins: &Pins) -> Result<Capture> {
        let graph = Graph::read(definition)?;
        let mut capture = Capture::default();
        let Some(target) = &graph.target else { return Ok(capture) };
        for vertex in graph.order(target)? {
            match &vertex.op {
                Op::Source(source) => {
                    let platform = vertex.platform.as_ref().map(platform);
                    capture.source(source, platform.as_ref(), pins.get(&source.identifier))?;
                }
                Op::Exec(exec) => capture.exec(exec),
                Op::Build(_) => capture.is_incomplete = true,
                Op::File(_) | Op::Merge(_) | Op::Diff(_) => {}
            }
        }
        capture.materials.sort();
        capture.materials.dedup();
        capture.locals.sort();
        capture.locals.dedup();
        Ok(capture)
    }

    fn source(&mut self, source: &pb::SourceOp, platform: Option<&Platform>, pin: Option<&String>) -> Result<()> {
        let Some((scheme, rest)) = source.identifier.split_once("://") else { return Ok(()) };
        match scheme {
            "docker-image" => self.image(purl::Kind::Docker, rest, (platform, pin))?,
            "oci-layout" => self.image(purl::Kind::Oci, rest, (platform, pin))?,
            "local" => self.locals.push(rest.to_owned()),
            "git" => {
                let address = source.attrs.get("git.fullurl").map_or(rest, String::as_str);
                let address = without_secrets(address.split('#').next().unwrap_or_default());
                let algorithm = pin.map(|commit| if commit.len() == 64 { "sha256" } else { "sha1" });
                self.material(address, algorithm.zip(pin).map(|(algorithm, commit)| (algorithm, commit.as_str())));
            }
            "http" | "https" => {
                let digest = pin.or_else(|| source.attrs.get("http.checksum"));
                let digest = digest.map(|digest| Digest::parse(digest)).transpose()?;
                let digest = digest.as_ref().map(|digest| (digest.algorithm().name(), digest.hex()));
                self.material(without_secrets(&source.identifier), digest);
            }
            _ => self.is_incomplete = true,
        }
        Ok(())
    }

    fn image(
        &mut self,
        kind: purl::Kind,
        reference: &str,
        (platform, pin): (Option<&Platform>, Option<&String>),
    ) -> Result<()> {
        let named = ImageRef::parse_normalized(reference)?;
        let pinned = pin.map(|pin| Digest::parse(pin)).transpose()?;
        let digest = named.digest.clone().or(pinned);
        // What was asked for by a tag is called by the tag; the digest stands beside it.
        let shown = if named.tag.is_some() { ImageRef { digest: None, ..named.clone() } } else { named.clone() };
        let uri = purl::of(kind, &shown, platform.map(Platform::to_string).as_deref());
        let digest = digest.as_ref().map(|digest| (digest.algorithm().name(), digest.hex()));
        self.material(uri, digest);
        Ok(())
    }

    fn material(&mut self, uri: String, digest: Option<(&str, &str)>) {
        self.is_incomplete |= digest.is_none();
        let digest = digest.into_iter().map(|(algorithm, hex)| (algorithm.to_owned(), hex.to_owned())).collect();
        self.materials.push(Material { uri, digest });
    }

    fn exec(&mut self, exec: &pb::ExecOp) {
        let note = |all: &mut BTreeMap<String, bool>, id: &str, optional: bool| {
            let known = all.entry(id.to_owned()).or_insert(optional);
            *known &= optional;
        };
        for mount in &exec.mounts {
            if let Some(secret) = &mount.secret_opt {
                note(&mut self.secrets, &secret.id, secret.optional);
            }
            if let Some(agent) = &mount.ssh_opt {
                note(&mut self.agents, &agent.id, agent.optional);
            }
        }
        for secret in &exec.secretenv {
            note(&mut self.secrets, &secret.id, secret.optional);
        }
        self.has_network |= exec.network != pb::NetMode::None as i32;
    }

    /// Whether every material is known.
    pub(super) fn is_complete(&self) -> bool {
        !self.is_incomplete && self.locals.is_empty()
    }

    /// The material of an address, if there is one.
    pub(super) fn find(&self, address: &str) -> Option<&Material> {
        let address = without_secrets(address.split('#').next().unwrap_or_default());
        self.materials.iter().find(|material| material.uri == address)
    }

    /// Refuses a result of which not every material is known.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_complete() {
            return Ok(());
        }
        let mut text = "provenance materials are incomplete\n\n\
            The build requested complete provenance materials, but not all dependencies could be captured."
            .to_owned();
        if !self.locals.is_empty() {
            text.push_str("\n\nUncaptured local sources:");
            for local in &self.locals {
                text.push_str(&format!("\n  - {local}\n    reason: local_source"));
            }
        }
        Err(Error::invalid(text))
    }
}

fn platform(platform: &pb::Platform) -> Platform {
    Platform::new(&platform.os, &platform.architecture, &platform.variant)
}

/// An address without the name and password in it.
pub(super) fn without_secrets(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) if scheme != "ssh" => {
            let hidden = if rest[..at].contains(':') { "xxxxx:xxxxx@" } else { "xxxxx@" };
            format!("{scheme}://{hidden}{}", &rest[at + 1..])
        }
        Some(at) if rest[..at].contains(':') => {
            let name = rest[..at].split(':').next().unwrap_or_default();
            format!("{scheme}://{name}:xxxxx@{}", &rest[at + 1..])
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_passwords() {
        for (address, shown) in [
            ("https://u:p@h/x", "https://xxxxx:xxxxx@h/x"),
            ("https://token@h/x", "https://xxxxx@h/x"),
            ("https://h/x@y", "https://h/x@y"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("ssh://git:p@h/x", "ssh://git:xxxxx@h/x"),
            ("context", "context"),
            ("http://a@b@c", "http://xxxxx@c"),
        ] {
            assert_eq!(without_secrets(address), shown);
        }
    }
}
