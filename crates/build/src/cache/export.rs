//! Writing a cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::oci::Descriptor;
use image::row::Content;
use image::{Load, oci, push_load};
use model::digest::Digest;
use model::time::Timestamp;
use model::{Context as _, Error, Result};
use registry::Access;
use tokio::sync::mpsc;

use super::document::{Annotations, CacheLayer, CacheRecord, Config, MEDIA_TYPE, TopLayer, UNCOMPRESSED};
use super::records;
use super::request::{Export, Place};
use super::select::{Selected, name};
use crate::cancel::cancelled;
use crate::export::{Context, Request, Response, Status, media_type, pack, send_blob};
use crate::job::Job;
use crate::record::Chain;
use crate::root::Roots;

/// Lines of a push that wait for nobody.
const LINES: usize = 16;
/// The answer that says what was written: a descriptor.
const MANIFEST: &str = "cache.manifest";

/// A cache among the blobs.
struct Written {
    manifest: Descriptor,
    /// Layers, then the description.
    blobs: Vec<Descriptor>,
}

/// Writes results of steps to where a client wants them; what the client is answered with.
///
/// Errors: what the disk, the registry or the client says; none where failures are to be ignored.
pub async fn export(context: &Context, wanted: &Export, selected: Vec<Selected>) -> Result<Response> {
    match written(context, wanted, selected).await {
        Err(error) if wanted.ignore_error && !context.cancel.is_cancelled() => {
            tracing::warn!(%error, "a build cache is not exported");
            Ok(Response::new())
        }
        outcome => outcome,
    }
}

async fn written(context: &Context, wanted: &Export, selected: Vec<Selected>) -> Result<Response> {
    let (own, options) = (context.clone(), wanted.clone());
    const PREPARING: &str = "preparing build cache for export";
    let tell = |status| context.client.status(status);
    tell(Status::Started(PREPARING.into()));
    let written = context.builder.threads.run(move |_| write(&own, &options, &selected)).await?;
    tell(Status::Completed(PREPARING.into()));
    let Some(written) = written else { return Ok(Response::new()) };
    match &wanted.place {
        // It is in the image.
        Place::Inline => return Ok(Response::new()),
        Place::Registry { .. } => push(context, wanted, &written).await?,
        Place::Local(store) => {
            for descriptor in written.blobs.iter().chain([&written.manifest]) {
                context.cancel.check()?;
                let what = match descriptor.media_type.as_str() {
                    MEDIA_TYPE => "config",
                    oci::MANIFEST | oci::INDEX | oci::DOCKER_LIST => "cache manifest",
                    _ => "layer",
                };
                let shown = format!("writing {what} {}", descriptor.digest);
                tell(Status::Started(shown.clone()));
                send_blob(context, &format!("local:{store}"), descriptor).await?;
                tell(Status::Completed(shown));
            }
        }
    }
    let descriptor = serde_json::to_string(&written.manifest).map_err(|error| unencoded(&error))?;
    Ok([(MANIFEST.to_owned(), descriptor)].into())
}

fn unencoded(error: &serde_json::Error) -> Error {
    Error::system(format!("encoding the description of a cache: {error}"))
}

/// Packs the layers and writes the documents; `None`: there is nothing to write. Blocks.
fn write(context: &Context, wanted: &Export, selected: &[Selected]) -> Result<Option<Written>> {
    let mut list = List::default();
    for result in selected {
        for (output, chain) in &result.outputs {
            let Some(top) = list.chain(context, wanted, (chain, result.created))? else { continue };
            let top = TopLayer { layer: top, created_at: result.created.rfc3339_nano() };
            list.config.records.push(CacheRecord {
                results: vec![top],
                digest: name(&result.key, *output).to_string(),
                ..CacheRecord::default()
            });
        }
    }
    if list.config.records.is_empty() {
        return Ok(None);
    }
    let mut found = std::mem::take(&mut list.config.records);
    records::write(&context.builder.roots, selected, &mut found, &mut |step, chain| {
        list.chain(context, wanted, (chain, step.created))
    })?;
    list.config.records = found;
    let put = |media_type: &str, bytes: Vec<u8>| {
        let (digest, size) = context.builder.images.blobs.put(&bytes, &context.lease)?;
        let (media_type, digest, size) = (media_type.to_owned(), digest.to_string(), size as i64);
        Ok::<_, Error>(Descriptor { media_type, digest, size, ..Descriptor::default() })
    };
    let config = put(MEDIA_TYPE, serde_json::to_vec(&list.config).map_err(|error| unencoded(&error))?)?;
    let manifest = match wanted.image_manifest {
        true => {
            let manifest = oci::Manifest {
                schema_version: 2,
                media_type: oci::MANIFEST.into(),
                config: config.clone(),
                layers: list.descriptors.clone(),
                ..oci::Manifest::default()
            };
            put(oci::MANIFEST, serde_json::to_vec(&manifest).map_err(|error| unencoded(&error))?)?
        }
        false => {
            let media_type = if wanted.oci_types { oci::INDEX } else { oci::DOCKER_LIST };
            let index = oci::Index {
                schema_version: 2,
                media_type: media_type.into(),
                manifests: list.descriptors.iter().cloned().chain([config.clone()]).collect(),
                annotations: BTreeMap::new(),
            };
            put(media_type, serde_json::to_vec(&index).map_err(|error| unencoded(&error))?)?
        }
    };
    list.descriptors.push(config);
    Ok(Some(Written { manifest, blobs: list.descriptors }))
}

