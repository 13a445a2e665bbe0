//! Points in time: nanoseconds since 1970, Go's texts for them, and the forms in which clients write them (B-api-14).
//!
//! The zero time, which Go writes `0001-01-01T00:00:00Z`, lies before everything that nanoseconds can reach; it has a
//! value of its own that is smaller than all others.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, duration};

const SECOND: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;
/// Unix seconds of 0001-01-01.
const ZERO_SECONDS: i64 = -62_135_596_800;

/// A point in time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Go's zero time: "never".
    pub const ZERO: Timestamp = Timestamp(i64::MIN);

    /// From nanoseconds since 1970.
    pub fn from_unix_nanos(nanos: i64) -> Timestamp {
        Timestamp(nanos)
    }

    /// From seconds since 1970.
    pub fn from_unix_seconds(seconds: i64) -> Timestamp {
        Timestamp(seconds.saturating_mul(SECOND))
    }

    /// Nanoseconds since 1970.
    pub fn unix_nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970.
    pub fn unix_seconds(self) -> i64 {
        if self.is_zero() { ZERO_SECONDS } else { self.0.div_euclid(SECOND) }
    }

    /// Whether it is [`Timestamp::ZERO`].
    pub fn is_zero(self) -> bool {
        self == Timestamp::ZERO
    }

    /// Nanoseconds from `earlier` to `self`; negative if it lies behind.
    pub fn nanos_since(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Later by a duration.
    #[must_use]
    pub fn plus(self, by: std::time::Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// How long until this time; zero if it is past.
    pub fn after(self, now: Timestamp) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.nanos_since(now)).unwrap_or(0))
    }

    /// RFC3339 in UTC with as many decimals as it takes: `2026-11-23T17:37:59.3Z`.
    pub fn rfc3339_nano(self) -> String {
        match self.subsecond() {
            0 => format!("{}Z", self.seconds_text()),
            nanos => format!("{}.{}Z", self.seconds_text(), format!("{nanos:09}").trim_end_matches('0')),
        }
    }

    /// RFC3339 in UTC without decimals.
    pub fn rfc3339(self) -> String {
        format!("{}Z", self.seconds_text())
    }

    fn subsecond(self) -> i64 {
        if self.is_zero() { 0 } else { self.0.rem_euclid(SECOND) }
    }

    fn seconds_text(self) -> String {
        String::from_utf8_lossy(&seconds_text(self.unix_seconds())).into_owned()
    }
}

impl Default for Timestamp {
    fn default() -> Timestamp {
        Timestamp::ZERO
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339_nano())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339_nano())
    }
}

/// Seconds of 0000-01-01T00:00:00.
const FIRST_SECOND: i64 = -62_167_219_200;
/// Seconds of 9999-12-31T23:59:59, the last that a text of [`seconds_text`] holds.
const LAST_SECOND: i64 = 253_402_300_799;
/// Bytes of `2006-01-02T15:04:05`.
pub const SECONDS_TEXT: usize = 19;

/// RFC3339 in UTC without decimals and zone, of seconds since 1970; years below 0 and above 9999 are written as those.
pub fn seconds_text(seconds: i64) -> [u8; SECONDS_TEXT] {
    let seconds = seconds.clamp(FIRST_SECOND, LAST_SECOND);
    let (year, month, day) = civil(seconds.div_euclid(DAY_SECONDS));
    let of_day = seconds.rem_euclid(DAY_SECONDS);
    let mut text = *b"0000-00-00T00:00:00";
    let mut put = |at: usize, width: usize, mut value: i64| {
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + u8::try_from(value % 10).unwrap_or_default();
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, of_day / 3600);
    put(14, 2, of_day / 60 % 60);
    put(17, 2, of_day % 60);
    text
}

/// Year, month, day of a day counted from 1970-01-01 (Gregorian, by eras of 400 years from March).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day, counted from 1970-01-01, of a date; days and months beyond their bounds count on.
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    let shifted_year = year - i64::from(month <= 2);
    let (era, year_of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
    let shifted_month = (month + 9) % 12;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + day_of_era - 719_468
}

/// RFC3339, with or without decimals, as rows and other programs write it.
pub fn parse_rfc3339(text: &str) -> Result<Timestamp> {
    Layout::parse(text, &[YEAR, MONTH, DAY, T, HOUR, MINUTE, SECONDS, ZONE])
}

