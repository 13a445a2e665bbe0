//! Settings of a container's link that its endpoint asks for.

use std::io::ErrorKind;
use std::os::fd::BorrowedFd;

use model::{Error, Result};
use sys::netlink::namespace;

/// Stands for the link's name, also in lower case.
const LINK: &str = "IFNAME";

/// Makes settings (`net.X.Y.IFNAME.Z`, with their values) of a link in a sandbox; errors in the reference's words.
pub fn set(sandbox: BorrowedFd<'_>, link: &str, sysctls: &[(String, String)]) -> Result<()> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let paths = sysctls.iter().map(|(name, value)| Ok((path(name, link)?, value))).collect::<Result<Vec<_>>>()?;
    let set = namespace::enter(sandbox, || {
        Ok(paths.iter().try_for_each(|(path, value)| match namespace::set_sysctl(path, value) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::system(format!("/proc/sys/{path} is not a sysctl file")).with_source(error))
            }
            Err(error) => {
                let reason = model::error::io_text(&error);
                Err(Error::system(format!("unable to write to '/proc/sys/{path}': {reason}")).with_source(error))
            }
            Ok(()) => Ok(()),
        }))
    });
    set?
}

/// The file below `/proc/sys`. No part may lead elsewhere.
fn path(name: &str, link: &str) -> Result<String> {
    let wrong = || Error::invalid(format!("expected sysctl '{name}' to have format net.X.Y.IFNAME.Z"));
    let parts: Vec<&str> = name.split('.').collect();
    let is_plain = |part: &&str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match parts[..] {
        ["net", family, kind, named, setting] if parts.iter().all(is_plain) && named.eq_ignore_ascii_case(LINK) => {
            Ok(format!("net/{family}/{kind}/{link}/{setting}"))
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn names_lead_to_the_links_settings_only() {
        assert_eq!(path("net.ipv4.conf.ifname.log_martians", "eth1").unwrap(), "net/ipv4/conf/eth1/log_martians");
        for name in [
            "net.ipv4.conf.IFNAME",
            "net.ipv4.conf.eth0.x",
            "net.ipv4.conf.IFNAME.../../../kernel/x",
            "",
            "a.b.c.IFNAME.d",
        ] {
            assert!(path(name, "eth0").is_err(), "{name}");
        }
    }
}
