//! 1.49: `Info` had the bridge filters and no devices; image configurations had the fields of containers.

use serde_json::{Map, Value, json};

use super::add;

pub(super) fn info(map: &mut Map<String, Value>) {
    map.shift_remove("DiscoveredDevices");
    add(map, "BridgeNfIptables", json!(false));
    add(map, "BridgeNfIp6tables", json!(false));
}

pub(super) fn image_inspect(map: &mut Map<String, Value>) {
    let Some(config) = map.get_mut("Config").and_then(Value::as_object_mut) else { return };
    for key in ["AttachStderr", "AttachStdin", "AttachStdout", "OpenStdin", "StdinOnce", "Tty"] {
        add(config, key, json!(false));
    }
    for key in ["Domainname", "Hostname", "Image"] {
        add(config, key, json!(""));
    }
}
