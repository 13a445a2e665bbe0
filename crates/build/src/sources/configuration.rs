//! What front ends ask about images: their configurations.

use std::sync::Arc;

use bollard_buildkit_proto::pb;
use dockerfile::{ImageAnswer, ImageQuestion};
use image::oci;
use model::reference::ImageRef;
use model::{Error, Kind, Result};

use super::image::{IMAGE, Wanted, find};
use super::layout;
use crate::job::Job;

/// The configuration of an image, for whoever describes a build with it.
///
/// Errors: in the reference's words, beginning with `failed to resolve source metadata for`.
pub async fn configuration(job: &Arc<Job>, question: &ImageQuestion) -> Result<ImageAnswer> {
    let judged;
    let question = match of_policy(job, question)? {
        Some(reference) => {
            judged = ImageQuestion { reference, ..question.clone() };
            &judged
        }
        None => question,
    };
    let found = match &question.layout {
        Some([_, store]) => layout::find(job, store, &question.reference, Some(&question.platform), false).await,
        None => {
            let reference = ImageRef::parse_normalized(&question.reference)?.with_default_tag();
            let wanted = Wanted { reference, platform: Some(&question.platform), mode: &question.resolve };
            find(job, &wanted, false).await
        }
    };
    let found = found.map_err(|error| told(error, &question.reference))?;
    let blob = found.manifest.config.ok_or_else(|| Error::invalid("an image without a configuration"))?;
    job.lease.pin(&blob.digest);
    let images = job.builder.images.clone();
    let read = move |_: &_| images.blobs.read_small(&blob.digest, oci::CONFIG_BYTES);
    Ok(ImageAnswer {
        reference: question.reference.clone(),
        digest: found.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        config: job.builder.threads.run(read).await?,
    })
}

/// The image that policies put in the place of the one that is asked for.
fn of_policy(job: &Job, question: &ImageQuestion) -> Result<Option<String>> {
    if question.layout.is_some() {
        return Ok(None);
    }
    let reference = ImageRef::parse_normalized(&question.reference)?.with_default_tag().canonical();
    let source = pb::SourceOp { identifier: format!("{IMAGE}{reference}"), ..pb::SourceOp::default() };
    let judged = job.judged(&source).map_err(|error| error.prefix("could not resolve image due to policy"))?;
    let Some(judged) = judged.filter(|judged| judged.identifier != source.identifier) else { return Ok(None) };
    let other = || {
        let text = "could not resolve image due to policy: policy converted image to a source that is none";
        Error::invalid(format!("{text}: {}", judged.identifier))
    };
    judged.identifier.strip_prefix(IMAGE).map(|reference| Some(reference.to_owned())).ok_or_else(other)
}

/// As BuildKit tells that there is no such image.
fn told(error: Error, reference: &str) -> Error {
    let error = match error.kind() {
        Kind::NotFound if !error.message().contains(" platform") => Error::not_found(format!("{reference}: not found")),
        _ => error,
    };
    error.prefix(format!("failed to resolve source metadata for {reference}"))
}
