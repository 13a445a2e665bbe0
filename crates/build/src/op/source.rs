//! Sources: where a build begins.

use std::sync::Arc;

use bollard_buildkit_proto::pb;
use model::digest::Digest;
use model::reference::ImageRef;
use model::{Error, Result};

use crate::graph::Vertex;
use crate::job::Job;
use crate::key::Key;
use crate::record::{Chain, Layer};
use crate::result::Solved;

const IMAGE: &str = "docker-image://";
const LOCAL: &str = "local://";

/// The files of a source.
pub(crate) async fn solve(job: &Arc<Job>, vertex: &Vertex, source: &pb::SourceOp) -> Result<Solved> {
    let name = source.identifier.as_str();
    if let Some(reference) = name.strip_prefix(IMAGE) {
        return image(job, vertex, reference).await;
    }
    if let Some(local) = name.strip_prefix(LOCAL) {
        let found = job.inputs.local(local, &source.attrs).await?;
        return Ok(Solved { key: found.key, outputs: [(0, found.chain)].into(), cached: false });
    }
    let scheme = name.split_once("://").map_or(name, |(scheme, _)| scheme);
    Err(Error::not_implemented(format!("sources of the kind {scheme} are not supported: {name}")))
}

/// The layers of an image that is here.
async fn image(job: &Arc<Job>, vertex: &Vertex, reference: &str) -> Result<Solved> {
    let platform = vertex.platform.as_ref().map(|platform| {
        let variant = if platform.variant.is_empty() { String::new() } else { format!("/{}", platform.variant) };
        format!("{}/{}{variant}", platform.os, platform.architecture)
    });
    let (job, reference) = (job.clone(), reference.to_owned());
    let threads = job.builder.threads.clone();
    threads
        .run(move |_| {
            // A digest says more than a tag.
            let named = ImageRef::parse_normalized(&reference)?;
            let text = match &named.digest {
                Some(digest) => named.with_digest(digest.clone()).canonical(),
                None => reference,
            };
            let found = job.builder.images.resolve(&text, platform.as_deref());
            let found = found.or_else(|error| match &named.digest {
                // Known by its digest alone, whatever it is called.
                Some(digest) => job.builder.images.resolve(digest.as_str(), platform.as_deref()),
                None => Err(error),
            })?;
            let chain = of_image(&job, &found)?;
            Ok(Solved { key: key_of(&chain), outputs: [(0, chain)].into(), cached: true })
        })
        .await
}

/// The layers of an image, unpacked and pinned for the build. Blocks.
///
/// Errors: `NotFound` when it is not here any more.
pub fn of_image(job: &Job, found: &image::ResolvedImage) -> Result<Chain> {
    let images = &job.builder.images;
    let gone = || Error::not_found(format!("No such image: {}", found.id));
    let (_, manifest, _) = found.manifest.as_ref().ok_or_else(gone)?;
    let row = images.catalog().images.get(&found.id).cloned().ok_or_else(gone)?;
    let row = row.manifests.iter().find(|row| row.content.digest == *manifest).cloned().ok_or_else(gone)?;
    for (blob, diff_id) in row.layers.iter().zip(&row.diff_ids) {
        job.lease.pin(diff_id);
        job.lease.pin(&blob.digest);
    }
    image::ensure_unpacked(images, &found.id, manifest)?;
    let layers = row.diff_ids.iter().zip(&row.layers);
    Ok(Arc::new(layers.map(|(diff_id, blob)| Layer { key: diff_id.into(), blob: Some(blob.clone()) }).collect()))
}

/// What layers of an image count as: the same layers are the same image.
pub fn key_of(chain: &[Layer]) -> Digest {
    let mut key = Key::new("layers");
    chain.iter().for_each(|layer| _ = key.part(layer.key.to_string().as_bytes()));
    key.finish()
}
