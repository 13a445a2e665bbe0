//! `--log-opt` of the json-file driver: checked in the daemon, carried to the monitor ready for use.
//!
//! Unlike the reference, a log is bounded unless asked otherwise: five files of 20 MB, the rotated ones compressed.
//! `max-size=-1` asks for the reference's unbounded log.

use std::collections::BTreeMap;

use model::Error;
use serde::{Deserialize, Serialize};

/// The default of `max-size`.
pub const DEFAULT_MAX_SIZE: u64 = 20_000_000;
/// The default of `max-file`.
pub const DEFAULT_MAX_FILE: u32 = 5;
/// `max-size` of a log that grows for ever.
const UNLIMITED: &str = "-1";
/// The options of json-file, those of every driver included. `cache-*` is for drivers that cannot be read.
const KNOWN: [&str; 14] = [
    "cache-compress",
    "cache-disabled",
    "cache-max-file",
    "cache-max-size",
    "compress",
    "env",
    "env-regex",
    "labels",
    "labels-regex",
    "max-buffer-size",
    "max-file",
    "max-size",
    "mode",
    "tag",
];

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

impl Default for Options {
    fn default() -> Options {
        Options { max_size: Some(DEFAULT_MAX_SIZE), max_file: DEFAULT_MAX_FILE, compress: true, attrs: String::new() }
    }
}

/// Checks the names of the options, as `create` does; values are checked by [`parse`] at start. The reference's texts.
pub fn validate(driver: &str, config: &BTreeMap<String, String>) -> model::Result<()> {
    if driver == "none" {
        return Ok(());
    }
    validate_mode(config)?;
    if driver != "json-file" {
        return Err(Error::invalid(format!("logger: no log driver named '{driver}' is registered")));
    }
    match config.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        Some(key) => Err(Error::invalid(format!("unknown log opt '{key}' for json-file log driver"))),
        None => Ok(()),
    }
}

/// The delivery options that every driver has. Gantry's monitor never lets a log block the container, whatever the mode.
fn validate_mode(config: &BTreeMap<String, String>) -> model::Result<()> {
    let mode = config.get("mode").map_or("", String::as_str);
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(Error::invalid(format!("logger: logging mode not supported: {mode}")));
    }
    if let Some(size) = config.get("max-buffer-size") {
        if mode != "non-blocking" {
            return Err(Error::invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'"));
        }
        human_size(size).map_err(|e| e.prefix("error parsing option max-buffer-size"))?;
    }
    match config.get("cache-disabled").filter(|text| !text.is_empty()) {
        Some(text) if parse_bool(text).is_err() => {
            Err(Error::invalid(format!("invalid value for option cache-disabled: {text}")))
        }
        _ => Ok(()),
    }
}

/// The writer's options from `--log-opt`; `attrs` from [`crate::attrs::build`].
pub fn parse(config: &BTreeMap<String, String>, attrs: String) -> model::Result<Options> {
    let defaults = Options::default();
    let max_size = match config.get("max-size").map(String::as_str) {
        None => defaults.max_size,
        Some(UNLIMITED) => None,
        Some(text) => Some(human_size(text)?),
    };
    let max_file = match config.get("max-file") {
        None => defaults.max_file,
        Some(text) => max_file(text)?,
    };
    let possible = max_file > 1 && max_size.is_some();
    let compress = match config.get("compress") {
        None => possible,
        Some(text) => parse_bool(text)?,
    };
    if compress && !possible {
        return Err(Error::invalid("compress cannot be true when max-file is less than 2 or max-size is not set"));
    }
    Ok(Options { max_size, max_file, compress, attrs })
}

fn max_file(text: &str) -> model::Result<u32> {
    let number: i64 =
        text.parse().map_err(|_| Error::invalid(format!("strconv.Atoi: parsing \"{text}\": invalid syntax")))?;
    if number < 1 {
        return Err(Error::invalid("max-file cannot be less than 1"));
    }
    Ok(u32::try_from(number).unwrap_or(u32::MAX).min(crate::chain::MAX_ROTATED))
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> model::Result<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("strconv.ParseBool: parsing \"{text}\": invalid syntax"))),
    }
}

/// A size in powers of 1000 (`20m`, `1.5GB`), as the reference reads `max-size`.
fn human_size(text: &str) -> model::Result<u64> {
    let invalid = || Error::invalid(format!("invalid size: '{text}'"));
    let split = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |at| at + 1);
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(invalid()),
    };
    let bytes = number * 1000_f64.powi(power);
    if bytes < 1.0 {
        return Err(Error::invalid("max-size must be a positive number"));
    }
    model::units::whole(bytes).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    fn error(pairs: &[(&str, &str)]) -> String {
        parse(&config(pairs), String::new()).unwrap_err().message().to_owned()
    }

    #[test]
    fn bounded_by_default_and_unbounded_when_asked() {
        let parsed = |pairs| {
            let o = parse(&config(pairs), String::new()).unwrap();
            (o.max_size, o.max_file, o.compress)
        };
        assert_eq!(parsed(&[]), (Some(20_000_000), 5, true));
        assert_eq!(parsed(&[("max-size", "-1")]), (None, 5, false));
        assert_eq!(parsed(&[("max-size", "10k"), ("max-file", "1")]), (Some(10_000), 1, false));
        assert_eq!(parsed(&[("max-size", "1.5MB"), ("compress", "false")]), (Some(1_500_000), 5, false));
    }

    #[test]
    fn sizes_have_a_range() {
        assert_eq!(human_size("9p").unwrap(), 9_000_000_000_000_000);
        for beyond in ["9224p", "1e400", "99999999999999999999g"] {
            assert_eq!(human_size(beyond).unwrap_err().message(), format!("invalid size: '{beyond}'"));
        }
    }

    #[test]
    fn the_texts_of_the_reference() {
        assert_eq!(error(&[("max-size", "abc")]), "invalid size: 'abc'");
        assert_eq!(error(&[("max-size", "0")]), "max-size must be a positive number");
        assert_eq!(error(&[("max-file", "0")]), "max-file cannot be less than 1");
        assert_eq!(error(&[("max-file", "x")]), "strconv.Atoi: parsing \"x\": invalid syntax");
        assert_eq!(error(&[("compress", "x")]), "strconv.ParseBool: parsing \"x\": invalid syntax");
        assert_eq!(
            error(&[("compress", "true"), ("max-file", "1")]),
            "compress cannot be true when max-file is less than 2 or max-size is not set"
        );
        let unknown = validate("json-file", &config(&[("foo", "1")])).unwrap_err();
        assert_eq!(unknown.message(), "unknown log opt 'foo' for json-file log driver");
        validate("json-file", &config(&[("cache-disabled", "true"), ("cache-max-size", "1m")])).unwrap();
        let wrong = validate("json-file", &config(&[("cache-disabled", "maybe")])).unwrap_err();
        assert_eq!(wrong.message(), "invalid value for option cache-disabled: maybe");
        let unknown = validate("nosuch", &config(&[])).unwrap_err();
        assert_eq!(unknown.message(), "logger: no log driver named 'nosuch' is registered");
    }
}
