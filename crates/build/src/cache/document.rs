//! The description of a cache (`application/vnd.buildkit.cacheconfig.v0`): layers with the ones below them, and records that lead to
//! them.
//!
//! What is read is bounded, and no index leads nowhere or back to itself.

use std::collections::HashSet;

use model::digest::Digest;
use model::{Error, Result};
use serde::{Deserialize, Serialize};

/// The media type.
pub(super) const MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// The annotation of a layer's descriptor that says what it is uncompressed.
pub(super) const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// Bytes of a description, and how much may be in one.
pub(super) const BYTES: u64 = 64 << 20;
const LAYERS: usize = 50_000;
const RECORDS: usize = 100_000;
/// Layers of one result.
const DEPTH: usize = 500;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) layers: Vec<CacheLayer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) records: Vec<CacheRecord>,
}

/// A layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CacheLayer {
    pub blob: String,
    /// The place of the one below; -1: none.
    #[serde(skip_serializing_if = "is_zero")]
    pub parent: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Annotations>,
}

/// What is known of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Annotations {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(rename = "diffID", skip_serializing_if = "String::is_empty")]
    pub diff_id: String,
    /// Bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub size: i64,
    /// RFC 3339.
    pub created_at: String,
}

/// A result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CacheRecord {
    /// Its topmost layers.
    #[serde(rename = "layers", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<TopLayer>,
    /// Results whose layers do not lie on each other in the list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<Chained>,
    /// What it is found by.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Records that it goes on from, by its inputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<Link>>,
}

/// The topmost layer of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct TopLayer {
    pub layer: usize,
    pub created_at: String,
}

/// All layers of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Chained {
    pub layers: Vec<usize>,
    pub created_at: String,
}

/// A record that another goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Link {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
    pub link: usize,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Config {
    /// Reads a description.
    ///
    /// Errors: `InvalidParameter` for what is malformed or too large.
    pub fn read(bytes: &[u8]) -> Result<Config> {
        let config: Config = image::oci::parse(bytes, "description of a cache")?;
        config.check()?;
        Ok(config)
    }

    pub(super) fn check(&self) -> Result<()> {
        let invalid = |why: String| Err(Error::invalid(format!("invalid description of a cache: {why}")));
        if self.layers.len() > LAYERS || self.records.len() > RECORDS {
            return invalid(format!("more than {LAYERS} layers or {RECORDS} records"));
        }
        for (at, layer) in self.layers.iter().enumerate() {
            let below = usize::try_from(layer.parent);
            if layer.parent != -1 && !below.is_ok_and(|below| below < self.layers.len() && below != at) {
                // One without a word on it lies on the first.
                if !(at == 0 && layer.parent == 0) {
                    return invalid(format!("layer {at} lies on {}", layer.parent));
                }
            }
            Digest::parse(&layer.blob)?;
        }
        for record in &self.records {
            let tops = record.results.iter().map(|result| result.layer);
            let chained = record.chains.iter().flat_map(|chain| chain.layers.iter().copied());
            let links = record.inputs.iter().flatten();
            if let Some(wrong) = links.map(|link| link.link).find(|link| *link >= self.records.len()) {
                return invalid(format!("a record goes on from record {wrong}"));
            }
            if let Some(wrong) = tops.chain(chained).find(|layer| *layer >= self.layers.len()) {
                return invalid(format!("a record has layer {wrong}"));
            }
        }
        Ok(())
    }

    /// What each record is found by, with the places of the layers of its results, bottom first.
    pub fn results(&self) -> Vec<(&str, Vec<Vec<usize>>)> {
        self.records.iter().map(|record| (record.digest.as_str(), self.chains(record))).collect()
    }

    /// The places of the layers of a record's results, bottom first.
    pub(super) fn chains(&self, record: &CacheRecord) -> Vec<Vec<usize>> {
        let tops = record.results.iter().filter_map(|result| self.below(result.layer));
        tops.chain(record.chains.iter().map(|chain| chain.layers.clone())).collect()
    }

    /// How many layers it has.
    pub fn count(&self) -> usize {
        self.layers.len()
    }

    /// The places of a result's layers, bottom first; `None`: they lie in a circle, or are too many.
    pub(super) fn below(&self, top: usize) -> Option<Vec<usize>> {
        let mut chain = vec![top];
        let mut seen = HashSet::from([top]);
        let mut at = top;
        while let Ok(below) = usize::try_from(self.layers.get(at)?.parent) {
            if at == 0 && below == 0 {
                break;
            }
            if !seen.insert(below) || chain.len() == DEPTH {
                return None;
            }
            chain.push(below);
            at = below;
        }
        chain.reverse();
        Some(chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(parents: &[i64]) -> Config {
        let layer = |parent: &i64| CacheLayer {
            blob: format!("sha256:{}", "1".repeat(64)),
            parent: *parent,
            annotations: None,
        };
        Config { layers: parents.iter().map(layer).collect(), records: Vec::new() }
    }

    #[test]
    fn chains_are_followed_to_their_bottom() {
        let config = layers(&[-1, 0, 1, 0]);
        assert_eq!(config.below(2), Some(vec![0, 1, 2]));
        assert_eq!(config.below(3), Some(vec![0, 3]));
        assert_eq!(config.below(4), None);
        let circle = layers(&[-1, 2, 1]);
        assert_eq!(circle.below(2), None);
        assert!(
            layers(&[-1, 1]).check().is_err() && layers(&[-1, 7]).check().is_err() && layers(&[-2]).check().is_err()
        );
    }

    #[test]
    fn the_references_form_is_read_and_written() {
        let text = format!(
            r#"{{"layers":[{{"blob":"sha256:{0}","parent":-1,"annotations":{{"mediaType":"m","diffID":"sha256:{0}","size":3,"createdAt":"2024-01-01T00:00:00Z"}}}},{{"blob":"sha256:{0}"}}],"records":[{{"layers":[{{"layer":1,"createdAt":"2024-01-01T00:00:00Z"}}],"digest":"sha256:{0}","inputs":[[{{"selector":"s","link":0}}]]}}]}}"#,
            "2".repeat(64)
        );
        let config = Config::read(text.as_bytes()).unwrap();
        assert_eq!((config.layers[1].parent, config.below(1)), (0, Some(vec![0, 1])));
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
        for wrong in
            ["[", "{\"records\":[{\"layers\":[{\"layer\":3}]}]}", "{\"layers\":[{\"blob\":\"x\",\"parent\":-1}]}"]
        {
            assert!(Config::read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
