//! What a target can be built with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::answer::{Answer, answer, location};
use super::table;
use crate::convert::{Entry, Outline};

/// Arguments, secrets and agents of a target.
pub fn outline(outline: &Outline, text: &str) -> Answer {
    let mut json = Map::new();
    for (key, value) in [("name", &outline.name), ("description", &outline.description)] {
        if !value.is_empty() {
            json.insert(key.into(), value.clone().into());
        }
    }
    for (key, entries) in [("args", &outline.arguments), ("secrets", &outline.secrets), ("ssh", &outline.agents)] {
        if !entries.is_empty() {
            json.insert(key.into(), entries.iter().map(entry).collect());
        }
    }
    json.insert("sources".into(), json!([STANDARD.encode(text)]));
    answer(&Value::Object(json), shown(outline))
}

fn entry(entry: &Entry) -> Value {
    let mut json = Map::new();
    json.insert("name".into(), entry.name.clone().into());
    for (key, value) in [("description", &entry.description), ("value", &entry.value)] {
        if !value.is_empty() {
            json.insert(key.into(), value.clone().into());
        }
    }
    if entry.required {
        json.insert("required".into(), true.into());
    }
    json.insert("location".into(), location(entry.lines));
    Value::Object(json)
}

fn shown(outline: &Outline) -> String {
    let mut out = String::new();
    if !outline.name.is_empty() || !outline.description.is_empty() {
        let name = if outline.name.is_empty() { "(default)" } else { &outline.name };
        let mut rows = vec![["TARGET:".to_owned(), name.to_owned()]];
        if !outline.description.is_empty() {
            rows.push(["DESCRIPTION:".to_owned(), outline.description.clone()]);
        }
        out += &table::aligned(&rows, 1);
        out.push('\n');
    }
    if !outline.arguments.is_empty() {
        let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned)];
        let row = |entry: &Entry| [entry.name.clone(), entry.value.clone(), entry.description.clone()];
        rows.extend(outline.arguments.iter().map(row));
        out += &table::aligned(&rows, 3);
        out.push('\n');
    }
    for (title, entries) in [("SECRET", &outline.secrets), ("SSH", &outline.agents)] {
        if !entries.is_empty() {
            let mut rows = vec![[title, "REQUIRED"].map(str::to_owned)];
            let required = |entry: &Entry| if entry.required { "true" } else { "" };
            rows.extend(entries.iter().map(|entry| [entry.name.clone(), required(entry).to_owned()]));
            out += &table::aligned(&rows, 3);
            out.push('\n');
        }
    }
    out
}
