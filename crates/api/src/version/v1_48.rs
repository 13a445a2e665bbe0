//! 1.48: `Info` named no firewall, and each component had the commit that was expected.

use serde_json::{Map, Value};

use super::add;

pub(super) fn info(map: &mut Map<String, Value>) {
    map.shift_remove("FirewallBackend");
    for component in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
        if let Some(commit) = map.get_mut(component).and_then(Value::as_object_mut) {
            let id = commit.get("ID").cloned().unwrap_or_default();
            add(commit, "Expected", id);
        }
    }
}
