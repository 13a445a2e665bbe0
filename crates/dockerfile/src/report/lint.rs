//! Findings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::pb;
use serde_json::{Map, Value, json};

use super::answer::{Answer, answer, location};
use super::frame::frame;
use crate::error::Error;
use crate::lines::Lines;
use crate::lint::Warning;

/// Findings in a file, and why it could not be read to its end. The status is 1 if there is anything.
pub fn lint(warnings: &[Warning], error: Option<&Error>, file: &pb::SourceInfo) -> Answer {
    let mut json = json!({
        "warnings": warnings.iter().map(warning).collect::<Vec<Value>>(),
        "sources": [source(file)],
    });
    if warnings.is_empty() {
        json["warnings"] = Value::Null;
    }
    if let Some(error) = error {
        json["buildError"] = json!({ "message": error.message(), "location": merged(error.locations()) });
    }
    let mut sorted: Vec<&Warning> = warnings.iter().collect();
    sorted.sort_by_key(|warning| warning.lines.first);
    let text = String::from_utf8_lossy(&file.data);
    let text = sorted.iter().map(|warning| shown(warning, &file.filename, &text)).collect();
    let mut parts = answer(&json, text);
    let status = if warnings.is_empty() && error.is_none() { "0" } else { "1" };
    parts.insert("result.statuscode".into(), status.into());
    parts
}

fn warning(warning: &Warning) -> Value {
    let rule = warning.rule;
    let mut json = json!({ "ruleName": rule.name, "description": rule.description });
    let url = rule.url();
    if !url.is_empty() {
        json["url"] = url.into();
    }
    json["detail"] = warning.message.clone().into();
    json["location"] = location(warning.lines);
    json
}

fn shown(warning: &Warning, file: &str, text: &str) -> String {
    let url = match warning.rule.url().as_str() {
        "" => String::new(),
        url => format!(" - {url}"),
    };
    let place = frame(file, text, warning.lines);
    format!("\nWARNING: {}{url}\n{}\n{place}", warning.rule.name, warning.message)
}

/// Ranges that touch the same lines are one.
fn merged(places: &[Lines]) -> Value {
    let mut ranges: Vec<(u32, u32)> =
        places.iter().flat_map(|lines| (lines.first..=lines.last).map(|line| (line, line))).collect();
    ranges.sort_unstable();
    ranges.dedup();
    if ranges.is_empty() {
        return json!({});
    }
    let range = |(first, last): (u32, u32)| {
        let position = |line: u32| if line == 0 { json!({}) } else { json!({ "line": line }) };
        json!({ "start": position(first), "end": position(last) })
    };
    json!({ "ranges": ranges.into_iter().map(range).collect::<Vec<Value>>() })
}

/// A file, and what made it.
fn source(file: &pb::SourceInfo) -> Value {
    let mut json = Map::new();
    let text = |text: &str| Value::from(text);
    json.insert("filename".into(), text(&file.filename));
    json.insert("data".into(), STANDARD.encode(&file.data).into());
    if let Some(definition) = &file.definition {
        json.insert("definition".into(), self::definition(definition));
    }
    json.insert("language".into(), text(&file.language));
    Value::Object(json)
}

fn definition(definition: &pb::Definition) -> Value {
    let ops: Vec<String> = definition.def.iter().map(|op| STANDARD.encode(op)).collect();
    let metadata = definition.metadata.iter().map(|(name, metadata)| {
        let mut json = Map::new();
        if !metadata.description.is_empty() {
            json.insert("description".into(), json!(metadata.description));
        }
        if !metadata.caps.is_empty() {
            json.insert("caps".into(), json!(metadata.caps));
        }
        (name.clone(), Value::Object(json))
    });
    let metadata: Map<String, Value> = metadata.collect();
    json!({ "def": ops, "metadata": metadata, "Source": {} })
}
