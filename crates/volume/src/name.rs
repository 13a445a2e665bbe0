//! The rule for names of volumes: they become names of directories.

use model::{Error, Result};

/// Refuses what is no name for a volume of the local driver, in the reference's words.
pub(crate) fn validate(name: &str) -> Result<()> {
    if name.len() == 1 {
        return Err(Error::invalid("volume name is too short, names should be at least two alphanumeric characters"));
    }
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.len() <= 255 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
         If you intended to pass a host directory, use absolute path"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B-vol-9
    #[test]
    fn names_are_names_of_directories() {
        for name in ["ab", "A.b_c-9", &"a".repeat(255)] {
            assert!(validate(name).is_ok(), "{name}");
        }
        for name in ["", "a", "/x", ".a", "..", "a/b", "-a", "a b", "é1", &"a".repeat(256)] {
            assert!(validate(name).is_err(), "{name}");
        }
    }
}
