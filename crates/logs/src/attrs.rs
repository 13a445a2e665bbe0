//! Extra attributes of every log line: labels, environment and a tag, chosen by `--log-opt`.

use std::collections::BTreeMap;

/// The container, as the log options see it.
#[derive(Clone, Debug, Default)]
pub struct Subject<'a> {
    pub id: &'a str,
    /// Without the leading slash.
    pub name: &'a str,
    /// The program and its arguments.
    pub command: &'a [String],
    pub image_id: &'a str,
    pub image_name: &'a str,
    pub env: &'a [String],
    pub labels: &'a [(String, String)],
}

/// The JSON object of `labels`, `labels-regex`, `env`, `env-regex` and `tag`; empty when there is nothing.
pub fn build(config: &BTreeMap<String, String>, subject: &Subject<'_>) -> model::Result<String> {
    let _ = (config, subject);
    todo!()
}
