//! What cannot be read of the data root and the exec root: it is kept and named, and everything else works.
//!
//! - A row that names things (a container, an image, a volume …) stays where it is in the store; what it stands for is not
//!   loaded, and nothing is removed that it may name. `gantryd check --repair` puts it right.
//! - A row that is a note or a cache is saved below `<data-root>/quarantine/rows` and deleted.
//! - A small file that is made anew is moved below `<data-root>/quarantine` first.
//! - All of it is reports in the log and among the warnings of `/info`.
//!
//! A row of a newer version is not damaged: the start is refused, and nothing has been touched.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::lock::{Mutex, MutexGuard};
use model::{Context, Error, Result};
use store::{AnyTable, Damaged, ReadTx, Store};

use crate::stored;

/// Where things go that have to go and may be somebody's, below the data root.
pub const QUARANTINE: &str = "quarantine";
/// Warnings that are kept; more are counted.
const MAX_WARNINGS: usize = 100;
/// How to have it put right.
const GO_ON: &str = "stop the daemon and run `gantryd check --repair`";

/// What this daemon has found unreadable. Clones share it.
#[derive(Clone, Debug)]
pub struct Quarantine {
    data_root: PathBuf,
    reports: Arc<Mutex<Reports>>,
}

#[derive(Debug, Default)]
struct Reports {
    warnings: Vec<String>,
    more: usize,
}

impl Quarantine {
    /// That of a data root; nothing is found yet.
    pub fn new(data_root: &Path) -> Quarantine {
        Quarantine { data_root: data_root.to_owned(), reports: Arc::default() }
    }

    /// The data root.
    pub fn data_root(&self) -> &Path {
        &self.data_root
    }

    /// What was found, for `/info`.
    pub fn warnings(&self) -> Vec<String> {
        let reports = self.reports();
        let more = (reports.more > 0).then(|| format!("{} more things cannot be read", reports.more));
        reports.warnings.iter().cloned().chain(more).collect()
    }

    /// Reports something that cannot be read.
    pub fn report(&self, warning: String) {
        tracing::error!("{warning}");
        let mut reports = self.reports();
        if reports.warnings.len() < MAX_WARNINGS { reports.warnings.push(warning) } else { reports.more += 1 }
    }

    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock()
    }

    /// Looks every row of the store over; `is_at_rest` tells of a container, by its full id, whether nothing of it may run.
    ///
    /// Errors: `DataLoss` for a row of a newer version, and for pages that cannot be read.
    pub async fn look_over(&self, store: &Store, is_at_rest: impl Fn(&str) -> bool) -> Result<()> {
        let found = damaged(store, &stored::all())?;
        if let Some((_, newer)) = found.iter().find(|(_, row)| row.newer) {
            return Err(Error::data_loss(newer.why.clone()));
        }
        let notes: Vec<_> = stored::notes().into_iter().map(AnyTable::name).collect();
        let (runs, users) = (crate::container::row::RUNS.name(), image::USERS.name());
        for (table, row) in found {
            // The run of a container that does not run is a note as well.
            if notes.contains(&table.name()) || (table.name() == runs && is_at_rest(&row.key)) {
                self.set_row_aside(store, table, row).await?;
            } else if table.name() == ::volume::MOUNTS.name() {
                self.report(format!("{}: its key says all that is needed", row.why));
            } else if table.name() != users {
                self.report(format!("{}: what it stands for is not loaded; {GO_ON}", row.why));
            }
        }
        Ok(())
    }

    /// Tells of the index of who uses which image, when it has been made anew as far as that goes.
    pub fn look_over_users(&self, store: &Store) -> Result<()> {
        for (_, row) in damaged(store, &[&image::USERS])? {
            self.report(format!("{}: no content of images is removed meanwhile; {GO_ON}", row.why));
        }
        Ok(())
    }

    async fn set_row_aside(&self, store: &Store, table: &'static dyn AnyTable, row: Damaged) -> Result<()> {
        let aside = save_row(&self.data_root, table.name(), &row.key, &row.bytes)?;
        let key = row.key;
        store.write(move |tx| table.delete(tx, &key).map(drop)).await?;
        self.report(format!("{}: it is kept as {}", row.why, aside.display()));
        Ok(())
    }

    /// Moves a file that cannot be read out of the way, and tells why. `kind` is a directory of the quarantine. From another
    /// file system it is copied.
    #[expect(clippy::disallowed_methods, reason = "before anybody is served")]
    pub fn set_file_aside(&self, path: &Path, kind: &str, why: &str) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = free_name(&self.data_root, kind, &name)?;
        match fs::rename(path, &aside) {
            Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
                fs::write(&aside, sys::file::read_small(path, MAX_COPIED).unwrap_or_default())
                    .and_then(|()| fs::remove_file(path))
            }
            moved => moved,
        }
        .with_context(|| format!("moving {} to the quarantine", path.display()))?;
        self.report(format!("{}: {why}: it is kept as {}", path.display(), aside.display()));
        Ok(())
    }
}

/// Bytes of a file that is copied from another file system.
const MAX_COPIED: u64 = 1 << 20;

/// The rows of tables that cannot be read.
fn damaged(store: &Store, tables: &[&'static dyn AnyTable]) -> Result<Vec<(&'static dyn AnyTable, Damaged)>> {
    let look = |tx: &ReadTx| {
        let mut found = Vec::new();
        for table in tables {
            found.extend(table.damaged(tx)?.into_iter().map(|row| (*table, row)));
        }
        Ok(found)
    };
    // The database may panic over a page whose keys are no text.
    let looked = std::panic::catch_unwind(AssertUnwindSafe(|| store.read(look)));
    looked.unwrap_or_else(|_| Err(Error::data_loss("store: a page is damaged")))
}

/// A free name in the quarantine of a data root.
#[expect(clippy::disallowed_methods, reason = "before anybody is served, or in a command")]
pub fn free_name(data_root: &Path, kind: &str, name: &str) -> Result<PathBuf> {
    let dir = data_root.join(QUARANTINE).join(kind);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.with_context(|| format!("creating {}", dir.display()))?;
    let free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    let numbered = (1..).map(|n| dir.join(format!("{name}.{n}")));
    Ok(std::iter::once(dir.join(name)).chain(numbered).find(free).expect("numbers do not end"))
}

/// Writes a row's bytes into the quarantine, durably; where they are.
#[expect(clippy::disallowed_methods, reason = "before anybody is served, or in a command")]
pub fn save_row(data_root: &Path, table: &str, key: &str, bytes: &[u8]) -> Result<PathBuf> {
    let name: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(150).collect();
    let aside = free_name(data_root, "rows", &format!("{table}-{name}"))?;
    fs::write(&aside, bytes).with_context(|| format!("writing {}", aside.display()))?;
    fs::File::open(&aside).and_then(|file| file.sync_all()).context("syncing a saved row")?;
    Ok(aside)
}
