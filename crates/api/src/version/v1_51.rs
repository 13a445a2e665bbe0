//! 1.51: what 1.52 dropped (bridge fields at the top of `NetworkSettings`, `GraphDriver` for every store, empty image
//! fields, old event fields, lists in disk usage) and what it added (health in the list, network status, `os_type`).

use serde_json::{Map, Value, json};

use super::{ApiVersion, add, df_images};

type Object = Map<String, Value>;

pub(super) fn container_summary(map: &mut Object) {
    map.shift_remove("Health");
}

pub(super) fn container_inspect(map: &mut Object) {
    if !map.contains_key("GraphDriver")
        && let Some(name) = map.get("Storage").and_then(|storage| storage.pointer("/RootFS/Snapshot/Name")).cloned()
    {
        map.insert("GraphDriver".to_owned(), json!({"Data": null, "Name": name}));
    }
    map.shift_remove("Storage");
    if let Some(config) = map.get_mut("Config").and_then(Value::as_object_mut) {
        add(config, "OnBuild", Value::Null);
    }
    let Some(settings) = map.get_mut("NetworkSettings").and_then(Value::as_object_mut) else { return };
    let bridge = settings.get("Networks").and_then(|networks| networks.get("bridge")).cloned().unwrap_or_default();
    for (key, zero) in [
        ("Bridge", json!("")),
        ("HairpinMode", json!(false)),
        ("LinkLocalIPv6Address", json!("")),
        ("LinkLocalIPv6PrefixLen", json!(0)),
        ("SecondaryIPAddresses", Value::Null),
        ("SecondaryIPv6Addresses", Value::Null),
        ("EndpointID", json!("")),
        ("Gateway", json!("")),
        ("GlobalIPv6Address", json!("")),
        ("GlobalIPv6PrefixLen", json!(0)),
        ("IPAddress", json!("")),
        ("IPPrefixLen", json!(0)),
        ("IPv6Gateway", json!("")),
        ("MacAddress", json!("")),
    ] {
        add(settings, key, bridge.get(key).cloned().unwrap_or(zero));
    }
}

/// Fields of an image's configuration that 1.50 and 1.51 wrote even when empty.
pub(super) fn image_inspect(map: &mut Object) {
    for key in ["Parent", "Comment", "DockerVersion", "Author"] {
        add(map, key, json!(""));
    }
    if let Some(config) = map.get_mut("Config").and_then(Value::as_object_mut) {
        for key in ["Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"] {
            add(config, key, Value::Null);
        }
        for key in ["User", "WorkingDir"] {
            add(config, key, json!(""));
        }
    }
}

pub(super) fn network(map: &mut Object) {
    map.shift_remove("Status");
}

pub(super) fn stats(map: &mut Object) {
    map.shift_remove("os_type");
}

/// Containers and images carry their identity and action once more under the old names, in front.
pub(super) fn event(map: &mut Object) {
    let kind = map.get("Type").and_then(Value::as_str).unwrap_or_default();
    if kind != "container" && kind != "image" {
        return;
    }
    let field = |path: &str| Value::Object(map.clone()).pointer(path).cloned();
    let mut old = Map::new();
    old.insert("status".to_owned(), field("/Action").unwrap_or_default());
    old.insert("id".to_owned(), field("/Actor/ID").unwrap_or_default());
    if kind == "container" {
        old.insert("from".to_owned(), field("/Actor/Attributes/image").unwrap_or_else(|| json!("")));
    }
    old.extend(std::mem::take(map));
    *map = old;
}

/// The lists of the old shape. A kind that was not asked for has none.
pub(super) fn disk_usage_lists(version: ApiVersion, usage: &Object) -> Object {
    let mut lists = Map::new();
    let items = |kind: &str| {
        usage.get(kind).map(|usage| usage.get("Items").cloned().unwrap_or_else(|| Value::Array(Vec::new())))
    };
    if let Some(mut images) = items("ImageUsage") {
        let total = usage["ImageUsage"].get("TotalSize").cloned().unwrap_or_else(|| json!(0));
        lists.insert("LayersSize".to_owned(), total);
        df_images(version, &mut images);
        lists.insert("Images".to_owned(), images);
    }
    for (old, new) in [("Containers", "ContainerUsage"), ("Volumes", "VolumeUsage"), ("BuildCache", "BuildCacheUsage")]
    {
        if let Some(list) = items(new) {
            lists.insert(old.to_owned(), list);
        }
    }
    lists
}
