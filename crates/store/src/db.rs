//! The open database, and opening it again after the disk refused a write.
//!
//! After a failed write the library below refuses everything until its file is opened anew. Rows on the disk are whole
//! then (the failed commit is simply not there), so the writer closes the file, opens it and goes on; while that does not
//! succeed either, every write tries again, every read has it tried again, and both report why. Readers never wait for that. A file that has vanished meanwhile is not made anew.

use std::fs;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::lock::{Mutex, MutexGuard};
use model::{Context, Error, Result};
use redb::{Database, DatabaseError};

use crate::backend::LockedFile;
use crate::mark::{Mark, MarkFile};
use crate::row::{Row, Table};
use crate::tx;

/// The format of the file as a whole; a file with a higher number belongs to a newer Gantry and is refused.
pub(crate) const FORMAT: u32 = 1;
const META: Table<Meta> = Table::new("meta");

const META_KEY: &str = "store";

/// What the store says of itself.
#[derive(serde::Serialize, serde::Deserialize)]
struct Meta {
    format: u32,
    /// Which store this is; `None`: of the first version, which gave none.
    #[serde(default)]
    mark: Option<Mark>,
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

/// What there is to start a transaction on.
enum Current {
    Open(Arc<Database>),
    /// A write failed; the writer opens the file again. Why it could not yet, if it has tried.
    Closed(Option<Error>),
}

/// The database behind a lock that is held for a pointer's copy only: tasks take it.
pub(crate) struct Db {
    path: PathBuf,
    current: Mutex<Current>,
    /// The file beside the store; `None`: nobody has approved of this store yet.
    beside: Mutex<Option<MarkFile>>,
    /// That of the last commit.
    mark: Mutex<Option<Mark>>,
}

impl Db {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Db> {
        let is_new = !is_there(path)?;
        let db = if is_new { make_file(path)? } else { open_existing(path)? };
        check_format(&db, path)?;
        if is_new {
            tx::plant(&db, &META, META_KEY, &Meta { format: FORMAT, mark: Some(Mark::new()?) })?;
        }
        let mark = Mutex::new(meta(&db)?.mark);
        let current = Mutex::new(Current::Open(Arc::new(db)));
        let db = Db { path: path.to_owned(), current, beside: Mutex::default(), mark };
        if is_new {
            db.approve()?;
        }
        Ok(db)
    }

    /// What the store says of itself, and what the file beside it.
    pub(crate) fn marks(&self) -> Result<(Option<Mark>, Option<Mark>)> {
        Ok((meta(&*self.get()?)?.mark, MarkFile::read(&self.path)?))
    }

    /// Has the file beside the store say from now on what the store says.
    pub(crate) fn approve(&self) -> Result<()> {
        let db = self.get()?;
        let mark = match meta(&db)?.mark {
            Some(mark) => mark,
            None => {
                let mark = Mark::new()?;
                tx::plant(&db, &META, META_KEY, &Meta { format: FORMAT, mark: Some(mark.clone()) })?;
                mark
            }
        };
        let file = MarkFile::make(&self.path, &mark)?;
        *self.mark() = Some(mark);
        *self.beside.lock() = Some(file);
        Ok(())
    }

    /// Counts a commit that is about to be made; `None`: the store has no mark.
    pub(crate) fn count_commit(&self, rows: &mut tx::Rows<'_>) -> Result<Option<Mark>> {
        let Some(mark) = self.mark().clone() else { return Ok(None) };
        let mark = mark.after_one_more();
        let mut tx = tx::WriteTx::new(rows);
        tx.put(&META, META_KEY, &Meta { format: FORMAT, mark: Some(mark.clone()) })?;
        tx.merge()?;
        Ok(Some(mark))
    }

    /// Notes a commit that is on the disk. A write waits for a journal that commits, so the file beside the store hears of
    /// it now and then.
    pub(crate) fn note(&self, mark: Mark) {
        if let Some(file) = &mut *self.beside.lock() {
            file.write_at_times(&mark);
        }
        *self.mark() = Some(mark);
    }

    /// Has the file beside the store say how far the store has come.
    pub(crate) fn note_all(&self) {
        let mark = self.mark().clone();
        if let (Some(file), Some(mark)) = (&*self.beside.lock(), mark) {
            file.write(&mark);
        }
    }

    fn mark(&self) -> MutexGuard<'_, Option<Mark>> {
        self.mark.lock()
    }

