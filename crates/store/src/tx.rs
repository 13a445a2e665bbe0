//! What a closure may do with the database: read a view, or stage changes over it.
//!
//! All tables lie in one B-tree, keyed `table NUL key`: a commit that touches three tables rewrites the paths of one
//! tree instead of four. A [`WriteTx`] keeps one closure's changes in memory and looks through them at the round's
//! transaction, so dropping them is the whole undo.

use std::collections::{BTreeMap, BTreeSet};

use model::{Error, Result};
use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use crate::db::is_damage;
use crate::row::{self, Row, Table};
use crate::survey::{Damaged, Survey};

const ROWS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("rows");

/// The round's open B-tree.
pub(crate) type Rows<'txn> = redb::Table<'txn, &'static str, &'static [u8]>;

/// A row of a database that may be new.
pub(crate) fn peek<R: Row>(db: &Database, table: &Table<R>, key: &str) -> Result<Option<R>> {
    let tx = db.begin_read().map_err(failed)?;
    match tx.open_table(ROWS) {
        Ok(rows) => ReadTx { rows }.get(table, key),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

/// Makes the B-tree of a new database, with its first row.
pub(crate) fn plant<R: Row>(db: &Database, table: &Table<R>, key: &str, row: &R) -> Result<()> {
    let tx = db.begin_write().map_err(failed)?;
    {
        let mut rows = open_rows(&tx)?;
        let mut staged = WriteTx::new(&mut rows);
        staged.put(table, key, row)?;
        staged.merge()?;
    }
    tx.commit().map_err(failed)
}

/// Opens the B-tree for a round of writes.
pub(crate) fn open_rows(tx: &redb::WriteTransaction) -> Result<Rows<'_>> {
    tx.open_table(ROWS).map_err(failed)
}

/// An error of the database as the daemon's error.
pub(crate) fn failed(error: impl Into<redb::Error>) -> Error {
    let error: redb::Error = error.into();
    match error {
        redb::Error::Io(e) if is_damage(&e) => Error::data_loss(format!("store: {e}")),
        redb::Error::Io(e) => Error::from(e).prefix("store"),
        redb::Error::Corrupted(text) => Error::data_loss(format!("store: {text}")),
        other => Error::system(format!("store: {other}")),
    }
}

/// A consistent view of the last commit.
pub struct ReadTx {
    rows: ReadOnlyTable<&'static str, &'static [u8]>,
}

impl ReadTx {
    pub(crate) fn new(tx: &ReadTransaction) -> Result<ReadTx> {
        Ok(ReadTx { rows: tx.open_table(ROWS).map_err(failed)? })
    }

    /// The row of this key.
    pub fn get<R: Row>(&self, table: &Table<R>, key: &str) -> Result<Option<R>> {
        let full = table.full_key(key);
        match self.rows.get(full.as_str()).map_err(failed)? {
            Some(bytes) => row::decode(table, &full, bytes.value()).map(Some),
            None => Ok(None),
        }
    }

    /// Every row of the table, ordered by key.
    pub fn scan<R: Row>(&self, table: &Table<R>) -> Result<Vec<(String, R)>> {
        let mut found = Vec::new();
        each(&self.rows, table, |full, bytes| {
            found.push((table.short_key(full).to_owned(), row::decode(table, full, bytes)?));
            Ok(())
        })?;
        Ok(found)
    }

    /// Every row of the table, and apart from them what cannot be read: for looking a store over.
    pub fn survey<R: Row>(&self, table: &Table<R>) -> Result<Survey<R>> {
        let mut found = Survey { rows: Vec::new(), damaged: Vec::new() };
        each(&self.rows, table, |full, bytes| {
            let key = table.short_key(full).to_owned();
            match row::decode(table, full, bytes) {
                Ok(row) => found.rows.push((key, row)),
                Err(error) => found.damaged.push(Damaged {
                    key,
                    bytes: bytes.to_vec(),
                    why: error.message().to_owned(),
                    newer: row::is_newer::<R>(bytes),
                }),
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Every row of the table that can be read, ordered by key: see [`Survey::readable`].
    pub fn readable<R: Row>(&self, table: &Table<R>) -> Result<Vec<(String, R)>> {
        self.survey(table)?.readable()
    }

    /// Whether every row of the table can be read.
    pub fn is_whole<R: Row>(&self, table: &Table<R>) -> Result<bool> {
        Ok(self.survey(table)?.damaged.is_empty())
    }

    /// Every key of the table, in order.
    pub fn keys<R: Row>(&self, table: &Table<R>) -> Result<Vec<String>> {
        let mut found = Vec::new();
        each(&self.rows, table, |full, _| {
            found.push(table.short_key(full).to_owned());
            Ok(())
        })?;
        Ok(found)
    }
}

fn each<R: Row>(
    rows: &impl ReadableTable<&'static str, &'static [u8]>,
    table: &Table<R>,
    mut f: impl FnMut(&str, &[u8]) -> Result<()>,
) -> Result<()> {
    let (from, to) = table.range();
    for entry in rows.range(from.as_str()..to.as_str()).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        f(key.value(), value.value())?;
    }
    Ok(())
}

/// One closure's view and its staged changes.
pub struct WriteTx<'r, 'txn> {
    rows: &'r mut Rows<'txn>,
    /// `None` is a deletion.
    staged: BTreeMap<String, Option<Vec<u8>>>,
}

impl<'r, 'txn> WriteTx<'r, 'txn> {
    pub(crate) fn new(rows: &'r mut Rows<'txn>) -> Self {
        WriteTx { rows, staged: BTreeMap::new() }
    }

    /// The row of this key, this closure's changes included.
    pub fn get<R: Row>(&self, table: &Table<R>, key: &str) -> Result<Option<R>> {
        let full = table.full_key(key);
        match self.staged.get(&full) {
            Some(Some(bytes)) => row::decode(table, &full, bytes).map(Some),
            Some(None) => Ok(None),
            None => match self.rows.get(full.as_str()).map_err(failed)? {
                Some(bytes) => row::decode(table, &full, bytes.value()).map(Some),
                None => Ok(None),
            },
        }
    }

    /// Every row of the table ordered by key, this closure's changes included.
    pub fn scan<R: Row>(&self, table: &Table<R>) -> Result<Vec<(String, R)>> {
        let mut found = BTreeMap::new();
        each(self.rows, table, |full, bytes| {
            if !self.staged.contains_key(full) {
                found.insert(table.short_key(full).to_owned(), row::decode(table, full, bytes)?);
            }
            Ok(())
        })?;
        let (from, to) = table.range();
        for (full, bytes) in self.staged.range(from..to) {
            if let Some(bytes) = bytes {
                found.insert(table.short_key(full).to_owned(), row::decode(table, full, bytes)?);
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Every key of the table in order, this closure's changes included.
    pub fn keys<R: Row>(&self, table: &Table<R>) -> Result<Vec<String>> {
        self.keys_prefix(table, "")
    }

    /// The keys of the table that begin with `prefix`, in order, this closure's changes included.
    pub fn keys_prefix<R: Row>(&self, table: &Table<R>, prefix: &str) -> Result<Vec<String>> {
        let from = table.full_key(prefix);
        let in_table = |full: &str| full.starts_with(&from);
        let mut found = BTreeSet::new();
        for entry in self.rows.range(from.as_str()..).map_err(failed)? {
            let (key, _) = entry.map_err(failed)?;
            if !in_table(key.value()) {
                break;
            }
            found.insert(key.value().to_owned());
        }
        for (full, staged) in self.staged.range(from.clone()..).take_while(|(full, _)| in_table(full)) {
            match staged {
                Some(_) => _ = found.insert(full.clone()),
                None => _ = found.remove(full),
            }
        }
        Ok(found.iter().map(|full| table.short_key(full).to_owned()).collect())
    }

    /// Stores the row under this key, in place of what was there.
    pub fn put<R: Row>(&mut self, table: &Table<R>, key: &str, row: &R) -> Result<()> {
        self.staged.insert(table.full_key(key), Some(row::encode(row)?));
        Ok(())
    }

    /// Stores bytes that need not be a row of the table: for tests of what becomes of damage.
    pub fn put_raw<R: Row>(&mut self, table: &Table<R>, key: &str, bytes: &[u8]) -> Result<()> {
        self.staged.insert(table.full_key(key), Some(bytes.to_vec()));
        Ok(())
    }

    /// Removes the row of this key; tells whether there was one.
    pub fn delete<R: Row>(&mut self, table: &Table<R>, key: &str) -> Result<bool> {
        let full = table.full_key(key);
        let existed = match self.staged.get(&full) {
            Some(staged) => staged.is_some(),
            None => self.rows.get(full.as_str()).map_err(failed)?.is_some(),
        };
        if existed {
            self.staged.insert(full, None);
        }
        Ok(existed)
    }

    /// Moves the staged changes into the round's transaction; tells whether there were any.
    pub(crate) fn merge(self) -> Result<bool> {
        let any = !self.staged.is_empty();
        for (key, value) in self.staged {
            match value {
                Some(bytes) => drop(self.rows.insert(key.as_str(), bytes.as_slice()).map_err(failed)?),
                None => drop(self.rows.remove(key.as_str()).map_err(failed)?),
            }
        }
        Ok(any)
    }
}
