//! Image references as users write them: `[domain/]path[:tag][@digest]` (B-im-1).
//!
//! A parsed reference is normalised: Docker Hub is `docker.io`, its official images lie under `library/`. The texts of
//! refusals are the reference's.

use std::fmt;

use crate::digest::Digest;
use crate::{Error, Result, id};

const HUB: &str = "docker.io";
const LEGACY_HUB: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const MAX_TAG: usize = 128;
const MAX_PATH: usize = 255;
/// A digest has at least so many digits, whatever its algorithm.
const MIN_DIGEST_HEX: usize = 32;

/// A normalised reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// `docker.io`, `localhost:5000`.
    pub domain: String,
    /// `library/busybox`.
    pub path: String,
    /// `latest`.
    pub tag: Option<String>,
    /// Of the manifest.
    pub digest: Option<Digest>,
}

/// 64 hex digits: an image's id, never a name.
pub fn is_bare_id(text: &str) -> bool {
    id::is_full(text)
}

impl ImageRef {
    /// Reads what a user wrote.
    pub fn parse_normalized(text: &str) -> Result<ImageRef> {
        if is_bare_id(text) {
            let why = format!("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings");
            return Err(Error::invalid(why));
        }
        let (domain, rest) = split_domain(text);
        let remote = rest.split(':').next().unwrap_or_default();
        if remote.to_lowercase() != remote {
            let why = format!("invalid reference format: repository name ({remote}) must be lowercase");
            return Err(Error::invalid(why));
        }
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (rest.as_str(), None),
        };
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (name, None),
        };
        let whole = is_domain(domain) && is_path(path);
        // A first part that is no domain, as an underscore in it, may still be part of the path.
        let bare = !whole && is_path(&format!("{domain}/{path}"));
        if !(whole || bare) || !tag.is_none_or(is_tag) || !digest.is_none_or(looks_like_digest) {
            return Err(Error::invalid("invalid reference format"));
        }
        let (domain, path) = match bare {
            true => (String::new(), format!("{domain}/{path}")),
            false => (domain.to_owned(), path.to_owned()),
        };
        if path.len() > MAX_PATH {
            return Err(Error::invalid(format!("repository name must not be more than {MAX_PATH} characters")));
        }
        let digest = digest.map(Digest::parse).transpose()?;
        Ok(ImageRef { domain, path, tag: tag.map(str::to_owned), digest })
    }

    /// `docker.io/library/busybox`
    pub fn name(&self) -> String {
        match self.domain.is_empty() {
            true => self.path.clone(),
            false => format!("{}/{}", self.domain, self.path),
        }
    }

    /// The name as users write it: `busybox`. In full where the short form would be read as another name, as
    /// `docker.io/other.example/x` would (the reference shortens that as well).
    pub fn familiar_name(&self) -> String {
        if self.domain != HUB {
            return self.name();
        }
        let short = match self.path.strip_prefix(OFFICIAL) {
            Some(rest) if !rest.contains('/') => rest,
            _ => self.path.as_str(),
        };
        let (domain, path) = split_domain(short);
        match domain == HUB && path == self.path && !is_bare_id(short) {
            true => short.to_owned(),
            false => self.name(),
        }
    }

    /// As users write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.familiar_name() + &self.suffix()
    }

    /// In full: `docker.io/library/busybox:latest`.
    pub fn canonical(&self) -> String {
        self.name() + &self.suffix()
    }

    /// With the tag `latest` if it has neither tag nor digest.
    #[must_use]
    pub fn with_default_tag(mut self) -> ImageRef {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same name with this tag and without digest.
    pub fn with_tag(&self, tag: &str) -> Result<ImageRef> {
        match is_tag(tag) {
            true => Ok(ImageRef { tag: Some(tag.to_owned()), digest: None, ..self.clone() }),
            false => Err(Error::invalid("invalid tag format")),
        }
    }

    /// The same name with this digest and without tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> ImageRef {
        ImageRef { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Whether both have the same domain and path.
    pub fn same_name(&self, other: &ImageRef) -> bool {
        self.domain == other.domain && self.path == other.path
    }

    fn suffix(&self) -> String {
        let tag = self.tag.iter().map(|tag| format!(":{tag}"));
        tag.chain(self.digest.iter().map(|digest| format!("@{digest}"))).collect()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

/// The domain a text names or implies, and the rest in full.
fn split_domain(text: &str) -> (&str, String) {
    let (domain, rest) = match text.split_once('/') {
        Some((LEGACY_HUB, rest)) => (HUB, rest),
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first => {
            (first, rest)
        }
        _ => (HUB, text),
    };
    match domain == HUB && !rest.contains('/') {
        true => (domain, format!("{OFFICIAL}{rest}")),
        false => (domain, rest.to_owned()),
    }
}

/// `host[:port]`: a host name, an address, or an IPv6 address in brackets.
fn is_domain(text: &str) -> bool {
    let (host, port) = match (text.rfind(':'), text.rfind(']')) {
        (Some(colon), bracket) if bracket.is_none_or(|b| b < colon) => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    };
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(label),
    };
    host && port.is_none_or(digits)
}

/// Components of lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_path(text: &str) -> bool {
    text.split('/').all(|component| {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ends = component.bytes().next().is_some_and(word) && component.bytes().next_back().is_some_and(word);
        let separators = component.split(|c: char| c.is_ascii() && word(c as u8)).filter(|s| !s.is_empty());
        let mut separators = separators.map(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'));
        ends && separators.all(|valid| valid)
    })
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    (1..=MAX_TAG).contains(&bytes.len()) && word(bytes[0]) && bytes.iter().all(|b| word(*b) || b".-".contains(b))
}

/// `algorithm:hex` by form; whether the algorithm is known is another question.
fn looks_like_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    let component = |part: &str| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(component)
        && hex.len() >= MIN_DIGEST_HEX
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> ImageRef {
        ImageRef::parse_normalized(text).unwrap()
    }

    fn message(text: &str) -> String {
        ImageRef::parse_normalized(text).unwrap_err().message().to_owned()
    }

    /// B-im-1
    #[test]
    fn references_are_normalised() {
        for (text, canonical, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
            ("someone/thing:x", "docker.io/someone/thing:x", "someone/thing:x"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("localhost:5000/x/y:z", "localhost:5000/x/y:z", "localhost:5000/x/y:z"),
            ("Upper/x", "Upper/x", "Upper/x"),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
            ("a.b/c-d__e.f_g", "a.b/c-d__e.f_g", "a.b/c-d__e.f_g"),
            // What would be another name without its registry keeps it.
            ("docker.io/a.test/x", "docker.io/a.test/x", "docker.io/a.test/x"),
            ("docker.io/docker.io/x", "docker.io/docker.io/x", "docker.io/docker.io/x"),
            ("x:Tag_1.-", "docker.io/library/x:Tag_1.-", "x:Tag_1.-"),
        ] {
            assert_eq!((parse(text).canonical().as_str(), parse(text).familiar().as_str()), (canonical, familiar));
        }
    }

    /// B-im-1
    #[test]
    fn digests_are_kept() {
        let digest = format!("sha256:{}", "7c".repeat(32));
        let both = parse(&format!("x:1@{digest}"));
        assert_eq!((both.tag.as_deref(), both.digest.as_ref().map(Digest::as_str)), (Some("1"), Some(digest.as_str())));
        assert_eq!(both.familiar(), format!("x:1@{digest}"));
        assert_eq!(parse(&format!("x@{digest}")).with_default_tag().tag, None);
        assert_eq!(parse("x").with_default_tag().familiar(), "x:latest");
        assert!(both.same_name(&parse("docker.io/library/x")));
        assert!(parse("x").with_tag("a b").is_err());
    }

    /// The texts of `pull bad ref`.
    #[test]
    fn refusals_have_the_references_words() {
        assert_eq!(message("UPPER"), "invalid reference format: repository name (library/UPPER) must be lowercase");
        for text in ["", ":x", "x:", "x@", "a//b", "-x", "x y", "a_.b", "a.b:x/y", "x@sha256:ab", "x:a:b", "/x"] {
            assert_eq!(message(text), "invalid reference format", "{text}");
        }
        let hex = "ab".repeat(32);
        assert_eq!(
            message(&hex),
            format!("invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings")
        );
        assert_eq!(message(&format!("x@sha256:{}", "a".repeat(40))), "invalid checksum digest length");
        assert_eq!(message(&format!("x@md5:{}", "a".repeat(32))), "unsupported digest algorithm");
        assert_eq!(message(&"a".repeat(256)), "repository name must not be more than 255 characters");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-cA-B0-1._:/@ -]{0,24}") {
            if let Ok(reference) = ImageRef::parse_normalized(&text) {
                let again = ImageRef::parse_normalized(&reference.canonical());
                prop_assert!(reference.domain.is_empty() || again.is_ok_and(|again| again == reference));
                let familiar = ImageRef::parse_normalized(&reference.familiar());
                prop_assert!(reference.domain.is_empty() || familiar.is_ok_and(|again| again == reference));
            }
        }

        #[test]
        fn well_formed_references_are_taken(
            text in "([a-z][a-z0-9]{0,5}\\.(io|com)(:[0-9]{1,4})?/)?[a-z0-9]{1,4}([._-][a-z0-9]{1,3}){0,2}(/[a-z]{1,3}){0,2}(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,5})?"
        ) {
            prop_assert!(ImageRef::parse_normalized(&text).is_ok(), "{text}");
        }
    }
}
