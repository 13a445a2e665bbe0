//! The in-toto statements that are attached to an image: layers of the attestation manifest that stands beside the
//! image's own in an index, as BuildKit writes them.

use api::AttestationStatement;
use api::oci::Descriptor;
use model::platform::Platform;
use model::{Error, Kind, Result};

use super::images::Images;
use super::oci;

/// Annotation of a layer: what its statement speaks about.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// Bound of one statement: provenance of a large build has a few hundred KiB.
const STATEMENT_BYTES: u64 = 64 << 20;
/// Bound of all statements of one answer.
const ANSWER_BYTES: u64 = 128 << 20;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct AttestationArgs {
    /// Of the image for this platform; `None`: for this host.
    pub platform: Option<Platform>,
    /// Only statements of these types; none: all.
    pub types: Vec<String>,
    /// With the statements themselves.
    pub statement: bool,
}

/// The statements, in the order of the manifest. An image that is no index has none.
pub fn attestations(images: &Images, text: &str, args: &AttestationArgs) -> Result<Vec<AttestationStatement>> {
    let image = images.catalog().find(text)?.image;
    if image.target.media_type != oci::INDEX {
        return Ok(Vec::new());
    }
    // Keeps the blobs when the image is removed meanwhile.
    let lease = images.pins.lease();
    lease.pin(&image.target.digest);
    let index = oci::parse_index(&images.blobs.read_small(&image.target.digest, oci::MANIFEST_BYTES)?)?;
    let subject = subject(&index, args.platform.as_ref())?;
    let attached = |manifest: &&Descriptor| {
        let says = |key: &str| manifest.annotations.get(key).map_or("", String::as_str);
        says(oci::REFERENCE_TYPE) == "attestation-manifest" && says(oci::REFERENCE_DIGEST) == subject.digest
    };
    let Some(attestation) = index.manifests.iter().find(attached) else { return Ok(Vec::new()) };
    let digest = oci::digest(attestation)?;
    lease.pin(&digest);
    let manifest = oci::parse_manifest(&images.blobs.read_small(&digest, oci::MANIFEST_BYTES)?)?;
    let mut found = Vec::new();
    let mut room = ANSWER_BYTES;
    for layer in manifest.layers {
        let Some(predicate_type) = layer.annotations.get(PREDICATE_TYPE).filter(|kind| !kind.is_empty()).cloned()
        else {
            continue;
        };
        if !args.types.is_empty() && !args.types.contains(&predicate_type) {
            continue;
        }
        let statement = match args.statement {
            true => Some(read(images, &layer, &mut room)?),
            false => None,
        };
        found.push(AttestationStatement { descriptor: layer, predicate_type, statement });
    }
    Ok(found)
}

/// The manifest of the image for a platform, the nearest variant first; one without a platform fits any, last.
fn subject<'i>(index: &'i oci::Index, platform: Option<&Platform>) -> Result<&'i Descriptor> {
    let machine = oci::machine();
    let wanted = platform.unwrap_or(&machine);
    let distance = |d: &Descriptor| match &d.platform {
        Some(platform) => wanted.suits(&oci::platform(platform)),
        None => Some(u32::MAX),
    };
    let manifests = index.manifests.iter().filter(|d| oci::is_manifest(&d.media_type));
    let fitting = manifests.filter_map(|d| Some((distance(d)?, d))).min_by_key(|(distance, _)| *distance);
    fitting.map(|(_, nearest)| nearest).ok_or_else(|| {
        let Platform { os, architecture, variant } = wanted;
        let shown = format!("&{{Architecture:{architecture} OS:{os} OSVersion: OSFeatures:[] Variant:{variant}}}");
        let why = format!("no manifest for platform {wanted}: not found");
        Error::not_found(format!("resolving image manifest for platform {shown}: {why}"))
    })
}

/// A statement as it lies in its blob, which has to be JSON to be shown.
fn read(images: &Images, layer: &Descriptor, room: &mut u64) -> Result<serde_json::Value> {
    let digest = oci::digest(layer)?;
    let bytes = images.blobs.read_small(&digest, STATEMENT_BYTES.min(*room)).map_err(|error| match error.kind() {
        Kind::NotFound => {
            error.with_kind(Kind::NotFound).prefix(format!("attestation statement {digest} is not available locally"))
        }
        _ => error.with_kind(Kind::System).prefix(format!("failed to read attestation statement {digest}")),
    })?;
    *room -= bytes.len() as u64;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::system(format!("failed to read attestation statement {digest}: {error}")))
}
