//! Options that several drivers have, and readers of their values.

use model::Error;

use crate::seam::Options;

/// The default of `max-size`, bytes. Unlike the reference's json-file, a log is bounded unless asked otherwise.
pub const DEFAULT_MAX_SIZE: u64 = 20_000_000;
/// The default of `max-file`.
pub const DEFAULT_MAX_FILE: u32 = 5;
/// Options of every driver. `cache-*` is for drivers that cannot be read.
const COMMON: [&str; 6] =
    ["cache-compress", "cache-disabled", "cache-max-file", "cache-max-size", "max-buffer-size", "mode"];
/// Options of drivers whose entries have attributes, in files that are rotated.
const OF_FILES: [&str; 8] = ["compress", "env", "env-regex", "labels", "labels-regex", "max-file", "max-size", "tag"];

/// The first option that a driver of files does not have.
pub fn unknown(options: &Options) -> Option<&str> {
    let known = |key: &str| COMMON.contains(&key) || OF_FILES.contains(&key);
    options.keys().map(String::as_str).find(|key| !known(key))
}

/// The delivery options that every driver has. Gantry's monitor never lets a log block the container, whatever the mode.
pub fn validate_delivery(config: &Options) -> model::Result<()> {
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

/// A number of files, as far as there are names for them.
pub fn atoi(text: &str) -> model::Result<i64> {
    text.parse().map_err(|_| Error::invalid(format!("strconv.Atoi: parsing \"{text}\": invalid syntax")))
}

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> model::Result<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("strconv.ParseBool: parsing \"{text}\": invalid syntax"))),
    }
}

/// A size in bytes from text in powers of 1000 (`20m`, `1.5GB`), as the reference reads `max-size`.
pub fn human_size(text: &str) -> model::Result<u64> {
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
    model::units::whole(bytes).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_range() {
        assert_eq!(human_size("9p").unwrap(), 9_000_000_000_000_000);
        for beyond in ["9224p", "1e400", "99999999999999999999g", "-1"] {
            assert_eq!(human_size(beyond).unwrap_err().message(), format!("invalid size: '{beyond}'"));
        }
    }
}
