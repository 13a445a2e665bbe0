//! The journal on the disk: synced within a second of an event, and looked over once.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use blocking::Blocking;
use model::{Context, Result};

use crate::journal::{self, Unsynced};
use crate::{Events, Shared};

/// From an event to the sync: those that come meanwhile share it.
const PAUSE: Duration = Duration::from_millis(500);

impl Events {
    /// Keeps the journal: looks its older files over, then syncs what is written. To be called on the runtime.
    pub fn keep(&self) {
        let shared = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            if let Some(shared) = shared.upgrade() {
                look_over(&shared).await;
            }
            loop {
                // As long as nothing happens it keeps what is shared; a daemon ends with its runtime.
                let Some(owner) = shared.upgrade() else { return };
                owner.to_sync.notified().await;
                drop(owner);
                tokio::time::sleep(PAUSE).await;
                let Some(shared) = shared.upgrade() else { return };
                sync(&shared).await;
            }
        });
    }

    /// The daemon ends: everything is on the disk, and the journal says so.
    pub async fn close(&self) {
        let last = {
            let mut state = self.0.state();
            let last = state.last;
            let Some(journal) = &mut state.journal else { return };
            journal.close(last);
            last
        };
        sync(&self.0).await;
        let place = self.0.state().journal.as_ref().map(|journal| journal.place.clone());
        if let Some(place) = place {
            let noted = self.0.threads.run(move |on| {
                journal::note_end(&place, last, on);
                Ok(())
            });
            drop(noted.await);
        }
    }
}

async fn look_over(shared: &Shared) {
    let found = {
        let state = shared.state();
        state.journal.as_ref().map(|journal| (journal.place.clone(), Vec::from_iter(journal.segments.iter().cloned())))
    };
    let Some((place, segments)) = found else { return };
    let looked =
        shared.threads.run(move |on| Ok(sys::sched::in_the_background(|| journal::verify(&place, &segments, on))));
    let Ok((warnings, mended)) = looked.await else { return };
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let mut state = shared.state();
    state.warnings.extend(warnings);
    state.generation += u64::from(!mended.is_empty());
    if let Some(journal) = &mut state.journal {
        for new in mended {
            journal.segments.iter_mut().filter(|old| old.first == new.first).for_each(|old| *old = new.clone());
        }
    }
}

/// Puts all that is written on the disk; rows of the store that held it may go.
async fn sync(shared: &Shared) {
    let (unsynced, written) = {
        let mut state = shared.state();
        let written = std::mem::take(&mut state.written);
        let Some(journal) = &mut state.journal else { return };
        (journal.take_unsynced(), written)
    };
    let synced = shared.threads.run(move |on| put_on_disk(&unsynced, on)).await;
    let mut state = shared.state();
    match synced {
        Ok(()) => state.finished.extend(written),
        Err(error) => {
            tracing::error!(%error, "the journal of events could not be synced");
            // What the kernel has given up is not there after a power cut: the store goes on holding it.
            state.written.splice(0..0, written);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "on a thread that may block")]
fn put_on_disk(unsynced: &Unsynced, _on: &Blocking) -> Result<()> {
    for file in &unsynced.files {
        file.sync_data().context("syncing the journal of events")?;
    }
    if let Some(dir) = &unsynced.dir {
        fs::File::open(dir).and_then(|dir| dir.sync_all()).context("syncing the directory of the journal of events")?;
    }
    for path in &unsynced.dropped {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(%error, "{} stays", path.display());
        }
    }
    Ok(())
}
