//! The time in which a certificate is valid (RFC 5280, 4.1.2.5), read from its DER. Pure.
//!
//! Only for certificates that the configuration itself trusts: webpki checks all others.

/// Whether the time (unix seconds) lies within the certificate's; `None` when it cannot be read.
pub fn contains(certificate: &[u8], now: u64) -> Option<bool> {
    let (outer, _) = element(certificate, 0x30)?;
    let (mut fields, _) = element(outer, 0x30)?;
    if fields.first() == Some(&0xa0) {
        fields = element(fields, 0xa0)?.1;
    }
    // serialNumber, signature, issuer
    for tag in [0x02, 0x30, 0x30] {
        fields = element(fields, tag)?.1;
    }
    let (validity, _) = element(fields, 0x30)?;
    let (from, rest) = time(validity)?;
    let (to, _) = time(rest)?;
    Some((from..=to).contains(&i64::try_from(now).ok()?))
}

/// The content of an element of this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |n, digit| n << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A UTCTime or a GeneralizedTime as unix seconds, and what follows it.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let ((text, rest), year_digits) = match bytes.first()? {
        0x17 => (element(bytes, 0x17)?, 2),
        0x18 => (element(bytes, 0x18)?, 4),
        _ => return None,
    };
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let part = |at: usize, digits: usize| text.get(at..at + digits)?.parse::<i64>().ok();
    let year = match (part(0, year_digits)?, year_digits) {
        (year @ 50.., 2) => 1900 + year,
        (year, 2) => 2000 + year,
        (year, _) => year,
    };
    let field = |n: usize| part(year_digits + 2 * n, 2);
    let days = days(year, field(0)?, field(1)?);
    Some((((days * 24 + field(2)?) * 60 + field(3)?) * 60 + field(4)?, rest))
}

/// Days since 1970-01-01 of the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era_days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    era_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 3, 1), 11_017);
        assert_eq!(time(b"\x17\x0d700101000000Z").unwrap().0, 0);
        assert_eq!(time(b"\x17\x0d261123235959Z").unwrap().0, 1_795_478_399);
        assert_eq!(time(b"\x18\x0f20500101000000Zrest"), Some((2_524_608_000, &b"rest"[..])));
    }

    #[test]
    fn garbage_has_no_time() {
        for bytes in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x02\x30\x00", b"\x17\x0d26112323595Z"] {
            assert_eq!(contains(bytes, 0), None);
            assert_eq!(time(bytes), None);
        }
    }
}
