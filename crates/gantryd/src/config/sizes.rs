//! Sizes and limits as the reference's units library reads and prints them.

use super::{UlimitEntry, go};

/// `64m`, `1.5g`, `1024`, `2KiB` to bytes; units are binary.
pub fn ram_in_bytes(text: &str) -> Result<i64, String> {
    let bad = || format!("invalid size: '{text}'");
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(bad)?;
    let (number, suffix) =
        if text.as_bytes()[last] == b' ' { (&text[..last], &text[last + 1..]) } else { text.split_at(last + 1) };
    let size: f64 =
        number.parse().map_err(|_| format!("strconv.ParseFloat: parsing {}: invalid syntax", go::quote(number)))?;
    if size < 0.0 || !size.is_finite() {
        return Err(bad());
    }
    let suffix = suffix.to_lowercase();
    let bad_suffix = || format!("invalid suffix: '{suffix}'");
    let factor = match suffix.as_bytes() {
        [] | [b'b'] => 1.0,
        [unit] | [unit, b'b'] | [unit, b'i', b'b'] => {
            let power = b"kmgtp".iter().position(|u| u == unit).ok_or_else(bad_suffix)?;
            1024_f64.powi(i32::try_from(power).unwrap_or(0) + 1)
        }
        _ => return Err(bad_suffix()),
    };
    model::units::whole(size * factor).and_then(|bytes| i64::try_from(bytes).ok()).ok_or_else(bad)
}

/// `64MiB`; 0 prints as `0`.
pub fn bytes_size(bytes: i64) -> String {
    if bytes == 0 {
        return "0".into();
    }
    #[expect(clippy::cast_precision_loss, reason = "four digits are printed")]
    let mut size = bytes as f64;
    let mut unit = 0;
    const UNITS: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];
    while size >= 1024.0 && unit < UNITS.len() - 1 {
        size /= 1024.0;
        unit += 1;
    }
    format!("{}{}", four_digits(size), UNITS[unit])
}

/// `%.4g` for 0 < `n` < 10000.
fn four_digits(n: f64) -> String {
    let whole = n.trunc().to_string().len();
    let text = format!("{n:.*}", 4_usize.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

const ULIMIT_NAMES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`; `-1` or `unlimited`… is unlimited.
pub fn ulimit(text: &str) -> Result<UlimitEntry, String> {
    let (name, limits) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !ULIMIT_NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let parts: Vec<&str> = limits.split(':').collect();
    if parts.len() > 2 {
        return Err(format!("too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"));
    }
    let soft = go::parse_int(parts[0])?;
    let hard = parts.get(1).map_or(Ok(soft), |h| go::parse_int(h))?;
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(UlimitEntry { name: name.to_string(), hard, soft })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        assert_eq!(ram_in_bytes("64m"), Ok(64 << 20));
        assert_eq!(ram_in_bytes("1.5 GiB"), Ok(3 << 29));
        assert_eq!(ram_in_bytes("12"), Ok(12));
        assert_eq!(ram_in_bytes("12b"), Ok(12));
        assert_eq!(ram_in_bytes("x").unwrap_err(), "invalid size: 'x'");
        assert_eq!(ram_in_bytes("64z").unwrap_err(), "invalid suffix: 'z'");
        assert_eq!(ram_in_bytes("-5").unwrap_err(), "invalid size: '-5'");
    }

    #[test]
    fn sizes_print_with_four_digits() {
        assert_eq!(bytes_size(64 << 20), "64MiB");
        assert_eq!(bytes_size(1536), "1.5KiB");
        assert_eq!(bytes_size(0), "0");
    }

    #[test]
    fn sizes_have_a_range() {
        for beyond in ["8192p", "9223372036854775808", "1e400", "inf ", "nan "] {
            assert_eq!(ram_in_bytes(beyond), Err(format!("invalid size: '{beyond}'")));
        }
    }

    #[test]
    fn ulimits() {
        assert_eq!(ulimit("nofile=1024:2048"), Ok(UlimitEntry { name: "nofile".into(), hard: 2048, soft: 1024 }));
        assert_eq!(ulimit("nofile=5"), Ok(UlimitEntry { name: "nofile".into(), hard: 5, soft: 5 }));
        assert_eq!(ulimit("nofile").unwrap_err(), "invalid ulimit argument: nofile");
        assert_eq!(ulimit("nope=1").unwrap_err(), "invalid ulimit type: nope");
        assert!(ulimit("nofile=9:5").unwrap_err().contains("9 > 5"));
    }
}
