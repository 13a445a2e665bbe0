//! 1.45: no annotations in the container list, no containerd in `Info`, no `create` events of images.

use serde_json::{Map, Value};

pub(super) fn container_summary(map: &mut Map<String, Value>) {
    if let Some(host) = map.get_mut("HostConfig").and_then(Value::as_object_mut) {
        host.shift_remove("Annotations");
    }
}

pub(super) fn info(map: &mut Map<String, Value>) {
    map.shift_remove("Containerd");
}
