//! The open database, and opening it again after the disk refused a write.
//!
//! After a failed write the library below refuses everything until its file is opened anew. Rows on the disk are whole
//! then (the failed commit is simply not there), so the store closes the file, opens it and goes on; while that does not
//! succeed either, every use of the store tries again and reports why.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{Context, Error, Result};
use redb::{Database, DatabaseError};

use crate::backend::LockedFile;
use crate::row::{Row, Table};
use crate::tx;

/// The format of the file as a whole; a file with a higher number belongs to a newer Gantry and is refused.
const FORMAT: u32 = 1;
const META: Table<Meta> = Table::new("meta");

#[derive(serde::Serialize, serde::Deserialize)]
struct Meta {
    format: u32,
}

impl Row for Meta {
    const VERSION: u32 = 1;
}

/// Bytes of pages the database may keep in memory. Rows are small and few are hot: the kernel's page cache does the rest.
const CACHE_BYTES: usize = 2 << 20;
/// Pause between looks at whether the last reader of the failed database is done, and how many looks.
const DRAIN: (Duration, u32) = (Duration::from_millis(1), 1000);

/// What the name of a file ends with that is not a whole database yet.
const UNFINISHED: &str = ".new";

/// The database behind a lock that is held for a pointer's copy only.
pub(crate) struct Db {
    path: PathBuf,
    current: Mutex<Option<Arc<Database>>>,
}

impl Db {
    pub(crate) fn open(path: &Path) -> Result<Db> {
        let db = open_file(path)?;
        check_format(&db, path)?;
        Ok(Db { path: path.to_owned(), current: Mutex::new(Some(Arc::new(db))) })
    }

    /// The database to start a transaction on.
    pub(crate) fn get(&self) -> Result<Arc<Database>> {
        let mut current = self.lock();
        if let Some(db) = &*current {
            return Ok(db.clone());
        }
        let db = Arc::new(open_file(&self.path)?);
        *current = Some(db.clone());
        Ok(db)
    }

    /// Closes the database once its readers are done; the next [`Db::get`] opens it again.
    pub(crate) fn reopen(&self) {
        let mut current = self.lock();
        let Some(mut db) = current.take() else { return };
        for _ in 0..DRAIN.1 {
            match Arc::try_unwrap(db) {
                Ok(last) => return drop(last),
                Err(shared) => db = shared,
            }
            std::thread::sleep(DRAIN.0);
        }
        tracing::error!("a reader holds the failed store; it cannot be opened again yet");
        *current = Some(db);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Database>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks a new file with the format, refuses one of a newer format.
fn check_format(db: &Database, path: &Path) -> Result<()> {
    let newer = |format| format!("{} was written by a newer version (format {format} > {FORMAT})", path.display());
    match tx::peek(db, &META, "store")? {
        Some(meta) if meta.format > FORMAT => Err(Error::data_loss(newer(meta.format))),
        Some(_) => Ok(()),
        None => tx::plant(db, &META, "store", &Meta { format: FORMAT }),
    }
}

/// Opens the database; a new one gets its name when it is whole: made in place by somebody who is killed over it, it could
/// never be opened again. Nobody else makes it meanwhile, as a data root has a lock of its own.
fn open_file(path: &Path) -> Result<Database> {
    let opening = || format!("opening the store {}", path.display());
    if path.exists() {
        return open_at(path, path);
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    match fs::remove_file(&unfinished) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::from(e).prefix(opening())),
        _ => {}
    }
    let db = open_at(&unfinished, path)?;
    fs::rename(&unfinished, path).with_context(opening)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::File::open(parent).and_then(|parent| parent.sync_all()).with_context(opening)?;
    Ok(db)
}

/// Opens or makes the database in `file`, which is called `path`.
fn open_at(file: &Path, path: &Path) -> Result<Database> {
    let file = LockedFile::open(file).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => {
            Error::unavailable(format!("the store {} is in use by another process", path.display()))
        }
        _ => Error::from(e).prefix(format!("opening the store {}", path.display())),
    })?;
    let shown = path.display().to_string();
    Database::builder()
        .set_cache_size(CACHE_BYTES)
        .set_repair_callback(move |_| tracing::info!(store = shown, "verifying the store after an unclean end"))
        .create_with_backend(file)
        .map_err(|e| match e {
            DatabaseError::Storage(redb::StorageError::Io(e)) => Error::from(e),
            other => Error::data_loss(other.to_string()),
        })
        .map_err(|e| e.prefix(format!("opening the store {}", path.display())))
}
