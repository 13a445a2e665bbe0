//! What is kept for others than images and containers: layers and blobs that a sweep must not take.
//!
//! Table `kept-content` has one row per keeper, with a key of the keeper's own choice. A row belongs into the commit that makes
//! or removes what it is kept for.

use model::digest::Digest;
use serde::{Deserialize, Serialize};
use snapshot::LayerKey;
use store::{Row, Table};

/// All keepers.
pub const KEPT: Table<KeptRow> = Table::new("kept-content");

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRow {
    /// Layers, by any of their keys.
    pub layers: Vec<LayerKey>,
    /// Blobs.
    #[serde(default)]
    pub blobs: Vec<Digest>,
}

impl Row for KeptRow {
    const VERSION: u32 = 1;
}
