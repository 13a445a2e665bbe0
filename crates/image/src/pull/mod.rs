//! `docker pull`: resolve → documents → layers beside each other, unpacked while they arrive → one commit.
//!
//! - A blob is fetched once however many clients want it; each client follows ([`fetches`]).
//! - A pull that fails, or whose client leaves, registers nothing: what was fetched stays as parts, which expire.
//! - Nothing is told of an image before it is committed.

mod blob;
mod documents;
mod download;
mod fetch;
mod fetches;
mod flow;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::ProgressMessage;
use model::digest::Digest;
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Result};
use registry::{Access, Credentials, Repository};
use store::Lease;

pub(super) use self::blob::small_blob;
pub(super) use self::documents::document;
pub use self::documents::kind;
use self::documents::{Plan, PullContext};
pub use self::fetch::layer_tar;
use self::fetch::{Job, Places};
pub use self::fetches::Fetches;
use self::report::Layer;
pub use self::report::{Lines, send, while_connected};
use super::catalog::{Wanted, select};
use super::event::labels;
use super::images::Images;
use super::row::{Content, ImageRow, ManifestKind, ManifestRow};
use super::transfers::Transfers;
use super::{oci, signatures, unpack};
use events::Events;

/// How often the disk is made to write what has come.
const WRITE_BACK: Duration = Duration::from_millis(400);
/// What is told of a model before it is refused (B-im-5).
const MODEL: &str =
    "WARNING: AI models are not supported by the Engine yet, did you mean to use \"docker model pull/run\" instead?";
/// A layer's fetch that failed for another client is begun again for this one, so often.
const JOINS: usize = 2;

/// What is pulled.
#[derive(Clone, Debug)]
pub struct PullArgs {
    /// With neither tag nor digest: all tags.
    pub reference: ImageRef,
    /// The platform; `None`: the host's.
    pub platform: Option<Platform>,
    /// Shown to the registry.
    pub credentials: Credentials,
}

/// Pulls an image, or all of a repository. Ends early when nobody receives the lines any more. Event: pull.
///
/// Errors: `Forbidden` for a reserved name, `NotFound` in the reference's words, `Unauthorized`, `System`.
pub async fn pull(
    images: &Arc<Images>,
    events: &Events,
    transfers: Transfers,
    args: PullArgs,
    lines: &Lines,
) -> Result<()> {
    if args.reference.familiar_name() == "scratch" {
        return Err(Error::forbidden("'scratch' is a reserved name"));
    }
    images.fetches.limit(transfers.downloads);
    let outcome = while_connected(lines, pull_all(images, events, &args, lines)).await;
    if outcome.is_err() {
        images.fetches.wait_until_released().await;
        let own = images.clone();
        images.blocking(move || Ok(own.tidy_up())).await?;
    }
    outcome
}

async fn pull_all(images: &Arc<Images>, events: &Events, args: &PullArgs, lines: &Lines) -> Result<()> {
    let open = |reference: ImageRef| async move {
        images.registries.repository(&reference, args.credentials.clone(), Access::Pull).await
    };
    let reference = match &args.reference.digest {
        // A digest says more than a tag.
        Some(digest) => args.reference.with_digest(digest.clone()),
        None => args.reference.clone(),
    };
    if reference.tag.is_some() || reference.digest.is_some() {
        let repository = open(reference).await?;
        return pull_one(images, events, (&repository, args.platform.as_ref()), lines).await;
    }
    let tags = open(reference.clone()).await?.tags().await.map_err(|fault| fault.of_pull(&reference))?;
    for tag in tags.into_iter().filter(|tag| !signatures::speaks_of_another(tag)) {
        let Ok(reference) = reference.with_tag(&tag) else {
            tracing::warn!(tag, %reference, "a tag that is none was not pulled");
            continue;
        };
        let repository = open(reference.clone()).await?;
        let pulled = pull_one(images, events, (&repository, args.platform.as_ref()), lines).await;
        pulled.map_err(|error| error.prefix(format!("error pulling {reference}")))?;
    }
    Ok(())
}

