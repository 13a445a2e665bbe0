//! The documents of an exported image: configurations, manifests, attestations, the index. Everything is written to the blobs.

use std::collections::BTreeMap;

use api::oci::{Descriptor, Platform};
use image::oci;
use model::digest::{Algorithm, Digest};
use model::reference::ImageRef;
use model::{Error, Result};
use serde::Serialize;

use super::annotations::Scope;
use super::client::Status;
use super::config::{self, Origin, Patch, base64};
use super::context::Context;
use super::layer;
use super::options::Packing;
use super::pack::{Archived, Request, pack};
use super::source::{Attestation, Source, Target};
use crate::attest::purl;
use crate::attest::statement::{self, Named};

/// The media type of a statement.
const STATEMENT: &str = "application/vnd.in-toto+json";
/// The annotation that says what kind of predicate a statement has.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// What a manifest of attestations is as an artifact, and its configuration: `{}`.
const ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const EMPTY_CONFIG: &[u8] = b"{}";

/// An image whose documents and layers are among the blobs.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// The configuration, if there is one manifest.
    pub config: Option<Digest>,
    /// The documents that the index names, each behind what it needs.
    pub manifests: Vec<Descriptor>,
    /// Layers and configurations.
    pub blobs: Vec<Descriptor>,
}

/// A manifest, its fields in the order in which the reference writes them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'m> {
    schema_version: u32,
    media_type: &'m str,
    #[serde(skip_serializing_if = "str::is_empty")]
    artifact_type: &'m str,
    config: Descriptor,
    layers: &'m [Descriptor],
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// Packs the layers of a result and writes its documents. Blocks.
///
/// Errors: `InvalidParameter` for options that do not go with the result.
pub(super) fn write(context: &Context, packing: &Packing, source: &Source, names: &[ImageRef]) -> Result<Written> {
    check(packing, source)?;
    let origins = context.builder.records.origins();
    let mut writer = Writer { context, packing, written: Vec::new(), blobs: Vec::new() };
    context.client.status(Status::Started("exporting layers".into()));
    let mut layers = Vec::new();
    for target in &source.targets {
        layers.push(writer.layers(target)?);
    }
    context.client.status(Status::Completed("exporting layers".into()));
    let has_index = source.multiple || source.targets.iter().any(|target| !attestations(packing, target).is_empty());
    let mut manifests = Vec::new();
    let mut config = None;
    for (target, layers) in source.targets.iter().zip(&layers) {
        let of = |layer: &crate::record::Layer| {
            let (created, description) = origins.get(layer.key.pin()).cloned().unzip();
            Origin { created, description: description.unwrap_or_default() }
        };
        let patch = Patch {
            diff_ids: layers.iter().map(|layer| &layer.diff_id).collect(),
            origins: target.chain.iter().map(of).collect(),
            epoch: writer.epoch(target),
            cache: target.cache.as_deref(),
        };
        let (descriptor, digest) = writer.manifest(target, layers, &patch, has_index)?;
        manifests.push(descriptor);
        config = Some(digest);
    }
    if !has_index {
        let descriptor = manifests.pop().ok_or_else(|| Error::invalid("nothing to export"))?;
        return Ok(Written { descriptor, config, manifests: Vec::new(), blobs: writer.blobs });
    }
    let mut said = Vec::new();
    for (target, manifest) in source.targets.iter().zip(&manifests) {
        let attestations = attestations(packing, target);
        if !attestations.is_empty() {
            said.push(writer.attestations(target, manifest, &attestations, names)?);
        }
    }
    manifests.extend(said);
    writer.index(manifests)
}

