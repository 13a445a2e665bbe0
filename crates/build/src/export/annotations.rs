//! Annotations of the documents that an export writes, from attributes of the form
//! `annotation[-manifest|-index|-manifest-descriptor|-index-descriptor][[PLATFORM]].KEY`.

use std::collections::BTreeMap;

use model::platform::Platform;
use model::{Error, Result};

/// Free texts by name.
type Texts = BTreeMap<String, String>;

/// The document or descriptor that an annotation is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The manifest of a platform.
    Manifest,
    /// Its descriptor in the index.
    ManifestDescriptor,
    /// The index.
    Index,
    /// The descriptor of the index.
    IndexDescriptor,
}

/// All annotations of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(BTreeMap<(Scope, Option<Platform>), Texts>);

impl Annotations {
    /// Takes an attribute if it is an annotation.
    ///
    /// Errors: `InvalidParameter` for a document or a platform that is none.
    pub fn take(&mut self, attribute: &str, value: &str) -> Result<bool> {
        let Some((scope, platform, key)) = split(attribute) else { return Ok(false) };
        let scope = match scope {
            "" | "manifest" => Scope::Manifest,
            "manifest-descriptor" => Scope::ManifestDescriptor,
            "index" => Scope::Index,
            "index-descriptor" => Scope::IndexDescriptor,
            other => return Err(Error::invalid(format!("unrecognized annotation type {other}"))),
        };
        let platform = match platform {
            "" => None,
            text => Some(Platform::parse(text, &image::oci::host())?),
        };
        self.0.entry((scope, platform)).or_default().insert(key.to_owned(), value.to_owned());
        Ok(true)
    }

    /// Adds those of another source, which win.
    pub fn merge(&mut self, other: &Annotations) {
        for (key, texts) in &other.0 {
            let own = self.0.entry(key.clone()).or_default();
            own.extend(texts.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
    }

    /// Those of one document; of a manifest those that are for every platform and those for this one.
    pub fn of(&self, scope: Scope, platform: Option<&Platform>) -> Texts {
        let is_index = matches!(scope, Scope::Index | Scope::IndexDescriptor);
        let meant = self
            .0
            .iter()
            .filter(|((own, on), _)| *own == scope && (is_index || on.is_none() || on.as_ref() == platform));
        // Those without a platform come first.
        meant.flat_map(|(_, texts)| texts.clone()).collect()
    }

    /// Whether there is one for a document or descriptor of this kind.
    pub fn has(&self, scope: Scope) -> bool {
        self.0.keys().any(|(own, _)| *own == scope)
    }

    /// The platforms that annotations name.
    pub fn platforms(&self) -> impl Iterator<Item = &Platform> {
        self.0.keys().filter_map(|(_, platform)| platform.as_ref())
    }
}

/// The document, the platform and the key of an attribute; `None`: it is no annotation.
fn split(attribute: &str) -> Option<(&str, &str, &str)> {
    let rest = attribute.strip_prefix("annotation")?;
    let end = rest.find(['[', '.'])?;
    let (scope, rest) = rest.split_at(end);
    let scope = if scope.is_empty() { "" } else { scope.strip_prefix('-').filter(|scope| is_scope(scope))? };
    let (platform, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']').filter(|(platform, _)| is_platform(platform))?,
        None => ("", rest),
    };
    let key = rest.strip_prefix('.')?;
    let is_key = !key.is_empty() && !key.contains(char::is_whitespace);
    is_key.then_some((scope, platform, key))
}

fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

fn is_platform(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_/-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_told_apart() {
        let mut all = Annotations::default();
        for (attribute, taken) in [
            ("annotation.a", true),
            ("annotation-manifest.a.b", true),
            ("annotation-manifest[linux/arm64].a", true),
            ("annotation[linux/amd64].c", true),
            ("annotation-index.i", true),
            ("annotation-index-descriptor.d", true),
            ("annotation-manifest-descriptor[linux/arm64].m", true),
            ("annotations.a", false),
            ("annotation", false),
            ("annotation.", false),
            ("annotation-.a", false),
            ("annotation-Index.a", false),
            ("annotation[].a", false),
            ("annotation.a b", false),
            ("name", false),
        ] {
            assert_eq!(all.take(attribute, attribute).unwrap(), taken, "{attribute}");
        }
        let arm = Platform::new("linux", "arm64", "");
        let keys = |scope, platform| all.of(scope, platform).into_keys().collect::<Vec<_>>();
        assert_eq!(keys(Scope::Manifest, None), ["a", "a.b"]);
        assert_eq!(all.of(Scope::Manifest, Some(&arm))["a"], "annotation-manifest[linux/arm64].a");
        assert_eq!(keys(Scope::Index, Some(&arm)), ["i"]);
        assert_eq!(keys(Scope::ManifestDescriptor, Some(&arm)), ["m"]);
        let error = all.take("annotation-layer.a", "").unwrap_err();
        assert_eq!(error.message(), "unrecognized annotation type layer");
        assert!(all.take("annotation[nosuch].a", "").is_err());
    }
}
