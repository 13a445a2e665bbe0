//! 1.50: the image list did not count containers.

use serde_json::{Map, Value, json};

pub(super) fn image_summary(map: &mut Map<String, Value>) {
    map.insert("Containers".to_owned(), json!(-1));
}