/// Pulls one tag or digest.
async fn pull_one(
    images: &Arc<Images>,
    events: &Events,
    (repository, platform): (&Arc<Repository>, Option<&Platform>),
    lines: &Lines,
) -> Result<()> {
    let reference = repository.reference();
    let lease = Arc::new(images.pins.lease());
    let context = PullContext { images, repository, lease: &lease };
    let (digest, known) = documents::resolve(&context).await?;
    images.faults.pass("pull", "resolve")?;
    let signatures = signatures::of_pull(images, repository, &digest).await?;
    images.faults.pass("pull", "signatures")?;
    let shown = reference.tag.clone().unwrap_or_else(|| reference.canonical());
    let begin = ProgressMessage::status(&shown, format!("Pulling from {}", reference.path));
    let before = images.catalog().find(&reference.canonical()).ok();
    let before = before.map(|found| found.image.target.digest.clone());
    let complete = already(images, &digest, platform);
    if complete && before.as_ref() == Some(&digest) {
        let (keep, id) = (images.clone(), digest.clone());
        images.blocking(move || keep.keep_signatures(&id, signatures)).await?;
        send(lines, begin).await?;
        pulled_again(images, reference, &digest).await;
        return done(images, events, reference, (&digest, false), lines).await;
    }
    let chosen = documents::manifest(&context, &digest, known, platform).await?;
    send(lines, begin).await?;
    if chosen.is_model() {
        send(lines, ProgressMessage::status("", MODEL)).await?;
    }
    let plan = Plan { signatures, ..documents::plan(&context, chosen, platform).await? };
    images.faults.pass("pull", "plan")?;
    if let Some(warning) = &plan.warning {
        send(lines, ProgressMessage::status("", warning.clone())).await?;
    }
    let layers = tokio::select! {
        layers = fetch_layers(images, repository, &plan, (&lease, lines), complete) => layers?,
        error = write_back(images) => return Err(error),
    };
    images.faults.pass("pull", "layers")?;
    let (keep, name, held) = (images.clone(), reference.clone(), lease.clone());
    // The commit runs to its end, whether or not the client waits for it.
    images.blocking(move || commit(&keep, &name, plan, &layers, &held)).await?;
    done(images, events, reference, (&digest, before.as_ref() != Some(&digest)), lines).await
}

/// Notes the time of a pull that found nothing to do: an image that is asked for is no garbage.
async fn pulled_again(images: &Arc<Images>, reference: &ImageRef, digest: &Digest) {
    let (own, name, digest) = (images.clone(), reference.canonical(), digest.clone());
    let note = move || {
        own.change(move |catalog, edit| match catalog.images.contains_key(&digest) {
            true => edit.put_name(&name, &digest),
            // Removed since it was looked at.
            false => Ok(()),
        })
    };
    if let Err(error) = images.blocking(note).await {
        tracing::warn!(image = reference.familiar(), %error, "the time of its pull is not noted");
    }
}

/// Whether the image is here with everything that a container of it needs.
fn already(images: &Images, digest: &Digest, platform: Option<&Platform>) -> bool {
    let (catalog, machine) = (images.catalog(), oci::machine());
    let manifest = catalog
        .images
        .get(digest)
        .and_then(|image| select(image, Wanted::For(platform.unwrap_or(&machine)), "").ok().cloned());
    manifest.is_some_and(|manifest| manifest.unpacked.is_some())
}

/// The last lines, and the event.
async fn done(
    images: &Images,
    events: &Events,
    reference: &ImageRef,
    (digest, newer): (&Digest, bool),
    lines: &Lines,
) -> Result<()> {
    let image = images.catalog().images.get(digest).cloned();
    let mut attributes: BTreeMap<String, String> = image.map(|image| labels(&image)).unwrap_or_default();
    attributes.insert("name".into(), reference.familiar_name());
    events.publish("image", "pull", &reference.familiar(), attributes);
    let status = if newer { "Downloaded newer image for" } else { "Image is up to date for" };
    send(lines, ProgressMessage::status("", format!("Digest: {digest}"))).await?;
    send(lines, ProgressMessage::status("", format!("Status: {status} {}", reference.familiar()))).await
}

