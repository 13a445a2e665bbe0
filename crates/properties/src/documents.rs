//! Manifests, indexes and configurations of images.

use image::oci::{self, Document};
use image::pull::kind;
use model::reference::ImageRef;

/// A document is refused, or it is one thing only, has no more parts than an image may have, and means the same when it
/// is written and read again.
pub fn documents(bytes: &[u8]) {
    if bytes.len() as u64 > oci::MANIFEST_BYTES {
        return;
    }
    let (manifest, index) = (oci::parse_manifest(bytes), oci::parse_index(bytes));
    if let (Ok(manifest), Ok(index)) = (&manifest, &index) {
        assert!(manifest.layers.is_empty() || index.manifests.is_empty(), "both a manifest and an index");
    }
    let reference = ImageRef::parse_normalized("x:1").expect("a reference");
    for told in ["", oci::MANIFEST, oci::DOCKER_MANIFEST, oci::INDEX, oci::DOCKER_LIST, "application/json"] {
        let Ok(kind) = kind(told, bytes, &reference) else { continue };
        assert!(oci::is_index(&kind) != oci::is_manifest(&kind), "{kind}");
        // Whatever a document is taken for, it can be nothing else in disguise.
        let layers = manifest.as_ref().map_or(0, |manifest| manifest.layers.len());
        let manifests = index.as_ref().map_or(0, |index| index.manifests.len());
        assert!(if oci::is_index(&kind) { layers == 0 } else { manifests == 0 }, "{kind}: {layers} {manifests}");
    }
    if let Ok(manifest) = &manifest {
        assert!(manifest.layers.len() <= oci::LAYERS);
        let written = serde_json::to_vec(manifest).expect("a manifest can be written");
        let again = oci::parse_manifest(&written).expect("what was written can be read");
        assert_eq!(serde_json::to_vec(&again).expect("as before"), written);
    }
    if let Ok(document) = oci::parse::<Document>(bytes, "image configuration") {
        let written = serde_json::to_vec(&document).expect("a configuration can be written");
        let again: Document = oci::parse(&written, "image configuration").expect("what was written can be read");
        assert_eq!(again, document);
    }
}
