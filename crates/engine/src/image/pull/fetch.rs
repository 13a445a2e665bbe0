//! One blob: downloaded, verified, and (a layer) decompressed and unpacked while it arrives.
//!
//! - The download resumes what is in the blob's part and tries again after failures that may pass.
//! - Nothing is called whole that was not read and hashed to its end; a resumed part that turns out wrong is fetched once
//!   more from its beginning.
//! - Bounds: the size that the manifest says, the attempts of the configuration, what decompression may yield.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use content::{Blobs, Part, PartReader, WholePart};
use model::digest::Digest;
use model::{Error, Kind, Result};
use registry::{Pauses, Reason, Repository};
use snapshot::Snapshotter;
use store::Lease;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use super::flow::{Flow, Follow};
use crate::image::row::Content;

/// Bytes that are gathered before they are written.
const BATCH: usize = 512 << 10;
/// A download that got so far since its last failure has all its attempts again.
const PROGRESS: u64 = 1 << 20;
/// What decompression may yield: so many times the blob's size, and so much more. (gzip reaches 1032.)
const EXPANSION: u64 = 1100;
const EXPANSION_SLACK: u64 = 64 << 20;
/// Pause until another fetch has let go of a part, and how often.
const CLAIM_PAUSE: Duration = Duration::from_millis(20);
const CLAIM_TRIES: usize = 500;

/// How far a fetch is, as clients are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// It has its turn.
    pub started: bool,
    /// Bytes that are here.
    pub downloaded: u64,
    /// All bytes are here.
    pub arrived: bool,
    /// Bytes of the blob that were unpacked.
    pub unpacked: u64,
    /// Unpacking has begun.
    pub unpacking: bool,
    /// Seconds until the next attempt, after a failure.
    pub retry_in: u64,
    /// Nothing had to be done.
    pub existed: bool,
    /// How it ended: the bytes of the unpacked layer.
    pub ended: Option<Result<u64, Failure>>,
}

/// An error that several clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Of the error.
    pub kind: Kind,
    /// Of the error.
    pub message: String,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        Failure { kind: error.kind(), message: error.message().to_owned() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::new(failure.kind, failure.message)
    }
}

/// Where fetched things go.
#[derive(Clone)]
pub struct Places {
    /// Blobs and parts.
    pub blobs: Blobs,
    /// Layers.
    pub snapshots: Arc<dyn Snapshotter>,
}

/// What is fetched.
#[derive(Clone, Debug)]
pub struct Job {
    /// The blob.
    pub blob: Content,
    /// Its digest when uncompressed, if it is a layer to be unpacked.
    pub diff_id: Option<Digest>,
}

/// The verified part of an ended fetch, until the first image that has it is committed.
pub type Slot = Arc<Mutex<Option<WholePart>>>;

/// Who may go on at the same time.
#[derive(Clone)]
pub struct Turns {
    /// Downloads.
    pub downloads: Arc<Semaphore>,
    /// Unpackings.
    pub unpacks: Arc<Semaphore>,
}

/// Fetches, and tells how far it is; the last state has `ended`.
pub async fn run(
    repository: Arc<Repository>,
    places: Places,
    job: Job,
    (turns, lease): (Turns, Arc<Lease>),
    (told, slot): (Arc<watch::Sender<State>>, Slot),
) {
    let outcome = fetch(&repository, &places, &job, (&turns, &lease), &told).await.map(|(size, whole)| {
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = whole;
        size
    });
    told.send_modify(|state| state.ended = Some(outcome.as_ref().map(|size| *size).map_err(Failure::from)));
}

async fn fetch(
    repository: &Arc<Repository>,
    places: &Places,
    job: &Job,
    (turns, lease): (&Turns, &Arc<Lease>),
    told: &Arc<watch::Sender<State>>,
) -> Result<(u64, Option<WholePart>)> {
    lease.pin(&job.blob.digest);
    if let Some(diff_id) = &job.diff_id {
        lease.pin(diff_id);
    }
    if places.blobs.size(&job.blob.digest).is_ok_and(|size| size == job.blob.size) {
        return Ok((from_blob(places, job, (turns, lease), told).await?, None));
    }
    let turn = turns.downloads.clone().acquire_owned().await.map_err(|_| Error::cancelled("shutting down"))?;
    told.send_modify(|state| state.started = true);
    let mut part = claim(&places.blobs, &job.blob.digest).await?;
    if part.length() > job.blob.size {
        part.restart()?;
    }
    let resumed = part.length() > 0;
    match attempt(repository, places, job, part, (turns, lease), (told, turn)).await {
        Err(error) if resumed && error.kind() == Kind::DataLoss => {
            tracing::warn!(%error, "what was kept of a blob is wrong; fetching it anew");
            let turn = turns.downloads.clone().acquire_owned().await.map_err(|_| Error::cancelled("shutting down"))?;
            told.send_replace(State { started: true, ..State::default() });
            let part = claim(&places.blobs, &job.blob.digest).await?;
            attempt(repository, places, job, part, (turns, lease), (told, turn)).await
        }
        outcome => outcome,
    }
}

