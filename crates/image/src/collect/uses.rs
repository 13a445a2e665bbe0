//! When the last container was made of an image.

use events::now;
use model::Result;
use model::digest::Digest;
use model::time::Timestamp;
use store::{Row, Table, WriteTx};

/// When the last container was created of an image, by the image's id.
pub(super) const USED: Table<UsedRow> = Table::new("image-uses");
/// Uses that follow each other faster are not worth a write.
const USED_GRAIN_NANOS: i64 = 60_000_000_000;

/// See [`USED`].
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct UsedRow {
    pub(super) at: Timestamp,
}

impl Row for UsedRow {
    const VERSION: u32 = 1;
}

/// Notes that a container is being created of an image: part of the commit that creates it, so it costs no sync.
pub(crate) fn note(tx: &mut WriteTx<'_, '_>, image: &Digest) -> Result<()> {
    let at = now();
    match tx.get(&USED, image.as_str())? {
        Some(row) if (0..USED_GRAIN_NANOS).contains(&at.nanos_since(row.at)) => Ok(()),
        _ => tx.put(&USED, image.as_str(), &UsedRow { at }),
    }
}

/// Forgets the uses of an image that goes.
pub(crate) fn forget(tx: &mut WriteTx<'_, '_>, image: &Digest) -> Result<()> {
    tx.delete(&USED, image.as_str()).map(drop)
}
