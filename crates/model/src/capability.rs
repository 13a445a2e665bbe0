//! Linux capabilities by name: the default set and what `CapAdd` and `CapDrop` make of it (B-oci-1).

use crate::{Error, Result};

/// All names by number, as of Linux 5.9 (linux/capability.h).
pub const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has unless it asks for more or less.
pub const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const EVERY: &str = "ALL";

/// Upper case, with prefix; `ALL` stays. A name the kernel does not have is refused.
pub fn normalize(names: &[String]) -> Result<Vec<String>> {
    names.iter().map(|name| normalize_one(name)).collect()
}

fn normalize_one(name: &str) -> Result<String> {
    let mut name = name.to_uppercase();
    if name == EVERY {
        return Ok(name);
    }
    if !name.starts_with("CAP_") {
        name.insert_str(0, "CAP_");
    }
    match ALL.contains(&name.as_str()) {
        true => Ok(name),
        false => Err(Error::invalid(format!("unknown capability: {name:?}"))),
    }
}

/// The capabilities of a container. `add` with ALL: all but the dropped; `drop` with ALL: only the added.
pub fn resolve(add: &[String], drop: &[String], privileged: bool) -> Result<Vec<String>> {
    let all = || ALL.iter().map(ToString::to_string);
    if privileged {
        return Ok(all().collect());
    }
    let (drop, add) = (normalize(drop)?, normalize(add)?);
    let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
    if has(&add, EVERY) {
        return Ok(all().filter(|name| !drop.contains(name)).collect());
    }
    let kept = DEFAULT.iter().filter(|name| !has(&drop, EVERY) && !has(&drop, name)).map(ToString::to_string);
    let mut names: Vec<String> = Vec::with_capacity(DEFAULT.len() + add.len());
    for name in kept.chain(add) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn resolved(add: &[&str], drop: &[&str]) -> Vec<String> {
        resolve(&names(add), &names(drop), false).unwrap()
    }

    /// B-oci-1
    #[test]
    fn the_default_set_is_the_references() {
        assert_eq!(resolved(&[], &[]), DEFAULT);
        assert_eq!(resolve(&[], &[], true).unwrap(), ALL);
    }

    /// B-oci-1: ALL with drops, drop ALL with adds.
    #[test]
    fn all_means_all_but_the_other_list() {
        assert_eq!(resolved(&["all"], &["net_admin"]).len(), ALL.len() - 1);
        assert_eq!(resolved(&["NET_ADMIN", "cap_chown"], &["ALL"]), ["CAP_NET_ADMIN", "CAP_CHOWN"]);
        assert_eq!(resolved(&["ALL"], &["ALL"]).len(), ALL.len());
        assert_eq!(resolved(&[], &["ALL"]), Vec::<String>::new());
    }

    #[test]
    fn single_names_change_the_default_set() {
        let changed = resolved(&["SYS_TIME", "CHOWN"], &["mknod"]);
        assert!(changed.contains(&"CAP_SYS_TIME".to_string()) && !changed.contains(&"CAP_MKNOD".to_string()));
        assert_eq!(changed.len(), DEFAULT.len());
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = normalize(&names(&["nope"])).unwrap_err();
        assert_eq!(error.message(), "unknown capability: \"CAP_NOPE\"");
    }
}