/// The blob is here: only unpacking may be left.
async fn from_blob(
    places: &Places,
    job: &Job,
    (turns, lease): (&Turns, &Arc<Lease>),
    told: &Arc<watch::Sender<State>>,
) -> Result<u64> {
    let Some(diff_id) = job.diff_id.clone() else {
        told.send_modify(|state| (state.existed, state.arrived) = (true, true));
        return Ok(0);
    };
    if let Some(layer) = places.snapshots.layer(&diff_id)? {
        told.send_modify(|state| (state.existed, state.arrived) = (true, true));
        return Ok(layer.size);
    }
    let turn = turns.unpacks.clone().acquire_owned().await.map_err(|_| Error::cancelled("shutting down"))?;
    let (started, size) = (true, job.blob.size);
    told.send_replace(State { started, downloaded: size, arrived: true, unpacking: true, ..State::default() });
    let (places, job, lease, told) = (places.clone(), job.clone(), lease.clone(), told.clone());
    blocking(move || {
        let _turn = turn;
        let mut reader = Counted { inner: places.blobs.open_blob(&job.blob.digest)?, count: 0, shown: 0, told };
        unpack(&places, &mut reader, (&diff_id, job.blob.size), &lease)
    })
    .await
}

async fn claim(blobs: &Blobs, digest: &Digest) -> Result<Part> {
    for _ in 0..CLAIM_TRIES {
        match blobs.part(digest) {
            // A fetch that was given up is still letting go of it.
            Err(error) if error.kind() == Kind::Conflict => sleep(CLAIM_PAUSE).await,
            outcome => return outcome,
        }
    }
    blobs.part(digest)
}

/// Downloads the rest of a part while another thread reads it.
async fn attempt(
    repository: &Arc<Repository>,
    places: &Places,
    job: &Job,
    part: Part,
    (turns, lease): (&Turns, &Arc<Lease>),
    (told, turn): (&Arc<watch::Sender<State>>, OwnedSemaphorePermit),
) -> Result<(u64, Option<WholePart>)> {
    let flow = Flow::new(part.length());
    let reader = flow.follow(part.reader()?);
    let downloading = async {
        let outcome = download(repository, job, part, (&flow, told)).await;
        flow.end(outcome.as_ref().map(drop).map_err(|error| error.message().to_owned()));
        // The next may begin while this one is unpacked.
        drop(turn);
        outcome
    };
    let reading = async {
        let turn = turns.unpacks.clone().acquire_owned().await.map_err(|_| Error::cancelled("shutting down"))?;
        let (places, job, lease, told) = (places.clone(), job.clone(), lease.clone(), told.clone());
        blocking(move || {
            let _turn = turn;
            Ok(read(&places, &job, reader, &lease, &told))
        })
        .await
    };
    let (part, read) = tokio::join!(downloading, reading);
    let part = part?;
    let (reader, layer) = read?;
    let whole = part.verify(reader, job.blob.size).map_err(|error| {
        tracing::warn!(%error, "a blob is not what its digest says");
        Error::data_loss(format!("filesystem layer verification failed for digest {}", job.blob.digest))
    })?;
    Ok((layer?, Some(whole)))
}

/// A part between the writes to it, each on a thread for blocking work.
type Shared = Arc<Mutex<Part>>;

fn length(part: &Shared) -> u64 {
    part.lock().unwrap_or_else(PoisonError::into_inner).length()
}

