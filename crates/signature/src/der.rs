//! As much of DER as a public key needs: elements of definite length, one after the other.

/// Tag of a SEQUENCE (X.690, 8.9).
pub const SEQUENCE: u8 = 0x30;
/// Tag of a BIT STRING (X.690, 8.6).
pub const BIT_STRING: u8 = 0x03;
/// Tag of an OBJECT IDENTIFIER (X.690, 8.19).
pub const OBJECT: u8 = 0x06;
/// Tag of an INTEGER (X.690, 8.3).
pub const INTEGER: u8 = 0x02;

/// Takes the element with this tag off the front: its content, and what follows it.
pub fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Lengths of one or two bytes, in their shortest form only.
        0x81 => rest.split_first().map(|(&n, rest)| (usize::from(n), rest)).filter(|(n, _)| *n >= 0x80)?,
        0x82 => {
            let (n, rest) = rest.split_at_checked(2)?;
            (usize::from(n[0]) << 8 | usize::from(n[1]), rest)
        }
        _ => return None,
    };
    if found != tag || (first == 0x82 && length < 0x100) {
        return None;
    }
    rest.split_at_checked(length)
}

/// As [`take`], for the last element: nothing may follow it.
pub fn take_last(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    take(bytes, tag).filter(|(_, rest)| rest.is_empty()).map(|(content, _)| content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn elements_are_taken_in_their_shortest_form_only() {
        assert_eq!(take(&[0x30, 2, 1, 2, 3], SEQUENCE), Some((&[1, 2][..], &[3][..])));
        assert_eq!(take(&[0x31, 0], SEQUENCE), None);
        assert_eq!(take(&[0x30, 0x81, 1, 0], SEQUENCE), None);
        assert_eq!(take(&[0x30, 0x82, 0, 0x81], SEQUENCE), None);
        assert_eq!(take(&[0x30, 0x80, 0, 0], SEQUENCE), None);
        assert_eq!(take(&[0x30, 3, 0], SEQUENCE), None);
        assert_eq!(take_last(&[0x30, 0, 0], SEQUENCE), None);
        let long = [&[0x30, 0x82, 1, 0][..], &[7; 256]].concat();
        assert_eq!(take_last(&long, SEQUENCE).map(<[u8]>::len), Some(256));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_not(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some((content, rest)) = take(&bytes, SEQUENCE) {
                prop_assert!(content.len() + rest.len() < bytes.len());
            }
        }
    }
}
