//! Sizes with units: `20m`, `64MiB`, and back into words.

use crate::{Error, Result};

/// Bytes from a number with a binary unit (`k`, `m`, `g`, `t`, `p`, each with `b` or `ib` behind it, any case).
pub fn ram_in_bytes(text: &str) -> Result<i64> {
    let invalid = || Error::invalid(format!("invalid size: '{text}'"));
    let separator = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(invalid)?;
    let (number, suffix) = match text.as_bytes()[separator] {
        b' ' => (&text[..separator], &text[separator + 1..]),
        _ => (&text[..=separator], &text[separator + 1..]),
    };
    let size: f64 = number
        .parse()
        .map_err(|_| Error::invalid(format!("strconv.ParseFloat: parsing {number:?}: invalid syntax")))?;
    if size < 0.0 || !size.is_finite() {
        return Err(invalid());
    }
    let suffix = if suffix.len() > 3 { suffix.to_owned() } else { suffix.to_lowercase() };
    let scale = scale(&suffix).ok_or_else(|| Error::invalid(format!("invalid suffix: '{suffix}'")))?;
    whole(size * scale).and_then(|bytes| i64::try_from(bytes).ok()).ok_or_else(invalid)
}

/// A size without its fraction; `None` below 0, from 2^63 on, and of what is no number.
pub fn whole(size: f64) -> Option<u64> {
    const LIMIT: f64 = (1u64 << 63) as f64;
    (0.0..LIMIT).contains(&size).then_some(size as u64)
}

fn scale(suffix: &str) -> Option<f64> {
    if matches!(suffix, "" | "b") {
        return Some(1.0);
    }
    let (unit, rest) = suffix.split_at_checked(1)?;
    let power = "kmgtp".find(unit)? as u32 + 1;
    matches!(rest, "" | "b" | "ib").then(|| 1024_f64.powi(power as i32))
}

/// At most four digits and a decimal unit: `1.987MB`.
pub fn human_size(bytes: f64) -> String {
    written(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"])
}

/// At most four digits and a binary unit: `1.896MiB`.
pub fn bytes_size(bytes: f64) -> String {
    written(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"])
}

fn written(mut size: f64, base: f64, units: &[&str]) -> String {
    const DIGITS: usize = 4;
    let mut unit = 0;
    while size >= base && unit < units.len() - 1 {
        size /= base;
        unit += 1;
    }
    let before_point = if size < 1.0 { 1 } else { size.log10() as usize + 1 };
    let text = format!("{size:.*}", DIGITS.saturating_sub(before_point));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("32", 32),
            ("32b", 32),
            ("20m", 20 << 20),
            ("64MiB", 64 << 20),
            ("1.5 kB", 1536),
            ("2Gb", 2 << 30),
            ("0.5t", 1 << 39),
            (".3k", 307),
        ] {
            assert_eq!(ram_in_bytes(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn refusals_have_the_references_words() {
        for (text, message) in [
            ("", "invalid size: ''"),
            ("hello", "invalid size: 'hello'"),
            ("-32", "invalid size: '-32'"),
            ("32mb7x", "strconv.ParseFloat: parsing \"32mb7\": invalid syntax"),
            ("32kk", "invalid suffix: 'kk'"),
            ("32bx", "invalid suffix: 'bx'"),
            ("32miii", "invalid suffix: 'miii'"),
            ("32x", "invalid suffix: 'x'"),
        ] {
            assert_eq!(ram_in_bytes(text).unwrap_err().message(), message);
        }
    }

    #[test]
    fn sizes_are_written() {
        assert_eq!(human_size(0.0), "0B");
        assert_eq!(human_size(1_987_501.0), "1.988MB");
        assert_eq!(human_size(1000.0), "1kB");
        assert_eq!(bytes_size(1_048_576.0), "1MiB");
        assert_eq!(bytes_size(1_000_000.0), "976.6KiB");
    }

    #[test]
    fn sizes_have_a_range() {
        assert_eq!(ram_in_bytes("8191p").unwrap(), 8191 << 50);
        for beyond in ["8192p", "9223372036854775808", "1e400", "99999999999999999999g", "inf ", "nan ", "NaN b"] {
            assert_eq!(ram_in_bytes(beyond).unwrap_err().message(), format!("invalid size: '{beyond}'"));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,10}") {
            let _ = ram_in_bytes(&text);
        }
    }
}
