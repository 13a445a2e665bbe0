//! Secrets and configs as they lie in the store.

use std::collections::BTreeMap;

use model::time::Timestamp;
use serde::{Deserialize, Serialize};
use store::{Row, Table};

/// All of them, by `<kind>/<name>`.
pub const SECRETS: Table<Secret> = Table::new("secrets");
/// Their content, by id.
pub const SEALS: Table<Seal> = Table::new("secret-seals");

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Nobody is shown its content but containers.
    Secret,
    /// Clients are, too.
    Config,
}

impl Kind {
    /// In texts and keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Secret => "secret",
            Kind::Config => "config",
        }
    }

    /// Bytes that it must have less than, as with the reference.
    pub fn limit(self) -> usize {
        match self {
            Kind::Secret => 500 << 10,
            Kind::Config => 1000 << 10,
        }
    }
}

/// What is known of one besides its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// 25 characters, as the reference's.
    pub id: String,
    /// Kind.
    pub kind: Kind,
    /// Unique among its kind.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
    /// When its labels were changed.
    pub updated: Timestamp,
    /// Counts the changes.
    pub version: u64,
}

impl Row for Secret {
    const VERSION: u32 = 1;
}

impl Secret {
    pub(crate) fn key(kind: Kind, name: &str) -> String {
        format!("{}/{name}", kind.as_str())
    }

    /// Whom its seal is for.
    pub(crate) fn owner(&self) -> String {
        format!("gantry {} {}", self.kind.as_str(), self.id)
    }
}

/// Sealed content, in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal(pub(crate) String);

impl Row for Seal {
    const VERSION: u32 = 1;
}
