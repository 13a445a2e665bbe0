//! Identities: 64 lower-case hex digits, made from 32 random bytes by the caller (B-id-1).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// Length of the short form.
pub const SHORT: usize = 12;
/// Length of the full form.
pub const FULL: usize = 64;

/// 64 lower-case hex digits?
pub(crate) fn is_full(text: &str) -> bool {
    text.len() == FULL && is_hex(text)
}

/// Lower-case hex digits only?
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

macro_rules! identity {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// From random bytes.
            pub fn from_bytes(bytes: [u8; 32]) -> $name {
                $name(hex(&bytes))
            }

            /// From its full form; `None` for anything else.
            pub fn parse(text: &str) -> Option<$name> {
                is_full(text).then(|| $name(text.to_owned()))
            }

            /// The full form.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 12 digits.
            pub fn short(&self) -> &str {
                &self.0[..SHORT]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.short())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = String::deserialize(deserializer)?;
                $name::parse(&text).ok_or_else(|| serde::de::Error::custom("an id has 64 hex digits"))
            }
        }
    )*};
}

identity! {
    /// A container.
    ContainerId;
    /// An exec session.
    ExecId;
    /// A network.
    NetworkId;
    /// A container's place in a network.
    EndpointId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_lower_case_hex_digits() {
        let id = ContainerId::from_bytes([0xa5; 32]);
        assert_eq!(id.as_str(), "a5".repeat(32));
        assert_eq!(id.short(), "a5a5a5a5a5a5");
        assert_eq!(ContainerId::parse(id.as_str()), Some(id.clone()));
        for bad in ["", "a5", &"A5".repeat(32), &"g".repeat(64), &"a".repeat(65)] {
            assert_eq!(ContainerId::parse(bad), None);
        }
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<ContainerId>(&json).unwrap(), id);
        assert!(serde_json::from_str::<ContainerId>("\"zz\"").is_err());
    }
}
