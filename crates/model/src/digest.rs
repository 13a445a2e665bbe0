//! Content digests: `<algorithm>:<lower-case hex>`. Algorithms that are not among [`Algorithm`] are recognised by form and
//! refused by name.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::{Error, Result, id};

/// A hash that content is named by: the registered ones of the OCI image specification, and SHA-384, which the reference
/// takes as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// What everything that is made here is named by.
    Sha256,
    /// Of content that came with such a name.
    Sha384,
    /// Of content that came with such a name.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];

    /// As digests begin.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Hex digits of a digest.
    fn digits(self) -> usize {
        match self {
            Algorithm::Sha256 => id::FULL,
            Algorithm::Sha384 => 96,
            Algorithm::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The digest of some content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// From the raw hash.
    pub fn from_sha256(hash: &[u8; 32]) -> Digest {
        Digest::of_hash(Algorithm::Sha256, hash)
    }

    fn of_hash(algorithm: Algorithm, hash: &[u8]) -> Digest {
        Digest(format!("{algorithm}:{}", id::hex(hash)))
    }

    /// Of these bytes.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// From `<algorithm>:<lower-case hex>`.
    pub fn parse(text: &str) -> Result<Digest> {
        let (name, hex) = text.split_once(':').ok_or_else(|| Error::invalid("invalid checksum digest format"))?;
        match Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name) {
            Some(algorithm) if hex.len() != algorithm.digits() => Err(Error::invalid("invalid checksum digest length")),
            Some(_) if id::is_hex(hex) => Ok(Digest(text.to_owned())),
            None if !name.is_empty() => Err(Error::invalid("unsupported digest algorithm")),
            _ => Err(Error::invalid("invalid checksum digest format")),
        }
    }

    /// From its digits alone, as files are named: each algorithm has a number of its own. `None`: they are none.
    pub fn from_hex(hex: &str) -> Option<Digest> {
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.digits() == hex.len())?;
        id::is_hex(hex).then(|| Digest(format!("{algorithm}:{hex}")))
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it is made by.
    pub fn algorithm(&self) -> Algorithm {
        let is_of = |algorithm: &Algorithm| self.0.starts_with(algorithm.name());
        Algorithm::ALL.into_iter().find(is_of).unwrap_or(Algorithm::Sha256)
    }

    /// The digits behind the colon.
    pub fn hex(&self) -> &str {
        &self.0[self.algorithm().name().len() + 1..]
    }

    /// The first 12 digits, as images are listed.
    pub fn short(&self) -> &str {
        &self.hex()[..id::SHORT]
    }

    /// Whether it is that of these bytes.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        Digest::of(self.algorithm(), bytes) == *self
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.short())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        Digest::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The digest of bytes that come piece by piece.
#[derive(Clone)]
pub struct Hasher(Running);

#[derive(Clone)]
enum Running {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    /// Of no bytes yet.
    pub fn new(algorithm: Algorithm) -> Hasher {
        Hasher(match algorithm {
            Algorithm::Sha256 => Running::Sha256(Sha256::new()),
            Algorithm::Sha384 => Running::Sha384(Sha384::new()),
            Algorithm::Sha512 => Running::Sha512(Sha512::new()),
        })
    }

    /// What will be compared with this digest; without one, the digest of what is made here.
    pub fn to_match(expected: Option<&Digest>) -> Hasher {
        Hasher::new(expected.map_or(Algorithm::Sha256, Digest::algorithm))
    }

    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Running::Sha256(hash) => hash.update(bytes),
            Running::Sha384(hash) => hash.update(bytes),
            Running::Sha512(hash) => hash.update(bytes),
        }
    }

    /// Of all of them.
    pub fn finish(self) -> Digest {
        match self.0 {
            Running::Sha256(hash) => Digest::of_hash(Algorithm::Sha256, &hash.finalize()),
            Running::Sha384(hash) => Digest::of_hash(Algorithm::Sha384, &hash.finalize()),
            Running::Sha512(hash) => Digest::of_hash(Algorithm::Sha512, &hash.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_digests_of_known_algorithms_are_taken() {
        let text = format!("sha256:{}", "0a".repeat(32));
        let digest = Digest::parse(&text).unwrap();
        assert_eq!((digest.algorithm(), digest.hex().len(), digest.short()), (Algorithm::Sha256, 64, "0a0a0a0a0a0a"));
        assert_eq!(Digest::from_sha256(&[0x0a; 32]), digest);
        for (algorithm, length) in [(Algorithm::Sha256, 32), (Algorithm::Sha384, 48), (Algorithm::Sha512, 64)] {
            let hex = "0b".repeat(length);
            let digest = Digest::parse(&format!("{algorithm}:{hex}")).unwrap();
            assert_eq!((digest.algorithm(), digest.hex()), (algorithm, hex.as_str()));
            assert_eq!(Digest::from_hex(&hex), Some(digest));
        }
        let message = |text: &str| Digest::parse(text).unwrap_err().message().to_owned();
        assert_eq!(message("sha256"), "invalid checksum digest format");
        assert_eq!(message(":ab"), "invalid checksum digest format");
        assert_eq!(message("sha256:ab"), "invalid checksum digest length");
        assert_eq!(message(&format!("sha512:{}", "0a".repeat(32))), "invalid checksum digest length");
        assert_eq!(message(&format!("sha256:{}", "0A".repeat(32))), "invalid checksum digest format");
        assert_eq!(message(&format!("md5:{}", "0a".repeat(16))), "unsupported digest algorithm");
        assert_eq!((Digest::from_hex("0a"), Digest::from_hex(&"0A".repeat(32))), (None, None));
    }

    /// FIPS 180-4, the message `abc`.
    #[test]
    fn content_is_hashed_by_each_algorithm() {
        for (algorithm, first) in [
            (Algorithm::Sha256, "ba7816bf8f01"),
            (Algorithm::Sha384, "cb00753f45a3"),
            (Algorithm::Sha512, "ddaf35a19361"),
        ] {
            let digest = Digest::of(algorithm, b"abc");
            assert_eq!((digest.algorithm(), digest.short()), (algorithm, first));
            assert!(digest.is_of(b"abc") && !digest.is_of(b"abd"));
            let mut hasher = Hasher::to_match(Some(&digest));
            hasher.update(b"a");
            hasher.update(b"bc");
            assert_eq!(hasher.finish(), digest);
        }
        assert_eq!(Hasher::to_match(None).finish().algorithm(), Algorithm::Sha256);
    }
}
