//! Content digests: `sha256:<64 hex>`. Other registered algorithms are recognised by form and refused by name.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, Result, id};

const PREFIX: &str = "sha256:";

/// The digest of some content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// From the raw hash.
    pub fn from_sha256(hash: &[u8; 32]) -> Digest {
        Digest(format!("{PREFIX}{}", id::hex(hash)))
    }

    /// From `sha256:<64 lower-case hex>`.
    pub fn parse(text: &str) -> Result<Digest> {
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| Error::invalid("invalid checksum digest format"))?;
        match algorithm {
            "sha256" if hex.len() != id::FULL => Err(Error::invalid("invalid checksum digest length")),
            "sha256" if id::is_full(hex) => Ok(Digest(text.to_owned())),
            "sha256" | "" => Err(Error::invalid("invalid checksum digest format")),
            _ => Err(Error::invalid("unsupported digest algorithm")),
        }
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `sha256`
    pub fn algorithm(&self) -> &str {
        &PREFIX[..PREFIX.len() - 1]
    }

    /// The 64 digits behind the colon.
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }

    /// The first 12 digits, as images are listed.
    pub fn short(&self) -> &str {
        &self.hex()[..id::SHORT]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.short())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        Digest::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_sha256_digests_are_taken() {
        let text = format!("sha256:{}", "0a".repeat(32));
        let digest = Digest::parse(&text).unwrap();
        assert_eq!((digest.algorithm(), digest.hex().len(), digest.short()), ("sha256", 64, "0a0a0a0a0a0a"));
        assert_eq!(Digest::from_sha256(&[0x0a; 32]), digest);
        let message = |text: &str| Digest::parse(text).unwrap_err().message().to_owned();
        assert_eq!(message("sha256"), "invalid checksum digest format");
        assert_eq!(message("sha256:ab"), "invalid checksum digest length");
        assert_eq!(message(&format!("sha256:{}", "0A".repeat(32))), "invalid checksum digest format");
        assert_eq!(message(&format!("md5:{}", "0a".repeat(16))), "unsupported digest algorithm");
    }
}