/// Layers that are listed so far.
#[derive(Default)]
struct List {
    config: Config,
    descriptors: Vec<Descriptor>,
    /// Places by the blob and the place below.
    known: BTreeMap<(Digest, i64), usize>,
}

impl List {
    /// Lists the layers of a chain; the place of the topmost, if there is any.
    fn chain(
        &mut self,
        context: &Context,
        wanted: &Export,
        (chain, created): (&Chain, Timestamp),
    ) -> Result<Option<usize>> {
        let request = Request { compression: wanted.compression, ..Request::default() };
        let mut below = -1;
        for layer in pack(&context.builder, chain, &request, (&context.lease, &context.cancel))? {
            let key = (layer.blob.digest.clone(), below);
            let at = match self.known.get(&key) {
                Some(at) => *at,
                None => {
                    let own = layer.blob.descriptor();
                    let own = Descriptor { media_type: media_type(&own.media_type, wanted.oci_types, false), ..own };
                    self.config.layers.push(CacheLayer {
                        blob: own.digest.clone(),
                        parent: below,
                        annotations: Some(Annotations {
                            media_type: own.media_type.clone(),
                            diff_id: layer.diff_id.to_string(),
                            size: own.size,
                            created_at: created.rfc3339_nano(),
                        }),
                    });
                    if !self.descriptors.iter().any(|known| known.digest == own.digest) {
                        let annotations = [(UNCOMPRESSED.to_owned(), layer.diff_id.to_string())].into();
                        self.descriptors.push(Descriptor { annotations, ..own });
                    }
                    let at = self.config.layers.len() - 1;
                    self.known.insert(key, at);
                    at
                }
            };
            below = i64::try_from(at).unwrap_or(i64::MAX);
        }
        Ok(usize::try_from(below).ok())
    }
}

/// The description that goes into an image's configuration: records whose layers are the lowest of the image. `None`: there is none.
///
/// Errors: what the disk says.
pub async fn inline(job: &Arc<Job>, chain: &Chain, selected: Vec<Selected>) -> Result<Option<Vec<u8>>> {
    let (roots, chain) = (job.builder.roots.clone(), chain.clone());
    job.builder.threads.run(move |_| write_inline(&roots, &chain, &selected)).await
}

fn write_inline(roots: &Roots, chain: &Chain, selected: &[Selected]) -> Result<Option<Vec<u8>>> {
    let top = |own: &Chain| (!own.is_empty() && chain.starts_with(own)).then(|| own.len() - 1);
    let mut found = Vec::new();
    for result in selected {
        for (output, own) in &result.outputs {
            let Some(layer) = top(own) else { continue };
            let results = vec![TopLayer { layer, created_at: result.created.rfc3339_nano() }];
            let digest = name(&result.key, *output).to_string();
            found.push(CacheRecord { results, digest, ..CacheRecord::default() });
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    records::write(roots, selected, &mut found, &mut |_, own| Ok(top(own)))?;
    serde_json::to_vec(&found).map(Some).map_err(|error| unencoded(&error))
}

/// Sends the cache to a registry.
async fn push(context: &Context, wanted: &Export, written: &Written) -> Result<()> {
    let Place::Registry { reference, insecure } = &wanted.place else { return Ok(()) };
    let images = &context.builder.images;
    let credentials = context.client.credentials(&reference.domain).await?;
    let repository = match insecure {
        true => images.registries.insecure_repository(reference, credentials, Access::Push).await?,
        false => images.registries.repository(reference, credentials, Access::Push).await?,
    };
    let content = |descriptor: &Descriptor| {
        let size = u64::try_from(descriptor.size).unwrap_or_default();
        Ok(Content { media_type: descriptor.media_type.clone(), digest: oci::digest(descriptor)?, size })
    };
    let load = Load {
        repository,
        tag: reference.tag.clone().unwrap_or_default(),
        target: content(&written.manifest)?,
        documents: Vec::new(),
        blobs: written.blobs.iter().map(content).collect::<Result<_>>()?,
        lease: Arc::clone(&context.lease),
    };
    let shown = format!("writing cache manifest {}", written.manifest.digest);
    context.client.status(Status::Started(shown.clone()));
    let (lines, mut heard) = mpsc::channel(LINES);
    let pushing = async {
        let pushed = tokio::select! {
            pushed = push_load(images, context.transfers, load, &lines) => pushed,
            () = context.cancel.cancelled() => Err(cancelled()),
        };
        drop(lines);
        pushed
    };
    let hearing = async { while heard.recv().await.is_some() {} };
    tokio::join!(pushing, hearing)
        .0
        .with_context(|| format!("error writing layer blob of {}", reference.canonical()))?;
    context.client.status(Status::Completed(shown));
    Ok(())
}
