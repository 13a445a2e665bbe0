//! The versions of all that is written to the disk or spoken with monitors: who takes over knows each at least so far.

use std::collections::BTreeMap;

use store::Row;

use crate::container::definition::Definition;
use crate::container::row::RunRecord;

/// By name. A name is never given to something else.
pub fn all() -> BTreeMap<&'static str, u32> {
    [
        ("containers", Definition::VERSION),
        ("runs", RunRecord::VERSION),
        ("images", image::FORMAT),
        ("networks", network::row::NetworkRow::VERSION),
        ("volumes", ::volume::FORMAT),
        ("events", events::FORMAT),
        ("monitors", u32::from(monitor::proto::VERSION)),
        ("store", store::FORMAT),
    ]
    .into()
}
