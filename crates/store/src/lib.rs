//! The one metadata database: typed rows in tables, transactions, migrations.
//!
//! Invariants:
//! - one writer at a time; every closure that waits when a round begins shares that round's single durable commit (one
//!   `fdatasync`), so a burst of writers costs as many syncs as the disk has time for, never one each;
//! - a closure that returns `Err` leaves no trace: its changes are staged in memory and merged only on `Ok`;
//! - [`Store::write`] resolves after the commit is on the disk: "persist, then publish, then answer";
//! - readers see the last commit and never wait for a writer;
//! - the file belongs to one process at a time and is readable by root only (0600);
//! - a store that was put here from elsewhere, or is an older copy, is told from the one that belongs here
//!   ([`Store::doubt`]): what it does not name must not be taken for garbage.
//!
//! The choice of the engine below (redb) and its measurements: `docs/design/0003-metadata-store.md`.
#![forbid(unsafe_code)]

mod any_table;
mod backend;
mod db;
mod mark;
mod pins;
mod row;
mod survey;
mod tx;
mod writer;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use model::{Context, Result};
use redb::ReadableDatabase;

use db::Db;

/// The format of the file as a whole; a file with a higher number belongs to a newer Gantry and is refused.
pub const FORMAT: u32 = db::FORMAT;

pub use any_table::AnyTable;
pub use pins::{Lease, Pins, Sweep};
pub use row::{Row, Table};
pub use survey::{Damaged, Survey};
pub use tx::{ReadTx, WriteTx};

/// A handle to the open database. Clones share it; the last one dropped closes the file cleanly.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// Fields are dropped in order: the writer thread ends before the database closes.
struct Inner {
    writer: writer::Writer,
    db: Arc<Db>,
}

impl Store {
    /// Opens or creates the database at `path`. Whoever goes by what its rows do not name asks [`Store::doubt`] first,
    /// and [`Store::approve`]s of it.
    ///
    /// After a crash the tables are verified and the free lists rebuilt first; that takes time in proportion to the
    /// size of the file (a few milliseconds for the metadata of hundreds of containers).
    ///
    /// Errors: `Unavailable` when another process has the file open; `DataLoss` when it is empty, its content is damaged
    /// or was written by a newer version. All name the file.
    pub fn open(path: &Path) -> Result<Store> {
        if let Some(parent) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o710)
                .create(parent)
                .with_context(|| format!("creating {}", parent.display()))?;
        }
        let db = Arc::new(Db::open(path)?);
        Ok(Store { inner: Arc::new(Inner { writer: writer::Writer::start(db.clone())?, db }) })
    }

    /// Why this store may be another than the one that was here last.
    ///
    /// Errors: `DataLoss` when the file that tells (`<store>.mark`) cannot be understood.
    pub fn doubt(&self) -> Result<Option<Doubt>> {
        let (own, beside) = self.inner.db.marks()?;
        Ok(match (own, beside) {
            (None, None) => Some(Doubt::Unmarked),
            (Some(own), Some(beside)) if own.id == beside.id && own.commits >= beside.commits => None,
            (Some(own), Some(beside)) if own.id == beside.id => {
                Some(Doubt::Older { commits: own.commits, newest: beside.commits })
            }
            (Some(_), None) => Some(Doubt::Unmarked),
            (_, Some(_)) => Some(Doubt::Foreign),
        })
    }

    /// Takes it for the store that belongs here.
    pub fn approve(&self) -> Result<()> {
        self.inner.db.approve()
    }

    /// Has its mark say how far it has come: the process ends.
    pub fn note_end(&self) {
        self.inner.db.note_all();
    }

    /// Which store this is: 32 hex digits. `None`: of the first version, and not approved of yet.
    pub fn id(&self) -> Result<Option<String>> {
        Ok(self.inner.db.marks()?.0.map(|mark| mark.id))
    }

    /// Runs `f` on a consistent view of the last commit. Never waits for a writer.
    pub fn read<T>(&self, f: impl FnOnce(&ReadTx) -> Result<T>) -> Result<T> {
        let db = self.inner.db.get().inspect_err(|_| self.inner.writer.wake())?;
        let tx = db.begin_read().map_err(tx::failed)?;
        f(&ReadTx::new(&tx)?)
    }

    /// Runs `f` when its turn comes and resolves once its changes are durable.
    ///
    /// `f` sees the changes of closures that ran before it, committed or not. It must not block: all writers wait for it.
    /// A caller that stops waiting does not undo the write.
    ///
    /// Errors: those of `f` (its changes are dropped, nobody else's are), or `System` when the disk refused the commit.
    pub async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut WriteTx<'_, '_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (job, answer) = writer::job(f);
        self.inner.writer.queue(job).await?;
        answer.await.map_err(|_| writer::ended())?
    }

    /// As [`Store::write`], for threads outside the async runtime (panics on a task: it would stop the runtime's thread).
    /// Runs on the calling thread when no other write is under way or waits.
    pub fn write_blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut WriteTx<'_, '_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (job, answer) = writer::job(f);
        self.inner.writer.run(job)?;
        answer.blocking_recv().map_err(|_| writer::ended())?
    }
}

/// Why a store may be another than the one that was here last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Nothing tells: the first version left no mark, or the mark is gone.
    Unmarked,
    /// The mark is another store's.
    Foreign,
    /// The mark has seen more commits of this store than it has.
    Older {
        /// Commits of the store.
        commits: u64,
        /// Commits that the mark has seen.
        newest: u64,
    },
}

#[cfg(test)]
mod tests;
