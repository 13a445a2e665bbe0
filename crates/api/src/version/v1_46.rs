//! 1.46: `Info` listed registries for layers that must not be distributed.

use serde_json::{Map, Value};

use super::add;

pub(super) fn info(map: &mut Map<String, Value>) {
    if let Some(config) = map.get_mut("RegistryConfig").and_then(Value::as_object_mut) {
        add(config, "AllowNondistributableArtifactsCIDRs", Value::Null);
        add(config, "AllowNondistributableArtifactsHostnames", Value::Null);
    }
}
