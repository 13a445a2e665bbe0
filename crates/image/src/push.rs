//! `docker push`: blobs beside each other, each only if the registry lacks it, then manifests, the name last (B-im-16).
//!
//! Bytes go out as they came in, so digests survive. An index whose content is not all here is not pushed: its one
//! manifest that is here goes instead, and the client is told.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{Progress, ProgressMessage};
use bytes::Bytes;
use model::digest::Digest;
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Result};
use registry::{Access, Begun, Credentials, Outcome, Pauses, Reason, Repository, Retry};
use store::Lease;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::catalog::no_platform;
use super::catalog::{Catalog, Wanted, parsed, select};
use super::event::labels;
use super::images::Images;
use super::oci;
use super::pull::{Lines, send, while_connected};
use super::row::{Content, ImageRow, ManifestKind, ManifestRow};
use super::transfers::Transfers;
use events::Events;

/// Bytes read from a blob at once, and chunks that wait to be sent.
const CHUNK: usize = 128 << 10;
const QUEUE: usize = 4;
/// Time between two lines of one upload.
const TICK: Duration = Duration::from_millis(100);
/// Repositories that a blob is tried to be mounted from.
const MOUNTS: usize = 2;

/// What is pushed.
#[derive(Clone, Debug)]
pub struct PushArgs {
    /// Without a tag: all tags of the repository.
    pub reference: ImageRef,
    /// Only the manifest for this platform.
    pub platform: Option<Platform>,
    /// Shown to the registry.
    pub credentials: Credentials,
}

/// Pushes an image, or all of a repository. Ends early when nobody receives the lines any more. Event: push.
///
/// Errors: `NotFound` when there is no such tag here, else what the registry says.
pub async fn push(
    images: &Arc<Images>,
    events: &Events,
    transfers: Transfers,
    args: PushArgs,
    lines: &Lines,
) -> Result<()> {
    while_connected(lines, push_all(images, events, transfers, &args, lines)).await
}

async fn push_all(
    images: &Arc<Images>,
    events: &Events,
    transfers: Transfers,
    args: &PushArgs,
    lines: &Lines,
) -> Result<()> {
    let reference = &args.reference;
    send(lines, ProgressMessage::status("", format!("The push refers to repository [{}]", reference.name()))).await?;
    let references = match reference.tag.is_some() || reference.digest.is_some() {
        true => vec![reference.clone()],
        false => tags_of(&images.catalog(), reference),
    };
    if references.is_empty() {
        let name = reference.familiar_name();
        return Err(Error::system(format!("An image does not exist locally with the tag: {name}")));
    }
    for reference in references {
        let repository = images.registries.repository(&reference, args.credentials.clone(), Access::Push).await?;
        let (image, parcel) = push_one(images, transfers, (&repository, args.platform.as_ref()), lines).await?;
        done(events, &reference, &image, &parcel, lines).await?;
    }
    Ok(())
}

fn tags_of(catalog: &Catalog, repository: &ImageRef) -> Vec<ImageRef> {
    let names = catalog.names.keys().filter_map(|name| parsed(name));
    names.filter(|name| name.same_name(repository) && name.tag.is_some() && name.digest.is_none()).collect()
}

/// What goes out for one name.
struct Parcel {
    /// The index or manifest that the name will mean.
    target: Content,
    /// The manifests of an index, to be there before it.
    children: Vec<Content>,
    /// Layers, top first, then configurations.
    blobs: Vec<Content>,
    /// The index that was not complete.
    instead_of: Option<Content>,
}

async fn push_one(
    images: &Arc<Images>,
    transfers: Transfers,
    (repository, platform): (&Arc<Repository>, Option<&Platform>),
    lines: &Lines,
) -> Result<(Arc<ImageRow>, Parcel)> {
    let reference = repository.reference().clone();
    let catalog = images.catalog();
    let image = find(&catalog, &reference)?;
    let lease = Arc::new(images.pins.lease());
    let parcel = pack(&image, platform, &reference)?;
    for blob in std::iter::once(&parcel.target).chain(&parcel.children).chain(&parcel.blobs) {
        lease.pin(&blob.digest);
    }
    send_blobs(images, transfers, (repository, &parcel), (&lease, lines)).await?;
    for child in &parcel.children {
        put(images, repository, child.digest.as_str(), child).await?;
    }
    let tag = reference.tag.clone().unwrap_or_else(|| parcel.target.digest.to_string());
    put(images, repository, &tag, &parcel.target).await?;
    Ok((image, parcel))
}

