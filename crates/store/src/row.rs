//! Rows and tables: how a struct becomes bytes and back.
//!
//! A row is stored as `{"v":N,"row":{…}}`. `N` is the row type's version when it was written; an older row passes
//! through [`Row::migrate`] on its way out, so a reader always gets today's shape. Rows of a newer version are refused.

use std::marker::PhantomData;

use model::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A struct that can be stored. Its fields are a promise to every later version of Gantry.
pub trait Row: Serialize + DeserializeOwned {
    /// Raise when a field changes its meaning; new optional fields (`#[serde(default)]`) need no new version.
    const VERSION: u32;

    /// Turns a row written at version `from` into today's shape.
    fn migrate(from: u32, row: Value) -> Result<Value> {
        let _ = from;
        Ok(row)
    }
}

/// A named table of rows with text keys. Defined as a constant by the crate that owns the rows.
pub struct Table<R> {
    name: &'static str,
    rows: PhantomData<fn() -> R>,
}

impl<R: Row> Table<R> {
    /// A table of this name: lower-case letters and `-`.
    pub const fn new(name: &'static str) -> Table<R> {
        Table { name, rows: PhantomData }
    }

    /// The table's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The key under which a row lies in the one B-tree that holds all tables.
    pub(crate) fn full_key(&self, key: &str) -> String {
        format!("{}\0{key}", self.name)
    }

    /// The half-open range of full keys of this table.
    pub(crate) fn range(&self) -> (String, String) {
        (format!("{}\0", self.name), format!("{}\u{1}", self.name))
    }

    /// The caller's key within a full key of this table.
    pub(crate) fn short_key<'k>(&self, full: &'k str) -> &'k str {
        full.get(self.name.len() + 1..).unwrap_or_default()
    }
}

const HEAD: &[u8] = b"{\"v\":";
const BODY: &[u8] = b",\"row\":";

/// Encodes a row at its current version.
pub(crate) fn encode<R: Row>(row: &R) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(HEAD);
    bytes.extend_from_slice(R::VERSION.to_string().as_bytes());
    bytes.extend_from_slice(BODY);
    serde_json::to_writer(&mut bytes, row).map_err(|e| Error::system(format!("encoding a row: {e}")))?;
    bytes.push(b'}');
    Ok(bytes)
}

/// Decodes a row, migrating it when it is older than `R`.
pub(crate) fn decode<R: Row>(table: &Table<R>, full_key: &str, bytes: &[u8]) -> Result<R> {
    let damaged =
        |why: &str| Error::data_loss(format!("row {:?} of table {}: {why}", table.short_key(full_key), table.name));
    let (version, body) = split(bytes).ok_or_else(|| damaged("not a row"))?;
    if version == R::VERSION {
        return serde_json::from_slice(body).map_err(|e| damaged(&e.to_string()));
    }
    if version > R::VERSION {
        return Err(damaged(&format!("written by a newer version ({version} > {})", R::VERSION)));
    }
    let value = serde_json::from_slice(body).map_err(|e| damaged(&e.to_string()))?;
    let value = R::migrate(version, value).map_err(|e| damaged(e.message()))?;
    serde_json::from_value(value).map_err(|e| damaged(&e.to_string()))
}

/// Whether a row was written by a newer version: it is not damaged, only not for this one.
pub(crate) fn is_newer<R: Row>(bytes: &[u8]) -> bool {
    split(bytes).is_some_and(|(version, _)| version > R::VERSION)
}

fn split(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let rest = bytes.strip_prefix(HEAD)?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let version = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    let body = rest[digits..].strip_prefix(BODY)?.strip_suffix(b"}")?;
    Some((version, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Named {
        name: String,
    }
    impl Row for Named {
        const VERSION: u32 = 2;
        fn migrate(from: u32, mut row: Value) -> Result<Value> {
            assert_eq!(from, 1);
            let old = row["title"].take();
            Ok(serde_json::json!({ "name": old }))
        }
    }
    const NAMED: Table<Named> = Table::new("named");

    #[test]
    fn rows_round_trip_and_migrate() {
        let row = Named { name: "a\"}".into() };
        assert_eq!(decode(&NAMED, "named\0k", &encode(&row).unwrap()).unwrap(), row);
        let old = br#"{"v":1,"row":{"title":"x"}}"#;
        assert_eq!(decode(&NAMED, "named\0k", old).unwrap(), Named { name: "x".into() });
    }

    #[test]
    fn newer_and_damaged_rows_are_refused_by_name() {
        for bytes in [&br#"{"v":3,"row":{"name":"x"}}"#[..], b"", b"{}", br#"{"v":2,"row":{"name":"#] {
            let error = decode(&NAMED, "named\0key", bytes).unwrap_err();
            assert_eq!(error.kind(), model::Kind::DataLoss);
            assert!(error.message().starts_with("row \"key\" of table named: "), "{}", error.message());
        }
    }
}
