//! How large the daemon's tables in memory are: what a run puts into one is gone from it when the run and its container are.

use std::collections::BTreeMap;

use crate::Engine;

/// Entries by table.
pub fn sizes(engine: &Engine) -> BTreeMap<&'static str, usize> {
    let mut sizes = engine.networks.sizes();
    sizes.extend(engine.containers.sizes());
    sizes
}
