//! What a front end is asked for, and what it returns.

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::pb;

/// A request for a front end.
pub(crate) struct Frontend {
    pub(crate) name: String,
    pub(crate) attributes: HashMap<String, String>,
    pub(crate) inputs: HashMap<String, pb::Definition>,
    pub(crate) definition: Option<pb::Definition>,
    /// Front ends in containers that have asked for one another until this request.
    pub(crate) depth: usize,
}

/// What a front end has returned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) files: Definitions,
    pub(crate) metadata: HashMap<String, Vec<u8>>,
}

/// Of what a result is; `None`: of nothing, an empty root.
#[derive(Clone, Debug)]
pub(crate) enum Definitions {
    One(Option<pb::Definition>),
    Many(BTreeMap<String, Option<pb::Definition>>),
}

impl Default for Definitions {
    fn default() -> Definitions {
        Definitions::One(None)
    }
}
