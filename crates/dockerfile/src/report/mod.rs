//! What is told of a Dockerfile without building it (`--call`): as JSON for programs and as text for people.

mod frame;
mod lint;
mod outline;
mod table;
mod targets;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub use frame::frame;
pub use lint::lint;
pub use outline::outline;
pub use targets::targets;

use crate::error::Lines;

/// What can be asked.
pub const DESCRIBE: &str = "frontend.subrequests.describe";
/// Findings.
pub const LINT: &str = "frontend.lint";
/// Arguments, secrets and agents of a target.
pub const OUTLINE: &str = "frontend.outline";
/// Stages.
pub const TARGETS: &str = "frontend.targets";
/// Of all of them.
const VERSION: &str = "1.0.0";

/// An answer by the names of its parts.
type Told = BTreeMap<String, Vec<u8>>;

fn told(json: &Value, text: String) -> Told {
    let pretty = serde_json::to_vec_pretty(json).unwrap_or_default();
    let parts = [("result.json", pretty), ("result.txt", text.into_bytes()), ("version", VERSION.into())];
    parts.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

/// Lines of a file of the list of files.
fn location(lines: Lines) -> Value {
    let position = |line: u32| json!({ "line": line });
    let range = |line| json!({ "start": position(line), "end": position(line) });
    match lines.first {
        0 => json!({}),
        first => json!({ "ranges": (first..=lines.last).map(range).collect::<Vec<Value>>() }),
    }
}

/// What can be asked.
pub fn describe() -> Told {
    let list = [
        (
            OUTLINE,
            "List all parameters current build target supports",
            json!([{"name": "target", "description": "Target build stage"}]),
        ),
        (TARGETS, "List all targets current build supports", json!([])),
        (DESCRIBE, "List available subrequest types", Value::Null),
    ];
    let entry = |(name, description, options): &(&str, &str, Value)| {
        json!({
            "name": name,
            "version": VERSION,
            "type": "rpc",
            "description": description,
            "opts": options,
            "inputs": null,
            "metadata": [{"name": "result.json", "description": ""}, {"name": "result.txt", "description": ""}],
            "refs": null,
        })
    };
    let mut rows = vec![["NAME".to_owned(), "VERSION".to_owned(), "DESCRIPTION".to_owned()]];
    rows.extend(list.iter().map(|(name, description, _)| {
        let name = name.trim_start_matches("frontend.").to_owned();
        [name, VERSION.to_owned(), (*description).to_owned()]
    }));
    told(&list.iter().map(entry).collect(), table::aligned(&rows, 1))
}