/// Refuses options that do not go with the result.
fn check(packing: &Packing, source: &Source) -> Result<()> {
    for platform in packing.annotations.platforms() {
        if !source.targets.iter().any(|target| target.platform() == *platform) {
            return Err(Error::invalid(format!("invalid annotation: no platform {platform} found in source")));
        }
    }
    let has = |scope| packing.annotations.has(scope);
    if !packing.is_oci() && (has(Scope::Index) || has(Scope::IndexDescriptor) || has(Scope::ManifestDescriptor)) {
        return Err(Error::invalid("cannot export annotations with \"oci-mediatypes=false\""));
    }
    let is_said = source.targets.iter().any(|target| !attestations(packing, target).is_empty());
    if !packing.is_oci() && is_said {
        return Err(Error::invalid("cannot export attestations with \"oci-mediatypes=false\""));
    }
    if !source.multiple && !is_said && (has(Scope::Index) || has(Scope::IndexDescriptor)) {
        return Err(Error::invalid("index annotations not supported for single platform export"));
    }
    Ok(())
}

/// What is said of a target in this export.
fn attestations<'t>(packing: &Packing, target: &'t Target) -> Vec<&'t Attestation> {
    target.attestations.iter().filter(|one| packing.inline_attestations || !one.inline_only).collect()
}

struct Writer<'w> {
    context: &'w Context,
    packing: &'w Packing,
    /// Documents, in the order in which they were written.
    written: Vec<Descriptor>,
    blobs: Vec<Descriptor>,
}

