//! The documents of an image, as they lie in blobs: index, manifest, configuration.
//!
//! Documents are read leniently (Docker's and OCI's media types, `null` for absent) and bounded; what is written is
//! OCI's form. A document that claims to be both index and manifest is refused.

use std::collections::BTreeMap;

use api::oci::{Descriptor, Platform};
use model::digest::{Algorithm, Digest};
use model::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bound of a manifest or an index.
pub const MANIFEST_BYTES: u64 = 4 << 20;
/// Bound of an image's configuration.
pub const CONFIG_BYTES: u64 = 8 << 20;
/// Layers of one image; overlay's mount takes no more lower directories.
pub const LAYERS: usize = 500;

/// `application/vnd.oci.image.index.v1+json`
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `application/vnd.oci.image.manifest.v1+json`
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.config.v1+json`
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// `application/vnd.oci.image.layer.v1.tar`, with `+gzip` or `+zstd` when compressed.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Docker's list of manifests.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's layer, with `.gzip` or `.zstd` when compressed.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// A layer that some registries do not keep, see [`LAYER`].
pub const FOREIGN_LAYER: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
/// The same, see [`DOCKER_LAYER`].
pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";

/// Indexes within indexes: how deep they lie, and how many of them.
pub const INDEX_DEPTH: usize = 8;
/// See [`INDEX_DEPTH`].
pub const INDEXES: usize = 64;

/// Annotation on an attestation's descriptor: what kind of reference it is.
pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Annotation on an attestation's descriptor: the digest it speaks of.
pub const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// Whether the media type is an index's.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_LIST)
}

/// Whether the media type is a manifest's.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}

/// A list of manifests, one per platform.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Index {
    /// 2
    pub schema_version: u32,
    /// One of the index types, or absent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What it lists.
    pub manifests: Vec<Descriptor>,
    /// Free texts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One image: its configuration and layers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Manifest {
    /// 2
    pub schema_version: u32,
    /// One of the manifest types, or absent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// Bottom first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one refers to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free texts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The configuration of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, from = "Flat")]
pub struct Document {
    /// RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Where it runs.
    #[serde(flatten)]
    pub platform: Platform,
    /// What a container of it does.
    pub config: api::ImageConfig,
    /// Its layers.
    pub rootfs: Rootfs,
    /// How it came about, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// A configuration as it is read: what is flattened there has its names in one case only.
#[derive(Default, Deserialize)]
#[serde(rename = "Image", default)]
struct Flat {
    created: String,
    author: String,
    architecture: String,
    os: String,
    #[serde(rename = "os.version")]
    os_version: String,
    #[serde(rename = "os.features")]
    os_features: Vec<String>,
    variant: String,
    config: api::ImageConfig,
    rootfs: Rootfs,
    history: Vec<History>,
}

impl From<Flat> for Document {
    fn from(flat: Flat) -> Document {
        let Flat { created, author, architecture, os, os_version, os_features, variant, config, rootfs, history } =
            flat;
        let platform = Platform { architecture, os, os_version, os_features, variant };
        Document { created, author, platform, config, rootfs, history }
    }
}

/// The layers of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rootfs {
    /// `layers`
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, bottom first.
    pub diff_ids: Vec<String>,
}

/// A step in an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// The instruction.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Free text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// No layer belongs to it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// Reads a document.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    api::decode::from_slice(bytes).map_err(|e| Error::invalid(format!("invalid {what}: {e}")))
}

/// Reads a manifest; one that is an index as well is refused.
pub fn parse_manifest(bytes: &[u8]) -> Result<Manifest> {
    refuse_both(bytes, "manifests", "manifest")?;
    let manifest: Manifest = parse(bytes, "manifest")?;
    if manifest.layers.len() > LAYERS {
        return Err(Error::invalid(format!(
            "the image has {} layers, at most {LAYERS} are supported",
            manifest.layers.len()
        )));
    }
    Ok(manifest)
}

/// Reads an index; one that is a manifest as well is refused.
pub fn parse_index(bytes: &[u8]) -> Result<Index> {
    refuse_both(bytes, "layers", "index")?;
    parse(bytes, "index")
}

fn refuse_both(bytes: &[u8], foreign: &str, what: &str) -> Result<()> {
    let value = api::decode::value(bytes).map_err(|e| Error::invalid(format!("invalid {what}: {e}")))?;
    match value.get(foreign) {
        Some(list) if list.as_array().is_some_and(|list| !list.is_empty()) => {
            Err(Error::invalid(format!("invalid {what}: it has {foreign:?} as well")))
        }
        _ => Ok(()),
    }
}

/// The digest of some bytes that are made here.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// The digest in a descriptor.
pub fn digest(descriptor: &Descriptor) -> Result<Digest> {
    Digest::parse(&descriptor.digest).map_err(|e| e.prefix(format!("descriptor {:?}", descriptor.digest)))
}

/// The platform as rules compare it.
pub fn platform(platform: &Platform) -> model::platform::Platform {
    model::platform::Platform::new(&platform.os, &platform.architecture, &platform.variant)
}

/// The platform containers run on here: what images made here are for.
pub fn host() -> model::platform::Platform {
    model::platform::Platform::new("linux", std::env::consts::ARCH, "")
}

/// The platform by which the manifest that runs best here is chosen: the host's, with what its processor can.
pub fn machine() -> model::platform::Platform {
    model::platform::Platform::new("linux", std::env::consts::ARCH, processor())
}

#[cfg(target_arch = "x86_64")]
fn processor() -> &'static str {
    macro_rules! has {
        ($($feature:tt),*) => { $(std::is_x86_feature_detected!($feature))&&* };
    }
    let second = has!("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cmpxchg16b");
    let third = second && has!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe");
    let fourth = third && has!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl");
    match (second, third, fourth) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, ..) => "v2",
        _ => "",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> &'static str {
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_configuration_with_nulls_is_read() {
        let json = br#"{"architecture":"amd64","config":{"Cmd":null,"Env":["A=b"],"ExposedPorts":null,"Labels":null,
            "Entrypoint":null,"Image":"sha256:x"},"container":"x","created":"2024-01-01T00:00:00Z","os":"linux",
            "history":[{"created_by":"x","empty_layer":true}],"rootfs":{"type":"layers","diff_ids":null}}"#;
        let document: Document = parse(json, "configuration").unwrap();
        assert_eq!((document.platform.os.as_str(), document.config.env.as_slice()), ("linux", &["A=b".to_owned()][..]));
        assert!(document.history[0].empty_layer && document.rootfs.diff_ids.is_empty());
    }

    #[test]
    fn a_configurations_names_may_have_any_case() {
        let json = br#"{"Architecture":"arm64","OS":"linux","Variant":"v8","Config":{"cmd":["/x"],"ENV":["A=b"]},
            "Os.Version":"1","RootFS":{"Type":"layers","Diff_IDs":["a"]},"History":[{"Created_By":"x"}]}"#;
        let document: Document = parse(json, "configuration").unwrap();
        let Platform { os, architecture, variant, os_version, .. } = &document.platform;
        assert_eq!([&os[..], architecture, variant, os_version], ["linux", "arm64", "v8", "1"]);
        assert_eq!((&document.config.env[..], &document.config.cmd[..]), (&["A=b".into()][..], &["/x".into()][..]));
        assert_eq!((&document.rootfs.diff_ids[..], &*document.history[0].created_by), (&["a".into()][..], "x"));
    }

    #[test]
    fn a_document_of_two_kinds_is_refused() {
        let both = br#"{"schemaVersion":2,"layers":[{"digest":"x"}],"manifests":[{"digest":"y"}]}"#;
        assert!(parse_manifest(both).is_err() && parse_index(both).is_err());
        assert!(parse_manifest(br#"{"schemaVersion":2,"layers":[],"manifests":[]}"#).is_ok());
    }
}