/// Content that goes to a registry, whether an image here has it or not.
pub struct Load {
    /// Where it goes.
    pub repository: Arc<Repository>,
    /// The tag that it gets there; a digest: none.
    pub tag: String,
    /// The index or manifest that the name will mean.
    pub target: Content,
    /// Documents that have to be there before it, each behind what it needs.
    pub documents: Vec<Content>,
    /// Layers and configurations.
    pub blobs: Vec<Content>,
    /// Keeps all of it here meanwhile.
    pub lease: Arc<Lease>,
}

/// Pushes content. Errors: what the registry says.
pub async fn push_load(images: &Arc<Images>, transfers: Transfers, load: Load, lines: &Lines) -> Result<()> {
    let mut blobs: Vec<Content> = Vec::new();
    for blob in load.blobs {
        if !blobs.iter().any(|known| known.digest == blob.digest) {
            blobs.push(blob);
        }
    }
    let repository = &load.repository;
    let parcel = Parcel { target: load.target, children: load.documents, blobs, instead_of: None };
    send_blobs(images, transfers, (repository, &parcel), (&load.lease, lines)).await?;
    for child in &parcel.children {
        put(images, repository, child.digest.as_str(), child).await?;
    }
    put(images, repository, &load.tag, &parcel.target).await
}

fn find(catalog: &Catalog, reference: &ImageRef) -> Result<Arc<ImageRow>> {
    let missing = || Error::not_found(format!("tag does not exist: {}", reference.familiar()));
    let name = catalog.names.get(&reference.canonical()).ok_or_else(missing)?;
    catalog.images.get(&name.image).cloned().ok_or_else(missing)
}

/// Chooses what goes out.
fn pack(image: &ImageRow, platform: Option<&Platform>, reference: &ImageRef) -> Result<Parcel> {
    let is_index = oci::is_index(&image.target.media_type);
    let complete = image.manifests.iter().all(|m| m.available);
    if is_index && complete && platform.is_none() {
        let children = image.manifests.iter().map(|m| m.content.clone()).collect();
        let blobs = blobs(image.manifests.iter());
        return Ok(Parcel { target: image.target.clone(), children, blobs, instead_of: None });
    }
    let chosen = choose(image, platform, &reference.familiar())?;
    let instead_of = Some(image.target.clone()).filter(|_| is_index && platform.is_none());
    Ok(Parcel { target: chosen.content.clone(), children: Vec::new(), blobs: blobs([chosen]), instead_of })
}

/// The one manifest that goes out: the only one that fits, or, of an index that is not whole, the host's.
fn choose<'i>(image: &'i ImageRow, platform: Option<&Platform>, familiar: &str) -> Result<&'i ManifestRow> {
    let wanted = Wanted::exactly(platform);
    let fits =
        |m: &&ManifestRow| m.kind == ManifestKind::Image && m.available && wanted.fits(&oci::platform(&m.platform));
    let fitting: Vec<_> = image.manifests.iter().filter(fits).collect();
    match (fitting.as_slice(), platform) {
        ([], _) => Err(no_platform(wanted, familiar)),
        ([only], _) => Ok(only),
        (_, Some(platform)) => Err(Error::conflict(format!("multiple manifests found for platform {platform}"))),
        (_, None) => select(image, Wanted::For(&oci::machine()), familiar)
            .map_err(|_| Error::conflict("multiple matching manifests found but no specific platform requested")),
    }
}

/// Each blob once.
fn blobs<'m>(manifests: impl IntoIterator<Item = &'m ManifestRow>) -> Vec<Content> {
    let mut found: Vec<Content> = Vec::new();
    let mut configs = Vec::new();
    for manifest in manifests {
        for layer in manifest.layers.iter().rev() {
            if !found.iter().any(|known| known.digest == layer.digest) {
                found.push(layer.clone());
            }
        }
        configs.extend(manifest.config.clone());
    }
    configs.retain(|config| !found.iter().any(|known| known.digest == config.digest));
    found.extend(configs);
    found
}

/// Whether clients are told of a blob: configurations are as good as part of the manifest.
fn is_shown(blob: &Content) -> bool {
    !matches!(blob.media_type.as_str(), oci::CONFIG | oci::DOCKER_CONFIG)
}

fn line(blob: &Content, text: &str) -> ProgressMessage {
    ProgressMessage::progress(blob.digest.short(), text, Progress::default())
}

