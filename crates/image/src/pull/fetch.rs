//! One blob: downloaded, verified, and (a layer) decompressed and unpacked while it arrives.
//!
//! - Nothing is called whole that was not read and hashed to its end; a resumed part that turns out wrong is fetched once
//!   more from its beginning.
//! - Bounds: the size that the manifest says, the attempts of the configuration, what decompression may yield.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use content::{Blobs, Part, PartReader, WholePart};
use model::digest::Digest;
use model::lock::Mutex;
use model::{Error, Kind, Result};
use registry::Repository;
use snapshot::LayerStore;
use store::Lease;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use super::download::{BATCH, Download};
use super::flow::{Flow, Follow};
use crate::row::Content;
use crate::threads::Threads;

/// What decompression may yield: so many times the blob's size, and so much more. (gzip reaches 1032.)
const EXPANSION: u64 = 1100;
const EXPANSION_SLACK: u64 = 64 << 20;
/// Compressed layers from this size on are decompressed on a thread of their own.
const AHEAD: u64 = 1 << 20;
/// Pause until another fetch has let go of a part, and how often.
const CLAIM_PAUSE: Duration = Duration::from_millis(20);
const CLAIM_TRIES: usize = 500;

/// How far a fetch is, as clients are progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchState {
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

/// An error that several clients are progress.
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
    pub layers: Arc<dyn LayerStore>,
    /// For what blocks.
    pub(crate) threads: Threads,
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

async fn turn(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    of.clone().acquire_owned().await.map_err(|_| Error::cancelled("shutting down"))
}

/// A fetch that goes on.
#[derive(Clone)]
pub struct Fetching {
    /// Where it comes from.
    pub repository: Arc<Repository>,
    /// Where it goes.
    pub places: Places,
    /// What it is.
    pub job: Job,
    /// When.
    pub turns: Turns,
    /// Keeps what is written.
    pub lease: Arc<Lease>,
    /// Learns how far it is; the last state has `ended`.
    pub progress: Arc<watch::Sender<FetchState>>,
}

impl Fetching {
    /// Fetches; the verified part is in the slot before the end is progress.
    pub async fn run(self, slot: Slot) {
        let outcome = self.fetch().await.map(|(size, whole)| {
            *slot.lock() = whole;
            size
        });
        let outcome = outcome.map_err(|error| Failure::from(&error));
        self.progress.send_modify(|state| state.ended = Some(outcome));
    }

    async fn fetch(&self) -> Result<(u64, Option<WholePart>)> {
        let blob = &self.job.blob;
        self.lease.pin(&blob.digest);
        if let Some(diff_id) = &self.job.diff_id {
            self.lease.pin(diff_id);
        }
        if self.places.blobs.size(&blob.digest).is_ok_and(|size| size == blob.size) {
            return Ok((self.unpack_blob().await?, None));
        }
        let first = turn(&self.turns.downloads).await?;
        self.progress.send_modify(|state| state.started = true);
        let mut part = claim(&self.places.blobs, &blob.digest).await?;
        if part.length() > blob.size {
            part.restart()?;
        }
        let resumed = AtomicBool::new(part.length() > 0);
        match self.attempt(part, first, &resumed).await {
            Err(error) if resumed.load(Ordering::Relaxed) && error.kind() == Kind::DataLoss => {
                tracing::warn!(%error, "what was kept of a blob is wrong; fetching it anew");
                let again = turn(&self.turns.downloads).await?;
                self.progress.send_replace(FetchState { started: true, ..FetchState::default() });
                let part = claim(&self.places.blobs, &blob.digest).await?;
                self.attempt(part, again, &resumed).await
            }
            outcome => outcome,
        }
    }

