//! Container names: the rule, and names for those who give none (B-id-2, B-id-3).

mod words;

use crate::{Error, Result};

/// What [`validate`] allows, as texts show it.
pub const ALLOWED: &str = "[a-zA-Z0-9][a-zA-Z0-9_.-]";
/// How often a generated name is tried with a digit behind it before the short id is taken.
pub const RETRIES: u32 = 5;

/// The rule: a letter or digit, then letters, digits, `_`, `.` or `-`. The reference wants at least two characters;
/// Gantry takes one as well.
pub fn is_valid(name: &str) -> bool {
    name.bytes().enumerate().all(|(at, b)| b.is_ascii_alphanumeric() || (at > 0 && b"_.-".contains(&b)))
        && !name.is_empty()
}

/// Refuses a name that breaks the rule; a slash before it is allowed.
pub fn validate(name: &str) -> Result<()> {
    match is_valid(name.strip_prefix('/').unwrap_or(name)) {
        true => Ok(()),
        false => Err(Error::invalid(format!("Invalid container name ({name}), only {ALLOWED} are allowed"))),
    }
}

/// `adjective_surname` picked by a random number; the `retry`-th attempt (from 1) has a digit behind it.
pub fn generated(random: u64, retry: u32) -> String {
    let (adjectives, surnames) = (words::ADJECTIVES.len() as u64, words::SURNAMES.len() as u64);
    let adjective = words::ADJECTIVES[(random % adjectives) as usize];
    let surname = words::SURNAMES[(random / adjectives % surnames) as usize];
    match retry {
        0 => format!("{adjective}_{surname}"),
        _ => format!("{adjective}_{surname}{}", random / adjectives / surnames % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// B-id-2
    #[test]
    fn the_rule_is_the_references() {
        for good in ["a", "ab", "/wf1", "A_b.c-", "0."] {
            assert!(validate(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a b", "_a", ".a", "-a", "ä1", "a/b", "//ab"] {
            assert!(validate(bad).is_err(), "{bad}");
        }
        assert_eq!(
            validate("a b").unwrap_err().message(),
            "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
    }

    /// B-id-3
    #[test]
    fn generated_names_keep_the_rule() {
        let mut random = 1u64;
        let mut seen = HashSet::new();
        for retry in (0..=RETRIES).cycle().take(3000) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let name = generated(random, retry);
            assert!(is_valid(&name), "{name}");
            assert_eq!(name.ends_with(|c: char| c.is_ascii_digit()), retry > 0, "{name}");
            seen.insert(name);
        }
        assert!(seen.len() > 2500);
    }

    #[test]
    fn words_are_unique_and_plain() {
        for list in [words::ADJECTIVES, words::SURNAMES] {
            let unique: HashSet<_> = list.iter().collect();
            assert_eq!(unique.len(), list.len());
            assert!(list.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase())));
        }
    }
}
