//! Signals by name and number (B-sg-1).

use crate::{Error, Result};

/// SIGKILL.
pub const KILL: i32 = 9;
/// SIGTERM, the stop signal unless a container names another.
pub const TERM: i32 = 15;

/// The first and the last real-time signal, as libc shows them to programs.
const RT_MIN: i32 = 34;
const RT_MAX: i32 = 64;

const NAMES: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// A number, or a name in any case with or without `SIG`. Numbers the kernel does not have are refused.
pub fn parse(text: &str) -> Result<i32> {
    match parse_any(text)? {
        n if is_valid(n) => Ok(n),
        n => Err(Error::invalid(format!("the linux daemon does not support signal {n}"))),
    }
}

/// The same with any number but 0: stop signals are not asked whether the kernel has them before they are sent.
pub fn parse_any(text: &str) -> Result<i32> {
    let invalid = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if number == 0 { Err(invalid()) } else { Ok(number) };
    }
    let upper = text.to_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = NAMES.iter().find(|(name, _)| *name == bare).map(|(_, number)| *number);
    named.or_else(|| real_time(bare)).ok_or_else(invalid)
}

/// `RTMIN`, `RTMIN+1` … `RTMIN+15`, `RTMAX-14` … `RTMAX`.
fn real_time(name: &str) -> Option<i32> {
    let offset = |text: &str, most: i32| match text.as_bytes().first()? {
        b'1'..=b'9' => text.parse::<i32>().ok().filter(|n| *n <= most),
        _ => None,
    };
    match name.strip_prefix("RTMIN") {
        Some("") => Some(RT_MIN),
        Some(rest) => Some(RT_MIN + offset(rest.strip_prefix('+')?, 15)?),
        None => match name.strip_prefix("RTMAX")? {
            "" => Some(RT_MAX),
            rest => Some(RT_MAX - offset(rest.strip_prefix('-')?, 14)?),
        },
    }
}

/// A signal that programs may be sent by name: 1–31 and the real-time ones.
pub fn is_valid(number: i32) -> bool {
    (1..=31).contains(&number) || (RT_MIN..=RT_MAX).contains(&number)
}

/// `SIGTERM`; the number itself for one without a name.
pub fn name(number: i32) -> String {
    if let Some((name, _)) = NAMES.iter().find(|(_, n)| *n == number) {
        return format!("SIG{name}");
    }
    match number {
        RT_MIN => "SIGRTMIN".into(),
        RT_MAX => "SIGRTMAX".into(),
        n if (RT_MIN..=RT_MIN + 15).contains(&n) => format!("SIGRTMIN+{}", n - RT_MIN),
        n if (RT_MIN..=RT_MAX).contains(&n) => format!("SIGRTMAX-{}", RT_MAX - n),
        n => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B-sg-1
    #[test]
    fn names_and_numbers_are_taken() {
        for (text, number) in [
            ("SIGHUP", 1),
            ("hup", 1),
            ("sigkill", 9),
            ("15", 15),
            ("RTMIN", 34),
            ("rtmin+3", 37),
            ("SIGRTMAX-14", 50),
            ("SIGRTMAX", 64),
            ("64", 64),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
    }

    /// B-sg-1
    #[test]
    fn anything_else_is_refused_with_the_references_text() {
        for text in ["", "0", "NOPE", "SIG", "RTMIN+16", "RTMIN+0", "RTMAX-15", "RTMIN+", "1x"] {
            assert_eq!(parse(text).unwrap_err().message(), format!("invalid signal: {text}"));
            assert_eq!(parse_any(text).unwrap_err().message(), format!("invalid signal: {text}"));
        }
        for text in ["65", "-9", "32", "33"] {
            assert_eq!(parse(text).unwrap_err().message(), format!("the linux daemon does not support signal {text}"));
            assert_eq!(parse_any(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_name_reads_back_as_its_number() {
        for number in (1..=31).chain(34..=64) {
            assert_eq!(parse(&name(number)).unwrap(), number);
        }
    }
}
