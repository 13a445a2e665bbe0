//! All images and names in memory, and how a text becomes an image (B-im-2). Pure.
//!
//! A catalog is immutable: a change makes a new one after its commit. Readers never wait.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use model::digest::{Algorithm, Digest};
use model::platform::Platform;
use model::reference::{ImageRef, is_bare_id};
use model::{Error, Result};

use super::oci;
use super::row::{ImageRow, ManifestKind, ManifestRow, NameRow};

/// Fewest digits of an id that are taken for one.
const ID_PREFIX: usize = 4;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// By id.
    pub images: BTreeMap<Digest, Arc<ImageRow>>,
    /// By full name.
    pub names: BTreeMap<String, NameRow>,
}

/// How a text led to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matched {
    /// By its id, whole or in part.
    Id,
    /// By this full name (`name:tag` or a stored `name@digest`).
    Name(String),
    /// By `name@digest`, where the image has a name in that repository.
    Repository(ImageRef),
}

/// An image that a text led to.
#[derive(Clone, Debug)]
pub struct Found {
    /// The image.
    pub image: Arc<ImageRow>,
    /// How.
    pub matched: Matched,
}

impl Found {
    /// What the reference calls the image: its name, or its id if it has none.
    pub fn shown(&self, catalog: &Catalog) -> String {
        let id = &self.image.target.digest;
        let name = match &self.matched {
            Matched::Name(name) => Some(name.as_str()),
            Matched::Id | Matched::Repository(_) => catalog.names_of(id).next(),
        };
        name.and_then(parsed).map_or_else(|| id.to_string(), |name| name.familiar())
    }
}

/// The refusal for a text that leads to no image.
pub fn no_such(text: &str) -> Error {
    let shown = match (is_bare_id(text), ImageRef::parse_normalized(text)) {
        (true, _) => format!("sha256:{text}"),
        (false, Ok(reference)) if Digest::parse(text).is_err() => reference.with_default_tag().familiar(),
        _ => text.to_owned(),
    };
    Error::not_found(format!("No such image: {shown}"))
}

/// The digits of a full or partial id, be the algorithm named or not.
pub(super) fn digits(text: &str) -> &str {
    let named = |algorithm: Algorithm| text.strip_prefix(algorithm.name())?.strip_prefix(':');
    Algorithm::ALL.into_iter().find_map(named).unwrap_or(text)
}

impl Catalog {
    /// The image a text leads to: full id, `name[:tag]`, `name@digest`, part of an id.
    pub fn find(&self, text: &str) -> Result<Found> {
        let whole = if is_bare_id(text) { Digest::parse(&format!("sha256:{text}")) } else { Digest::parse(text) };
        if let Ok(id) = whole {
            let image = self.images.get(&id).ok_or_else(|| no_such(text))?;
            return Ok(Found { image: image.clone(), matched: Matched::Id });
        }
        let reference = ImageRef::parse_normalized(text)?;
        if let Some(digest) = &reference.digest {
            return self.find_digested(text, &reference, digest);
        }
        let name = reference.with_default_tag().canonical();
        if let Some(row) = self.names.get(&name)
            && let Some(image) = self.images.get(&row.image)
        {
            return Ok(Found { image: image.clone(), matched: Matched::Name(name) });
        }
        self.find_prefix(text)
    }

    fn find_digested(&self, text: &str, reference: &ImageRef, digest: &Digest) -> Result<Found> {
        let image = self.images.get(digest).ok_or_else(|| no_such(text))?;
        let in_repository = self.names_of(digest).any(|name| parsed(name).is_some_and(|n| n.same_name(reference)));
        if !in_repository {
            return Err(no_such(text));
        }
        Ok(Found { image: image.clone(), matched: Matched::Repository(reference.clone()) })
    }

    fn find_prefix(&self, text: &str) -> Result<Found> {
        let digits = digits(text);
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if digits.len() < ID_PREFIX || !digits.bytes().all(hex) {
            return Err(no_such(text));
        }
        let mut found = self.images.values().filter(|image| image.target.digest.hex().starts_with(digits));
        match (found.next(), found.next()) {
            (None, _) => Err(no_such(text)),
            (Some(image), None) => Ok(Found { image: image.clone(), matched: Matched::Id }),
            (Some(_), Some(_)) => Err(Error::not_found("ambiguous reference")),
        }
    }

    /// The full names of an image, sorted.
    pub fn names_of<'c>(&'c self, id: &'c Digest) -> impl Iterator<Item = &'c str> + 'c {
        self.names.iter().filter(move |(_, row)| row.image == *id).map(|(name, _)| name.as_str())
    }

    /// The full names of every image that has any, sorted.
    pub fn names_by_image(&self) -> HashMap<&Digest, BTreeSet<&str>> {
        let mut names: HashMap<&Digest, BTreeSet<&str>> = HashMap::new();
        for (name, row) in &self.names {
            names.entry(&row.image).or_default().insert(name);
        }
        names
    }

    /// Names as users write them, and `name@digest` for each repository, both without repetition.
    pub fn tags_and_digests<'c>(
        &self,
        id: &Digest,
        names: impl Iterator<Item = &'c str>,
    ) -> (Vec<String>, Vec<String>) {
        let (mut tags, mut digests) = (Vec::new(), Vec::new());
        for reference in names.filter_map(parsed) {
            // A name by digest is a name like any other.
            tags.push(reference.familiar());
            let digested = reference.with_digest(id.clone()).familiar();
            if !digests.contains(&digested) {
                digests.push(digested);
            }
        }
        (tags, digests)
    }
}

