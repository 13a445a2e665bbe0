//! OCI layouts made on the spot: images for several platforms, attestations, archives that lack a part.
//!
//! Everything is deterministic. A layout is written as buildkit, podman, skopeo and `docker save` do: a tar with
//! `oci-layout`, `index.json` and blobs by digest.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use crate::images::{Tar, digest};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A layout being filled.
#[derive(Clone)]
pub struct Layout {
    algorithm: &'static str,
    blobs: BTreeMap<String, Vec<u8>>,
    entries: Vec<Value>,
}

impl Default for Layout {
    fn default() -> Self {
        Self::new()
    }
}

impl Layout {
    /// An empty one.
    #[must_use]
    pub fn new() -> Layout {
        Layout::hashed_by("sha256")
    }

    /// An empty one, whose blobs are named by this algorithm (`sha256`, `sha512`).
    #[must_use]
    pub fn hashed_by(algorithm: &'static str) -> Layout {
        Layout { algorithm, blobs: BTreeMap::new(), entries: Vec::new() }
    }

    /// Adds a blob; its descriptor.
    pub fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let (digest, size) = (digest(self.algorithm, &bytes), bytes.len());
        self.blobs.insert(digest.clone(), bytes);
        json!({"mediaType": media_type, "digest": digest, "size": size})
    }

    fn document(&mut self, media_type: &str, value: &Value) -> Value {
        self.blob(media_type, value.to_string().into_bytes())
    }

    /// Adds an image of gzip layers for `os/architecture[/variant]`; its descriptor, platform included.
    pub fn image(&mut self, platform: &str, layers: &[Vec<u8>], config: &Value) -> Value {
        let mut parts = platform.split('/');
        let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let mut place = json!({"architecture": architecture, "os": os});
        if let Some(variant) = parts.next() {
            place["variant"] = variant.into();
        }
        let mut document = place.clone();
        document["created"] = "1970-01-01T00:00:00Z".into();
        document["config"] = config.clone();
        let diff_ids: Vec<_> = layers.iter().map(|layer| digest(self.algorithm, layer)).collect();
        document["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        document["history"] = layers.iter().map(|_| json!({"created_by": platform})).collect();
        let config = self.document("application/vnd.oci.image.config.v1+json", &document);
        let layers: Vec<_> =
            layers.iter().map(|layer| self.blob("application/vnd.oci.image.layer.v1.tar+gzip", gzip(layer))).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut descriptor = self.document(MANIFEST, &manifest);
        descriptor["platform"] = place;
        descriptor
    }

    /// Adds in-toto statements (predicate type and statement) about an image, as BuildKit attaches them.
    pub fn attestation(&mut self, subject: &Value, statements: &[(&str, Value)]) -> Value {
        let layers: Vec<_> = statements
            .iter()
            .map(|(predicate, statement)| {
                let mut layer = self.document("application/vnd.in-toto+json", statement);
                layer["annotations"] = json!({"in-toto.io/predicate-type": predicate});
                layer
            })
            .collect();
        let nowhere = json!({"architecture": "unknown", "os": "unknown"});
        let mut document = nowhere.clone();
        document["config"] = json!({});
        document["rootfs"] =
            json!({"type": "layers", "diff_ids": layers.iter().map(|l| &l["digest"]).collect::<Vec<_>>()});
        let config = self.document("application/vnd.oci.image.config.v1+json", &document);
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut descriptor = self.document(MANIFEST, &manifest);
        descriptor["annotations"] = json!({
            "vnd.docker.reference.digest": subject["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        });
        descriptor["platform"] = nowhere;
        descriptor
    }

    /// Adds an index of manifests.
    pub fn index(&mut self, manifests: &[Value]) -> Value {
        self.document(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))
    }

    /// Lists an image in `index.json`, annotated.
    #[must_use]
    pub fn entry(mut self, target: &Value, annotations: &[(&str, &str)]) -> Layout {
        let mut entry = target.clone();
        for (key, value) in annotations {
            entry["annotations"][key] = (*value).into();
        }
        self.entries.push(entry);
        self
    }

    /// Leaves everything out that a manifest names, and itself.
    pub fn forget(&mut self, manifest: &Value) {
        let named = |descriptor: &Value| descriptor["digest"].as_str().unwrap_or_default().to_owned();
        let bytes = self.blobs.remove(&named(manifest)).unwrap_or_default();
        let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let layers = document["layers"].as_array().cloned().unwrap_or_default();
        for blob in layers.iter().chain([&document["config"]]) {
            self.blobs.remove(&named(blob));
        }
    }

    /// The digests of its blobs.
    #[must_use]
    pub fn digests(&self) -> Vec<String> {
        self.blobs.keys().cloned().collect()
    }

    /// The archive.
    #[must_use]
    pub fn tar(&self) -> Vec<u8> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.entries});
        let mut tar = Tar::new().file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#).file(
            "index.json",
            0o644,
            index.to_string().as_bytes(),
        );
        for (digest, bytes) in &self.blobs {
            tar = tar.file(&format!("blobs/{}", digest.replace(':', "/")), 0o644, bytes);
        }
        tar.bytes()
    }
}

/// Compressed with gzip.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory")
}