/// Fetches and unpacks all layers, beside each other.
async fn fetch_layers(
    images: &Images,
    repository: &Arc<Repository>,
    plan: &Plan,
    (lease, lines): (&Arc<Lease>, &Lines),
    silent: bool,
) -> Result<Vec<Layer>> {
    let (blobs, layers, threads) = (images.blobs.clone(), images.layers.clone(), images.threads.clone());
    let places = Places { blobs, layers, threads };
    let join = |(blob, diff_id): &(Content, Digest)| {
        lease.pin(&blob.digest);
        lease.pin(diff_id);
        let job = Job { blob: blob.clone(), diff_id: Some(diff_id.clone()) };
        images.fetches.join(repository, &places, &images.pins, job)
    };
    let mut layers: Vec<Layer> = Vec::new();
    let mut own = Vec::new();
    for pair in &plan.layers {
        if layers.iter().any(|layer| layer.digest == pair.0.digest) {
            continue;
        }
        if !silent {
            let line = ProgressMessage::progress(pair.0.digest.short(), "Pulling fs layer", api::Progress::default());
            send(lines, line).await?;
        }
        let (fetch, begun) = join(pair)?;
        own.push(begun);
        layers.push(Layer::new(pair.0.digest.clone(), pair.0.size, fetch));
    }
    // There may have to be made room for what comes.
    images.look_at_disk();
    let (quiet, _unheard) = tokio::sync::mpsc::channel(1024);
    let lines = if silent { &quiet } else { lines };
    for _ in 0..JOINS * layers.len() + 1 {
        let Some((place, failure)) = report::follow(lines, &mut layers).await? else { return Ok(layers) };
        // What failed with another client's credentials or connections may do with one's own.
        let pair = plan.layers.iter().find(|(blob, _)| blob.digest == layers[place].digest).filter(|_| !own[place]);
        let Some(pair) = pair else { return Err(failure.into()) };
        let (fetch, begun) = join(pair)?;
        own[place] = begun;
        layers[place] = Layer::new(pair.0.digest.clone(), pair.0.size, fetch);
    }
    Err(Error::system("the layers could not be fetched"))
}

/// Has the disk write while layers still come: the commit then waits for the last of them only. Ends by an error.
async fn write_back(images: &Images) -> Error {
    loop {
        tokio::time::sleep(WRITE_BACK).await;
        let blobs = images.blobs.clone();
        if let Err(error) = images.blocking(move || blobs.barrier()).await {
            return error;
        }
    }
}

/// Makes the image visible. Blocks.
fn commit(images: &Images, reference: &ImageRef, plan: Plan, layers: &[Layer], lease: &Lease) -> Result<()> {
    // While the blobs are still parts, so that a kill meanwhile costs nothing but this.
    images.blobs.barrier()?;
    for layer in layers {
        layer.fetch.publish(lease)?;
    }
    images.faults.pass("pull", "blobs")?;
    let mut row = unpack::describe(images, &plan.target)?;
    // The other platforms' content may be here as well: it is pinned before it is looked for.
    row.manifests.iter().for_each(|m| m.blobs().for_each(|blob| lease.pin(&blob.digest)));
    row = unpack::describe(images, &plan.target)?;
    row.signatures = plan.signatures;
    keep_unpacked(images, &mut row, lease)?;
    unpack::unpack(images, &mut row, |manifest| manifest.content.digest == plan.manifest, lease)?;
    images.faults.pass("pull", "unpack")?;
    images.publish(row, vec![reference.canonical()])
}

