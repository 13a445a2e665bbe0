//! Reading a cache: its description first, layers when a step is found in it.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::Arc;

use api::oci::Descriptor;
use base64::Engine as _;
use bollard_buildkit_proto::pb::op::Op;
use image::oci;
use image::row::Content;
use model::digest::Digest;
use model::reference::ImageRef;
use model::{Context as _, Error, Result};
use registry::{Access, Repository};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::document::{BYTES, CacheLayer, Config, MEDIA_TYPE, UNCOMPRESSED};
use super::records::Followed;
use super::request::{Import, Place};
use super::select::name;
use crate::graph::Vertex;
use crate::job::{Answer, Imports, Job};
use crate::record::{Chain, Layer};
use crate::result::Solved;

/// Pieces of a blob that wait to be written, and bytes read at once.
const AHEAD: usize = 4;
const CHUNK: usize = 128 << 10;
/// Manifests of an index that are looked at for descriptions within images.
const MANIFESTS: usize = 64;
/// Bytes of one layer, compressed.
const LAYER: u64 = 64 << 30;

/// A layer that can be fetched.
#[derive(Clone, Debug)]
struct Piece {
    blob: Content,
    diff_id: Digest,
}

/// A blob that is fetched.
#[derive(Clone, Copy)]
struct Wanted<'w> {
    digest: &'w Digest,
    size: Option<u64>,
    /// Bytes at most.
    limit: u64,
}

/// Where blobs come from.
enum Source {
    Registry(Arc<Repository>),
    /// A store of the client's.
    Client(String),
}

/// A cache that was read.
struct Cache {
    source: Source,
    /// Layers of results, bottom first, by the names of records.
    results: HashMap<Digest, Vec<Piece>>,
    /// Descriptions with the layers of each record's result; an image of several platforms has several.
    described: Vec<Described>,
}

/// One description.
struct Described {
    /// Which records are those of the build's steps.
    followed: Arc<Followed>,
    /// By the places of records.
    results: HashMap<usize, Vec<Piece>>,
}

/// Reads a cache for a build: steps that it has are not run.
///
/// Errors: there is none, or its documents are none.
pub async fn import(job: &Arc<Job>, wanted: &Import) -> Result<()> {
    let context = || format!("failed to configure {}", wanted.name());
    let (source, manifest) = find(job, wanted).await.with_context(context)?;
    let mut cache = Cache { source, results: HashMap::new(), described: Vec::new() };
    cache.read(job, &manifest).await.with_context(context)?;
    job.use_cache(Arc::new(cache));
    Ok(())
}

async fn find(job: &Arc<Job>, wanted: &Import) -> Result<(Source, Vec<u8>)> {
    match (&wanted.place, &wanted.digest) {
        (Place::Registry { reference, insecure }, _) => {
            let credentials = job.inputs.credentials(&reference.domain).await?;
            let registries = &job.builder.images.registries;
            let repository = match insecure {
                true => registries.insecure_repository(reference, credentials, Access::Pull).await?,
                false => registries.repository(reference, credentials, Access::Pull).await?,
            };
            let document = match (&reference.digest, &reference.tag) {
                (Some(digest), _) => verified(digest, repository.manifest_by_digest(digest).await?.bytes.to_vec())?,
                (None, tag) => repository.manifest(tag.as_deref().unwrap_or("latest")).await?.bytes.to_vec(),
            };
            Ok((Source::Registry(repository), document))
        }
        (Place::Local(store), Some(digest)) => {
            let source = Source::Client(format!("local:{store}"));
            let bytes = source.small(job, (digest, None), oci::MANIFEST_BYTES).await?;
            Ok((source, bytes))
        }
        _ => Err(Error::invalid("a cache that nobody can read")),
    }
}

fn verified(digest: &Digest, bytes: Vec<u8>) -> Result<Vec<u8>> {
    match digest.is_of(&bytes) {
        true => Ok(bytes),
        false => Err(Error::invalid(format!("unexpected content of {digest}"))),
    }
}

