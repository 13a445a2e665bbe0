//! Caches that a client names: kinds and attributes, as `--cache-to` and `--cache-from` have them.

use model::digest::{Algorithm, Digest};
use model::reference::ImageRef;
use model::{Error, Result};

use crate::export::Compression;
use crate::job::Attributes;

/// Where a cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the configuration of the image that is built.
    Inline,
    /// In a registry.
    Registry {
        /// Under this name.
        reference: ImageRef,
        /// The registry need not have verified TLS.
        insecure: bool,
    },
    /// In a store of content that the client has, by the name under which its session serves it.
    Local(String),
}

/// Which results are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Those whose layers the result has.
    Min,
    /// All of the build.
    Max,
}

/// A cache that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Where to.
    pub place: Place,
    /// What of it.
    pub mode: Mode,
    /// It is a manifest whose configuration is the description; else an index.
    pub image_manifest: bool,
    /// Media types are those of the OCI.
    pub oci_types: bool,
    /// Of layers.
    pub compression: Compression,
    /// A failure is none of the build.
    pub ignore_error: bool,
}

/// A cache that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Where it is.
    pub place: Place,
    /// Of its manifest; of one in a registry it may be unknown.
    pub digest: Option<Digest>,
}

impl Export {
    /// Reads what a client asks for: `inline`, `registry`, `local`.
    ///
    /// Errors: `InvalidParameter` for a value that is none; `NotFound` for another kind.
    pub fn read(kind: &str, attributes: &Attributes) -> Result<Export> {
        let place = match kind {
            "inline" => Place::Inline,
            "registry" => registry(attributes, "exporter")?,
            "local" => Place::Local(required(attributes, "dest", "local cache exporter")?),
            other => return Err(Error::not_found(format!("unknown cache exporter: {other:?}"))),
        };
        let oci_types = flag(attributes, "oci-mediatypes")?.unwrap_or(true);
        let image_manifest = flag(attributes, "image-manifest")?.unwrap_or(oci_types);
        if image_manifest && !oci_types {
            return Err(Error::invalid(
                "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format",
            ));
        }
        let mode = match attributes.get("mode").map(String::as_str) {
            None | Some("" | "min") => Mode::Min,
            Some("max") => Mode::Max,
            Some(other) => return Err(Error::invalid(format!("unsupported cache export mode {other:?}"))),
        };
        Ok(Export {
            mode: if place == Place::Inline { Mode::Min } else { mode },
            place,
            image_manifest,
            oci_types,
            compression: Compression::read(attributes)?,
            ignore_error: flag(attributes, "ignore-error")?.unwrap_or(false),
        })
    }

    /// What the step of the export is called.
    pub fn name(&self) -> &'static str {
        match self.place {
            Place::Inline => "exporting inline cache",
            Place::Registry { .. } => "exporting cache to registry",
            Place::Local(_) => "exporting cache to client directory",
        }
    }
}

impl Import {
    /// Reads what a client asks for: `registry`, `local`.
    ///
    /// Errors: as [`Export::read`].
    pub fn read(kind: &str, attributes: &Attributes) -> Result<Import> {
        match kind {
            "registry" => Ok(Import { place: registry(attributes, "importer")?, digest: None }),
            "local" => {
                let digest = attributes.get("digest").filter(|digest| !digest.is_empty());
                let missing = || Error::invalid("local cache importer requires explicit digest");
                let digest = Digest::parse(digest.ok_or_else(missing)?)?;
                let place = Place::Local(required(attributes, "src", "local cache importer")?);
                Ok(Import { place, digest: Some(digest) })
            }
            other => Err(Error::not_found(format!("unknown cache importer: {other:?}"))),
        }
    }

    /// What the step of the import is called.
    pub fn name(&self) -> String {
        match &self.place {
            Place::Registry { reference, .. } => format!("importing cache manifest from {}", reference.canonical()),
            // The reference tells a number that stands for all attributes.
            Place::Local(store) => {
                let digest = self.digest.as_ref().map(Digest::as_str).unwrap_or_default();
                let number = Digest::of(Algorithm::Sha256, format!("{store}@{digest}").as_bytes());
                let number = u64::from_str_radix(&number.hex()[..16], 16).unwrap_or_default();
                format!("importing cache manifest from local:{number}")
            }
            Place::Inline => "importing cache manifest".into(),
        }
    }
}

fn registry(attributes: &Attributes, what: &str) -> Result<Place> {
    let text = required(attributes, "ref", &format!("registry cache {what}"))?;
    let reference = ImageRef::parse_normalized(&text)?.with_default_tag();
    Ok(Place::Registry { reference, insecure: flag(attributes, "registry.insecure")?.unwrap_or(false) })
}

fn required(attributes: &Attributes, name: &str, what: &str) -> Result<String> {
    let value = attributes.get(name).filter(|value| !value.is_empty()).cloned();
    value.ok_or_else(|| Error::invalid(format!("{what} requires {name}")))
}

fn flag(attributes: &Attributes, name: &str) -> Result<Option<bool>> {
    match attributes.get(name).map(String::as_str) {
        None => Ok(None),
        Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(Some(true)),
        Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(Some(false)),
        Some(other) => Err(Error::invalid(format!("failed to parse {name}: {other:?}: invalid syntax"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(entries: &[(&str, &str)]) -> Attributes {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_clients_send_is_read() {
        let export = Export::read("registry", &attributes(&[("ref", "r.example/c"), ("mode", "max")])).unwrap();
        assert_eq!((export.mode, export.image_manifest, export.oci_types), (Mode::Max, true, true));
        let Place::Registry { reference, insecure } = export.place else { panic!("no registry") };
        assert_eq!((reference.canonical().as_str(), insecure), ("r.example/c:latest", false));
        let docker = Export::read("local", &attributes(&[("dest", "d"), ("oci-mediatypes", "false")])).unwrap();
        assert_eq!((docker.image_manifest, docker.place), (false, Place::Local("d".into())));
        let inline = Export::read("inline", &attributes(&[("mode", "max")])).unwrap();
        assert_eq!((inline.mode, inline.place), (Mode::Min, Place::Inline));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let export = |kind: &str, entries: &[(&str, &str)]| {
            Export::read(kind, &attributes(entries)).unwrap_err().message().to_owned()
        };
        for kind in ["gha", "s3", "azblob"] {
            assert_eq!(export(kind, &[]), format!("unknown cache exporter: {kind:?}"));
            let import = Import::read(kind, &attributes(&[])).unwrap_err();
            assert_eq!(import.message(), format!("unknown cache importer: {kind:?}"));
        }
        assert_eq!(export("registry", &[]), "registry cache exporter requires ref");
        assert_eq!(export("local", &[]), "local cache exporter requires dest");
        assert_eq!(export("inline", &[("mode", "all")]), "unsupported cache export mode \"all\"");
        assert!(
            export("inline", &[("image-manifest", "true"), ("oci-mediatypes", "false")])
                .starts_with("invalid configuration")
        );
        let import =
            |entries: &[(&str, &str)]| Import::read("local", &attributes(entries)).unwrap_err().message().to_owned();
        assert_eq!(import(&[("src", "d")]), "local cache importer requires explicit digest");
        let digest = format!("sha256:{}", "1".repeat(64));
        assert_eq!(import(&[("digest", &digest)]), "local cache importer requires src");
    }
}