    /// The blob is here: only unpacking may be left.
    async fn unpack_blob(&self) -> Result<u64> {
        let layer = match &self.job.diff_id {
            Some(diff_id) => self.places.layers.layer(&diff_id.into())?,
            None => None,
        };
        if layer.is_some() || self.job.diff_id.is_none() {
            self.progress.send_modify(|state| (state.existed, state.arrived) = (true, true));
            return Ok(layer.map_or(0, |layer| layer.size));
        }
        let turn = turn(&self.turns.unpacks).await?;
        let (started, size) = (true, self.job.blob.size);
        self.progress.send_replace(FetchState {
            started,
            downloaded: size,
            arrived: true,
            unpacking: true,
            ..FetchState::default()
        });
        let own = self.clone();
        self.places
            .threads
            .unpacks
            .run(move |_| {
                let _turn = turn;
                let blob = own.places.blobs.open_blob(&own.job.blob.digest)?;
                own.unpack(&mut Counted { inner: blob, count: 0, shown: 0, progress: &own.progress })
            })
            .await
    }

    /// Downloads the rest of a part while another thread reads it.
    async fn attempt(
        &self,
        part: Part,
        turn_of_download: OwnedSemaphorePermit,
        resumed: &AtomicBool,
    ) -> Result<(u64, Option<WholePart>)> {
        let flow = Flow::new(part.length());
        let follow = flow.follow(part.reader()?);
        let downloading = async {
            let (blob, progress) = (&self.job.blob, &*self.progress);
            let (repository, threads) = (&*self.repository, &self.places.threads.documents);
            let download = Download { repository, blob, flow: &flow, progress, resumed, threads };
            let outcome = download.complete(part).await;
            flow.end(outcome.as_ref().map(drop).map_err(|error| error.message().to_owned()));
            // The next may begin while this one is unpacked.
            drop(turn_of_download);
            outcome
        };
        let reading = async {
            let turn = turn(&self.turns.unpacks).await?;
            let own = self.clone();
            self.places
                .threads
                .unpacks
                .run(move |_| {
                    let _turn = turn;
                    Ok(own.read(follow))
                })
                .await
        };
        let (part, read) = tokio::join!(downloading, reading);
        let part = part?;
        let (reader, layer) = read?;
        let whole = part.verify(reader, self.job.blob.size)?;
        Ok((layer?, Some(whole)))
    }

    /// Reads a part behind its download: to a layer if it is one, and to its end in any case.
    fn read(&self, follow: Follow) -> (PartReader, Result<u64>) {
        let mut reader = Counted { inner: follow, count: 0, shown: 0, progress: &self.progress };
        let layer = self.unpack(&mut reader);
        let layer = match io::copy(&mut reader, &mut io::sink()) {
            Ok(_) => layer,
            Err(error) => layer.and(Err(error.into())),
        };
        (reader.inner.into_part(), layer)
    }

    fn unpack(&self, reader: &mut (impl Read + Send)) -> Result<u64> {
        let Some(diff_id) = &self.job.diff_id else { return Ok(0) };
        let mut tar = layer_tar(reader, self.job.blob.size)?;
        let apply = |tar: &mut dyn Read| self.places.layers.apply_layer(Some(diff_id), tar, &self.lease);
        // A small layer is done before a thread has begun.
        let layer = if self.job.blob.size < AHEAD { apply(&mut tar) } else { snapshot::ahead(tar, apply) };
        Ok(layer?.size)
    }
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

/// Tells how far it was read.
struct Counted<'t, R> {
    inner: R,
    count: u64,
    shown: u64,
    progress: &'t watch::Sender<FetchState>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count += n as u64;
        if n == 0 || self.count >= self.shown + BATCH as u64 {
            self.shown = self.count;
            let unpacked = self.count;
            self.progress.send_modify(|state| (state.unpacking, state.unpacked) = (true, unpacked));
        }
        Ok(n)
    }
}

/// The tar in a layer's blob of so many bytes.
pub fn layer_tar<'r>(blob: impl Read + Send + 'r, size: u64) -> Result<impl Read + Send + 'r> {
    let left = size.saturating_mul(EXPANSION).saturating_add(EXPANSION_SLACK);
    Ok(Bounded { inner: snapshot::decompress(blob)?, left })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decompression_has_a_bound() {
        let mut honest = Bounded { inner: io::repeat(0).take(10), left: 10 };
        assert_eq!(honest.read_to_end(&mut Vec::new()).unwrap(), 10);
        let mut bomb = Bounded { inner: io::repeat(0).take(11), left: 10 };
        assert_eq!(bomb.read_to_end(&mut Vec::new()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