/// The configuration of an image with a description in it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Carrier {
    rootfs: oci::Rootfs,
    #[serde(rename = "moby.buildkit.cache.v0")]
    cache: String,
}

impl Cache {
    async fn read(&mut self, job: &Arc<Job>, bytes: &[u8]) -> Result<()> {
        let nameless = ImageRef::parse_normalized("cache")?;
        let kind = image::pull::kind("", bytes, &nameless)?;
        if oci::is_index(&kind) {
            let index = oci::parse_index(bytes)?;
            if let Some(config) = index.manifests.iter().find(|entry| entry.media_type == MEDIA_TYPE) {
                return self.described(job, config, &index.manifests).await;
            }
            for entry in index.manifests.iter().filter(|entry| oci::is_manifest(&entry.media_type)).take(MANIFESTS) {
                let digest = oci::digest(entry)?;
                let bytes = match &self.source {
                    Source::Registry(repository) => {
                        verified(&digest, repository.manifest_by_digest(&digest).await?.bytes.to_vec())?
                    }
                    source => source.small(job, (&digest, None), oci::MANIFEST_BYTES).await?,
                };
                self.carried(job, &oci::parse_manifest(&bytes)?).await?;
            }
            return Ok(());
        }
        // A cache may have more layers than an image.
        let manifest: oci::Manifest = oci::parse(bytes, "manifest")?;
        match manifest.config.media_type == MEDIA_TYPE {
            true => self.described(job, &manifest.config, &manifest.layers).await,
            false => self.carried(job, &manifest).await,
        }
    }

    /// Reads a description that is a blob of its own.
    async fn described(&mut self, job: &Arc<Job>, config: &Descriptor, layers: &[Descriptor]) -> Result<()> {
        let bytes = self.source.small(job, (&oci::digest(config)?, Some(content(config)?.size)), BYTES).await?;
        let config = Config::read(&bytes)?;
        let mut known = HashMap::new();
        for descriptor in layers.iter().filter(|descriptor| descriptor.media_type != MEDIA_TYPE) {
            let said = descriptor.annotations.get(UNCOMPRESSED).cloned();
            known.insert(descriptor.digest.clone(), (content(descriptor)?, said));
        }
        self.add(config, &|layer: &CacheLayer| {
            let (blob, said) = known.get(&layer.blob)?.clone();
            let own = layer.annotations.as_ref().map(|annotations| annotations.diff_id.clone());
            let diff_id = own.filter(|diff_id| !diff_id.is_empty()).or(said)?;
            Some(Piece { blob, diff_id: Digest::parse(&diff_id).ok()? })
        });
        Ok(())
    }

    /// Reads a description in the configuration of an image, if there is one.
    async fn carried(&mut self, job: &Arc<Job>, manifest: &oci::Manifest) -> Result<()> {
        if !matches!(manifest.config.media_type.as_str(), oci::CONFIG | oci::DOCKER_CONFIG) {
            return Ok(());
        }
        let config = content(&manifest.config)?;
        let bytes = self.source.small(job, (&config.digest, Some(config.size)), oci::CONFIG_BYTES).await?;
        let carrier: Carrier = oci::parse(&bytes, "image configuration")?;
        if carrier.cache.is_empty() || carrier.rootfs.diff_ids.len() != manifest.layers.len() {
            return Ok(());
        }
        let invalid = |why: String| Error::invalid(format!("invalid description of a cache: {why}"));
        let records = base64::engine::general_purpose::STANDARD.decode(&carrier.cache);
        let records = records.map_err(|error| invalid(error.to_string()))?;
        let below = |at: usize| i64::try_from(at).map_or(-1, |at| at - 1);
        let layers = manifest.layers.iter().enumerate();
        let config = Config {
            layers: layers
                .map(|(at, layer)| CacheLayer { blob: layer.digest.clone(), parent: below(at), annotations: None })
                .collect(),
            records: serde_json::from_slice(&records).map_err(|error| invalid(error.to_string()))?,
        };
        config.check()?;
        let mut pieces = HashMap::new();
        for (descriptor, diff_id) in manifest.layers.iter().zip(&carrier.rootfs.diff_ids) {
            let piece = Piece { blob: content(descriptor)?, diff_id: Digest::parse(diff_id)? };
            pieces.insert(descriptor.digest.clone(), piece);
        }
        self.add(config, &|layer: &CacheLayer| pieces.get(&layer.blob).cloned());
        Ok(())
    }