/// Carries over what is known of the image's other manifests.
fn keep_unpacked(images: &Images, row: &mut ImageRow, lease: &Lease) -> Result<()> {
    let catalog = images.catalog();
    let Some(before) = catalog.images.get(&row.target.digest) else { return Ok(()) };
    row.created = before.created;
    for manifest in row.manifests.iter_mut().filter(|m| m.kind == ManifestKind::Image && m.available) {
        let known = before.manifests.iter().find(|m| m.content.digest == manifest.content.digest);
        let Some(unpacked) = known.and_then(|m| m.unpacked) else { continue };
        manifest.diff_ids.iter().for_each(|diff_id| lease.pin(diff_id));
        let here: Result<Vec<_>> = manifest.diff_ids.iter().map(|id| images.layers.layer(&id.into())).collect();
        if here?.iter().all(Option::is_some) {
            manifest.unpacked = Some(unpacked);
        }
    }
    Ok(())
}

/// An image that was fetched for a build.
///
/// It gets neither a name nor a row: it stays as long as the build's lease, or what the build keeps, names its content.
#[derive(Clone, Debug)]
pub struct Unnamed {
    /// The index or manifest, and what it lists.
    pub image: ImageRow,
    /// The manifest for the platform; its layers are unpacked.
    pub manifest: ManifestRow,
}

/// Asks the registry what a name means for a platform, and reads the documents; layers are fetched only with `lines`, which
/// hear how far each is.
///
/// Errors: as of a pull; what the signature policy refuses.
pub async fn fetch_unnamed(
    images: &Arc<Images>,
    transfers: Transfers,
    args: &PullArgs,
    lease: &Arc<Lease>,
    lines: Option<&Lines>,
) -> Result<Unnamed> {
    images.fetches.limit(transfers.downloads);
    match lines {
        None => fetch_plan(images, args, lease, None).await,
        Some(lines) => {
            let mut fetched = None;
            while_connected(lines, async {
                fetched = Some(fetch_plan(images, args, lease, Some(lines)).await?);
                Ok(())
            })
            .await?;
            fetched.ok_or_else(|| Error::cancelled("context canceled"))
        }
    }
}

async fn fetch_plan(
    images: &Arc<Images>,
    args: &PullArgs,
    lease: &Arc<Lease>,
    lines: Option<&Lines>,
) -> Result<Unnamed> {
    let reference = match &args.reference.digest {
        // A digest says more than a tag.
        Some(digest) => args.reference.with_digest(digest.clone()),
        None => args.reference.clone().with_default_tag(),
    };
    let repository = images.registries.repository(&reference, args.credentials.clone(), Access::Pull).await?;
    let context = PullContext { images, repository: &repository, lease };
    let (digest, known) = documents::resolve(&context).await?;
    let signatures = signatures::of_pull(images, &repository, &digest).await?;
    let platform = args.platform.as_ref();
    let chosen = documents::manifest(&context, &digest, known, platform).await?;
    let plan = documents::plan(&context, chosen, platform).await?;
    let layers = match lines {
        Some(lines) => fetch_layers(images, &repository, &plan, (lease, lines), false).await?,
        None => Vec::new(),
    };
    let unpacks = lines.is_some();
    let (own, lease) = (images.clone(), lease.clone());
    let describe = move || {
        if unpacks {
            own.blobs.barrier()?;
        }
        layers.iter().try_for_each(|layer| layer.fetch.publish(&lease))?;
        let mut image = unpack::describe(&own, &plan.target)?;
        image.signatures = signatures;
        if unpacks {
            unpack::unpack(&own, &mut image, |manifest| manifest.content.digest == plan.manifest, &lease)?;
        }
        let found = image.manifests.iter().find(|manifest| manifest.content.digest == plan.manifest).cloned();
        let manifest = found.ok_or_else(|| Error::system(format!("manifest {} is missing", plan.manifest)))?;
        Ok(Unnamed { image, manifest })
    };
    images.blocking(describe).await
}

/// Unpacks an image whose blobs are all here; `target` is its manifest. Blocks.
pub fn unpack_unnamed(images: &Images, target: &api::oci::Descriptor, lease: &Lease) -> Result<ManifestRow> {
    let mut image = unpack::describe(images, target)?;
    unpack::unpack(images, &mut image, |_| true, lease)?;
    let manifest = image.manifests.into_iter().find(|manifest| manifest.unpacked.is_some());
    manifest.ok_or_else(|| Error::invalid(format!("{} is no image", target.digest)))
}
