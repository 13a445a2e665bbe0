//! Lists of processors or memory nodes: `0-3,7`.

use std::collections::BTreeSet;

use crate::{Error, Result};

/// Numbers above this are taken for mistakes; a list names them one by one in memory.
const MAX: u32 = 8192;

/// Reads a list; empty is the empty set.
pub fn parse(text: &str) -> Result<BTreeSet<u32>> {
    let invalid = || Error::invalid(format!("invalid format: {text}"));
    let number = |n: &str| match n.parse::<u32>() {
        Ok(n) if n <= MAX => Ok(n),
        Ok(_) => Err(Error::invalid(format!("value of out range, maximum is {MAX}"))),
        Err(_) => Err(invalid()),
    };
    let mut set = BTreeSet::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        match part.split_once('-') {
            None => drop(set.insert(number(part)?)),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return Err(invalid());
                }
                set.extend(first..=last);
            }
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_have_numbers_and_ranges() {
        assert_eq!(parse("0-2,7").unwrap().into_iter().collect::<Vec<_>>(), [0, 1, 2, 7]);
        assert!(parse("").unwrap().is_empty());
        for text in ["x", "1-", "2-1", ",", "1,,2", "-1"] {
            assert_eq!(parse(text).unwrap_err().message(), format!("invalid format: {text}"));
        }
        assert_eq!(parse("0-9000000").unwrap_err().message(), "value of out range, maximum is 8192");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9,-]{0,10}") {
            let _ = parse(&text);
        }
    }
}
