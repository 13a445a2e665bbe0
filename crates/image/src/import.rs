//! `docker import`: a root file system becomes an image of one layer (B-im-11).
//!
//! The archive is hashed into a blob and unpacked in the same pass. The blob is kept as it came (plain or compressed),
//! so that a later save or push sends those very bytes; only out of what no layer can be (bzip2, xz) it is taken first.

use std::io::{self, Read, Write};

use api::oci::Descriptor;
use content::Ingest;
use model::digest::Digest;
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Result};
use snapshot::Compression;
use store::Lease;

use super::event::{labels, publish};
use super::images::Images;
use super::oci::{self, Document, History, Rootfs};
use super::{changes, unpack};
use events::{Events, now};

/// What import takes.
#[derive(Clone, Debug, Default)]
pub struct ImportArgs {
    /// The name it gets; `None`: it stays without.
    pub reference: Option<ImageRef>,
    /// Where it runs; `None`: here.
    pub platform: Option<Platform>,
    /// The comment of its history.
    pub message: String,
    /// Dockerfile instructions applied to its configuration.
    pub changes: Vec<String>,
}

/// The name that `repo` and `tag` of a query mean; no `repo`: no name.
pub fn repository_tag(repo: &str, tag: &str) -> Result<Option<ImageRef>> {
    if repo.is_empty() {
        return Ok(None);
    }
    let reference = ImageRef::parse_normalized(repo)?;
    if reference.digest.is_some() {
        return Err(Error::invalid("cannot import digest reference"));
    }
    if tag.is_empty() { Ok(Some(reference.with_default_tag())) } else { reference.with_tag(tag).map(Some) }
}

/// Makes an image of a root file system's tar, compressed or not; answers its id. Event: import.
pub fn import(images: &Images, events: &Events, args: ImportArgs, body: impl Read + Send) -> Result<Digest> {
    let config = changes::apply(api::ImageConfig::default(), &args.changes)?;
    let lease = images.pins.lease();
    let made = make(images, &args, config, body, &lease);
    drop(lease);
    let id = made.inspect_err(|_| _ = images.tidy_up())?;
    let image = images.catalog().images.get(&id).cloned();
    let labels = image.map(|image| labels(&image)).unwrap_or_default();
    publish(events, "import", &id, id.as_str(), &labels);
    Ok(id)
}

fn make(
    images: &Images,
    args: &ImportArgs,
    config: api::ImageConfig,
    body: impl Read + Send,
    lease: &Lease,
) -> Result<Digest> {
    let (layer, diff_id) = ingest_layer(images, body, lease)?;
    let created = now().rfc3339_nano();
    let platform = args.platform.clone().unwrap_or_else(oci::host);
    let document = Document {
        created: created.clone(),
        author: String::new(),
        platform: api::oci::Platform {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            ..api::oci::Platform::default()
        },
        config,
        rootfs: Rootfs { kind: "layers".into(), diff_ids: vec![diff_id.to_string()] },
        history: vec![History { created, comment: args.message.clone(), ..History::default() }],
    };
    let config = put_json(images, oci::CONFIG, &document, lease)?;
    let manifest = oci::Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.into(),
        config,
        layers: vec![layer],
        ..oci::Manifest::default()
    };
    let target = put_json(images, oci::MANIFEST, &manifest, lease)?;
    let mut row = unpack::describe(images, &target)?;
    unpack::unpack(images, &mut row, |_| true, lease)?;
    let id = row.target.digest.clone();
    images.publish(row, args.reference.iter().map(ImageRef::canonical).collect())?;
    Ok(id)
}

/// Writes a document as a blob.
pub(super) fn put_json(
    images: &Images,
    media_type: &str,
    document: &impl serde::Serialize,
    lease: &Lease,
) -> Result<Descriptor> {
    let bytes = serde_json::to_vec(document).map_err(|e| Error::system(format!("encoding {media_type}: {e}")))?;
    let (digest, size) = images.blobs.put(&bytes, lease)?;
    let (media_type, digest, size) = (media_type.to_owned(), digest.to_string(), size as i64);
    Ok(Descriptor { media_type, digest, size, ..Descriptor::default() })
}

/// Hashes, stores and unpacks a layer in one pass.
fn ingest_layer(images: &Images, body: impl Read + Send, lease: &Lease) -> Result<(Descriptor, Digest)> {
    let mut tee = Tee { reader: snapshot::to_layer(body)?, ingest: images.blobs.ingest()?, head: Vec::new() };
    let layer = {
        let mut tar = snapshot::decompress(&mut tee)?;
        images.layers.apply_layer(None, &mut tar, lease)?
    };
    // What stands behind the compressed data belongs to the blob.
    io::copy(&mut tee, &mut io::sink())?;
    let suffix = match Compression::of(&tee.head) {
        Compression::Gzip => "+gzip",
        Compression::Zstd => "+zstd",
        _ => "",
    };
    let (digest, size) = tee.ingest.finish(None, None, lease)?;
    let media_type = format!("{}{suffix}", oci::LAYER);
    let descriptor = Descriptor { media_type, digest: digest.to_string(), size: size as i64, ..Descriptor::default() };
    Ok((descriptor, layer.diff_id))
}

/// Bytes that tell the compression.
const HEAD: usize = 8;

/// Passes on what it reads and writes it to the blob.
struct Tee<R> {
    reader: R,
    ingest: Ingest,
    head: Vec<u8>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.ingest.write_all(&buffer[..n])?;
        let wanted = HEAD.saturating_sub(self.head.len()).min(n);
        self.head.extend_from_slice(&buffer[..wanted]);
        Ok(n)
    }
}
