//! 1.43: images had a virtual size, runtimes no status, endpoints no DNS names.

use serde_json::{Map, Value, json};

use super::{add, endpoints};
use crate::go::ZERO_TIME;

pub(super) fn container(map: &mut Map<String, Value>) {
    for (_, endpoint) in endpoints(map) {
        endpoint.shift_remove("DNSNames");
    }
}

pub(super) fn image(map: &mut Map<String, Value>) {
    let size = map.get("Size").cloned().unwrap_or_else(|| json!(0));
    add(map, "VirtualSize", size);
}

pub(super) fn image_inspect(map: &mut Map<String, Value>) {
    image(map);
    add(map, "Created", json!(ZERO_TIME));
}

pub(super) fn info(map: &mut Map<String, Value>) {
    let runtimes = map.get_mut("Runtimes").and_then(Value::as_object_mut).into_iter().flatten();
    for (_, runtime) in runtimes {
        if let Some(runtime) = runtime.as_object_mut() {
            runtime.shift_remove("status");
        }
    }
}
