//! The collector's rules as the configuration gives them: `"image-gc": {"high": "85%", "low": "70%", …}`.

use std::fmt;
use std::time::Duration;

use model::{duration, units};
use serde_json::{Map, Value};

use crate::glob::is_glob;

/// How long an image stays after it was pulled or tagged, unless told otherwise.
const MIN_AGE: &str = "24h";
/// How often the disk is looked at, unless told otherwise.
const INTERVAL: &str = "1m";
/// Bounds of the interval.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
/// Everything that may be said.
const KEYS: [&str; 5] = ["high", "low", "min-age", "interval", "keep"];

/// When the collector works, and what it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// It begins when usage is above this.
    pub high: Mark,
    /// It ends when usage is not above this.
    pub low: Mark,
    /// What was pulled or tagged more recently stays.
    pub min_age: Duration,
    /// How often the disk is looked at.
    pub interval: Duration,
    /// Patterns of names that stay, as in the filter `reference` of the image list.
    pub keep: Vec<String>,
}

/// A level of usage of the file system that the data root lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Of what is not reserved for root.
    Percent(u8),
    /// Of everything that is used, images or not.
    Bytes(u64),
}

impl Mark {
    /// The level in bytes on a file system of this capacity.
    pub fn bytes(self, capacity: u64) -> u64 {
        match self {
            Mark::Percent(percent) => {
                u64::try_from(u128::from(capacity) * u128::from(percent) / 100).unwrap_or(capacity)
            }
            Mark::Bytes(bytes) => bytes,
        }
    }

    fn parse(value: &Value) -> Result<Mark, String> {
        let text = match value {
            Value::Number(number) => {
                return number.as_u64().filter(|n| *n > 0).map(Mark::Bytes).ok_or(format!("invalid size: {number}"));
            }
            Value::String(text) => text,
            other => return Err(format!("a percentage or a size is expected, not {other}")),
        };
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.trim().parse().ok().filter(|percent| (1..=100).contains(percent));
            return percent.map(Mark::Percent).ok_or(format!("invalid percentage: {text}"));
        }
        match units::ram_in_bytes(text) {
            Ok(bytes) if bytes > 0 => Ok(Mark::Bytes(bytes.unsigned_abs())),
            Ok(_) => Err(format!("invalid size: '{text}'")),
            Err(error) => Err(error.message().to_owned()),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mark::Percent(percent) => write!(f, "{percent}%"),
            Mark::Bytes(bytes) => f.write_str(&units::bytes_size(*bytes as f64)),
        }
    }
}

impl Rules {
    /// Reads the value of the key `image-gc`; `None`, when there is none: no collector then. An error is for the user.
    pub fn parse(value: &Value) -> Result<Option<Rules>, String> {
        let object = match value {
            Value::Null => return Ok(None),
            Value::Object(object) => object,
            other => return Err(format!("invalid image-gc: an object is expected, not {other}")),
        };
        read(object).map(Some).map_err(|why| format!("invalid image-gc: {why}"))
    }
}

fn read(object: &Map<String, Value>) -> Result<Rules, String> {
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("unknown key {key:?}"));
    }
    let mark = |key: &str| {
        let value = object.get(key).ok_or_else(|| format!("{key:?} is missing"))?;
        Mark::parse(value).map_err(|why| format!("{key:?}: {why}"))
    };
    let (high, low) = (mark("high")?, mark("low")?);
    let upside_down = match (low, high) {
        (Mark::Percent(low), Mark::Percent(high)) => low >= high,
        (Mark::Bytes(low), Mark::Bytes(high)) => low >= high,
        // Only the disk can tell.
        _ => false,
    };
    if upside_down {
        return Err(format!("\"low\" ({low}) must be below \"high\" ({high})"));
    }
    let time = |key: &str, default: &str| {
        let value = object.get(key).cloned().unwrap_or_else(|| default.into());
        let text = value.as_str().ok_or_else(|| format!("{key:?}: a duration is expected, not {value}"))?;
        let nanos = duration::parse(text).map_err(|error| format!("{key:?}: {}", error.message()))?;
        u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("{key:?}: {text} is negative"))
    };
    let interval = time("interval", INTERVAL)?;
    if interval < INTERVALS.0 || interval > INTERVALS.1 {
        return Err("\"interval\" must be between 1s and 24h".to_owned());
    }
    Ok(Rules { high, low, min_age: time("min-age", MIN_AGE)?, interval, keep: patterns(object.get("keep"))? })
}

