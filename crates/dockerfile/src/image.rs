//! The configuration of an image, as a build changes it and writes it down.

use std::collections::BTreeMap;

use model::platform::Platform;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::instruction::Health;

/// Where commands are looked for if nothing else is said.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Who made a row of the history.
const COMMENT: &str = "buildkit.dockerfile.v0";
/// Bytes of a configuration.
const MAX_CONFIG: usize = 8 << 20;

/// The configuration, without what nobody knows (image-spec, `application/vnd.oci.image.config.v1+json`, with the engine's additions).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Of `MAINTAINER`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub author: String,
    /// `amd64`
    #[serde(deserialize_with = "or_default")]
    pub architecture: String,
    /// `linux`
    #[serde(deserialize_with = "or_default")]
    pub os: String,
    /// `v7`
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub variant: String,
    /// Digests of the layers, bottom first.
    #[serde(deserialize_with = "or_default")]
    pub rootfs: RootFiles,
    /// How it came to be.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub history: Vec<Row>,
    /// How containers of it run.
    #[serde(deserialize_with = "or_default")]
    pub config: Config,
}

/// The layers of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFiles {
    /// `layers`
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// Digests of their uncompressed archives.
    pub diff_ids: Option<Vec<String>>,
}

/// A row of the history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub created_by: String,
    /// Who wrote it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub author: String,
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub comment: String,
    /// Whether it changed no file.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "or_default")]
    pub empty_layer: bool,
}

/// How containers of an image run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub user: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub exposed_ports: BTreeMap<String, Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, Map<String, Value>>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "or_default")]
    pub args_escaped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthCheck>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub on_build: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub shell: Vec<String>,
}

/// How the health of a container is found out; times in nanoseconds, 0: as the engine does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthCheck {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

impl From<&Health> for HealthCheck {
    fn from(health: &Health) -> HealthCheck {
        HealthCheck {
            test: health.test.clone(),
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        }
    }
}

/// Whether a row of the history stands for a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// It changed files.
    Changed,
    /// It did not.
    Unchanged,
}

impl Image {
    /// Reads a configuration.
    pub fn read(bytes: &[u8]) -> Result<Image> {
        let invalid = |why: String| Error::new(why).prefix("failed to parse image config");
        if bytes.len() > MAX_CONFIG {
            return Err(invalid(format!("longer than {MAX_CONFIG} bytes")));
        }
        let value = gojson::value(bytes).map_err(|error| invalid(error.body_message()))?;
        if !value.is_object() {
            return Err(invalid("it is no object".into()));
        }
        serde_json::from_value(value).map_err(|error| invalid(error.to_string()))
    }

    /// Of an empty file system.
    pub fn empty(platform: &Platform) -> Image {
        let mut image = Image::default();
        image.set_platform(platform);
        image.rootfs.kind = "layers".into();
        image.config.working_dir = "/".into();
        image.config.env = vec![format!("PATH={DEFAULT_PATH}")];
        image
    }

    /// What it runs on.
    pub fn platform(&self) -> Platform {
        let (os, architecture, variant) = (self.os.clone(), self.architecture.clone(), self.variant.clone());
        Platform { os, architecture, variant }
    }

    /// Says what it runs on.
    pub fn set_platform(&mut self, platform: &Platform) {
        self.os.clone_from(&platform.os);
        self.architecture.clone_from(&platform.architecture);
        self.variant.clone_from(&platform.variant);
    }

    /// Adds a row to the history; what a time that was chosen for the build is, it is the row's.
    pub fn note(&mut self, text: String, layer: Layer, time: Option<&str>) {
        self.history.push(Row {
            created: time.map(str::to_owned),
            created_by: text,
            author: String::new(),
            comment: COMMENT.into(),
            empty_layer: layer == Layer::Unchanged,
        });
    }

    /// Sets a variable in its place, or behind all others.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let line = format!("{name}={value}");
        let known = |line: &&mut String| line.split_once('=').map_or(line.as_str(), |(known, _)| known) == name;
        match self.config.env.iter_mut().find(known) {
            Some(place) => *place = line,
            None => self.config.env.push(line),
        }
    }

    /// As it is written down.
    pub fn encoded(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// `null` is nothing.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> std::result::Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_says_is_kept_if_it_is_known() {
        let text = br#"{"created":null,"architecture":"amd64","os":"linux","x":{"y":1},"config":{"Env":["A=1"],"Cmd":null,"Z":2},
            "rootfs":{"type":"layers","diff_ids":["sha256:a"]},"history":[{"created_by":"a","empty_layer":true}]}"#;
        let mut image = Image::read(text).unwrap();
        image.set_env("B", "2");
        image.set_env("A", "3");
        image.note("ENV B=2".into(), Layer::Unchanged, None);
        let value: Value = serde_json::from_slice(&image.encoded()).unwrap();
        assert_eq!(value.get("x"), None);
        assert_eq!(value["config"], serde_json::json!({"Env": ["A=3", "B=2"]}));
        assert_eq!(value["history"][1]["comment"], COMMENT);
        assert!(Image::read(b"[]").is_err());
    }
}
