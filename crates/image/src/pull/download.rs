//! The bytes of one blob, from the registry to its part: resumed, tried again, written on threads for blocking work.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blocking::Class;
use content::Part;
use model::lock::Mutex;
use model::{Error, Result};
use registry::{Pauses, Reason, Repository};
use tokio::sync::watch;
use tokio::time::sleep;

use super::fetch::FetchState;
use super::flow::Flow;
use crate::row::Content;

/// Bytes that are gathered before they are written.
pub const BATCH: usize = 256 << 10;
/// A download that got so far since its last failure has all its attempts again.
const PROGRESS: u64 = 1 << 20;

/// A part between the writes to it.
type Shared = Arc<Mutex<Part>>;

/// A download and whom it tells how far it is.
pub struct Download<'d> {
    /// Where it comes from.
    pub repository: &'d Repository,
    /// What it is.
    pub blob: &'d Content,
    /// The reader behind it.
    pub flow: &'d Flow,
    /// Clients.
    pub progress: &'d watch::Sender<FetchState>,
    /// Becomes true when something is added to what was there: what is wrong then may be right from the beginning.
    pub resumed: &'d AtomicBool,
    /// For what blocks.
    pub threads: &'d Class,
}

impl Download<'_> {
    /// Brings the part to its full size.
    pub async fn complete(&self, part: Part) -> Result<Part> {
        let settings = self.repository.settings();
        let mut pauses = Pauses::new(settings);
        let mut since = part.length();
        let part: Shared = Arc::new(Mutex::new(part));
        self.progress.send_modify(|state| state.downloaded = since);
        while length(&part) < self.blob.size {
            let Err(fault) = self.transfer(&part).await else { continue };
            if fault.reason == Reason::Range && length(&part) > 0 {
                owned(part)?.discard();
                return Err(
                    Error::data_loss("the registry does not have the rest of the blob").with_source(fault.error)
                );
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
            self.wait(pause).await;
        }
        self.progress.send_modify(|state| state.arrived = true);
        owned(part)
    }

    async fn wait(&self, pause: Duration) {
        let mut left = pause;
        while !left.is_zero() {
            self.progress.send_modify(|state| state.retry_in = left.as_secs() + u64::from(left.subsec_nanos() > 0));
            let step = left.min(Duration::from_secs(1));
            sleep(step).await;
            left -= step;
        }
        self.progress.send_modify(|state| state.retry_in = 0);
    }

    /// One request: adds to the part what comes, in batches.
    async fn transfer(&self, part: &Shared) -> registry::Outcome<()> {
        let here = length(part);
        self.resumed.fetch_or(here > 0, Ordering::Relaxed);
        let mut blob = self.repository.blob(&self.blob.digest, self.blob.size, here).await?;
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
            let append = move |_: &_| Ok(target.lock().append(&full)?);
            self.threads.run(append).await?;
            let written = length(part);
            self.flow.advance(written);
            self.progress.send_modify(|state| state.downloaded = written);
            if next?.is_none() {
                return Ok(());
            }
        }
    }
}

fn length(part: &Shared) -> u64 {
    part.lock().length()
}

fn owned(part: Shared) -> Result<Part> {
    let part = Arc::into_inner(part).ok_or_else(|| Error::system("internal error: a part is still being written"))?;
    Ok(part.into_inner())
}

/// Whether the disk is full: then what was fetched is not kept either.
fn is_full(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|e| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}
