//! Docker's profile format, as users write it in JSON files.

use serde::{Deserialize, Deserializer, Serialize};

use crate::oci::SeccompArg;

/// A whole profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Profile {
    /// What happens to a system call that no rule names, `SCMP_ACT_…`.
    pub default_action: String,
    /// The errno of `SCMP_ACT_ERRNO` and the message of `SCMP_ACT_TRACE`; absent = EPERM.
    pub default_errno_ret: Option<u32>,
    /// Exclusive with `arch_map`: the architectures themselves.
    #[serde(deserialize_with = "list")]
    pub architectures: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub arch_map: Vec<ArchMap>,
    /// `SECCOMP_FILTER_FLAG_…`
    #[serde(deserialize_with = "list")]
    pub flags: Vec<String>,
    pub listener_path: String,
    pub listener_metadata: String,
    #[serde(deserialize_with = "list")]
    pub syscalls: Vec<Rule>,
}

/// The further architectures that a machine of one architecture also runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ArchMap {
    /// `SCMP_ARCH_…`
    pub architecture: String,
    #[serde(deserialize_with = "list")]
    pub sub_architectures: Vec<String>,
}

/// One rule: what happens to the named system calls when all of `args` hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    #[serde(deserialize_with = "list")]
    pub names: Vec<String>,
    /// Of old profiles, exclusive with `names`.
    pub name: String,
    pub action: String,
    pub errno_ret: Option<u32>,
    #[serde(deserialize_with = "list")]
    pub args: Vec<SeccompArg>,
    /// The rule counts only if all of this holds.
    pub includes: Option<Filter>,
    /// The rule does not count if any of this holds.
    pub excludes: Option<Filter>,
}

/// Conditions on the container and the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Filter {
    /// `CAP_…`
    #[serde(deserialize_with = "list")]
    pub caps: Vec<String>,
    /// Go's architecture names: `amd64`, `arm64`.
    #[serde(deserialize_with = "list")]
    pub arches: Vec<String>,
    /// `4.8`: at least this kernel. Empty = any.
    pub min_kernel: Option<String>,
}

/// Go writes an empty list as `null`.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(input)?.unwrap_or_default())
}

impl Profile {
    /// Reads a profile file's text.
    pub fn parse(text: &str) -> model::Result<Profile> {
        serde_json::from_str(text)
            .map_err(|e| model::Error::invalid(format!("Decoding seccomp profile failed: {e}")).with_source(e))
    }
}
