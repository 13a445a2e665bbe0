//! Addresses and prefixes as documents have them, and why a text is none, in the words of Go's `net/netip`.
//!
//! Zones (`fe80::1%eth0`) are not read: nothing that is configured has one.

use std::net::IpAddr;

/// Fields of an address of IPv4.
const OCTETS: usize = 4;
/// Fields of an address of IPv6, and how many of them one of IPv4 at its end stands for.
const GROUPS: usize = 8;
const EMBEDDED: usize = 2;
/// Digits of a field of IPv6.
const GROUP_DIGITS: usize = 4;

/// What is wrong, and the rest of the text from where it is.
type Wrong<'a> = (&'static str, Option<&'a str>);

/// `netip.ParseAddr`: the address, or the text of its error.
pub fn parse_addr(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        let (why, at) = match text.bytes().find(|byte| matches!(byte, b'.' | b':' | b'%')) {
            Some(b'.') => why_not_v4(text),
            Some(b':') => why_not_v6(text),
            Some(_) => ("missing IPv6 address", None),
            None => ("unable to parse IP", None),
        };
        let at = at.map(|rest| format!(" (at {rest:?})")).unwrap_or_default();
        format!("ParseAddr({text:?}): {why}{at}")
    })
}

/// `netip.ParsePrefix`: address and length in bits, or the text of its error. The address may have bits beyond the length.
pub fn parse_prefix(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = |why: String| format!("netip.ParsePrefix({text:?}): {why}");
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| wrong("no '/'".to_owned()))?;
    let address = parse_addr(address).map_err(wrong)?;
    let number = Some(bits).filter(|bits| is_plain_number(bits)).and_then(|bits| bits.parse::<u64>().ok());
    let number = number.ok_or_else(|| wrong(format!("bad bits after slash: {bits:?}")))?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    match u8::try_from(number) {
        Ok(length) if length <= longest => Ok((address, length)),
        _ => Err(wrong("prefix length out of range".to_owned())),
    }
}

/// Digits without a sign, and without zeros before others.
fn is_plain_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'))
}

/// Why a text with a dot is no address. The first fault from the left is told.
fn why_not_v4(text: &str) -> Wrong<'_> {
    let (mut fields, mut begin) = (1, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'0'..=b'9' if at > begin && text[begin..].starts_with('0') => {
                return ("IPv4 field has octet with leading zero", None);
            }
            b'0'..=b'9' if text[begin..=at].parse::<u8>().is_err() => return ("IPv4 field has value >255", None),
            b'0'..=b'9' => (),
            b'.' if at == begin || at + 1 == text.len() => {
                return ("IPv4 field must have at least one digit", Some(&text[at..]));
            }
            b'.' if fields == OCTETS => return ("IPv4 address too long", None),
            b'.' => (fields, begin) = (fields + 1, at + 1),
            _ => return ("unexpected character", text.get(at..)),
        }
    }
    ("IPv4 address too short", None)
}

/// Why a text with a colon is no address.
fn why_not_v6(text: &str) -> Wrong<'_> {
    let text = match text.split_once('%') {
        Some((_, "")) => return ("zone must be a non-empty string", None),
        Some((before, _)) if before.parse::<IpAddr>().is_ok() => return ("unable to parse IP", None),
        Some((before, _)) => before,
        None => text,
    };
    let (mut rest, mut gap) = match text.strip_prefix("::") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let mut groups = 0;
    while groups < GROUPS && !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits > GROUP_DIGITS {
            return ("each group must have 4 or less digits", Some(rest));
        }
        if digits == 0 {
            return ("each colon-separated field must have at least one digit", Some(rest));
        }
        let after = &rest[digits..];
        if after.starts_with('.') {
            return why_not_embedded(rest, groups, gap);
        }
        groups += 1;
        rest = match after.strip_prefix(':') {
            _ if after.is_empty() => after,
            None => return ("unexpected character, want colon", Some(after)),
            Some("") => return ("colon must be followed by more characters", Some(after)),
            Some(next) if next.starts_with(':') && gap => return ("multiple :: in address", Some(next)),
            Some(next) => {
                gap |= next.starts_with(':');
                next.strip_prefix(':').unwrap_or(next)
            }
        };
    }
    match rest {
        "" if groups < GROUPS => ("address string too short", None),
        "" => ("the :: must expand to at least one field of zeros", None),
        rest => ("trailing garbage after address", Some(rest)),
    }
}

