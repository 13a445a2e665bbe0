//! Images as sources: one that is here, or one that is fetched from its registry.
//!
//! The modes are BuildKit's: with `pull` the registry is asked, otherwise only for what is not here. What is fetched for a
//! build gets no name: it stays as long as the cache has it.

use std::sync::Arc;

use bollard_buildkit_proto::pb;
use image::row::ManifestRow;
use image::{PullArgs, ResolvedImage};
use model::digest::Digest;
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Kind, Result};
use tokio::sync::mpsc;

use crate::graph::Vertex;
use crate::job::{Attributes, Job};
use crate::key::Key;
use crate::record::{Chain, Layer};
use crate::result::Solved;

/// In front of the references of images.
pub(super) const IMAGE: &str = "docker-image://";

/// Lines of a fetch that wait for nobody.
const LINES: usize = 16;
/// The mode in which the registry is always asked.
const PULL: &str = "pull";

/// An image that a build uses.
pub(super) struct Found {
    /// Of the index or manifest, if a registry said what the name means now.
    pub digest: Option<Digest>,
    /// The manifest for the platform.
    pub manifest: ManifestRow,
}

/// What is to be found.
pub(super) struct Wanted<'w> {
    pub reference: ImageRef,
    pub platform: Option<&'w Platform>,
    /// See the module.
    pub mode: &'w str,
}

/// The layers of an image.
pub(super) async fn solve(job: &Arc<Job>, vertex: &Vertex, reference: &str, attributes: &Attributes) -> Result<Solved> {
    let platform = platform(vertex);
    let wanted = Wanted {
        reference: ImageRef::parse_normalized(reference)?.with_default_tag(),
        platform: platform.as_ref(),
        mode: attribute(attributes, "image.resolvemode"),
    };
    let found = find(job, &wanted, true).await.map_err(|error| error.prefix(reference))?;
    let pin = found.digest.as_ref().unwrap_or(&found.manifest.content.digest);
    job.note_pin(format!("docker-image://{reference}"), pin.to_string());
    Ok(solved(&found.manifest))
}

/// An attribute; empty if it is missing.
pub(super) fn attribute<'a>(attributes: &'a Attributes, key: &str) -> &'a str {
    attributes.get(key).map(String::as_str).unwrap_or_default()
}

/// The platform of an operation.
pub(super) fn platform(vertex: &Vertex) -> Option<Platform> {
    let of = |platform: &pb::Platform| Platform::new(&platform.os, &platform.architecture, &platform.variant);
    vertex.platform.as_ref().map(of)
}

/// The layers of a manifest, which are unpacked, as a result.
pub(super) fn solved(manifest: &ManifestRow) -> Solved {
    let chain = chain(manifest);
    Solved { key: key_of(&chain), outputs: [(0, chain)].into(), cached: true }
}

fn chain(manifest: &ManifestRow) -> Chain {
    let layers = manifest.diff_ids.iter().zip(&manifest.layers);
    Arc::new(layers.map(|(diff_id, blob)| Layer { key: diff_id.into(), blob: Some(blob.clone()) }).collect())
}

/// Finds an image; with `unpacks` its layers are there and pinned for the build.
pub(super) async fn find(job: &Arc<Job>, wanted: &Wanted<'_>, unpacks: bool) -> Result<Found> {
    // A digest means the same everywhere.
    if wanted.mode != PULL || wanted.reference.digest.is_some() {
        match here(job, wanted, unpacks).await {
            Err(error) if error.kind() == Kind::NotFound => {}
            found => return found,
        }
    }
    fetch(job, wanted, unpacks).await
}

async fn here(job: &Arc<Job>, wanted: &Wanted<'_>, unpacks: bool) -> Result<Found> {
    let (job, reference) = (job.clone(), wanted.reference.clone());
    let platform = wanted.platform.map(Platform::to_string);
    let threads = job.builder.threads.clone();
    threads
        .run(move |_| {
            let images = &job.builder.images;
            // A digest says more than a tag.
            let text = match &reference.digest {
                Some(digest) => reference.with_digest(digest.clone()).canonical(),
                None => reference.canonical(),
            };
            let found = images.resolve(&text, platform.as_deref());
            let found = found.or_else(|error| match &reference.digest {
                // Known by its digest alone, whatever it is called.
                Some(digest) => images.resolve(digest.as_str(), platform.as_deref()),
                None => Err(error),
            })?;
            let manifest = manifest(&job, &found)?;
            if unpacks {
                unpacked(&job, &found, &manifest)?;
            }
            Ok(Found { digest: reference.digest, manifest })
        })
        .await
}

async fn fetch(job: &Arc<Job>, wanted: &Wanted<'_>, unpacks: bool) -> Result<Found> {
    let args = PullArgs {
        reference: wanted.reference.clone(),
        platform: wanted.platform.cloned(),
        credentials: job.inputs.credentials(&wanted.reference.domain).await?,
    };
    let images = &job.builder.images;
    let fetched = async {
        if !unpacks {
            return image::pull::fetch_unnamed(images, job.transfers, &args, &job.lease, None).await;
        }
        let (lines, mut unheard) = mpsc::channel(LINES);
        let drain = async { while unheard.recv().await.is_some() {} };
        let fetch = async {
            let fetched = image::pull::fetch_unnamed(images, job.transfers, &args, &job.lease, Some(&lines)).await;
            drop(lines);
            fetched
        };
        tokio::join!(fetch, drain).0
    };
    let fetched = tokio::select! {
        fetched = fetched => fetched?,
        () = job.cancel.cancelled() => return Err(crate::cancel::cancelled()),
    };
    Ok(Found { digest: Some(fetched.image.target.digest), manifest: fetched.manifest })
}

/// The manifest that was chosen of an image that is here.
fn manifest(job: &Job, found: &ResolvedImage) -> Result<ManifestRow> {
    let gone = || Error::not_found(format!("No such image: {}", found.id));
    let (_, manifest, _) = found.manifest.as_ref().ok_or_else(gone)?;
    let row = job.builder.images.catalog().images.get(&found.id).cloned().ok_or_else(gone)?;
    row.manifests.iter().find(|row| row.content.digest == *manifest).cloned().ok_or_else(gone)
}

/// Unpacks and pins the layers of an image for the build. Blocks.
fn unpacked(job: &Job, found: &ResolvedImage, manifest: &ManifestRow) -> Result<()> {
    for (blob, diff_id) in manifest.layers.iter().zip(&manifest.diff_ids) {
        job.lease.pin(diff_id);
        job.lease.pin(&blob.digest);
    }
    image::ensure_unpacked(&job.builder.images, &found.id, &manifest.content.digest)
}

/// The layers of an image that is here, unpacked and pinned for the build. Blocks.
///
/// Errors: `NotFound` when it is not here any more.
pub fn of_image(job: &Job, found: &ResolvedImage) -> Result<Chain> {
    let manifest = manifest(job, found)?;
    unpacked(job, found, &manifest)?;
    Ok(chain(&manifest))
}

/// What layers of an image count as: the same layers are the same image.
pub fn key_of(chain: &[Layer]) -> Digest {
    let mut key = Key::new("layers");
    chain.iter().for_each(|layer| _ = key.part(layer.key.to_string().as_bytes()));
    key.finish()
}
