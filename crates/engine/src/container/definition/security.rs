//! `SecurityOpt`: what a request changes about the confinement of its container.

use model::{Error, Result};

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
