//! Which repositories are governed by which keys, and the verdict on an image.
//!
//! The most specific rule alone counts: `r.test/team` before `r.test`. Registries are compared as the network would, by
//! [`Authority::registry`]: no other spelling of a host or a port escapes a rule.

use model::authority::Authority;
use model::digest::Digest;
use model::reference::ImageRef;
use model::{Error, Result};

use crate::{PublicKey, Signature};

/// Rules of one policy, and keys of one rule.
const RULES: usize = 1000;
const KEYS: usize = 100;
/// Where the official images of Docker Hub lie.
const OFFICIAL: &str = "library/";

/// All rules. Empty: nothing is governed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The most specific first.
    rules: Vec<Rule>,
}

/// Images of a registry, or of a part of it, must be signed by one of these keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As the configuration has it.
    scope: String,
    registry: Authority,
    /// Without slashes at its ends; empty: the whole registry.
    path: String,
    keys: Vec<PublicKey>,
}

/// Why a signature does not count, the nearest miss last.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Objection {
    Key,
    Malformed(String),
    Digest(Digest),
    Repository(String),
}

impl Policy {
    /// Of rules with different scopes.
    pub fn new(mut rules: Vec<Rule>) -> Result<Policy> {
        if rules.len() > RULES {
            return Err(Error::invalid(format!("more than {RULES} rules")));
        }
        rules.sort_by(|a, b| b.path.len().cmp(&a.path.len()).then_with(|| a.place().cmp(&b.place())));
        if let Some(twice) = rules.windows(2).find(|pair| pair[0].place() == pair[1].place()) {
            return Err(Error::invalid(format!("{:?} and {:?} are the same", twice[0].scope, twice[1].scope)));
        }
        Ok(Policy { rules })
    }

    /// Whether nothing is governed.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule that governs a repository.
    pub fn rule(&self, name: &ImageRef) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.covers(name))
    }

    /// The image that a signature speaks of, if it is by a key of the rule that governs the repository it names.
    pub fn signed(&self, signature: &Signature) -> Option<Digest> {
        let claim = signature.claim().ok()?;
        signature.made_by(&self.rule(&claim.repository)?.keys)?;
        Some(claim.digest)
    }
}

impl Rule {
    /// `registry[:port][/path]` with the keys that may sign there.
    pub fn new(scope: &str, keys: Vec<PublicKey>) -> Result<Rule> {
        let (domain, path) = scope.split_once('/').unwrap_or((scope, ""));
        let inner = if path.is_empty() { "x" } else { path };
        // Read as a name of an image would be: what no image can be called governs nothing, and nobody would notice.
        let read = ImageRef::parse_normalized(&format!("{domain}/{inner}"));
        let understood = read.is_ok_and(|name| {
            let hub = name.domain == "docker.io" && name.familiar_name() == inner;
            let meant = name.domain == domain || domain == "index.docker.io";
            meant && (name.path == inner || hub) && name.tag.is_none() && name.digest.is_none()
        });
        let registry = Authority::parse(domain).map(|authority| authority.registry());
        let Some(registry) = registry.ok().filter(|_| understood) else {
            return Err(Error::invalid(format!("{scope:?} is no registry and no repository of one")));
        };
        if keys.is_empty() || keys.len() > KEYS {
            return Err(Error::invalid(format!("{scope:?} has {} keys; it must have 1 to {KEYS}", keys.len())));
        }
        Ok(Rule { scope: scope.to_owned(), registry, path: path.to_owned(), keys })
    }

    fn place(&self) -> (&Authority, &str) {
        (&self.registry, &self.path)
    }

    fn covers(&self, name: &ImageRef) -> bool {
        let within = |path: &str| {
            let rest = path.strip_prefix(&self.path);
            self.path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // On Docker Hub `busybox` is `library/busybox`.
        let familiar = || self.registry.is_hub() && name.path.strip_prefix(OFFICIAL).is_some_and(within);
        registry(&name.domain).as_ref() == Some(&self.registry) && (within(&name.path) || familiar())
    }

    /// The keys that may sign.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// The signatures that allow the image `digest` under `name`; `Forbidden` when there is none.
    pub fn admit<'s>(&self, name: &ImageRef, digest: &Digest, given: &'s [Signature]) -> Result<Vec<&'s Signature>> {
        let mut admitting = Vec::new();
        let mut nearest = None;
        for signature in given {
            match self.judge(name, digest, signature) {
                Ok(()) => admitting.push(signature),
                Err(objection) => nearest = nearest.max(Some(objection)),
            }
        }
        if !admitting.is_empty() {
            return Ok(admitting);
        }
        let why = match nearest {
            None => "it is not signed".to_owned(),
            Some(Objection::Key) => "it is signed by none of the rule's keys".to_owned(),
            Some(Objection::Malformed(why)) => why,
            Some(Objection::Digest(other)) => format!("what is signed is another image: {other}"),
            Some(Objection::Repository(other)) => format!("what is signed is an image of another repository: {other}"),
        };
        Err(self.refusal(name, digest, &why))
    }

    /// The refusal of an image by this rule.
    fn refusal(&self, name: &ImageRef, digest: &Digest, why: &str) -> Error {
        let (name, scope) = (name.familiar(), &self.scope);
        let shown = if name.contains('@') { name } else { format!("{name}@{digest}") };
        Error::forbidden(format!("image {shown} is refused by the signature policy of {scope:?}: {why}"))
    }

    fn judge(&self, name: &ImageRef, digest: &Digest, signature: &Signature) -> Result<(), Objection> {
        signature.made_by(&self.keys).ok_or(Objection::Key)?;
        let claim = signature.claim().map_err(|error| Objection::Malformed(error.message().to_owned()))?;
        if claim.digest != *digest {
            return Err(Objection::Digest(claim.digest));
        }
        let other = &claim.repository;
        if registry(&other.domain) != registry(&name.domain) || other.path != name.path {
            return Err(Objection::Repository(other.name()));
        }
        Ok(())
    }
}

/// The registry that a domain leads to; `None`: to none, so nothing can come from there.
fn registry(domain: &str) -> Option<Authority> {
    Authority::parse(domain).ok().map(|authority| authority.registry())
}

#[cfg(test)]
mod tests;