/// Brings the part to its full size.
async fn download(
    repository: &Repository,
    job: &Job,
    part: Part,
    (flow, told): (&Flow, &watch::Sender<State>),
) -> Result<Part> {
    let settings = repository.settings();
    let mut pauses = Pauses::new(settings);
    let mut since = part.length();
    let part: Shared = Arc::new(Mutex::new(part));
    told.send_modify(|state| state.downloaded = since);
    while length(&part) < job.blob.size {
        let Err(fault) = transfer(repository, job, &part, (flow, told)).await else { continue };
        if fault.reason == Reason::Range && since > 0 {
            owned(part)?.discard();
            return Err(Error::data_loss("the registry does not have the rest of the blob").with_source(fault.error));
        }
        if is_full(&fault.error) {
            owned(part)?.discard();
            return Err(fault.error);
        }
        if length(&part) >= since + PROGRESS {
            pauses = Pauses::new(settings);
        }
        since = length(&part);
        let Some(pause) = pauses.next(&fault) else { return Err(fault.error) };
        tracing::info!(error = %fault.error, ?pause, "a download failed; trying again");
        wait(pause, told).await;
    }
    told.send_modify(|state| state.arrived = true);
    owned(part)
}

fn owned(part: Shared) -> Result<Part> {
    let part = Arc::into_inner(part).ok_or_else(|| Error::system("internal error: a part is still being written"))?;
    Ok(part.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Whether the disk is full: then what was fetched is not kept either.
fn is_full(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|e| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

async fn wait(pause: Duration, told: &watch::Sender<State>) {
    let mut left = pause;
    while !left.is_zero() {
        told.send_modify(|state| state.retry_in = left.as_secs() + u64::from(left.subsec_nanos() > 0));
        let step = left.min(Duration::from_secs(1));
        sleep(step).await;
        left -= step;
    }
    told.send_modify(|state| state.retry_in = 0);
}

/// One request: adds to the part what comes, in batches.
async fn transfer(
    repository: &Repository,
    job: &Job,
    part: &Shared,
    (flow, told): (&Flow, &watch::Sender<State>),
) -> registry::Outcome<()> {
    let here = length(part);
    let mut blob = repository.blob(&job.blob.digest, job.blob.size, here).await?;
    // What is here already is not wanted once more from a registry that knows no ranges.
    let mut skip = here - blob.offset;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let next = blob.next().await;
        if let Ok(Some(bytes)) = &next {
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
            skip -= known as u64;
            batch.extend_from_slice(&bytes[known..]);
            if batch.len() < BATCH {
                continue;
            }
        }
        let (full, target) = (std::mem::replace(&mut batch, Vec::with_capacity(BATCH)), part.clone());
        let append = move || Ok(target.lock().unwrap_or_else(PoisonError::into_inner).append(&full)?);
        blocking(append).await?;
        let written = length(part);
        flow.advance(written);
        told.send_modify(|state| state.downloaded = written);
        if next?.is_none() {
            return Ok(());
        }
    }
}

/// Reads a part behind its download: to a layer if it is one, and to its end in any case.
fn read(
    places: &Places,
    job: &Job,
    follow: Follow,
    lease: &Lease,
    told: &Arc<watch::Sender<State>>,
) -> (PartReader, Result<u64>) {
    let mut reader = Counted { inner: follow, count: 0, shown: 0, told: told.clone() };
    let layer = match &job.diff_id {
        Some(diff_id) => unpack(places, &mut reader, (diff_id, job.blob.size), lease),
        None => Ok(0),
    };
    let drained = io::copy(&mut reader, &mut io::sink());
    let layer = match drained {
        Ok(_) => layer,
        Err(error) => layer.and(Err(error.into())),
    };
    (reader.inner.into_part(), layer)
}

fn unpack(
    places: &Places,
    reader: &mut (impl Read + Send),
    (diff_id, size): (&Digest, u64),
    lease: &Lease,
) -> Result<u64> {
    let mut tar = Bounded {
        inner: snapshot::decompress(reader)?,
        left: size.saturating_mul(EXPANSION).saturating_add(EXPANSION_SLACK),
    };
    Ok(places.snapshots.apply_layer(Some(diff_id), &mut tar, lease)?.size)
}

/// Tells how far it was read.
struct Counted<R> {
    inner: R,
    count: u64,
    shown: u64,
    told: Arc<watch::Sender<State>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count += n as u64;
        if n == 0 || self.count >= self.shown + BATCH as u64 {
            self.shown = self.count;
            let unpacked = self.count;
            self.told.send_modify(|state| (state.unpacking, state.unpacked) = (true, unpacked));
        }
        Ok(n)
    }
}

/// Ends a decompression that yields more than any honest layer.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the layer grows beyond measure when it is decompressed")
        })?;
        Ok(n)
    }
}

/// Runs what blocks on a thread for it.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|failed| Err(Error::system("internal error: a transfer failed").with_source(failed)))
}