/// Why an address of IPv4 cannot end one of IPv6, after so many fields.
fn why_not_embedded(rest: &str, groups: usize, gap: bool) -> Wrong<'_> {
    if !gap && groups + EMBEDDED != GROUPS {
        return ("embedded IPv4 address must replace the final 2 fields of the address", Some(rest));
    }
    if groups + EMBEDDED > GROUPS {
        return ("too many hex fields to fit an embedded IPv4 at the end of the address", Some(rest));
    }
    match rest.parse::<std::net::Ipv4Addr>() {
        Err(_) => why_not_v4(rest),
        Ok(_) => ("the :: must expand to at least one field of zeros", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["1.2.3.4", "::", "::1", "fd00::1", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:1.2.3.4"] {
            assert_eq!(parse_addr(good), Ok(good.parse().unwrap()));
        }
        let bad = [
            ("zz", "unable to parse IP"),
            ("%eth0", "missing IPv6 address"),
            ("1.2.3", "IPv4 address too short"),
            ("1.2.3.4.5", "IPv4 address too long"),
            ("1.2.300.4", "IPv4 field has value >255"),
            ("1.2.03.4", "IPv4 field has octet with leading zero"),
            ("1..3.4", "IPv4 field must have at least one digit (at \".3.4\")"),
            (".1.2.3", "IPv4 field must have at least one digit (at \".1.2.3\")"),
            ("1.2.3.", "IPv4 field must have at least one digit (at \".\")"),
            ("1.2.x.4", "unexpected character (at \"x.4\")"),
            ("fe80::1%eth0", "unable to parse IP"),
            ("fe80::1%", "zone must be a non-empty string"),
            ("12345::", "each group must have 4 or less digits (at \"12345::\")"),
            ("1:::2", "each colon-separated field must have at least one digit (at \":2\")"),
            ("1:2::3::4", "multiple :: in address (at \":4\")"),
            ("fd00:zz::", "each colon-separated field must have at least one digit (at \"zz::\")"),
            ("fd00g::", "unexpected character, want colon (at \"g::\")"),
            ("1:2:3:4:5:6:7:", "colon must be followed by more characters (at \":\")"),
            ("1:2:3", "address string too short"),
            ("1:2:3:4:5:6:7:8:9", "trailing garbage after address (at \"9\")"),
            ("1::2:3:4:5:6:7:8", "the :: must expand to at least one field of zeros"),
            ("1:2:1.2.3.4", "embedded IPv4 address must replace the final 2 fields of the address (at \"1.2.3.4\")"),
            ("::1.2.3", "IPv4 address too short"),
        ];
        for (text, why) in bad {
            assert_eq!(parse_addr(text), Err(format!("ParseAddr({text:?}): {why}")));
        }
    }

    #[test]
    fn prefixes() {
        assert_eq!(parse_prefix("10.1.2.3/8"), Ok(("10.1.2.3".parse().unwrap(), 8)));
        assert_eq!(parse_prefix("::/0"), Ok(("::".parse().unwrap(), 0)));
        let bad = [
            ("10.0.0.0", "no '/'"),
            ("10.0.0.0/33", "prefix length out of range"),
            ("fd00::/129", "prefix length out of range"),
            ("10.0.0.0/999999999999", "prefix length out of range"),
            ("10.0.0.0/", "bad bits after slash: \"\""),
            ("10.0.0.0/08", "bad bits after slash: \"08\""),
            ("10.0.0.0/+8", "bad bits after slash: \"+8\""),
            ("10.0.0.0/x", "bad bits after slash: \"x\""),
            ("10.50.300.0/24", "ParseAddr(\"10.50.300.0\"): IPv4 field has value >255"),
            ("a/b/24", "ParseAddr(\"a/b\"): unable to parse IP"),
        ];
        for (text, why) in bad {
            assert_eq!(parse_prefix(text), Err(format!("netip.ParsePrefix({text:?}): {why}")));
        }
    }

    #[test]
    fn every_text_is_answered() {
        let pieces = ["", "1", "0", "01", "256", "fffff", "g", ".", ":", "::", "%", "/", "é", "1.2.3.4"];
        for a in pieces {
            for b in pieces {
                for c in pieces {
                    for d in pieces {
                        let text = [a, b, c, d, a, b].concat();
                        assert_eq!(parse_addr(&text).ok(), text.parse().ok(), "{text}");
                        let text = [a, b, c, d].concat();
                        let parts = text.rsplit_once('/').and_then(|(address, length)| {
                            let bits: u8 = length.parse().ok().filter(|bits: &u8| bits.to_string() == length)?;
                            Some((address.parse::<IpAddr>().ok()?, bits))
                        });
                        let parts = parts.filter(|(address, bits)| *bits <= if address.is_ipv4() { 32 } else { 128 });
                        assert_eq!(parse_prefix(&text).ok(), parts, "{text}");
                    }
                }
            }
        }
    }
}