/// A time as clients write it: a Go duration before `now`, a date or RFC3339 time (without a zone: UTC), or unix seconds
/// with a fraction.
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp> {
    const PREFIX: &str = "failed to parse value as time or duration";
    if text.trim().is_empty() {
        return Err(Error::invalid(format!("{PREFIX}: value is empty")));
    }
    if let (true, Ok(before)) = (text != "0", duration::parse(text)) {
        return Ok(Timestamp(now.0.saturating_sub(before)));
    }
    match Layout::parse(text, layout_of(text)) {
        // With a dash it was meant as a date.
        Err(error) if text.contains('-') => Err(error),
        Err(_) => parse_seconds(text).map_err(|error| error.prefix(PREFIX)),
        time => time,
    }
}

/// Unix seconds with an optional fraction, as `since` and `until` of logs and events; empty is `None`.
pub fn parse_unix(text: &str) -> Result<Option<Timestamp>> {
    match text {
        "" => Ok(None),
        text => parse_seconds(text).map(Some).map_err(|e| e.prefix(format!("invalid timestamp {text:?}"))),
    }
}

/// Digits of a fraction that are read at all; more than nine are cut.
const MAX_FRACTION: usize = 20;

fn parse_seconds(text: &str) -> Result<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let invalid = |why: &str| Error::invalid(format!("invalid seconds {seconds:?}: {why}"));
    let whole = seconds.parse::<i64>().map_err(|e| match e.kind() {
        std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => invalid("value out of range"),
        _ => invalid("invalid syntax"),
    })?;
    if fraction.len() > MAX_FRACTION {
        let length = fraction.len();
        return Err(Error::invalid(format!("invalid nanoseconds: length {length} exceeds maximum {MAX_FRACTION}")));
    }
    if let Some((at, c)) = fraction.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        return Err(Error::invalid(format!("invalid nanoseconds: invalid character {c:?} at position {at}")));
    }
    let nanos = format!("{fraction:0<9}")[..9].parse::<i64>().unwrap_or(0);
    Ok(Timestamp(whole.saturating_mul(SECOND).saturating_add(nanos)))
}

/// One element of a time layout: its text in Go's notation (with the literal before it), and what it is.
type Element = (&'static str, &'static str, Part);

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Zone,
    Literal,
}

const YEAR: Element = ("", "2006", Part::Year);
const MONTH: Element = ("-", "01", Part::Month);
const DAY: Element = ("-", "02", Part::Day);
const T: Element = ("T", "", Part::Literal);
const HOUR: Element = ("", "15", Part::Hour);
const MINUTE: Element = (":", "04", Part::Minute);
const SECONDS: Element = (":", "05", Part::Second);
const ZONE: Element = ("", "Z07:00", Part::Zone);

/// The layout that the reference tries for a text, by its punctuation.
fn layout_of(text: &str) -> &'static [Element] {
    let local = !text.contains(['z', 'Z', '+']) && text.matches('-').count() != 3;
    if text.contains('.') {
        return if local {
            &[YEAR, MONTH, DAY, T, HOUR, MINUTE, SECONDS]
        } else {
            &[YEAR, MONTH, DAY, T, HOUR, MINUTE, SECONDS, ZONE]
        };
    }
    if !text.contains('T') {
        return if local { &[YEAR, MONTH, DAY] } else { &[YEAR, MONTH, DAY, ZONE] };
    }
    let colons = text.matches(':').count();
    let offset = usize::from(!local && !text.contains(['z', 'Z']) && colons > 0);
    match (local, colons - offset) {
        (true, 0) => &[YEAR, MONTH, DAY, T, HOUR],
        (true, 1) => &[YEAR, MONTH, DAY, T, HOUR, MINUTE],
        (true, _) => &[YEAR, MONTH, DAY, T, HOUR, MINUTE, SECONDS],
        (false, 0) => &[YEAR, MONTH, DAY, T, HOUR, ZONE],
        (false, 1) => &[YEAR, MONTH, DAY, T, HOUR, MINUTE, ZONE],
        (false, _) => &[YEAR, MONTH, DAY, T, HOUR, MINUTE, SECONDS, ZONE],
    }
}

/// A time being read by a layout.
struct Layout<'a> {
    text: &'a str,
    rest: &'a str,
    elements: &'static [Element],
}

