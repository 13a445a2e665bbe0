//! 1.42: an image without any name had the name `<none>`.

use serde_json::{Map, Value, json};

pub(super) fn image_summary(map: &mut Map<String, Value>) {
    let nameless = ["RepoTags", "RepoDigests"]
        .iter()
        .all(|key| map.get(*key).and_then(Value::as_array).is_none_or(|names| names.is_empty()));
    if nameless {
        map.insert("RepoTags".to_owned(), json!(["<none>:<none>"]));
        map.insert("RepoDigests".to_owned(), json!(["<none>@<none>"]));
    }
}
