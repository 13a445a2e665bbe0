//! Events of a container's life. Those of a change of state ride in its commit.

use events::Draft;

use super::environment::Environment;
use crate::container::registry::draft;
use crate::container::row::ContainerRow;

/// A run has begun.
pub(super) fn started<E: Environment>(engine: &E, row: &ContainerRow) -> Vec<Draft> {
    let endpoints = row.endpoints.iter().filter_map(|endpoint| engine.network_draft(row, "connect", endpoint));
    let mounts = row.volumes().map(|mount| {
        let attributes = [
            ("container", row.id.as_str().to_string()),
            ("destination", mount.destination.clone()),
            ("driver", mount.driver.clone()),
            ("propagation", mount.propagation.clone()),
            ("read/write", mount.writable.to_string()),
        ];
        Draft::new("volume", "mount", &mount.name, attributes)
    });
    endpoints.chain(mounts).chain([draft(row, "start", [])]).collect()
}

/// What a run ended with.
pub(super) struct Ended<'r> {
    /// The connections that it had.
    pub endpoints: &'r [network::Endpoint],
    /// Events about its memory and its stop that no event has reported yet.
    pub unreported: Vec<&'static str>,
    /// Seconds.
    pub lasted: u64,
    /// The exit code.
    pub code: i32,
}

/// A run has ended.
pub(super) fn ended<E: Environment>(engine: &E, row: &ContainerRow, ended: Ended<'_>) -> Vec<Draft> {
    let Ended { endpoints, unreported, lasted, code } = ended;
    let is_oom = |action: &&&str| **action == "oom";
    let oom = unreported.iter().filter(is_oom).map(|action| draft(row, action, []));
    let rest = unreported.iter().filter(|action| !is_oom(action)).map(|action| draft(row, action, []));
    let left = endpoints.iter().filter_map(|endpoint| engine.network_draft(row, "disconnect", endpoint));
    let unmounts = row.volumes().map(|mount| {
        let attributes = [("container", row.id.as_str().to_string()), ("driver", mount.driver.clone())];
        Draft::new("volume", "unmount", &mount.name, attributes)
    });
    let die = draft(row, "die", [("execDuration", lasted.to_string()), ("exitCode", code.to_string())]);
    oom.chain(left).chain(unmounts).chain(rest).chain([die]).collect()
}