async fn send_blobs(
    images: &Arc<Images>,
    transfers: Transfers,
    (repository, parcel): (&Arc<Repository>, &Parcel),
    (lease, lines): (&Arc<Lease>, &Lines),
) -> Result<()> {
    let uploads = match transfers.uploads {
        0 => Semaphore::MAX_PERMITS,
        uploads => uploads,
    };
    let turns = Arc::new(Semaphore::new(uploads));
    let mut sending = JoinSet::new();
    for (n, blob) in parcel.blobs.iter().enumerate() {
        if is_shown(blob) {
            send(lines, line(blob, "Preparing")).await?;
            if n >= uploads {
                send(lines, line(blob, "Waiting")).await?;
            }
        }
        let parcel = Sending {
            images: images.clone(),
            repository: repository.clone(),
            blob: blob.clone(),
            lines: lines.clone(),
            _lease: lease.clone(),
        };
        let turns = turns.clone();
        sending.spawn(async move {
            let _turn = turns.acquire_owned().await.map_err(|_| Error::cancelled("shutting down"))?;
            parcel.send().await
        });
    }
    // Dropping the set at the first failure ends the others.
    while let Some(ended) = sending.join_next().await {
        ended.map_err(|failed| Error::system("internal error: an upload failed").with_source(failed))??;
    }
    Ok(())
}

/// One blob on its way.
struct Sending {
    images: Arc<Images>,
    repository: Arc<Repository>,
    blob: Content,
    lines: Lines,
    _lease: Arc<Lease>,
}

impl Sending {
    async fn report(&self, text: &str) -> Result<()> {
        if is_shown(&self.blob) { send(&self.lines, line(&self.blob, text)).await } else { Ok(()) }
    }

    async fn send(&self) -> Result<()> {
        if self.repository.has_blob(&self.blob.digest).await? {
            return self.report(if is_layer(&self.blob) { "Layer already exists" } else { "Already exists" }).await;
        }
        for from in mount_sources(&self.images.catalog(), self.repository.reference(), &self.blob.digest) {
            // A repository that cannot be mounted from is no reason to fail.
            let begun = self.repository.begin_upload(&self.blob.digest, Some(&from)).await;
            if let Ok((Begun::Mounted, _)) = begun {
                return self.report(&format!("Mounted from {from}")).await;
            }
        }
        let sent = Arc::new(AtomicU64::new(0));
        let uploading = self.upload(&sent);
        tokio::pin!(uploading);
        let mut shown = None;
        loop {
            tokio::select! {
                outcome = &mut uploading => {
                    outcome?;
                    return self.report("Pushed").await;
                }
                () = sleep(TICK) => {
                    let current = sent.load(Ordering::Relaxed);
                    if is_shown(&self.blob) && shown.replace(current) != Some(current) {
                        let progress =
                            Progress { current: current as i64, total: self.blob.size as i64, ..Progress::default() };
                        send(&self.lines, ProgressMessage::progress(self.blob.digest.short(), "Pushing", progress)).await?;
                    }
                }
            }
        }
    }

    async fn upload(&self, sent: &Arc<AtomicU64>) -> Result<()> {
        let mut pauses = Pauses::new(self.repository.settings());
        let mut chunked = false;
        loop {
            let Err(fault) = self.attempt(sent, chunked).await else { return Ok(()) };
            let refused = matches!(fault.reason, Reason::Unauthorized | Reason::Denied);
            match pauses.next(&fault) {
                Some(pause) => {
                    tracing::info!(error = %fault.error, ?pause, "an upload failed; trying again");
                    sleep(pause).await;
                }
                // A registry, or a proxy before it, that takes no large body.
                None if !chunked && !refused && fault.retry == Retry::Never => chunked = true,
                None => return Err(fault.error),
            }
        }
    }

    async fn attempt(&self, sent: &Arc<AtomicU64>, chunked: bool) -> Outcome<()> {
        let (digest, size) = (&self.blob.digest, self.blob.size);
        let (_, upload) = self.repository.begin_upload(digest, None).await?;
        let upload = upload.ok_or_else(|| Error::system("the registry does not say where to upload to"))?;
        let source = |from, length| {
            sent.store(from, Ordering::Relaxed);
            let (images, digest, sent) = (self.images.clone(), digest.clone(), sent.clone());
            stream(Pieces { images, digest, from, length, sent })
        };
        match chunked {
            false => upload.whole(digest, size, &source).await,
            true => upload.chunked(digest, size, &source).await,
        }
    }
}

