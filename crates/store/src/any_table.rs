//! Tables whose kind of rows a caller does not know.

use model::Result;

use crate::row::{Row, Table};
use crate::survey::Damaged;
use crate::tx::{ReadTx, WriteTx};

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
