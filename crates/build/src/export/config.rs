//! The configuration of an image as it is written: with its layers, and with times in every row of its history.

use std::collections::BTreeMap;

use base64::Engine as _;
use image::oci::{Document, History, parse};
use model::digest::Digest;
use model::time::{self, Timestamp};
use model::{Error, Result};
use serde_json::{Value, json};

use super::source::Target;

/// Who adds a row to the history for a layer that the front end did not speak of.
const COMMENT: &str = "buildkit.exporter.image.v0";
/// What made such a layer, where nobody knows.
const UNKNOWN: &str = "created by buildkit";
/// The key under which a configuration carries a description of the build cache.
pub(super) const INLINE_CACHE: &str = "moby.buildkit.cache.v0";

/// A layer, for the history.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// When it was made.
    pub created: Option<Timestamp>,
    /// By what; may be empty.
    pub description: String,
}

/// What is written into a configuration.
pub(super) struct Patch<'p> {
    /// The layers, bottom first.
    pub diff_ids: Vec<&'p Digest>,
    /// Where they are from, in the same order.
    pub origins: Vec<Origin>,
    /// What nothing is later than, in seconds since 1970.
    pub epoch: Option<i64>,
    /// A description of the build cache.
    pub cache: Option<&'p [u8]>,
}

/// The configuration of a target, as bytes.
///
/// Errors: `InvalidParameter` for one that is none, or that does not say where it runs.
pub(super) fn write(target: &Target, patch: &Patch<'_>) -> Result<Vec<u8>> {
    let config = match target.config.as_slice() {
        [] => dockerfile::Image::empty(&image::oci::host()).encoded(),
        given => given.to_vec(),
    };
    let document: Document = parse(&config, "image config for export")?;
    for (text, what) in [(&document.platform.os, "os"), (&document.platform.architecture, "architecture")] {
        if text.is_empty() {
            return Err(Error::invalid(format!("invalid image config for export: missing {what}")));
        }
    }
    let value: Value = serde_json::from_slice(&config).map_err(|error| invalid(&error))?;
    let Value::Object(fields) = value else { return Err(Error::invalid("invalid null image config for export")) };
    // In order, as the reference writes them.
    let mut fields: BTreeMap<String, Value> = fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
    let mut history = complete(document.history, &patch.origins);
    let epoch = patch.epoch.map(Timestamp::from_unix_seconds);
    if let Some(epoch) = epoch {
        clamp(&mut history, target.base.as_ref(), epoch);
    }
    fields.insert("rootfs".into(), json!({"type": "layers", "diff_ids": patch.diff_ids}));
    fields.insert("history".into(), serde_json::to_value(&history).map_err(|error| invalid(&error))?);
    let created = match (time_of(&document.created), epoch) {
        (Some(created), Some(epoch)) => Some(created.min(epoch)),
        (Some(created), None) => Some(created),
        (None, _) => history.iter().rev().find_map(|row| time_of(&row.created)),
    };
    match created {
        Some(created) => _ = fields.insert("created".into(), created.rfc3339_nano().into()),
        None => _ = fields.remove("created"),
    }
    if let Some(cache) = patch.cache {
        fields.insert(INLINE_CACHE.into(), base64(cache).into());
    }
    serde_json::to_vec(&fields).map_err(|error| invalid(&error))
}

/// Standard base64.
pub(super) fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn invalid(error: &serde_json::Error) -> Error {
    Error::invalid(format!("invalid image config for export: {error}"))
}

fn time_of(text: &str) -> Option<Timestamp> {
    time::parse_rfc3339(text).ok()
}

/// The history with a row for each layer, and a time in each row.
fn complete(mut history: Vec<History>, origins: &[Origin]) -> Vec<History> {
    let mut layers = 0;
    for row in &mut history {
        // Rows that no layer is left for have none.
        row.empty_layer |= layers >= origins.len();
        layers += usize::from(!row.empty_layer);
    }
    for origin in &origins[layers..] {
        let by = if origin.description.is_empty() { UNKNOWN } else { &origin.description };
        history.push(History {
            created: origin.created.map(Timestamp::rfc3339_nano).unwrap_or_default(),
            created_by: by.to_owned(),
            comment: COMMENT.to_owned(),
            ..History::default()
        });
    }
    let mut of_layers = origins.iter();
    for row in history.iter_mut().filter(|row| !row.empty_layer) {
        let origin = of_layers.next();
        if row.created.is_empty()
            && let Some(created) = origin.and_then(|origin| origin.created)
        {
            row.created = created.rfc3339_nano();
        }
    }
    date(&mut history);
    history
}

/// Gives rows without a time that of the first new layer, or of the row before.
fn date(history: &mut [History]) {
    let first = history.iter().position(|row| row.created.is_empty());
    let Some(first) = first else { return };
    let behind = history[first..].iter().find(|row| !row.created.is_empty());
    let before = history[..first].last();
    let mut time = behind.or(before).map(|row| row.created.clone()).unwrap_or_default();
    for row in &mut history[first..] {
        if row.created.is_empty() {
            row.created.clone_from(&time);
        } else {
            time.clone_from(&row.created);
        }
    }
}

