//! Versions of the API and the differences between them.

use std::fmt;

/// A version of the API, `1.45`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    pub major: u32,
    pub minor: u32,
}

impl ApiVersion {
    /// The newest version, which this crate's types describe.
    pub const MAX: ApiVersion = ApiVersion::v1(56);
    /// The oldest version that can be spoken at all.
    pub const MIN: ApiVersion = ApiVersion::v1(24);

    /// Version `1.<minor>`.
    pub const fn v1(minor: u32) -> ApiVersion {
        ApiVersion { major: 1, minor }
    }

    /// Reads digits separated by dots; what follows the second number is ignored.
    pub fn parse(text: &str) -> Option<ApiVersion> {
        let mut parts = text.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next().unwrap_or("0").parse().ok()?;
        parts
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
            .then_some(ApiVersion { major, minor })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
