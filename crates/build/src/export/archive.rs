//! The exporters `oci` and `docker`: an image for the client, as an OCI layout in one archive or blob by blob.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use ::image::oci;
use api::oci::Descriptor;
use events::now;
use model::reference::ImageRef;
use model::time::Timestamp;
use model::{Error, Result};
use serde_json::json;
use snapshot::archive::Writer;

use super::client::{Bytes, Status};
use super::context::{Context, Response};
use super::documents::{self, Written};
use super::image::{content, named, response, with_said};
use super::options::{Archive, Variant};
use super::source::Source;
use super::stream;

/// Annotations of the descriptors in a layout's index.
const IMAGE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CREATED: &str = "org.opencontainers.image.created";
/// What the status of an archive is called.
const SENDING: &str = "sending tarball";

/// Sends a result to the client.
pub(super) async fn run(context: &Context, wanted: &Archive, source: Arc<Source>) -> Result<Response> {
    if wanted.variant == Variant::Docker && source.multiple {
        return Err(Error::invalid("docker exporter does not currently support exporting manifest lists"));
    }
    let names = named(&wanted.names, &source)?;
    let epoch = wanted.packing.epoch.unwrap_or_else(|| source.targets.iter().find_map(|target| target.epoch));
    let (own, packing, given) = (context.clone(), with_said(&wanted.packing, &source)?, names.clone());
    let work = move |_: &_| documents::write(&own, &packing, &source, &given);
    let mut written = context.builder.threads.run(work).await?;
    let created = epoch.map_or_else(now, Timestamp::from_unix_seconds).rfc3339();
    written.descriptor.annotations.entry(CREATED.into()).or_insert(created);
    let mut response = response(&written)?;
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(ImageRef::canonical).collect();
        response.insert("image.name".into(), names.join(","));
    }
    match wanted.tar {
        true => send(context, wanted.variant, (written, names), &response).await?,
        false => copy(context, &written).await?,
    }
    Ok(response)
}

/// Sends one archive.
async fn send(
    context: &Context,
    variant: Variant,
    (written, names): (Written, Vec<ImageRef>),
    response: &Response,
) -> Result<()> {
    context.client.status(Status::Started(SENDING.into()));
    let own = context.clone();
    let bytes =
        stream::begin(&context.builder, &context.cancel, move |out| layout(&own, variant, (&written, &names), out));
    context.client.file(response, bytes).await?;
    context.client.status(Status::Completed(SENDING.into()));
    Ok(())
}

/// Gives the client each blob that it does not have, each behind what it names.
async fn copy(context: &Context, written: &Written) -> Result<()> {
    for descriptor in written.blobs.iter().chain(&written.manifests).chain([&written.descriptor]) {
        context.cancel.check()?;
        context.client.blob(descriptor, blob(context, descriptor)?).await?;
    }
    Ok(())
}

/// The bytes of a blob.
fn blob(context: &Context, descriptor: &Descriptor) -> Result<Bytes> {
    let (digest, blobs) = (oci::digest(descriptor)?, context.builder.images.blobs.clone());
    Ok(stream::begin(&context.builder, &context.cancel, move |out| {
        let mut file = blobs.open_blob(&digest)?;
        std::io::copy(&mut file, out).map(drop).map_err(stream::failed)
    }))
}

/// Writes a blob to one of the client's stores, if it is not there yet.
pub async fn send_blob(context: &Context, store: &str, descriptor: &Descriptor) -> Result<()> {
    context.client.store_blob(store, descriptor, blob(context, descriptor)?).await
}

/// Writes an OCI layout; its names in order, as the reference has them. Blocks.
fn layout(
    context: &Context,
    variant: Variant,
    (written, names): (&Written, &[ImageRef]),
    out: &mut dyn Write,
) -> Result<()> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": oci::INDEX,
        "manifests": entries(&written.descriptor, names),
    });
    files.insert("index.json".into(), encoded(&index)?);
    files.insert("oci-layout".into(), encoded(&json!({"imageLayoutVersion": "1.0.0"}))?);
    if variant == Variant::Docker
        && let Some(manifest) = docker_manifest(context, written, names)?
    {
        files.insert("manifest.json".into(), encoded(&manifest)?);
    }
    let mut blobs = BTreeMap::new();
    for descriptor in written.blobs.iter().chain(&written.manifests).chain([&written.descriptor]) {
        let blob = content(descriptor)?;
        blobs.insert(path(&blob.digest), blob);
    }
    let mut tar = Writer::new(out);
    write_layout(context, &mut tar, &blobs, &files).map_err(stream::failed)?;
    tar.finish().map(drop).map_err(stream::failed)
}

fn write_layout(
    context: &Context,
    tar: &mut Writer<&mut dyn Write>,
    blobs: &BTreeMap<String, ::image::row::Content>,
    files: &BTreeMap<String, Vec<u8>>,
) -> std::io::Result<()> {
    let mut directories: Vec<&str> =
        blobs.keys().filter_map(|path| path.rsplit_once('/')).map(|(dir, _)| dir).collect();
    directories.dedup();
    tar.directory("blobs/", 0o755)?;
    let mut of = blobs.iter().peekable();
    for directory in directories {
        tar.directory(&format!("{directory}/"), 0o755)?;
        while let Some((path, blob)) = of.next_if(|(path, _)| path.starts_with(directory)) {
            let file = context.builder.images.blobs.open_blob(&blob.digest);
            tar.file(path, 0o444, blob.size, &mut file.map_err(std::io::Error::other)?)?;
        }
    }
    files.iter().try_for_each(|(name, bytes)| tar.file(name, 0o444, bytes.len() as u64, &mut bytes.as_slice()))
}

fn encoded(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::system(format!("encoding a document: {error}")))
}

fn path(digest: &model::digest::Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// An entry of the layout's index for each name; one if there is none.
fn entries(descriptor: &Descriptor, names: &[ImageRef]) -> Vec<Descriptor> {
    let named = |name: &ImageRef| {
        let mut entry = descriptor.clone();
        entry.annotations.insert(IMAGE_NAME.into(), name.canonical());
        if let Some(tag) = &name.tag {
            entry.annotations.insert(REF_NAME.into(), tag.clone());
        }
        entry
    };
    if names.is_empty() { vec![descriptor.clone()] } else { names.iter().map(named).collect() }
}

/// What older versions of `docker load` read: the manifest that runs here.
fn docker_manifest(context: &Context, written: &Written, names: &[ImageRef]) -> Result<Option<serde_json::Value>> {
    let is_index = oci::is_index(&written.descriptor.media_type);
    let of_image = |descriptor: &&Descriptor| !descriptor.annotations.contains_key(oci::REFERENCE_TYPE);
    let manifest = match is_index {
        true => written.manifests.iter().find(of_image),
        false => Some(&written.descriptor),
    };
    let Some(manifest) = manifest else { return Ok(None) };
    let bytes = context.builder.images.blobs.read_small(&oci::digest(manifest)?, oci::MANIFEST_BYTES)?;
    let manifest = oci::parse_manifest(&bytes)?;
    let layers = manifest.layers.iter().map(|layer| Ok(path(&oci::digest(layer)?))).collect::<Result<Vec<_>>>()?;
    let tags: Vec<String> = names.iter().map(ImageRef::familiar).collect();
    let tags = if tags.is_empty() { serde_json::Value::Null } else { json!(tags) };
    Ok(Some(json!([{"Config": path(&oci::digest(&manifest.config)?), "RepoTags": tags, "Layers": layers}])))
}
