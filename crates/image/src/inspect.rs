//! `docker image inspect`, and the shapes that list shares with it.

use api::oci::Descriptor;
use api::{ImageInspect, ManifestSummary};
use model::Result;
use model::digest::Digest;
use model::platform::Platform;
use model::time::Timestamp;

use super::catalog::{Catalog, Wanted, no_platform, select};
use super::images::Images;
use super::oci;
use super::row::{ImageRow, ManifestKind, ManifestRow};

/// The image that `text` leads to. `manifests` asks for the list of its manifests.
pub fn inspect(images: &Images, text: &str, platform: Option<&Platform>, manifests: bool) -> Result<ImageInspect> {
    let catalog = images.catalog();
    let image = catalog.find(text)?.image;
    let best = match platform {
        None => select(&image, Wanted::Any, text).ok(),
        Some(_) => Some(listed(&image, platform).ok_or_else(|| no_platform(Wanted::exactly(platform), text))?),
    };
    let id = &image.target.digest;
    let (repo_tags, repo_digests) = catalog.tags_and_digests(id, catalog.names_of(id));
    let mut answer = ImageInspect {
        id: platform.and(best).map_or(id, |best| &best.content.digest).to_string(),
        repo_tags,
        repo_digests,
        descriptor: Some(match (best, platform) {
            (Some(best), Some(_)) => described(best),
            _ => image.target.descriptor(),
        }),
        size: best.map_or_else(|| images.size(&image), |best| Ok(best.total_size()))? as i64,
        graph_driver: Some(api::DriverData { data: None, name: images.layers.name().into() }),
        manifests: if manifests { image.manifests.iter().map(|m| summary(m, &[])).collect() } else { Vec::new() },
        ..ImageInspect::default()
    };
    answer.parent = image.parent.as_ref().map(Digest::to_string).unwrap_or_default();
    answer.config = Some(api::ImageConfig::default());
    answer.metadata.last_tag_time = last_tag_time(&catalog, &image).rfc3339_nano();
    if let Some(document) = best.and_then(|best| best.document.as_ref()) {
        fill(&mut answer, document);
    }
    Ok(answer)
}

/// The manifest of exactly this platform, be its content here or not.
fn listed<'r>(image: &'r ImageRow, platform: Option<&Platform>) -> Option<&'r ManifestRow> {
    let fits = |m: &&ManifestRow| Wanted::exactly(platform).fits(&oci::platform(&m.platform));
    let mut images = image.manifests.iter().filter(|m| m.kind == ManifestKind::Image).filter(fits);
    images.next()
}

fn fill(answer: &mut ImageInspect, document: &oci::Document) {
    answer.config = Some(document.config.clone());
    answer.author.clone_from(&document.author);
    answer.architecture.clone_from(&document.platform.architecture);
    answer.variant.clone_from(&document.platform.variant);
    answer.os.clone_from(&document.platform.os);
    answer.os_version.clone_from(&document.platform.os_version);
    answer.comment = document.history.last().map(|h| h.comment.clone()).unwrap_or_default();
    answer.created.clone_from(&document.created);
    answer.root_fs.kind.clone_from(&document.rootfs.kind);
    answer.root_fs.layers.clone_from(&document.rootfs.diff_ids);
}

/// When a name was last given; the time of arrival for an image without.
fn last_tag_time(catalog: &Catalog, image: &ImageRow) -> Timestamp {
    let tagged = catalog.names.values().filter(|row| row.image == image.target.digest).map(|row| row.tagged);
    tagged.max().unwrap_or(image.created)
}

/// A manifest's descriptor with its platform.
fn described(manifest: &ManifestRow) -> Descriptor {
    Descriptor {
        annotations: manifest.annotations.clone(),
        platform: Some(manifest.platform.clone()).filter(|p| *p != api::oci::Platform::default()),
        ..manifest.content.descriptor()
    }
}

/// A manifest as `manifests=1` shows it; `containers`: ids of those made of it.
pub(super) fn summary(manifest: &ManifestRow, containers: &[String]) -> ManifestSummary {
    let descriptor = described(manifest);
    let mut summary = ManifestSummary {
        id: descriptor.digest.clone(),
        descriptor,
        available: manifest.available,
        ..ManifestSummary::default()
    };
    summary.size.content = manifest.content_size() as i64;
    summary.size.total = manifest.total_size() as i64;
    match &manifest.kind {
        ManifestKind::Image => {
            let mut data = api::ImageProperties {
                platform: manifest.platform.clone(),
                containers: containers.to_vec(),
                ..Default::default()
            };
            data.size.unpacked = manifest.unpacked.unwrap_or(0) as i64;
            summary.kind = "image".into();
            summary.image_data = Some(data);
        }
        ManifestKind::Attestation(subject) => {
            summary.kind = "attestation".into();
            summary.attestation_data = Some(api::AttestationProperties { subject: subject.clone() });
        }
        ManifestKind::Unknown => summary.kind = "unknown".into(),
    }
    summary
}
