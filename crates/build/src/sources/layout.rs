//! Images of OCI layouts that the client has: their blobs are fetched over the session, verified and kept for the build.

use std::sync::Arc;

use ::image::row::Content;
use ::image::{Wanted, oci};
use api::oci::Descriptor;
use model::digest::Digest;
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Context as _, Error, Result};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::image::{self, Found, attribute};
use crate::graph::Vertex;
use crate::job::{Attributes, Job};
use crate::result::Solved;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// Chunks that wait for the disk.
const AHEAD: usize = 4;

/// The layers of an image of a layout.
pub(super) async fn solve(job: &Arc<Job>, vertex: &Vertex, reference: &str, attributes: &Attributes) -> Result<Solved> {
    let (platform, store) = (image::platform(vertex), attribute(attributes, "oci.store"));
    let found = find(job, store, reference, platform.as_ref(), true).await;
    Ok(image::solved(&found.map_err(|error| error.prefix(reference))?.manifest))
}

/// Finds an image of a layout; with `unpacks` its layers are fetched and there.
///
/// Errors: `InvalidParameter` for a name without a digest, and for content that is not what its digest says.
pub(super) async fn find(
    job: &Arc<Job>,
    store: &str,
    reference: &str,
    platform: Option<&Platform>,
    unpacks: bool,
) -> Result<Found> {
    let named = ImageRef::parse_normalized(reference)?;
    let missing = || Error::invalid("invalid OCI layout reference: a digest is needed");
    let digest = named.digest.ok_or_else(missing)?;
    let layout = Layout { job, store };
    let target = layout.target(&digest).await?;
    let mut row = layout.describe(&target).await?;
    if oci::is_index(&target.media_type) {
        for listed in row.manifests.clone() {
            let fits = |wanted: &Platform| wanted.suits(&oci::platform(&listed.platform)).is_some();
            if oci::is_manifest(&listed.content.media_type) && platform.is_none_or(fits) {
                layout.fetch(&listed.content, oci::MANIFEST_BYTES).await?;
            }
        }
        row = layout.describe(&target).await?;
    }
    for manifest in &row.manifests {
        if let Some(config) = &manifest.config {
            layout.fetch(config, oci::CONFIG_BYTES).await?;
        }
    }
    row = layout.describe(&target).await?;
    let wanted = platform.map_or(Wanted::Any, Wanted::For);
    let chosen = choose(&row, wanted).ok_or_else(|| ::image::no_platform(wanted, reference))?;
    if !unpacks {
        return Ok(Found { digest: Some(digest), manifest: chosen });
    }
    for layer in &chosen.layers {
        layout.fetch(layer, layer.size).await?;
    }
    let target = chosen.content.descriptor();
    let (images, lease) = (job.builder.images.clone(), job.lease.clone());
    let manifest = job.builder.threads.run(move |_| ::image::pull::unpack_unnamed(&images, &target, &lease)).await?;
    Ok(Found { digest: Some(digest), manifest })
}

/// The manifest that suits best, whether or not its layers are here.
fn choose(row: &::image::row::ImageRow, wanted: Wanted<'_>) -> Option<::image::row::ManifestRow> {
    let mut row = row.clone();
    row.manifests.iter_mut().for_each(|manifest| manifest.available |= manifest.document.is_some());
    ::image::select(&row, wanted, "").ok().cloned()
}

struct Layout<'l> {
    job: &'l Arc<Job>,
    store: &'l str,
}

impl Layout<'_> {
    /// What a digest is: an index or a manifest.
    async fn target(&self, digest: &Digest) -> Result<Descriptor> {
        self.fetch_bounded(digest, None, oci::MANIFEST_BYTES).await?;
        let (images, wanted) = (self.job.builder.images.clone(), digest.clone());
        let read = move |_: &_| images.blobs.read_small(&wanted, oci::MANIFEST_BYTES);
        let bytes = self.job.builder.threads.run(read).await?;
        let nameless = ImageRef::parse_normalized("layout")?;
        let media_type = ::image::pull::kind("", &bytes, &nameless)?;
        Ok(Descriptor {
            media_type,
            digest: digest.to_string(),
            size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            ..Descriptor::default()
        })
    }

    async fn describe(&self, target: &Descriptor) -> Result<::image::row::ImageRow> {
        let (images, target) = (self.job.builder.images.clone(), target.clone());
        self.job.builder.threads.run(move |_| ::image::describe_blobs(&images.blobs, &target)).await
    }

    async fn fetch(&self, content: &Content, limit: u64) -> Result<()> {
        self.fetch_bounded(&content.digest, Some(content.size), limit).await
    }

    /// Fetches a blob that is not here yet.
    async fn fetch_bounded(&self, digest: &Digest, size: Option<u64>, limit: u64) -> Result<()> {
        let (images, lease) = (self.job.builder.images.clone(), self.job.lease.clone());
        lease.pin(digest);
        if images.blobs.contains(digest) {
            return Ok(());
        }
        if size.is_some_and(|size| size > limit) {
            return Err(Error::invalid(format!("{digest} is larger than {limit} bytes")));
        }
        let mut incoming = self.job.inputs.layout_blob(&format!("oci:{}", self.store), digest).await?;
        let (chunks, mut received) = mpsc::channel::<Vec<u8>>(AHEAD);
        let read = async move {
            let mut total = 0_u64;
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                let n = incoming.read_buf(&mut chunk).await.context("reading a blob of the client")?;
                total += n as u64;
                if total > limit {
                    return Err(Error::invalid(format!("{digest} is larger than {limit} bytes")));
                }
                if n == 0 || chunks.send(chunk).await.is_err() {
                    return Ok(());
                }
            }
        };
        let wanted = digest.clone();
        let write = self.job.builder.threads.run(move |_| {
            let mut ingest = images.blobs.ingest_as(wanted.algorithm())?;
            while let Some(chunk) = received.blocking_recv() {
                std::io::Write::write_all(&mut ingest, &chunk)?;
            }
            ingest.finish(Some(&wanted), size, &lease).map(drop)
        });
        let (read, written) = tokio::join!(read, write);
        read.and(written)
    }
}
