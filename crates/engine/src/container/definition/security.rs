//! `SecurityOpt`, `CapAdd` and `CapDrop`: what a request changes about the confinement of its container.

use model::capability::{self, ALL};
use model::{Error, Result};

/// The capabilities that a container is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Bit n: [`ALL`]`[n]`.
    bits: u64,
    /// It asked for all: it gets those of them that the daemon itself may give (B-oci-13).
    pub wants_all: bool,
}

impl Capabilities {
    /// Those that a configuration asks for.
    ///
    /// Errors: `InvalidParameter` for an unknown name.
    pub fn of(host: &api::HostConfig) -> Result<Capabilities> {
        let list = |names: &Option<Vec<String>>| names.clone().unwrap_or_default();
        let add = list(&host.cap_add);
        let names = capability::resolve(&add, &list(&host.cap_drop), host.privileged)?;
        let bits = ALL.iter().enumerate().filter(|(_, name)| names.iter().any(|own| own == *name));
        let wants_all = host.privileged || add.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
        Ok(Capabilities { bits: bits.map(|(n, _)| 1 << n).sum(), wants_all })
    }

    /// Every one that there is: of a privileged exec session.
    pub fn all() -> Capabilities {
        Capabilities { bits: (1 << ALL.len()) - 1, wants_all: true }
    }

    /// Their names (`CAP_…`), by number.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        ALL.iter().enumerate().filter(move |(n, _)| self.bits >> n & 1 == 1).map(|(_, name)| *name)
    }
}

/// The parsed options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// `unconfined`, `builtin` or a profile as JSON text; `None`: the daemon's.
    pub seccomp: Option<String>,
    /// The name of an AppArmor profile; `None`: the default one.
    pub apparmor: Option<String>,
    /// The daemon's setting unless given.
    pub no_new_privileges: Option<bool>,
    /// The container may write to its own control groups.
    pub writable_cgroups: Option<bool>,
    /// SELinux labels, as given.
    pub labels: Vec<String>,
}

impl SecurityOptions {
    /// Reads `key=value` (or, as it once was, `key:value`); the last one of a key wins. The reference answers 500 to
    /// what it does not know.
    pub fn parse(options: &[String]) -> Result<SecurityOptions> {
        let mut parsed = SecurityOptions::default();
        for option in options {
            let unknown = || Error::system(format!("invalid --security-opt 2: {option:?}"));
            // Three options may stand alone.
            let (key, value) = match option.as_str() {
                "no-new-privileges" | "writable-cgroups" => (option.as_str(), "true"),
                "disable" => ("label", "disable"),
                pair => pair
                    .split_once('=')
                    .or_else(|| pair.split_once(':'))
                    .ok_or_else(|| Error::system(format!("invalid --security-opt 1: {option:?}")))?,
            };
            match key {
                "label" => parsed.labels.push(value.to_owned()),
                "apparmor" => parsed.apparmor = Some(value.to_owned()),
                "seccomp" => parsed.seccomp = Some(value.to_owned()),
                "no-new-privileges" => parsed.no_new_privileges = Some(flag(value).ok_or_else(unknown)?),
                "writable-cgroups" => parsed.writable_cgroups = Some(flag(value).ok_or_else(unknown)?),
                _ => return Err(unknown()),
            }
        }
        Ok(parsed)
    }
}

/// Go's notion of a boolean.
fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
