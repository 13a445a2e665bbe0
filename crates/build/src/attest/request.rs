//! The request that a result is of.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use model::time::Timestamp;

use crate::job::Attributes;

/// See the module.
#[derive(Clone, Debug)]
pub struct Request {
    /// The front end that was asked for; empty: the client sent a definition.
    pub frontend: String,
    /// What the front end was asked.
    pub attributes: Attributes,
    /// What the build is called.
    pub reference: String,
    /// When it began.
    pub started: Timestamp,
}

/// Definitions of the results, by the ids of their platforms.
pub type Definitions = BTreeMap<String, pb::Definition>;