impl<'a> Layout<'a> {
    fn parse(text: &'a str, elements: &'static [Element]) -> Result<Timestamp> {
        let mut layout = Layout { text, rest: text, elements };
        let (mut date, mut clock, mut nanos, mut offset) = ([1, 1, 1], [0, 0, 0], 0, 0);
        for element in elements {
            layout.literal(element)?;
            match element.2 {
                Part::Year => date[0] = layout.number(element, 4)?,
                Part::Month => date[1] = layout.number(element, 2)?,
                Part::Day => date[2] = layout.number(element, 2)?,
                Part::Hour => clock[0] = layout.number(element, 2)?,
                Part::Minute => clock[1] = layout.number(element, 2)?,
                Part::Second => {
                    clock[2] = layout.number(element, 2)?;
                    nanos = layout.fraction();
                }
                Part::Zone => offset = layout.zone(element)?,
                Part::Literal => {}
            }
        }
        layout.finish(date, clock)?;
        let seconds =
            days(date[0], date[1], date[2]) * DAY_SECONDS + clock[0] * 3600 + clock[1] * 60 + clock[2] - offset;
        Ok(match seconds {
            ZERO_SECONDS if nanos == 0 => Timestamp::ZERO,
            seconds => Timestamp(seconds.saturating_mul(SECOND).saturating_add(nanos)),
        })
    }

    fn literal(&mut self, element: &Element) -> Result<()> {
        let rest = self.rest.strip_prefix(element.0).ok_or_else(|| self.cannot(element.0))?;
        self.rest = rest;
        Ok(())
    }