fn is_layer(blob: &Content) -> bool {
    [oci::LAYER, oci::DOCKER_LAYER, oci::FOREIGN_LAYER, oci::DOCKER_FOREIGN_LAYER]
        .iter()
        .any(|media_type| blob.media_type.starts_with(media_type))
}

/// Reads a part of a blob as fast as it is sent; between two pieces it holds no thread.
fn stream(pieces: Pieces) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        if let Err(error) = pieces.send(&sender).await {
            drop(sender.send(Err(io::Error::other(error))).await);
        }
    });
    receiver
}

/// A part of a blob that is sent.
struct Pieces {
    images: Arc<Images>,
    digest: Digest,
    /// Its first byte, and how many there are.
    from: u64,
    length: u64,
    /// Counts the bytes that were sent.
    sent: Arc<AtomicU64>,
}

impl Pieces {
    async fn send(self, to: &mpsc::Sender<io::Result<Bytes>>) -> Result<()> {
        let Pieces { images, digest, from, length, sent } = self;
        let blobs = images.blobs.clone();
        let open = move || {
            let mut file = blobs.open_blob(&digest)?;
            file.seek(io::SeekFrom::Start(from))?;
            Ok(file.take(length))
        };
        let mut rest = images.blocking(open).await?;
        loop {
            let read = move || {
                let mut piece = vec![0; CHUNK];
                let n = rest.read(&mut piece)?;
                piece.truncate(n);
                Ok((piece, rest))
            };
            let (piece, left) = images.blocking(read).await?;
            let n = piece.len();
            if n == 0 || to.send(Ok(piece.into())).await.is_err() {
                return Ok(());
            }
            sent.fetch_add(n as u64, Ordering::Relaxed);
            rest = left;
        }
    }
}

/// Repositories of the same registry that have images with this blob, as far as is known here.
fn mount_sources(catalog: &Catalog, target: &ImageRef, blob: &Digest) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (name, row) in &catalog.names {
        let Some(name) = parsed(name) else { continue };
        if name.domain != target.domain || name.path == target.path || found.contains(&name.path) {
            continue;
        }
        let image = catalog.images.get(&row.image);
        if image.is_some_and(|image| image.manifests.iter().any(|m| m.blobs().any(|b| b.digest == *blob))) {
            found.push(name.path);
        }
        if found.len() == MOUNTS {
            break;
        }
    }
    found
}

/// Puts a manifest or index.
async fn put(images: &Arc<Images>, repository: &Repository, tag: &str, content: &Content) -> Result<()> {
    let (keep, digest) = (images.clone(), content.digest.clone());
    let bytes = images.blocking(move || keep.blobs.read_small(&digest, oci::MANIFEST_BYTES)).await?;
    let bytes = bytes.into();
    let given = repository.put_manifest(tag, &content.media_type, &bytes).await?;
    match given {
        Some(given) if !given.is_of(&bytes) => {
            Err(Error::system(format!("the registry changed the manifest: {given} instead of {}", content.digest)))
        }
        // Under a tag the registry names it by an algorithm of its own choice: it shall be known by its digest here, too.
        Some(given) if given != content.digest && tag != content.digest.as_str() => {
            repository.put_manifest(content.digest.as_str(), &content.media_type, &bytes).await.map(drop)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The last lines, and the event.
async fn done(events: &Events, reference: &ImageRef, image: &ImageRow, parcel: &Parcel, lines: &Lines) -> Result<()> {
    let mut attributes: BTreeMap<String, String> = labels(image);
    attributes.insert("name".into(), reference.familiar_name());
    events.publish("image", "push", &reference.familiar(), attributes);
    if let Some(index) = &parcel.instead_of {
        let aux = serde_json::json!({
            "manifestPushedInsteadOfIndex": true,
            "originalIndex": index.descriptor(),
            "selectedManifest": parcel.target.descriptor(),
        });
        send(lines, ProgressMessage::aux(aux)).await?;
    }
    let Some(tag) = &reference.tag else { return Ok(()) };
    let Content { digest, size, .. } = &parcel.target;
    send(lines, ProgressMessage::status("", format!("{tag}: digest: {digest} size: {size}"))).await?;
    let aux = serde_json::json!({ "Tag": tag, "Digest": digest.as_str(), "Size": size });
    send(lines, ProgressMessage::aux(aux)).await
}
