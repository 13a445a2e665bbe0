//! Images whose registry asks for signatures: where signatures are found, and who is let through.
//!
//! - An image is judged by the digest that its name leads to, before anything of it is fetched or unpacked; an index
//!   stands for the manifests it lists.
//! - The signatures that let an image in stay in its row, so that a container can be made of it without the registry.
//!   They are verified again each time, with the keys of the policy in force.
//! - Where nothing is governed, nothing here asks, reads or computes.

use std::sync::Arc;

use api::oci::Descriptor;
use model::digest::Digest;
use model::reference::{ImageRef, is_bare_id};
use model::{Error, Result};
use registry::Repository;
use signature::{PAYLOAD_BYTES, Policy, Signature};

use super::catalog::{Catalog, Found, Matched, parsed};
use super::images::Images;
use super::oci;
use super::pull::small_blob;
use super::row::{Content, ImageRow, keep_signatures};

/// A layer that is the payload of a signature, the signature being an annotation.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What a manifest of signatures says it is when it refers to the image.
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// Annotation of an archive's index, and its values for what is no image.
const KIND: &str = "kind";
const KIND_SIGNATURES: &str = "dev.cosignproject.cosign/sigs";
const KIND_ATTESTATIONS: &str = "dev.cosignproject.cosign/atts";
/// Annotation of an archive's index: the entry refers to this manifest, and is no image.
const SUBJECT: &str = "io.containerd.manifest.subject";
/// Signatures of one manifest, and manifests that refer to one image.
const SIGNATURES: usize = 64;
const REFERRERS: usize = 32;

impl Images {
    /// The signature policy in force; an operation takes it once.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.read().clone()
    }

    /// Puts a policy in force, for operations that begin from now on.
    pub fn replace_policy(&self, policy: Policy) {
        *self.policy.write() = Arc::new(policy);
    }

    /// Adds signatures to those that are kept of an image.
    pub(super) fn keep_signatures(&self, id: &Digest, signatures: Vec<Signature>) -> Result<()> {
        let known =
            self.catalog().images.get(id).is_none_or(|row| signatures.iter().all(|s| row.signatures.contains(s)));
        if known {
            return Ok(());
        }
        let id = id.clone();
        self.change(move |catalog, edit| match catalog.images.get(&id) {
            Some(row) => edit.put_image(&ImageRow { signatures, ..ImageRow::clone(row) }),
            None => Ok(()),
        })
    }

    /// Lets a container be made of an image: of the name that was given, or of all its names when it was none.
    pub(super) fn admit(&self, catalog: &Catalog, found: &Found) -> Result<()> {
        let policy = self.policy();
        if policy.is_empty() {
            return Ok(());
        }
        let id = &found.image.target.digest;
        let names: Vec<ImageRef> = match &found.matched {
            Matched::Name(name) => parsed(name).into_iter().collect(),
            Matched::Repository(name) => vec![name.clone()],
            Matched::Id => catalog.names_of(id).filter_map(parsed).collect(),
        };
        let mut governed = names.iter().filter_map(|name| Some((name, policy.rule(name)?)));
        governed.try_for_each(|(name, rule)| rule.admit(name, id, &found.image.signatures).map(drop))
    }
}

/// The signatures that let an image be pulled: those kept of it, else what the registry has.
pub(super) async fn of_pull(images: &Images, repository: &Repository, digest: &Digest) -> Result<Vec<Signature>> {
    let policy = images.policy();
    let name = repository.reference();
    let Some(rule) = policy.rule(name) else { return Ok(Vec::new()) };
    let admit = |given: &[Signature]| rule.admit(name, digest, given).map(|some| some.into_iter().cloned().collect());
    let kept = images.catalog().images.get(digest).cloned();
    if let Some(Ok(kept)) = kept.map(|image| admit(&image.signatures)) {
        return Ok(kept);
    }
    let failed = |error: Error| error.prefix(format!("signatures of {}", name.familiar()));
    let mut given = beside(repository, digest).await.map_err(failed)?;
    if let Ok(signatures) = admit(&given) {
        return Ok(signatures);
    }
    given.extend(referring(repository, digest).await.map_err(failed)?);
    admit(&given)
}

/// The signatures under the tag that is made of the digest.
async fn beside(repository: &Repository, digest: &Digest) -> Result<Vec<Signature>> {
    let tag = format!("{}-{}.sig", digest.algorithm(), digest.hex());
    // Of a longer digest no tag can be made.
    let Ok(_) = repository.reference().with_tag(&tag) else { return Ok(Vec::new()) };
    match repository.manifest_if_any(&tag).await? {
        Some(document) => payloads(repository, &document.bytes).await,
        None => Ok(Vec::new()),
    }
}

/// The signatures in manifests that refer to the image.
async fn referring(repository: &Repository, digest: &Digest) -> Result<Vec<Signature>> {
    let Some(index) = repository.referrers(digest).await? else { return Ok(Vec::new()) };
    let index = oci::parse_index(&index.bytes)?;
    let mut found = Vec::new();
    for descriptor in index.manifests.iter().filter(|d| d.artifact_type == ARTIFACT).take(REFERRERS) {
        let document = repository.manifest_by_digest(&oci::digest(descriptor)?).await?;
        found.extend(payloads(repository, &document.bytes).await?);
    }
    Ok(found)
}