    /// The database to start a transaction on. Never waits.
    ///
    /// Errors: `Unavailable` while the file is being opened again after a failed write; why it could not be opened.
    pub(crate) fn get(&self) -> Result<Arc<Database>> {
        match &*self.lock() {
            Current::Open(db) => Ok(db.clone()),
            Current::Closed(None) => Err(Error::unavailable("the store is being opened again after a failed write")),
            Current::Closed(Some(error)) => Err(error.copy()),
        }
    }

    /// The same, for the writer, which opens the file if that has not worked yet. Blocks.
    pub(crate) fn get_or_open(&self) -> Result<Arc<Database>> {
        if let Current::Open(db) = &*self.lock() {
            return Ok(db.clone());
        }
        let opened = open_existing(&self.path).map(Arc::new);
        *self.lock() = match &opened {
            Ok(db) => Current::Open(db.clone()),
            Err(error) => Current::Closed(Some(error.copy())),
        };
        opened
    }

    /// Closes the database once its readers are done, and opens it again. Those who read meanwhile are refused, not kept waiting.
    /// Blocks; only the writer calls it.
    pub(crate) fn reopen(&self) {
        let was = std::mem::replace(&mut *self.lock(), Current::Closed(None));
        let mut db = match was {
            Current::Open(db) => db,
            closed => return *self.lock() = closed,
        };
        for _ in 0..DRAIN.1 {
            match Arc::try_unwrap(db) {
                Ok(last) => {
                    drop(last);
                    return drop(self.get_or_open());
                }
                Err(shared) => db = shared,
            }
            std::thread::sleep(DRAIN.0);
        }
        tracing::error!("a reader holds the failed store; it cannot be opened again yet");
        *self.lock() = Current::Open(db);
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock()
    }
}

fn meta(db: &Database) -> Result<Meta> {
    Ok(tx::peek(db, &META, META_KEY)?.unwrap_or(Meta { format: FORMAT, mark: None }))
}

impl Drop for Db {
    fn drop(&mut self) {
        self.note_all();
    }
}

/// Refuses a file of a newer format, gives a new one its table.
fn check_format(db: &Database, path: &Path) -> Result<()> {
    let newer = |format| format!("{} was written by a newer version (format {format} > {FORMAT})", path.display());
    match tx::peek(db, &META, META_KEY)? {
        Some(meta) if meta.format > FORMAT => Err(Error::data_loss(newer(meta.format))),
        Some(_) => Ok(()),
        None => tx::plant(db, &META, META_KEY, &Meta { format: FORMAT, mark: None }),
    }
}

/// Whether there is anything of this name.
fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::from(e).prefix(opening(path))),
    }
}

fn opening(path: &Path) -> String {
    format!("opening the store {}", path.display())
}

/// Opens a database that is there. An empty file would be made one: it has lost its rows.
fn open_existing(path: &Path) -> Result<Database> {
    let metadata = fs::metadata(path).with_context(|| opening(path))?;
    if !metadata.is_file() {
        return Err(Error::data_loss("it is no regular file").prefix(opening(path)));
    }
    if metadata.len() == 0 {
        return Err(Error::data_loss("the file is empty").prefix(opening(path)));
    }
    open_at(path, path)
}

/// Makes a new database; it gets its name when it is whole: made in place by somebody who is killed over it, it could
/// never be opened again. Nobody else makes it meanwhile, as a data root has a lock of its own.
fn make_file(path: &Path) -> Result<Database> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    match fs::remove_file(&unfinished) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::from(e).prefix(opening(path))),
        _ => {}
    }
    let db = open_at(&unfinished, path)?;
    fs::rename(&unfinished, path).with_context(|| opening(path))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::File::open(parent).and_then(|parent| parent.sync_all()).with_context(|| opening(path))?;
    Ok(db)
}

/// Opens or makes the database in `file`, which is called `path`.
fn open_at(file: &Path, path: &Path) -> Result<Database> {
    let file = LockedFile::open(file).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => {
            Error::unavailable(format!("the store {} is in use by another process", path.display()))
        }
        _ => Error::from(e).prefix(opening(path)),
    })?;
    let shown = path.display().to_string();
    let open = || {
        Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_repair_callback(move |_| tracing::info!(store = shown, "verifying the store after an unclean end"))
            .create_with_backend(file)
    };
    // An unoptimised build of the library panics over a damaged page.
    let opened = std::panic::catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(redb::StorageError::Corrupted("a page is damaged".into()).into()));
    opened
        .map_err(|e| match e {
            DatabaseError::Storage(redb::StorageError::Io(e)) if !is_damage(&e) => Error::from(e),
            other => Error::data_loss(other.to_string()),
        })
        .map_err(|e| e.prefix(opening(path)))
}

/// Whether reading failed for what the file holds, not for the disk.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}
