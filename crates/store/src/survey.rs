//! Rows that cannot be read: found, told of, and left out of what is loaded.

use model::{Error, Result};

use crate::row::{Row, Table};
use crate::tx::{ReadTx, WriteTx};

/// A table, looked over row by row.
pub struct Survey<R> {
    /// What can be read, ordered by key.
    pub rows: Vec<(String, R)>,
    /// What cannot.
    pub damaged: Vec<Damaged>,
}

/// A row that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Its key.
    pub key: String,
    /// As it lies in the store.
    pub bytes: Vec<u8>,
    /// What is wrong with it; names table and key.
    pub why: String,
    /// A newer version wrote it.
    pub newer: bool,
}

/// A table, whatever its rows are.
pub trait AnyTable: Sync {
    /// The table's name.
    fn name(&self) -> &'static str;

    /// The rows that cannot be read.
    fn damaged(&self, tx: &ReadTx) -> Result<Vec<Damaged>>;

    /// Removes the row of this key; tells whether there was one.
    fn delete(&self, tx: &mut WriteTx<'_, '_>, key: &str) -> Result<bool>;
}

impl<R: Row> AnyTable for Table<R> {
    fn name(&self) -> &'static str {
        Table::name(self)
    }

    fn damaged(&self, tx: &ReadTx) -> Result<Vec<Damaged>> {
        Ok(tx.survey(self)?.damaged)
    }

    fn delete(&self, tx: &mut WriteTx<'_, '_>, key: &str) -> Result<bool> {
        tx.delete(self, key)
    }
}

impl<R> Survey<R> {
    /// What can be read, for those who go on without the rest; what that may have named they leave alone.
    ///
    /// Errors: `DataLoss` for a row of a newer version, which is not damaged.
    pub fn readable(self) -> Result<Vec<(String, R)>> {
        match self.damaged.into_iter().find(|damaged| damaged.newer) {
            Some(newer) => Err(Error::data_loss(newer.why)),
            None => Ok(self.rows),
        }
    }
}
