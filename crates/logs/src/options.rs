//! `--log-opt` of the json-file driver: checked in the daemon, carried to the monitor ready for use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the writer of a log needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// A file that has reached this many bytes is rotated away; `None` = never.
    pub max_size: Option<u64>,
    /// Files kept, the current one included; at least 1.
    pub max_file: u32,
    /// Rotated files are gzipped, in idle time.
    pub compress: bool,
    /// A JSON object that is written with every line ([`crate::attrs::build`]); empty = none.
    pub attrs: String,
}

/// Checks the options' names and values without a container at hand; the reference's texts.
pub fn validate(driver: &str, config: &BTreeMap<String, String>) -> model::Result<()> {
    let _ = (driver, config);
    todo!()
}

/// The writer's options from `--log-opt`; `attrs` from [`crate::attrs::build`].
pub fn parse(config: &BTreeMap<String, String>, attrs: String) -> model::Result<Options> {
    let _ = (config, attrs);
    todo!()
}
