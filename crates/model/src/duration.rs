//! Durations in Go's notation (`1h15m30.5s`) and in words (`About an hour`).

use crate::{Error, Result};

const MICRO: i64 = 1_000;
const MILLI: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Reads `[-+]?([0-9]*(\.[0-9]*)?[a-z]+)+` or `0`; nanoseconds. The texts of refusals are Go's.
pub fn parse(text: &str) -> Result<i64> {
    let invalid = || Error::invalid(format!("time: invalid duration {text:?}"));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (figure, tail) = rest.split_at(number);
        let figure = Figure::parse(figure).ok_or_else(invalid)?;
        let unit = tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        if unit.is_empty() {
            return Err(Error::invalid(format!("time: missing unit in duration {text:?}")));
        }
        let scale = unit_size(unit)
            .ok_or_else(|| Error::invalid(format!("time: unknown unit {unit:?} in duration {text:?}")))?;
        total = figure.scaled(scale).and_then(|n| total.checked_add(n)).ok_or_else(invalid)?;
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

fn unit_size(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => MICRO,
        "ms" => MILLI,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return None,
    })
}

/// A decimal number: digits before the point, and a fraction as numerator and denominator.
struct Figure {
    whole: i128,
    fraction: (i128, i128),
}

impl Figure {
    fn parse(text: &str) -> Option<Figure> {
        /// More digits of a fraction say nothing about a nanosecond.
        const PRECISION: usize = 18;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let number =
            |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<i64>().ok().map(i128::from) };
        let fraction = &fraction[..fraction.len().min(PRECISION)];
        Some(Figure { whole: number(whole)?, fraction: (number(fraction)?, 10i128.pow(fraction.len() as u32)) })
    }

    fn scaled(&self, scale: i64) -> Option<i128> {
        let scale = i128::from(scale);
        let part = self.fraction.0.checked_mul(scale)? / self.fraction.1;
        self.whole.checked_mul(scale)?.checked_add(part)
    }
}

/// Go's `Duration.String`: `1h15m30.5s`, `1.5ms`, `0s`.
pub fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let (milli, micro, second) = (MILLI as u64, MICRO as u64, SECOND as u64);
    match n {
        0 => "0s".into(),
        n if n < micro => format!("{sign}{n}ns"),
        n if n < milli => format!("{sign}{}µs", decimal(n, micro)),
        n if n < second => format!("{sign}{}ms", decimal(n, milli)),
        n => {
            let (minutes, seconds) = (n / (60 * second), decimal(n % (60 * second), second));
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, m) => format!("{sign}{m}m{seconds}s"),
                (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
            }
        }
    }
}

/// `n / unit` with as many decimals as it takes; `unit` is a power of ten.
fn decimal(n: u64, unit: u64) -> String {
    let width = unit.ilog10() as usize;
    let text = format!("{}.{:0width$}", n / unit, n % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// How long something lasted or ago it was, in words (B-st-2).
pub fn human(nanos: i64) -> String {
    let (seconds, minutes) = (nanos / SECOND, nanos / MINUTE);
    // Hours are rounded, everything else is cut.
    let hours = (nanos + HOUR / 2) / HOUR;
    match (seconds, minutes, hours) {
        (..1, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".into(),
        (.., ..48) => format!("{hours} hours"),
        (.., ..336) => format!("{} days", hours / 24),
        (.., ..1440) => format!("{} weeks", hours / 24 / 7),
        (.., ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", nanos / HOUR / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("5s", 5 * SECOND),
            ("1h15m30.918s", HOUR + 15 * MINUTE + 30_918 * MILLI),
            ("-1.5ms", -1_500_000),
            (".5s", SECOND / 2),
            ("1.s", SECOND),
            ("10us", 10_000),
            ("2µs", 2_000),
            ("+3m", 3 * MINUTE),
        ] {
            assert_eq!(parse(text).unwrap(), nanos, "{text}");
        }
    }

    #[test]
    fn refusals_have_gos_texts() {
        for (text, message) in [
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            ("3", "time: missing unit in duration \"3\""),
            ("3y", "time: unknown unit \"y\" in duration \"3y\""),
            ("1.2.3s", "time: invalid duration \"1.2.3s\""),
            (".s", "time: invalid duration \".s\""),
            ("9999999999h", "time: invalid duration \"9999999999h\""),
        ] {
            assert_eq!(parse(text).unwrap_err().message(), message);
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (4 * MINUTE + 5 * SECOND, "4m5s"),
            (4 * MINUTE + 5_001 * MILLI, "4m5.001s"),
            (5 * HOUR + 6 * MINUTE + 7_001 * MILLI, "5h6m7.001s"),
            (-HOUR, "-1h0m0s"),
        ] {
            assert_eq!(format(nanos), text);
        }
    }

    /// B-st-2
    #[test]
    fn words_change_where_the_reference_changes_them() {
        for (nanos, words) in [
            (0, "Less than a second"),
            (-HOUR, "Less than a second"),
            (SECOND - 1, "Less than a second"),
            (SECOND, "1 second"),
            (2 * SECOND, "2 seconds"),
            (59 * SECOND, "59 seconds"),
            (MINUTE, "About a minute"),
            (2 * MINUTE - 1, "About a minute"),
            (3 * MINUTE, "3 minutes"),
            (HOUR - 1, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 29 * MINUTE, "About an hour"),
            (HOUR + 30 * MINUTE, "2 hours"),
            (47 * HOUR, "47 hours"),
            (48 * HOUR, "2 days"),
            (13 * 24 * HOUR, "13 days"),
            (14 * 24 * HOUR, "2 weeks"),
            (60 * 24 * HOUR, "2 months"),
            (365 * 24 * HOUR, "12 months"),
            (400 * 24 * HOUR, "13 months"),
            (729 * 24 * HOUR, "24 months"),
            (730 * 24 * HOUR, "2 years"),
            (800 * 24 * HOUR, "2 years"),
        ] {
            assert_eq!(human(nanos), words, "{nanos}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanos in i64::MIN + 1..=i64::MAX) {
            prop_assert_eq!(parse(&format(nanos)).unwrap(), nanos);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}") {
            let _ = parse(&text);
        }
    }
}
