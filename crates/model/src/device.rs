//! Devices in options: mappings (`/dev/x:/dev/y:rwm`) and rules of the device cgroup (`c 1:3 rwm`).

use crate::{Error, Result};

/// All that can be allowed: read, write, make a node.
pub const ALL_ACCESS: &str = "rwm";

/// A device of the host shown in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceMapping {
    /// Path on the host.
    pub host: String,
    /// Path in the container.
    pub container: String,
    /// Of [`ALL_ACCESS`].
    pub access: String,
}

impl DeviceMapping {
    /// From `host[:container][:access]`.
    pub fn parse(text: &str) -> Result<DeviceMapping> {
        let invalid = || Error::invalid(format!("invalid device specification: {text}"));
        let (host, container, access) = match text.split(':').collect::<Vec<_>>()[..] {
            [host] => (host, host, ALL_ACCESS),
            [host, second] if is_access(second) => (host, host, second),
            [host, second] => (host, second, ALL_ACCESS),
            [host, container, access] if is_access(access) => (host, container, access),
            _ => return Err(invalid()),
        };
        match host.is_empty() {
            true => Err(invalid()),
            false => Ok(DeviceMapping { host: host.into(), container: container.into(), access: access.into() }),
        }
    }
}

/// Letters of `rwm`, each at most once.
pub fn is_access(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| ALL_ACCESS.contains(c))
        && text.chars().enumerate().all(|(i, c)| !text[..i].contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read() {
        let parts = |text: &str| {
            let d = DeviceMapping::parse(text).unwrap();
            [d.host, d.container, d.access].join(" ")
        };
        assert_eq!(parts("/dev/a"), "/dev/a /dev/a rwm");
        assert_eq!(parts("/dev/a:r"), "/dev/a /dev/a r");
        assert_eq!(parts("/dev/a:/dev/b"), "/dev/a /dev/b rwm");
        assert_eq!(parts("/dev/a:/dev/b:mr"), "/dev/a /dev/b mr");
        for text in ["", "/a:/b:x", "/a:/b:rr", "/a:/b:r:w"] {
            assert_eq!(
                DeviceMapping::parse(text).unwrap_err().message(),
                format!("invalid device specification: {text}")
            );
        }
    }
}