fn patterns(value: Option<&Value>) -> Result<Vec<String>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let list = value.as_array().ok_or_else(|| format!("\"keep\": a list of names is expected, not {value}"))?;
    let one = |value: &Value| match value.as_str() {
        Some(pattern) if !pattern.is_empty() && is_glob(pattern) => Ok(pattern.to_owned()),
        _ => Err(format!("\"keep\": invalid pattern: {value}")),
    };
    list.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Option<Rules>, String> {
        Rules::parse(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn everything_can_be_said_and_most_be_left_out() {
        let short = parse(r#"{"high": "85%", "low": "70%"}"#).unwrap().unwrap();
        assert_eq!((short.high, short.low), (Mark::Percent(85), Mark::Percent(70)));
        assert_eq!((short.min_age.as_secs(), short.interval.as_secs()), (24 * 3600, 60));
        let long = r#"{"high": "20g", "low": 1073741824, "min-age": "90m", "interval": "5s", "keep": ["a/*", "b:1"]}"#;
        let long = parse(long).unwrap().unwrap();
        assert_eq!((long.high, long.low), (Mark::Bytes(20 << 30), Mark::Bytes(1 << 30)));
        assert_eq!((long.min_age.as_secs(), long.interval.as_secs()), (5400, 5));
        assert_eq!(long.keep, ["a/*", "b:1"]);
        assert_eq!(parse("null").unwrap(), None);
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        for (json, why) in [
            ("[]", "an object is expected, not []"),
            ("{}", "\"high\" is missing"),
            (r#"{"high": "85%"}"#, "\"low\" is missing"),
            (r#"{"high": "85%", "low": "85%"}"#, "\"low\" (85%) must be below \"high\" (85%)"),
            (r#"{"high": "1g", "low": "2g"}"#, "\"low\" (2GiB) must be below \"high\" (1GiB)"),
            (r#"{"high": "101%", "low": "1%"}"#, "\"high\": invalid percentage: 101%"),
            (r#"{"high": "1q", "low": "1%"}"#, "\"high\": invalid suffix: 'q'"),
            (r#"{"high": 0, "low": "1%"}"#, "\"high\": invalid size: 0"),
            (r#"{"high": true, "low": "1%"}"#, "\"high\": a percentage or a size is expected, not true"),
            (
                r#"{"high": "2%", "low": "1%", "min-age": "1y"}"#,
                "\"min-age\": time: unknown unit \"y\" in duration \"1y\"",
            ),
            (r#"{"high": "2%", "low": "1%", "min-age": "-1h"}"#, "\"min-age\": -1h is negative"),
            (r#"{"high": "2%", "low": "1%", "interval": "1ms"}"#, "\"interval\" must be between 1s and 24h"),
            (r#"{"high": "2%", "low": "1%", "keep": "a"}"#, "\"keep\": a list of names is expected, not \"a\""),
            (r#"{"high": "2%", "low": "1%", "keep": ["[a"]}"#, "\"keep\": invalid pattern: \"[a\""),
            (r#"{"high": "2%", "low": "1%", "hgih": 1}"#, "unknown key \"hgih\""),
        ] {
            assert_eq!(parse(json).unwrap_err(), format!("invalid image-gc: {why}"), "{json}");
        }
    }

    #[test]
    fn marks_are_levels_of_a_file_system() {
        assert_eq!(Mark::Percent(85).bytes(1000), 850);
        assert_eq!(Mark::Bytes(7).bytes(1000), 7);
        assert_eq!(Mark::Percent(100).bytes(u64::MAX), u64::MAX);
    }
}
