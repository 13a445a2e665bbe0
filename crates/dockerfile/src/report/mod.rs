//! What is reported of a Dockerfile without building it (`--call`): as JSON for programs and as text for people.

mod answer;
mod frame;
mod lint;
mod outline;
mod table;
mod targets;

pub use frame::frame;
pub use lint::lint;
pub use outline::outline;
use serde_json::{Value, json};
pub use targets::targets;

use answer::{Answer, VERSION, answer};

/// What can be asked.
pub const DESCRIBE: &str = "frontend.subrequests.describe";
/// Findings.
pub const LINT: &str = "frontend.lint";
/// Arguments, secrets and agents of a target.
pub const OUTLINE: &str = "frontend.outline";
/// Stages.
pub const TARGETS: &str = "frontend.targets";
/// What can be asked.
pub fn describe() -> Answer {
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
    answer(&list.iter().map(entry).collect(), table::aligned(&rows, 1))
}
