//! Stages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::answer::{Answer, answer, location};
use super::table;
use crate::error::Result;
use crate::instruction::{self, Stage};
use crate::lint::Linter;
use crate::parse;

/// The stages of a file; the last is the one that is built if nobody names one.
pub fn targets(text: &str) -> Result<Answer> {
    let document = parse::parse(text)?;
    let stages = instruction::program(&document, &mut Linter::default())?.stages;
    let last = stages.len().saturating_sub(1);
    let entry = |(at, stage): (usize, &Stage)| {
        let mut json = Map::new();
        let default = if at == last { "true" } else { "" };
        let parts = [
            ("name", stage.name.as_str()),
            ("default", default),
            ("description", &stage.description),
            ("base", &stage.source),
            ("platform", &stage.platform),
        ];
        for (key, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
            json.insert(key.into(), if key == "default" { true.into() } else { value.into() });
        }
        json.insert("location".into(), location(stage.lines));
        Value::Object(json)
    };
    let list: Vec<Value> = stages.iter().enumerate().map(entry).collect();
    let mut rows = vec![["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    rows.extend(stages.iter().enumerate().map(|(at, stage)| {
        let name = match (stage.name.as_str(), at == last) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        [name, stage.description.clone()]
    }));
    let list = if list.is_empty() { Value::Null } else { list.into() };
    Ok(answer(&json!({ "targets": list, "sources": [STANDARD.encode(text)] }), table::aligned(&rows, 1)))
}