impl Writer<'_> {
    fn epoch(&self, target: &Target) -> Option<i64> {
        self.packing.epoch.unwrap_or(target.epoch)
    }

    fn layers(&self, target: &Target) -> Result<Vec<Archived>> {
        let latest = self.epoch(target).filter(|_| self.packing.rewrites_times);
        if self.packing.rewrites_times && latest.is_none() {
            tracing::warn!("rewrite-timestamp is specified, but no source-date-epoch was found");
        }
        // Those of the image below keep their times.
        let of_base = target.base.as_ref().map(|base| base.rootfs.diff_ids.as_slice()).unwrap_or_default();
        let same = target.chain.iter().zip(of_base).take_while(
            |(layer, diff_id)| matches!(&layer.key, snapshot::LayerKey::Diff(own) if own.as_str() == diff_id.as_str()),
        );
        let request = Request { compression: self.packing.compression, latest, base: same.count() };
        let Context { builder, lease, cancel, .. } = self.context;
        pack(builder, &target.chain, &request, (lease, cancel))
    }

    /// The manifest of a target, and the digest of its configuration.
    fn manifest(
        &mut self,
        target: &Target,
        layers: &[Archived],
        patch: &Patch<'_>,
        has_index: bool,
    ) -> Result<(Descriptor, Digest)> {
        let is_oci = self.packing.is_oci();
        let (media_type, config_type) =
            if is_oci { (oci::MANIFEST, oci::CONFIG) } else { (oci::DOCKER_MANIFEST, oci::DOCKER_CONFIG) };
        let layers: Vec<Descriptor> = layers
            .iter()
            .map(|archived| {
                let own = archived.blob.descriptor();
                Descriptor { media_type: layer::media_type(&own.media_type, is_oci, self.packing.keeps_foreign), ..own }
            })
            .collect();
        let config = self.put("exporting config", config_type, &config::write(target, patch)?)?;
        let digest = image::oci::digest(&config)?;
        let platform = target.platform();
        let of = |scope| self.packing.annotations.of(scope, Some(&platform));
        let manifest = Manifest {
            schema_version: 2,
            media_type,
            artifact_type: "",
            config: config.clone(),
            layers: &layers,
            subject: None,
            annotations: of(Scope::Manifest),
        };
        let descriptor = Descriptor {
            annotations: of(Scope::ManifestDescriptor),
            platform: Some(target.platform.clone()),
            ..self.document("exporting manifest", media_type, &manifest)?
        };
        if has_index {
            self.written.push(descriptor.clone());
        }
        self.blobs.extend(layers);
        self.blobs.push(config);
        Ok((descriptor, digest))
    }

    /// The manifest of what is said of a target.
    fn attestations(
        &mut self,
        target: &Target,
        manifest: &Descriptor,
        attestations: &[&Attestation],
        names: &[ImageRef],
    ) -> Result<Descriptor> {
        let digest = image::oci::digest(manifest)?;
        let platform = target.platform_text();
        let named = |name: &ImageRef| Named::new(&purl::of(purl::Kind::Docker, name, Some(&platform)), &digest);
        let itself: Vec<Named> = names.iter().map(named).collect();
        let mut layers = Vec::new();
        for statement in statement::statements(&self.context.builder.roots, attestations, &itself)? {
            let bytes = serde_json::to_vec(&statement).map_err(|error| unencoded(&error))?;
            let layer = self.blob(STATEMENT, &bytes)?;
            let annotations = [(PREDICATE_TYPE.to_owned(), statement.predicate_type.clone())].into();
            layers.push(Descriptor { annotations, ..layer });
        }
        let is_artifact = self.packing.is_artifact();
        let config = match is_artifact {
            true => Descriptor { data: base64(EMPTY_CONFIG), ..self.blob(EMPTY, EMPTY_CONFIG)? },
            false => self.blob(oci::CONFIG, &said_config(&layers)?)?,
        };
        let document = Manifest {
            schema_version: 2,
            media_type: oci::MANIFEST,
            artifact_type: if is_artifact { ARTIFACT } else { "" },
            config: config.clone(),
            layers: &layers,
            subject: is_artifact.then(|| Descriptor {
                media_type: manifest.media_type.clone(),
                digest: manifest.digest.clone(),
                size: manifest.size,
                ..Descriptor::default()
            }),
            annotations: BTreeMap::new(),
        };
        let written = self.document("exporting attestation manifest", oci::MANIFEST, &document)?;
        self.blobs.extend(layers);
        self.blobs.push(config);
        let descriptor = Descriptor {
            annotations: [
                (oci::REFERENCE_DIGEST.to_owned(), manifest.digest.clone()),
                (oci::REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned()),
            ]
            .into(),
            platform: Some(unknown()),
            ..written
        };
        self.written.push(descriptor.clone());
        Ok(descriptor)
    }

    fn index(mut self, manifests: Vec<Descriptor>) -> Result<Written> {
        let media_type = if self.packing.is_oci() { oci::INDEX } else { oci::DOCKER_LIST };
        let of = |scope| self.packing.annotations.of(scope, None);
        let index = oci::Index {
            schema_version: 2,
            media_type: media_type.to_owned(),
            manifests,
            annotations: of(Scope::Index),
        };
        let annotations = of(Scope::IndexDescriptor);
        let descriptor = Descriptor { annotations, ..self.document("exporting manifest list", media_type, &index)? };
        Ok(Written {
            descriptor,
            config: None,
            manifests: std::mem::take(&mut self.written),
            blobs: std::mem::take(&mut self.blobs),
        })
    }

    /// Writes a document as people read it.
    fn document(&self, what: &str, media_type: &str, document: &impl Serialize) -> Result<Descriptor> {
        let bytes = serde_json::to_vec_pretty(document).map_err(|error| unencoded(&error))?;
        self.put(what, media_type, &bytes)
    }

    fn put(&self, what: &str, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let text = format!("{what} {}", Digest::of(Algorithm::Sha256, bytes));
        self.context.client.status(Status::Started(text.clone()));
        let descriptor = self.blob(media_type, bytes)?;
        self.context.client.status(Status::Completed(text));
        Ok(descriptor)
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let (digest, size) = self.context.builder.images.blobs.put(bytes, &self.context.lease)?;
        let (media_type, digest, size) = (media_type.to_owned(), digest.to_string(), size as i64);
        Ok(Descriptor { media_type, digest, size, ..Descriptor::default() })
    }
}

/// The configuration of a manifest of attestations that is no artifact.
fn said_config(layers: &[Descriptor]) -> Result<Vec<u8>> {
    let Platform { architecture, os, .. } = unknown();
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
    let config = serde_json::json!({
        "architecture": architecture,
        "os": os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    serde_json::to_vec(&config).map_err(|error| unencoded(&error))
}

/// Where attestations run.
fn unknown() -> Platform {
    Platform { os: "unknown".into(), architecture: "unknown".into(), ..Platform::default() }
}

fn unencoded(error: &serde_json::Error) -> Error {
    Error::system(format!("encoding a document: {error}"))
}