    /// Takes the records whose layers are all known.
    fn add(&mut self, config: Config, piece: &dyn Fn(&CacheLayer) -> Option<Piece>) {
        let mut results = HashMap::new();
        for (at, record) in config.records.iter().enumerate() {
            let Ok(digest) = Digest::parse(&record.digest) else { continue };
            for places in config.chains(record) {
                let pieces: Option<Vec<Piece>> = places.iter().map(|at| piece(config.layers.get(*at)?)).collect();
                if let Some(pieces) = pieces {
                    self.results.insert(digest.clone(), pieces.clone());
                    results.insert(at, pieces);
                    break;
                }
            }
        }
        let followed = Arc::new(Followed::new(config.records));
        self.described.push(Described { followed, results });
    }

    /// The layers of a step's outputs by this solver's names, or by those of BuildKit.
    fn pieces(&self, key: &Digest, vertex: &Vertex) -> Option<BTreeMap<i64, Vec<Piece>>> {
        let outputs = vertex.outputs();
        if outputs.is_empty() {
            return None;
        }
        let own = |output: &i64| Some((*output, self.results.get(&name(key, *output))?.clone()));
        outputs.iter().map(own).collect::<Option<_>>().or_else(|| {
            self.described.iter().find_map(|described| {
                let result = |output: &i64| {
                    let places = described.followed.of(&vertex.digest, *output);
                    Some((*output, places.iter().find_map(|at| described.results.get(at))?.clone()))
                };
                outputs.iter().map(result).collect()
            })
        })
    }

    /// The layers of a result, fetched, unpacked and pinned for the build.
    async fn chain(&self, job: &Arc<Job>, pieces: &[Piece]) -> Result<Chain> {
        let mut chain = Vec::with_capacity(pieces.len());
        for piece in pieces {
            job.lease.pin(&piece.diff_id);
            let (builder, own, lease) = (job.builder.clone(), piece.clone(), job.lease.clone());
            let is_here = move |_: &_| {
                let layer = builder.roots.snapshots.layers.layer(&(&own.diff_id).into())?;
                lease.pin(&own.blob.digest);
                Ok(layer.is_some() && builder.images.blobs.contains(&own.blob.digest))
            };
            if !job.builder.threads.run(is_here).await? {
                self.source.fetch(job, &piece.blob.digest, Some(piece.blob.size), LAYER).await?;
                let (builder, own, lease) = (job.builder.clone(), piece.clone(), job.lease.clone());
                let unpack = move |_: &_| {
                    let blob = builder.images.blobs.open_blob(&own.blob.digest)?;
                    let mut tar = image::pull::layer_tar(blob, own.blob.size)?;
                    builder.roots.snapshots.layers.apply_layer(Some(&own.diff_id), &mut tar, &lease).map(drop)
                };
                job.builder.threads.run(unpack).await?;
            }
            chain.push(Layer { key: (&piece.diff_id).into(), blob: Some(piece.blob.clone()) });
        }
        Ok(chain.into())
    }
}

