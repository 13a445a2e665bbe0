//! The form of answers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::lines::Lines;

/// Of all of them.
pub(super) const VERSION: &str = "1.0.0";

/// An answer by the names of its parts.
pub type Answer = BTreeMap<String, Vec<u8>>;

/// As JSON and as text.
pub(super) fn answer(json: &Value, text: String) -> Answer {
    let pretty = serde_json::to_vec_pretty(json).unwrap_or_default();
    let parts = [("result.json", pretty), ("result.txt", text.into_bytes()), ("version", VERSION.into())];
    parts.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

/// Lines of a file of the list of files.
pub(super) fn location(lines: Lines) -> Value {
    let position = |line: u32| json!({ "line": line });
    let range = |line| json!({ "start": position(line), "end": position(line) });
    match lines.first {
        0 => json!({}),
        first => json!({ "ranges": (first..=lines.last).map(range).collect::<Vec<Value>>() }),
    }
}