/// The signatures of a manifest. Its digests are not verified: the signatures tell whether the payloads are theirs.
async fn payloads(repository: &Repository, manifest: &[u8]) -> Result<Vec<Signature>> {
    let mut found = Vec::new();
    for (content, signature) in listed(manifest)? {
        let payload = small_blob(repository, &content).await?;
        found.extend(understood(&payload, &signature));
    }
    Ok(found)
}

/// The payloads that a manifest lists, each with its signature.
fn listed(manifest: &[u8]) -> Result<Vec<(Content, String)>> {
    let manifest = oci::parse_manifest(manifest)?;
    let small = |layer: &&Descriptor| layer.media_type == PAYLOAD && (0..=PAYLOAD_BYTES as i64).contains(&layer.size);
    let pair = |layer: &Descriptor| {
        let content =
            Content { media_type: PAYLOAD.into(), digest: oci::digest(layer)?, size: layer.size.unsigned_abs() };
        Ok((content, layer.annotations.get(SIGNATURE).cloned().unwrap_or_default()))
    };
    manifest.layers.iter().filter(small).take(SIGNATURES).map(pair).collect()
}

fn understood(payload: &[u8], signature: &str) -> Option<Signature> {
    let signature = Signature::new(payload, signature);
    signature.inspect_err(|error| tracing::debug!(%error, "a signature is left out")).ok()
}

/// Whether an entry of an archive's index is something about an image, as `cosign save` and copies of repositories have
/// it, and no image.
pub(super) fn is_about(entry: &Descriptor) -> bool {
    let kind = entry.annotations.get(KIND).map(String::as_str);
    let name = entry.annotations.get("org.opencontainers.image.ref.name").map_or("", String::as_str);
    let tag = name.rsplit([':', '/']).next().unwrap_or_default();
    matches!(kind, Some(KIND_SIGNATURES | KIND_ATTESTATIONS))
        || entry.artifact_type == ARTIFACT
        || speaks_of_another(tag)
}

/// Whether a tag is made of another image's digest: `sha256-….sig`.
pub(super) fn speaks_of_another(tag: &str) -> bool {
    let digest = tag.strip_prefix("sha256-").unwrap_or_default();
    matches!(digest.split_once('.'), Some((hex, "sig" | "att" | "sbom")) if is_bare_id(hex))
}

/// The signatures that are kept of an image, as an archive has them: the entry of its index and the documents that it
/// leads to. `None` when none are kept.
pub(super) fn for_archive(image: &ImageRow) -> Result<Option<(Descriptor, Vec<Vec<u8>>)>> {
    if image.signatures.is_empty() {
        return Ok(None);
    }
    let config = encoded(&oci::Document::default())?;
    let mut documents = Vec::new();
    let mut layers = Vec::new();
    for (payload, signature) in image.signatures.iter().map(Signature::parts) {
        let annotations = [(SIGNATURE.to_owned(), signature.to_owned())].into();
        layers.push(Descriptor { annotations, ..described(PAYLOAD, payload) });
        documents.push(payload.to_vec());
    }
    let manifest = oci::Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.into(),
        config: described(oci::CONFIG, &config),
        layers,
        subject: Some(image.target.descriptor()),
        ..oci::Manifest::default()
    };
    let manifest = encoded(&manifest)?;
    let subject = image.target.digest.to_string();
    let annotations = [(KIND.to_owned(), KIND_SIGNATURES.to_owned()), (SUBJECT.to_owned(), subject)].into();
    let entry = Descriptor { annotations, ..described(oci::MANIFEST, &manifest) };
    documents.extend([config, manifest]);
    Ok(Some((entry, documents)))
}

fn encoded(document: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|error| Error::system(format!("encoding signatures: {error}")))
}

fn described(media_type: &str, bytes: &[u8]) -> Descriptor {
    let (media_type, digest, size) = (media_type.to_owned(), oci::digest_of(bytes).to_string(), bytes.len() as i64);
    Descriptor { media_type, digest, size, ..Descriptor::default() }
}

/// The signatures in an archive that the policy has a key for, each with the image it speaks of. A manifest that cannot
/// be read has none.
pub(super) fn of_archive(images: &Images, about: &[Descriptor]) -> Vec<(Digest, Signature)> {
    let policy = images.policy();
    if policy.is_empty() {
        return Vec::new();
    }
    let read = |entry: &Descriptor| -> Result<Vec<Signature>> {
        let manifest = images.blobs.read_small(&oci::digest(entry)?, oci::MANIFEST_BYTES)?;
        let listed = listed(&manifest)?.into_iter().filter_map(|(content, signature)| {
            let payload = images.blobs.read_small(&content.digest, PAYLOAD_BYTES as u64).ok()?;
            understood(&payload, &signature)
        });
        Ok(listed.collect())
    };
    let all = about.iter().filter_map(|entry| {
        read(entry).inspect_err(|error| tracing::debug!(%error, "signatures of an archive are left out")).ok()
    });
    all.flatten().filter_map(|signature| Some((policy.signed(&signature)?, signature))).collect()
}

/// Lets an image of an archive get its name.
pub(super) fn admit_loaded(images: &Images, name: &ImageRef, row: &ImageRow) -> Result<()> {
    let policy = images.policy();
    let Some(rule) = policy.rule(name) else { return Ok(()) };
    let id = &row.target.digest;
    let mut signatures = row.signatures.clone();
    keep_signatures(&mut signatures, images.catalog().images.get(id).map_or(&[], |image| &image.signatures));
    rule.admit(name, id, &signatures).map(drop)
}
