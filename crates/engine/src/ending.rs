//! The daemon's ending: a state that is entered once and never left.
//!
//! From its beginning on no container is started, by a client or by its policy, and no exec session either. What is under
//! way goes on to its end, but for steps of builds, which nobody would take up.

use model::{Error, Result};
use store::{AnyTable, Row, Store, Table};
use tokio::sync::watch;

/// What the last daemon left: one row, while no daemon runs that has not taken note of it.
const ENDINGS: Table<CleanEnd> = Table::new("endings");
/// Its key.
const KEY: &str = "clean";

/// The last daemon was asked to end and had the time to do so.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
struct CleanEnd {}

impl Row for CleanEnd {
    const VERSION: u32 = 1;
}

/// The table of that row.
pub fn table() -> &'static dyn AnyTable {
    &ENDINGS
}

/// How the daemon before this one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastEnd {
    /// It was asked to: restart policies begin to count anew.
    Clean,
    /// It was killed, or the machine was: they count on.
    Killed,
}

/// Whether the daemon is ending.
#[derive(Debug, Default)]
pub struct Ending {
    begun: watch::Sender<bool>,
}

impl Ending {
    /// From now on the daemon ends.
    pub fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// Whether it ends.
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Returns when it ends.
    pub async fn begun(&self) {
        // The sender lives in `self`.
        drop(self.begun.subscribe().wait_for(|begun| *begun).await);
    }

    /// Refuses what would begin now. `Unavailable` while the daemon ends.
    pub fn refuse(&self) -> Result<()> {
        if self.has_begun() { Err(Error::unavailable("the daemon is shutting down")) } else { Ok(()) }
    }
}

/// Notes that this daemon ended as it was asked to.
pub async fn note_clean_end(store: &Store) -> Result<()> {
    store.write(|tx| tx.put(&ENDINGS, KEY, &CleanEnd {})).await
}

/// How the last daemon ended. The note is taken away before anything is started: it is about one end only.
pub async fn take_last_end(store: &Store) -> Result<LastEnd> {
    // A first daemon finds none and writes nothing.
    if store.read(|tx| tx.get(&ENDINGS, KEY))?.is_none() {
        return Ok(LastEnd::Killed);
    }
    store.write(|tx| tx.delete(&ENDINGS, KEY)).await?;
    Ok(LastEnd::Clean)
}

#[cfg(test)]
mod tests {
    use model::Kind;

    use super::*;

    #[test]
    fn what_begins_too_late_is_refused() {
        let ending = Ending::default();
        assert!(ending.refuse().is_ok());
        ending.begin();
        let refused = ending.refuse().unwrap_err();
        assert_eq!((refused.kind(), refused.message()), (Kind::Unavailable, "the daemon is shutting down"));
    }

    #[tokio::test]
    async fn a_clean_end_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        assert_eq!(take_last_end(&store).await.unwrap(), LastEnd::Killed);
        note_clean_end(&store).await.unwrap();
        assert_eq!(take_last_end(&store).await.unwrap(), LastEnd::Clean);
        assert_eq!(take_last_end(&store).await.unwrap(), LastEnd::Killed);
    }
}
