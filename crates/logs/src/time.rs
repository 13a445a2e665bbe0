//! Timestamps as the log file has them: RFC 3339 in UTC with up to nine digits, trailing zeros trimmed (Go's RFC3339Nano).
//!
//! Writing caches the text of the current second, since a busy log formats hundreds of thousands of times a second.

use model::time::{SECONDS_TEXT, days, seconds_text};

const NANOS: i64 = 1_000_000_000;

/// Unix nanoseconds now.
pub fn now() -> i64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    t.tv_sec * NANOS + t.tv_nsec
}

/// Formats timestamps; remembers the last second's text.
#[derive(Debug)]
pub struct Formatter {
    second: i64,
    text: [u8; SECONDS_TEXT],
}

impl Formatter {
    pub fn new() -> Formatter {
        Formatter { second: 0, text: seconds_text(0) }
    }

    /// Appends the time with trimmed fraction and `Z`.
    pub fn write(&mut self, nanos: i64, out: &mut Vec<u8>) {
        let (second, mut fraction) = (nanos.div_euclid(NANOS), nanos.rem_euclid(NANOS));
        if second != self.second {
            *self = Formatter { second, text: seconds_text(second) };
        }
        let mut text = [b'Z'; SECONDS_TEXT + 11];
        text[..SECONDS_TEXT].copy_from_slice(&self.text);
        let mut length = SECONDS_TEXT;
        if fraction != 0 {
            text[SECONDS_TEXT] = b'.';
            let digits = &mut text[SECONDS_TEXT + 1..SECONDS_TEXT + 10];
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + (fraction % 10) as u8;
                fraction /= 10;
            }
            length += 10 - digits.iter().rev().take_while(|&&d| d == b'0').count();
            text[length] = b'Z';
        }
        out.extend_from_slice(&text[..=length]);
    }
}

/// Reads RFC 3339 with any fraction and offset.
pub fn parse(text: &[u8]) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        text.get(from..to)?.iter().try_fold(0, |n, &b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, c)| text.get(at) != Some(&c)) {
        return None;
    }
    let days = days(number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let seconds = days * 86_400 + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    let (fraction, zone) = split_fraction(&text[SECONDS_TEXT..]);
    let nanos = fraction.iter().take(9).fold(0, |n, &b| n * 10 + i64::from(b - b'0'));
    let nanos = nanos * 10_i64.pow(9 - fraction.len().min(9) as u32);
    let offset = match zone {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), rest @ ..] if rest.len() == 5 => {
            let at = text.len() - 5;
            let seconds = number(at, at + 2)? * 3600 + number(at + 3, at + 5)? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    (seconds - offset).checked_mul(NANOS)?.checked_add(nanos)
}

/// The digits behind the dot, and the zone.
fn split_fraction(text: &[u8]) -> (&[u8], &[u8]) {
    match text.strip_prefix(b".") {
        Some(rest) => rest.split_at(rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len())),
        None => (&[], text),
    }
}

/// Appends a timestamp from a log file with its fraction made nine digits wide, as `logs --timestamps` shows it. A text
/// that is no timestamp is appended as it is.
pub fn write_fixed(text: &[u8], out: &mut Vec<u8>) {
    let Some((seconds, rest)) = text.split_at_checked(SECONDS_TEXT) else {
        out.extend_from_slice(text);
        return;
    };
    let (fraction, zone) = split_fraction(rest);
    let kept = fraction.len().min(9);
    out.extend_from_slice(seconds);
    out.push(b'.');
    out.extend_from_slice(&fraction[..kept]);
    out.extend_from_slice(&b"000000000"[kept..]);
    out.extend_from_slice(zone);
}

/// Appends a timestamp from a log file with the zeros at its fraction's end taken away; false = the text is none.
pub fn write_trimmed(text: &[u8], out: &mut Vec<u8>) -> bool {
    if parse(text).is_none() {
        return false;
    }
    let (seconds, rest) = text.split_at(SECONDS_TEXT);
    let (fraction, zone) = split_fraction(rest);
    let fraction = &fraction[..fraction.len().min(9)];
    let kept = fraction.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
    out.extend_from_slice(seconds);
    if kept > 0 {
        out.push(b'.');
        out.extend_from_slice(&fraction[..kept]);
    }
    out.extend_from_slice(zone);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(nanos: i64) -> String {
        let mut out = Vec::new();
        Formatter::new().write(nanos, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fractions_are_trimmed() {
        assert_eq!(formatted(0), "1970-01-01T00:00:00Z");
        assert_eq!(formatted(1_795_455_479_311_635_274), "2026-11-23T17:37:59.311635274Z");
        assert_eq!(formatted(1_795_455_479_300_000_000), "2026-11-23T17:37:59.3Z");
        assert_eq!(formatted(1_795_455_479_000_000_010), "2026-11-23T17:37:59.00000001Z");
    }

    #[test]
    fn parsing_inverts_formatting() {
        for nanos in [0, 1, 951_827_696_000_000_001, 1_709_210_096_120_000_000, 4_102_444_799_999_999_999] {
            assert_eq!(parse(formatted(nanos).as_bytes()), Some(nanos));
        }
        assert_eq!(parse(b"2026-11-23T18:37:59.5+01:00"), Some(1_795_455_479_500_000_000));
        for bad in ["", "2026", "2026-11-23T18:37:59", "2026-11-23 18:37:59Z", "2026-11-23T18:37:5xZ"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn zeros_are_taken_away() {
        let trimmed = |text: &str| {
            let mut out = Vec::new();
            write_trimmed(text.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
        };
        assert_eq!(trimmed("2026-11-23T17:37:59.310Z").as_deref(), Some("2026-11-23T17:37:59.31Z"));
        assert_eq!(trimmed("2026-11-23T17:37:59.000+01:00").as_deref(), Some("2026-11-23T17:37:59+01:00"));
        assert_eq!(trimmed("2026-11-23T17:37:59.0000000001Z").as_deref(), Some("2026-11-23T17:37:59Z"));
        assert_eq!(trimmed("yesterday"), None);
    }

    #[test]
    fn fixed_width() {
        let mut out = Vec::new();
        write_fixed(b"2026-11-23T17:37:59.31Z", &mut out);
        write_fixed(b"2026-11-23T17:37:59Z", &mut out);
        assert_eq!(out, b"2026-11-23T17:37:59.310000000Z2026-11-23T17:37:59.000000000Z");
    }
}
