//! 1.44: aliases of endpoints held the short id and the hostname; images showed the container that they were
//! committed from. No image here has one: its configuration is that of a container of which nothing was asked, because
//! clients of that time (Compose 1.29) read its fields.

use serde_json::{Map, Value, json};

use super::{add, endpoints};
use crate::ContainerConfig;

/// Characters of a short id.
const SHORT_ID: usize = 12;

pub(super) fn container_inspect(map: &mut Map<String, Value>) {
    let short = map.get("Id").and_then(Value::as_str).and_then(|id| id.get(..SHORT_ID)).unwrap_or_default().to_owned();
    let hostname = map.get("Config").and_then(|config| config.get("Hostname")).and_then(Value::as_str);
    let names = [Some(short), hostname.map(str::to_owned)];
    for (network, endpoint) in endpoints(map) {
        if matches!(network.as_str(), "bridge" | "host" | "none" | "default") || network.starts_with("container:") {
            continue;
        }
        let mut aliases = endpoint.get("Aliases").and_then(Value::as_array).cloned().unwrap_or_default();
        for name in names.iter().flatten() {
            let name = Value::String(name.clone());
            if !aliases.contains(&name) {
                aliases.push(name);
            }
        }
        endpoint.insert("Aliases".to_owned(), Value::Array(aliases));
    }
}

pub(super) fn image_inspect(map: &mut Map<String, Value>) {
    add(map, "Container", json!(""));
    add(map, "ContainerConfig", json!(ContainerConfig::default()));
}
