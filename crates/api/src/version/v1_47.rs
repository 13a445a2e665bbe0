//! 1.47: no manifest descriptors, no gateway priority, IPv4 could not be switched off.

use serde_json::{Map, Value};

use super::endpoints;

pub(super) fn container(map: &mut Map<String, Value>) {
    map.shift_remove("ImageManifestDescriptor");
    for (_, endpoint) in endpoints(map) {
        endpoint.shift_remove("GwPriority");
    }
}

pub(super) fn image(map: &mut Map<String, Value>) {
    map.shift_remove("Descriptor");
}

pub(super) fn network(map: &mut Map<String, Value>) {
    map.shift_remove("EnableIPv4");
}