/// No row is later than a time, but for those of the image below.
fn clamp(history: &mut [History], base: Option<&Document>, epoch: Timestamp) {
    let of_base = base.map(|base| base.history.as_slice()).unwrap_or_default();
    let same = history.iter().zip(of_base).take_while(|(row, of_base)| row == of_base).count();
    for row in &mut history[same..] {
        if time_of(&row.created).is_none_or(|created| created > epoch) {
            row.created = epoch.rfc3339_nano();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Chain;

    fn target(config: &Value) -> Target {
        Target {
            id: "linux/amd64".into(),
            platform: api::oci::Platform::default(),
            chain: Chain::default(),
            config: serde_json::to_vec(config).unwrap(),
            base: None,
            epoch: None,
            attestations: Vec::new(),
            cache: None,
        }
    }

    fn origin(seconds: i64, by: &str) -> Origin {
        Origin { created: Some(Timestamp::from_unix_seconds(seconds)), description: by.into() }
    }

    fn patched(target: &Target, origins: Vec<Origin>, epoch: Option<i64>) -> Value {
        let diff_id = Digest::from_sha256(&[7; 32]);
        let patch = Patch { diff_ids: vec![&diff_id; origins.len()], origins, epoch, cache: None };
        serde_json::from_slice(&write(target, &patch).unwrap()).unwrap()
    }

    fn times(value: &Value) -> Vec<&str> {
        value["history"].as_array().unwrap().iter().map(|row| row["created"].as_str().unwrap()).collect()
    }

    #[test]
    fn rows_without_a_time_take_that_of_the_next_new_layer_or_of_the_one_before() {
        let config = json!({"os": "linux", "architecture": "amd64", "x": 1, "created": null, "history": [
            {"created": "1970-01-01T00:00:01Z", "created_by": "base"},
            {"created_by": "ENV", "empty_layer": true},
            {"created_by": "RUN"},
            {"created_by": "CMD", "empty_layer": true},
        ]});
        let out = patched(&target(&config), vec![origin(9, "x"), origin(20, "y")], None);
        let at = ["1970-01-01T00:00:01Z", "1970-01-01T00:00:20Z", "1970-01-01T00:00:20Z", "1970-01-01T00:00:20Z"];
        assert_eq!(times(&out), at);
        assert_eq!((&out["created"], &out["x"]), (&json!("1970-01-01T00:00:20Z"), &json!(1)));
        assert_eq!(out["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn layers_and_rows_are_made_to_match() {
        let config =
            json!({"os": "linux", "architecture": "amd64", "history": [{"created_by": "one"}, {"created_by": "two"}]});
        let out = patched(&target(&config), vec![origin(5, "step")], None);
        assert_eq!((&out["history"][0].get("empty_layer"), &out["history"][1]["empty_layer"]), (&None, &json!(true)));
        let config = json!({"os": "linux", "architecture": "amd64"});
        let out = patched(&target(&config), vec![origin(5, "step"), Origin::default()], None);
        assert_eq!(
            (&out["history"][0]["created_by"], &out["history"][0]["comment"]),
            (&json!("step"), &json!(COMMENT))
        );
        assert_eq!(out["history"][1]["created_by"], UNKNOWN);
    }

    #[test]
    fn nothing_new_is_later_than_the_chosen_time() {
        let row =
            |seconds: i64| json!({"created": Timestamp::from_unix_seconds(seconds).rfc3339_nano(), "created_by": "x"});
        let config = json!({"os": "linux", "architecture": "amd64", "created": "2026-01-01T00:00:00Z",
            "history": [row(900), row(800), row(3)]});
        let mut target = target(&config);
        target.base = Some(parse(&serde_json::to_vec(&json!({"history": [row(900)]})).unwrap(), "base").unwrap());
        let out = patched(&target, vec![origin(1, ""); 3], Some(100));
        assert_eq!(times(&out), ["1970-01-01T00:15:00Z", "1970-01-01T00:01:40Z", "1970-01-01T00:00:03Z"]);
        assert_eq!(out["created"], "1970-01-01T00:01:40Z");
    }

    #[test]
    fn a_configuration_has_to_say_where_it_runs() {
        let patch = Patch { diff_ids: Vec::new(), origins: Vec::new(), epoch: None, cache: None };
        let refused = |config: Value| write(&target(&config), &patch).unwrap_err().message().to_owned();
        assert_eq!(refused(json!({"architecture": "amd64"})), "invalid image config for export: missing os");
        assert_eq!(refused(json!({"os": "linux"})), "invalid image config for export: missing architecture");
        let mut empty = target(&json!({}));
        empty.config.clear();
        let out: Value = serde_json::from_slice(&write(&empty, &patch).unwrap()).unwrap();
        assert_eq!((&out["config"]["WorkingDir"], &out["rootfs"]["diff_ids"]), (&json!("/"), &json!([])));
    }
}