/// A stored name as a reference.
pub fn parsed(name: &str) -> Option<ImageRef> {
    ImageRef::parse_normalized(name).ok()
}

/// Which of an image's manifests is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'p> {
    /// The host's; if there is none, any.
    Any,
    /// One that runs on this platform.
    For(&'p Platform),
    /// The one of this very platform.
    Exactly(&'p Platform),
}

impl<'p> Wanted<'p> {
    /// Exactly the platform, if one is given.
    pub fn exactly(platform: Option<&'p Platform>) -> Wanted<'p> {
        platform.map_or(Wanted::Any, Wanted::Exactly)
    }

    /// Whether a manifest of that platform will do.
    pub fn fits(self, platform: &Platform) -> bool {
        match self {
            Wanted::Any => true,
            Wanted::For(wanted) => wanted.runs(platform),
            Wanted::Exactly(wanted) => wanted == platform,
        }
    }

    /// How far a manifest of that platform is from the best; of those that do not run here, none is better.
    pub fn distance(self, platform: &Platform) -> u32 {
        let distance = match self {
            Wanted::For(wanted) | Wanted::Exactly(wanted) => wanted.suits(platform),
            Wanted::Any => oci::machine().suits(platform),
        };
        distance.unwrap_or(u32::MAX)
    }
}

/// The manifest that is wanted of an image; `shown` is what the image is called in the refusal.
pub fn select<'r>(image: &'r ImageRow, wanted: Wanted<'_>, shown: &str) -> Result<&'r ManifestRow> {
    if let ([only], Wanted::Any) = (&image.manifests[..], wanted)
        && only.kind == ManifestKind::Image
        && only.available
    {
        return Ok(only);
    }
    let here = image.manifests.iter().filter(|m| m.kind == ManifestKind::Image && m.available);
    let mut fitting: Vec<_> = here.map(|m| (m, oci::platform(&m.platform))).collect();
    fitting.retain(|(_, platform)| wanted.fits(platform));
    fitting.sort_by_key(|(_, platform)| wanted.distance(platform));
    fitting.first().map(|(manifest, _)| *manifest).ok_or_else(|| no_platform(wanted, shown))
}

/// The refusal of an image that has nothing of the kind.
pub fn no_platform(wanted: Wanted<'_>, shown: &str) -> Error {
    let what = match wanted {
        Wanted::For(platform) | Wanted::Exactly(platform) => format!("the specified platform ({platform})"),
        Wanted::Any => "any platform".to_owned(),
    };
    Error::not_found(format!("image with reference {shown} was found but does not provide {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Content;
    use model::time::Timestamp;

    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        for (digit, names) in [("a1", &["docker.io/library/busybox:latest", "localhost:5000/bb:1"][..]), ("a2", &[])] {
            let digest = Digest::parse(&format!("sha256:{digit}{}", "0".repeat(62))).unwrap();
            let target = Content { media_type: oci::MANIFEST.into(), digest: digest.clone(), size: 1 };
            let row = ImageRow::new(target, Timestamp::ZERO, Vec::new());
            catalog.images.insert(digest.clone(), Arc::new(row));
            for name in names {
                let row = NameRow { image: digest.clone(), tagged: Timestamp::ZERO };
                catalog.names.insert((*name).to_owned(), row);
            }
        }
        catalog
    }

    /// B-im-2
    #[test]
    fn images_are_found_by_id_name_digest_and_prefix() {
        let catalog = catalog();
        let id = format!("a1{}", "0".repeat(62));
        let matched = |text: &str| catalog.find(text).unwrap().matched;
        assert_eq!(matched(&id), Matched::Id);
        assert_eq!(matched(&format!("sha256:{id}")), Matched::Id);
        assert_eq!(matched("a100"), Matched::Id);
        assert_eq!(matched("sha256:a100"), Matched::Id);
        assert_eq!(matched("busybox"), Matched::Name("docker.io/library/busybox:latest".into()));
        assert!(matches!(matched(&format!("busybox@sha256:{id}")), Matched::Repository(_)));
    }

    #[test]
    fn what_is_not_found_is_named_as_the_reference_does() {
        let catalog = catalog();
        let message = |text: &str| catalog.find(text).unwrap_err().message().to_owned();
        assert_eq!(message("nosuch"), "No such image: nosuch:latest");
        assert_eq!(message("nosuch:1"), "No such image: nosuch:1");
        assert_eq!(message("a10"), "No such image: a10:latest");
        let id = "b".repeat(64);
        assert_eq!(message(&id), format!("No such image: sha256:{id}"));
        assert_eq!(message("UPPER"), "invalid reference format: repository name (library/UPPER) must be lowercase");
    }
}
