//! The exporter `image`: an image of this daemon, under names or without any, which may go to its registries as well.

use std::sync::Arc;

use ::image::exported::{ExportedImage, Unpacked, exported};
use ::image::oci;
use ::image::row::Content;
use ::image::{Load, push_load};
use api::oci::Descriptor;
use model::digest::Digest;
use model::reference::ImageRef;
use model::{Context as _, Error, Result};
use registry::Access;
use tokio::sync::mpsc;

use super::annotations::Annotations;
use super::client::Status;
use super::config::base64;
use super::context::{Context, Response};
use super::documents::{self, Written};
use super::options::{Image, Names, Packing, names};
use super::source::Source;

/// Lines of a push that wait for nobody.
const LINES: usize = 16;

/// Keeps and pushes a result.
pub(super) async fn run(context: &Context, wanted: &Image, source: Arc<Source>) -> Result<Response> {
    let names = named(&wanted.names, &source)?;
    if wanted.push && names.is_empty() {
        return Err(Error::invalid("tag is needed when pushing to registry"));
    }
    if wanted.packing.rewrites_times && wanted.unpack == Some(true) {
        return Err(Error::invalid("exporter option \"rewrite-timestamp\" conflicts with \"unpack\""));
    }
    let (own, options, given) = (context.clone(), wanted.clone(), (source.clone(), names.clone()));
    let work = move |_: &_| {
        let (source, names) = given;
        let packing = with_said(&options.packing, &source)?;
        let written = documents::write(&own, &packing, &source, &names)?;
        if options.store {
            store(&own, &options, &written, &names)?;
        }
        Ok(written)
    };
    let written = context.builder.threads.run(work).await?;
    if wanted.push {
        for name in &names {
            push(context, wanted, &written, name)
                .await
                .with_context(|| format!("failed to push {}", name.canonical()))?;
        }
    }
    let mut response = response(&written)?;
    let shown = shown(wanted, &written.descriptor.digest, &names);
    if !shown.is_empty() {
        response.insert("image.name".into(), shown);
    }
    Ok(response)
}

/// The names that an export gives.
pub(super) fn named(wanted: &Names, source: &Source) -> Result<Vec<ImageRef>> {
    match wanted {
        Names::Given(names) => Ok(names.clone()),
        Names::FromFrontend => names(&source.name()),
    }
}

/// Options with the annotations that the front end has said.
pub(super) fn with_said(packing: &Packing, source: &Source) -> Result<Packing> {
    let mut said = Annotations::default();
    for (name, value) in &source.metadata {
        said.take(name, &String::from_utf8_lossy(value))?;
    }
    let mut packing = packing.clone();
    packing.annotations.merge(&said);
    Ok(packing)
}

/// What every export of an image answers.
pub(super) fn response(written: &Written) -> Result<Response> {
    let mut response = Response::new();
    response.insert("containerimage.digest".into(), written.descriptor.digest.clone());
    if let Some(config) = &written.config {
        response.insert("containerimage.config.digest".into(), config.to_string());
    }
    let descriptor = serde_json::to_vec(&written.descriptor);
    let descriptor = descriptor.map_err(|error| Error::system(format!("encoding a descriptor: {error}")))?;
    response.insert("containerimage.descriptor".into(), base64(&descriptor));
    Ok(response)
}

/// All names of an image, with commas; what has none is called by its digest.
fn shown(wanted: &Image, digest: &str, names: &[ImageRef]) -> String {
    let names: Vec<String> = names.iter().map(ImageRef::canonical).collect();
    match names.as_slice() {
        [] if wanted.dangling_prefix.is_empty() => String::new(),
        [] => format!("{}@{digest}", wanted.dangling_prefix),
        names => names.join(","),
    }
}

/// Keeps the image. Blocks.
fn store(context: &Context, wanted: &Image, written: &Written, names: &[ImageRef]) -> Result<()> {
    let mut kept = names.to_vec();
    let digest = Digest::parse(&written.descriptor.digest)?;
    if wanted.name_canonical {
        kept.extend(names.iter().map(|name| name.with_digest(digest.clone())));
    }
    kept.dedup();
    let naming = |name: &ImageRef| format!("naming to {}", name.canonical());
    for name in names {
        context.client.status(Status::Started(naming(name)));
    }
    let unpacked = match wanted.unpack {
        Some(false) => Unpacked::None,
        Some(true) => Unpacked::Host,
        None => Unpacked::Present,
    };
    let image = ExportedImage { target: written.descriptor.clone(), names: kept, unpacked };
    exported(&context.builder.images, &context.bus, image, &context.lease)?;
    for name in names {
        context.client.status(Status::Completed(naming(name)));
    }
    Ok(())
}

/// Sends the image to the registry of a name.
async fn push(context: &Context, wanted: &Image, written: &Written, name: &ImageRef) -> Result<()> {
    let images = &context.builder.images;
    let credentials = context.client.credentials(&name.domain).await?;
    let registries = &images.registries;
    let repository = match wanted.insecure {
        true => registries.insecure_repository(name, credentials, Access::Push).await?,
        false => registries.repository(name, credentials, Access::Push).await?,
    };
    let target = content(&written.descriptor)?;
    let tag = match (&name.tag, wanted.push_by_digest) {
        (Some(tag), false) => tag.clone(),
        _ => target.digest.to_string(),
    };
    let contents = |all: &[Descriptor]| all.iter().map(content).collect::<Result<Vec<_>>>();
    let mut blobs = contents(&written.blobs)?;
    // Configurations last, as a push of an image sends them.
    blobs.sort_by_key(|blob| matches!(blob.media_type.as_str(), oci::CONFIG | oci::DOCKER_CONFIG));
    let documents = contents(&written.manifests)?;
    let load = Load { repository, tag, target, documents, blobs, lease: context.lease.clone() };
    let (lines, mut heard) = mpsc::channel(LINES);
    let shown = format!("pushing manifest for {}@{}", name.canonical(), written.descriptor.digest);
    context.client.status(Status::Started("pushing layers".into()));
    context.client.status(Status::Started(shown.clone()));
    let pushing = async {
        let pushed = tokio::select! {
            pushed = push_load(images, context.transfers, load, &lines) => pushed,
            () = context.cancel.cancelled() => Err(crate::cancel::cancelled()),
        };
        drop(lines);
        pushed
    };
    // How far each blob is tells nobody.
    let hearing = async { while heard.recv().await.is_some() {} };
    tokio::join!(pushing, hearing).0?;
    context.client.status(Status::Completed("pushing layers".into()));
    context.client.status(Status::Completed(shown));
    Ok(())
}

/// A blob of a descriptor.
pub(super) fn content(descriptor: &Descriptor) -> Result<Content> {
    let size = u64::try_from(descriptor.size).map_err(|_| Error::invalid("descriptor with a negative size"))?;
    Ok(Content { media_type: descriptor.media_type.clone(), digest: oci::digest(descriptor)?, size })
}
