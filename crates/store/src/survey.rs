//! Rows that cannot be read: found, told of, and left out of what is loaded.

use model::{Error, Result};

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