    fn number(&mut self, element: &Element, width: usize) -> Result<i64> {
        let digits = self.rest.get(..width).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
        let digits = digits.ok_or_else(|| self.cannot(element.1))?;
        self.rest = &self.rest[width..];
        Ok(digits.bytes().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
    }

    /// Decimals of a second may follow its digits even where the layout names none.
    fn fraction(&mut self) -> i64 {
        let Some(digits) = self.rest.strip_prefix('.') else {
            return 0;
        };
        let count = digits.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 {
            return 0;
        }
        self.rest = &digits[count..];
        format!("{:0<9}", &digits[..count.min(9)]).parse().unwrap_or(0)
    }

    /// Seconds east of UTC.
    fn zone(&mut self, element: &Element) -> Result<i64> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let error = self.cannot(element.1);
        let sign = match self.rest.bytes().next() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(error),
        };
        let digits = self.rest.get(1..6).filter(|d| d.as_bytes()[2] == b':').ok_or(error)?;
        self.rest = &self.rest[1..];
        let hours = self.number(element, 2)?;
        self.rest = &self.rest[1..];
        let minutes = self.number(element, 2)?;
        match hours <= 24 && minutes < 60 {
            true => Ok(sign * (hours * 3600 + minutes * 60)),
            false => {
                Err(Error::invalid(format!("parsing time {:?}: time zone offset {digits} out of range", self.text)))
            }
        }
    }

    fn finish(&self, [year, month, day]: [i64; 3], [hour, minute, second]: [i64; 3]) -> Result<()> {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let wrong = match () {
            () if !(1..=12).contains(&month) => "month out of range",
            () if hour > 23 => "hour out of range",
            () if minute > 59 => "minute out of range",
            () if second > 59 => "second out of range",
            () if !self.rest.is_empty() => return Err(self.error(&format!("extra text: {:?}", self.rest))),
            () if !(1..=length).contains(&day) => "day out of range",
            () => return Ok(()),
        };
        Err(self.error(wrong))
    }

    fn error(&self, why: &str) -> Error {
        Error::invalid(format!("parsing time {:?}: {why}", self.text))
    }

    fn cannot(&self, element: &str) -> Error {
        let mut layout = String::new();
        for (literal, text, _) in self.elements {
            layout.push_str(literal);
            layout.push_str(text);
        }
        Error::invalid(format!(
            "parsing time {:?} as {layout:?}: cannot parse {:?} as {element:?}",
            self.text, self.rest
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T0: i64 = 1_795_455_479;

    #[test]
    fn times_are_written_as_go_writes_them() {
        let at = |nanos: i64| Timestamp::from_unix_nanos(T0 * SECOND + nanos);
        assert_eq!(at(0).rfc3339_nano(), "2026-11-23T17:37:59Z");
        assert_eq!(at(300_000_000).rfc3339_nano(), "2026-11-23T17:37:59.3Z");
        assert_eq!(at(301_812_193).rfc3339_nano(), "2026-11-23T17:37:59.301812193Z");
        assert_eq!(at(1).rfc3339(), "2026-11-23T17:37:59Z");
        assert_eq!(Timestamp::from_unix_nanos(-1).rfc3339_nano(), "1969-12-31T23:59:59.999999999Z");
    }

    /// B-st-3
    #[test]
    fn the_zero_time_is_before_all_others() {
        assert_eq!(Timestamp::default().rfc3339_nano(), "0001-01-01T00:00:00Z");
        assert_eq!(parse_rfc3339("0001-01-01T00:00:00Z").unwrap(), Timestamp::ZERO);
        assert_eq!(Timestamp::ZERO.unix_seconds(), ZERO_SECONDS);
        assert!(Timestamp::ZERO < Timestamp::from_unix_nanos(i64::MIN + 1));
    }

    /// B-api-14
    #[test]
    fn clients_may_write_times_in_many_ways() {
        let now = Timestamp::from_unix_seconds(T0);
        for (text, seconds) in [
            ("0", 0),
            ("10s", T0 - 10),
            ("1h30m", T0 - 5400),
            ("1795455479", T0),
            ("2026-11-23T17:37:59Z", T0),
            ("2026-11-23T18:37:59+01:00", T0),
            ("2026-11-23T12:37:59-05:00", T0),
            ("2026-11-23T17:37:59", T0),
            ("2026-11-23T17:37", T0 - 59),
            ("2026-11-23T17", T0 - 59 - 37 * 60),
            ("2026-11-23T17Z", T0 - 59 - 37 * 60),
            ("2026-11-23", 1_795_392_000),
            ("2026-11-23Z", 1_795_392_000),
        ] {
            assert_eq!(parse(text, now).unwrap(), Timestamp::from_unix_seconds(seconds), "{text}");
        }
        let with_fraction = Timestamp::from_unix_nanos(T0 * SECOND + 250_000_000);
        for text in ["1795455479.25", "2026-11-23T17:37:59.25Z", "2026-11-23T17:37:59.25"] {
            assert_eq!(parse(text, now).unwrap(), with_fraction, "{text}");
        }
    }

    #[test]
    fn bad_times_are_refused_with_the_references_texts() {
        for (text, message) in [
            ("", "failed to parse value as time or duration: value is empty"),
            ("abc", "failed to parse value as time or duration: invalid seconds \"abc\": invalid syntax"),
            (
                "1.2x",
                "failed to parse value as time or duration: invalid nanoseconds: invalid character 'x' at position 1",
            ),
            ("2026-13-01", "parsing time \"2026-13-01\": month out of range"),
            ("2026-02-30", "parsing time \"2026-02-30\": day out of range"),
            ("2026-02-03T1x", "parsing time \"2026-02-03T1x\" as \"2006-01-02T15\": cannot parse \"1x\" as \"15\""),
            ("2026-02-03x", "parsing time \"2026-02-03x\": extra text: \"x\""),
        ] {
            assert_eq!(parse(text, Timestamp::ZERO).unwrap_err().message(), message);
        }
    }

    #[test]
    fn leap_years_and_the_ends_of_the_calendar() {
        let text = |seconds| String::from_utf8(seconds_text(seconds).to_vec()).unwrap();
        for (seconds, expected) in [
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (-1, "1969-12-31T23:59:59"),
            (ZERO_SECONDS, "0001-01-01T00:00:00"),
            (LAST_SECOND, "9999-12-31T23:59:59"),
            (i64::MAX, "9999-12-31T23:59:59"),
            (FIRST_SECOND, "0000-01-01T00:00:00"),
            (i64::MIN, "0000-01-01T00:00:00"),
        ] {
            assert_eq!(text(seconds), expected);
        }
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 2, 29) * DAY_SECONDS, 951_782_400);
        assert_eq!(days(2000, 3, 1) - days(2000, 2, 29), 1);
        assert_eq!(days(0, 1, 1) * DAY_SECONDS, FIRST_SECOND);
    }

    #[test]
    fn unix_values_have_up_to_nine_decimals() {
        assert_eq!(parse_unix("").unwrap(), None);
        assert_eq!(parse_unix("1.5").unwrap(), Some(Timestamp::from_unix_nanos(1_500_000_000)));
        assert_eq!(parse_unix("1.0000000019").unwrap(), Some(Timestamp::from_unix_nanos(1_000_000_001)));
        let message = parse_unix("x").unwrap_err().message().to_owned();
        assert_eq!(message, "invalid timestamp \"x\": invalid seconds \"x\": invalid syntax");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanos in 0..i64::MAX) {
            let time = Timestamp::from_unix_nanos(nanos);
            prop_assert_eq!(parse_rfc3339(&time.rfc3339_nano()).unwrap(), time);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9TZz:.+x -]{0,30}") {
            let _ = parse(&text, Timestamp::ZERO);
        }
    }
}