impl Imports for Cache {
    fn follow<'a>(
        &'a self,
        job: &'a Arc<Job>,
        vertex: &'a Arc<Vertex>,
        solved: &'a [Arc<Solved>],
    ) -> Answer<'a, Result<()>> {
        Box::pin(async move {
            let all: Vec<_> = self.described.iter().map(|described| described.followed.clone()).collect();
            let (vertex, solved, roots) = (vertex.clone(), solved.to_vec(), job.builder.roots.clone());
            let work = move |_: &_| {
                for followed in all {
                    match (&vertex.op, solved.as_slice()) {
                        (Op::Source(_), [own]) => followed.source(&vertex, own),
                        _ => followed.step(&roots, &vertex, &solved)?,
                    }
                }
                Ok(())
            };
            job.builder.threads.run(work).await
        })
    }

    fn find<'a>(
        &'a self,
        job: &'a Arc<Job>,
        key: &'a Digest,
        vertex: &'a Vertex,
    ) -> Answer<'a, Result<Option<BTreeMap<i64, Chain>>>> {
        Box::pin(async move {
            let Some(pieces) = self.pieces(key, vertex) else { return Ok(None) };
            let mut found = BTreeMap::new();
            for (output, pieces) in pieces {
                found.insert(output, self.chain(job, &pieces).await?);
            }
            Ok(Some(found))
        })
    }
}

fn content(descriptor: &Descriptor) -> Result<Content> {
    let size = u64::try_from(descriptor.size).map_err(|_| Error::invalid("descriptor with a negative size"))?;
    Ok(Content { media_type: descriptor.media_type.clone(), digest: oci::digest(descriptor)?, size })
}

impl Source {
    /// A small blob, whole.
    async fn small(&self, job: &Arc<Job>, (digest, size): (&Digest, Option<u64>), limit: u64) -> Result<Vec<u8>> {
        self.fetch(job, digest, size, limit).await?;
        let (images, digest) = (job.builder.images.clone(), digest.clone());
        job.builder.threads.run(move |_| images.blobs.read_small(&digest, limit)).await
    }

    /// Fetches a blob that is not here yet; it has to be what its digest says.
    async fn fetch(&self, job: &Arc<Job>, digest: &Digest, size: Option<u64>, limit: u64) -> Result<()> {
        let (images, lease) = (job.builder.images.clone(), job.lease.clone());
        lease.pin(digest);
        if images.blobs.contains(digest) {
            return Ok(());
        }
        let (chunks, mut received) = mpsc::channel::<Vec<u8>>(AHEAD);
        let wanted = digest.clone();
        let write = job.builder.threads.run(move |_| {
            let mut ingest = images.blobs.ingest_as(wanted.algorithm())?;
            while let Some(chunk) = received.blocking_recv() {
                ingest.write_all(&chunk)?;
            }
            ingest.finish(Some(&wanted), size, &lease).map(drop)
        });
        let read = async {
            let done = self.read(job, Wanted { digest, size, limit }, &chunks).await;
            drop(chunks);
            done
        };
        tokio::select! {
            (read, written) = async { tokio::join!(read, write) } => read.and(written),
            () = job.cancel.cancelled() => Err(crate::cancel::cancelled()),
        }
    }

    async fn read(&self, job: &Arc<Job>, wanted: Wanted<'_>, chunks: &mpsc::Sender<Vec<u8>>) -> Result<()> {
        let Wanted { digest, size, limit } = wanted;
        let too_large = || Error::invalid(format!("{digest} is larger than {limit} bytes"));
        let mut left = size.map_or(limit, |size| size.min(limit));
        if size.is_some_and(|size| size > limit) {
            return Err(too_large());
        }
        match self {
            Source::Client(store) => {
                let mut incoming = job.inputs.layout_blob(store, digest).await?;
                loop {
                    let mut chunk = Vec::with_capacity(CHUNK);
                    let n = incoming.read_buf(&mut chunk).await.context("reading a blob of the client")?;
                    left = left.checked_sub(n as u64).ok_or_else(too_large)?;
                    if n == 0 || chunks.send(chunk).await.is_err() {
                        return Ok(());
                    }
                }
            }
            Source::Registry(repository) => {
                let unknown = || Error::invalid(format!("nobody says how large {digest} is"));
                let mut blob = repository.blob(digest, size.ok_or_else(unknown)?, 0).await?;
                while let Some(bytes) = blob.next().await? {
                    left = left.checked_sub(bytes.len() as u64).ok_or_else(too_large)?;
                    if chunks.send(bytes.to_vec()).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(())
            }
        }
    }
}
