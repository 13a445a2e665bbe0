//! Sysctls: which ones a container may set, and setting them.
//!
//! They are written below the descriptor of the procfs mounted a moment ago, without following any link or mount
//! (CVE-2025-52881), and only if they belong to a namespace that is the container's: all others are the machine's.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sys::mount::Attr;
use sys::rooted::openat2;

use super::mounts::{Mounted, PROC_SUPER_MAGIC};
use super::tree::{self, keep};
use crate::error::{At, Stage, StartError};
use crate::oci::{Linux, NamespaceKind};

/// Of the IPC namespace, besides `fs.mqueue.*`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Refuses sysctls that would reach beyond the container, in runc's words.
pub(super) fn check(linux: &Linux) -> Result<(), StartError> {
    let own = |kind| linux.namespaces.iter().any(|n| n.kind == kind);
    for key in linux.sysctl.keys() {
        let name = dotted(key);
        let refusal = if IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
            (!own(NamespaceKind::Ipc)).then_some("is not allowed in the hosts ipc namespace")
        } else if name.starts_with("net.") {
            (!own(NamespaceKind::Network) || joins_own_network(linux))
                .then_some("not allowed in host network namespace")
        } else if own(NamespaceKind::Uts) && name == "kernel.domainname" {
            None
        } else if own(NamespaceKind::Uts) && name == "kernel.hostname" {
            Some("is not allowed as it conflicts with the OCI \"hostname\" field")
        } else {
            Some("is not in a separate kernel namespace")
        };
        if let Some(why) = refusal {
            return Err(StartError::new(Stage::Validation, 0, format!("sysctl {name:?} {why}")));
        }
    }
    Ok(())
}

/// Whether the network namespace to be joined is the one that this process is in: a container of the host's network.
fn joins_own_network(linux: &Linux) -> bool {
    use std::os::unix::fs::MetadataExt;
    let path = linux.namespaces.iter().find(|n| n.kind == NamespaceKind::Network).and_then(|n| n.path.as_ref());
    let identity = |path: &str| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    path.is_some_and(|path| identity(path) == identity("/proc/self/ns/net"))
}

/// Writes them into the namespaces that the process is in.
pub(super) fn write(mounted: &Mounted, values: &BTreeMap<String, String>) -> Result<(), StartError> {
    if values.is_empty() {
        return Ok(());
    }
    let proc = match mounted.proc {
        Some(proc) => proc,
        None => tree::new("proc", "proc", &[], Attr::NOSUID | Attr::NODEV | Attr::NOEXEC)
            .at(|| Stage::Sysctl { key: String::new() }, "mount proc")?,
    };
    for (key, value) in values {
        let stage = || Stage::Sysctl { key: key.clone() };
        let path = self::path(key);
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let file = keep(openat2(proc, Path::new(&path), OFlags::WRONLY, Mode::empty(), resolve).at(stage, "")?);
        if rustix::fs::fstatfs(file).at(stage, "statfs")?.f_type != PROC_SUPER_MAGIC {
            return Err(StartError::new(stage(), Errno::XDEV.raw_os_error(), "not on procfs"));
        }
        let written = rustix::io::write(file, value.as_bytes()).at(stage, "write")?;
        if written != value.len() {
            return Err(StartError::new(stage(), Errno::IO.raw_os_error(), "write"));
        }
    }
    Ok(())
}

/// As sysctl(8): `net.ipv4.conf.eth0/1.x` → `sys/net/ipv4/conf/eth0.1/x`, but a key whose first separator is a slash is a
/// path already.
fn path(key: &str) -> String {
    format!("sys/{}", if is_path(key) { key.to_owned() } else { swapped(key) })
}

/// The key with dots as separators.
fn dotted(key: &str) -> String {
    if is_path(key) { swapped(key) } else { key.to_owned() }
}

fn is_path(key: &str) -> bool {
    key.find(['.', '/']).is_some_and(|at| key.as_bytes()[at] == b'/')
}

fn swapped(key: &str) -> String {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    key.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Namespace;

    #[test]
    fn paths() {
        assert_eq!(path("net.ipv4.ip_forward"), "sys/net/ipv4/ip_forward");
        assert_eq!(path("net.ipv4.conf.eth0/1.x"), "sys/net/ipv4/conf/eth0.1/x");
        assert_eq!(path("net/ipv4/conf/eth0.1/x"), "sys/net/ipv4/conf/eth0.1/x");
        assert_eq!(dotted("net/ipv4/conf/eth0.1/x"), "net.ipv4.conf.eth0/1.x");
    }

    fn refusal(key: &str, namespaces: &[NamespaceKind]) -> Option<String> {
        let namespaces = namespaces.iter().map(|kind| Namespace { kind: *kind, path: None }).collect();
        let sysctl = [(key.to_owned(), "1".to_owned())].into();
        check(&Linux { namespaces, sysctl, ..Linux::default() }).err().map(|e| e.detail)
    }

    #[test]
    fn only_the_containers_own() {
        use NamespaceKind::{Ipc, Network, Uts};
        let all = [Ipc, Network, Uts];
        for key in ["net.core.somaxconn", "net/core/somaxconn", "kernel.sem", "fs.mqueue.msg_max", "kernel.domainname"]
        {
            assert_eq!(refusal(key, &all), None, "{key}");
            assert!(refusal(key, &[]).is_some(), "{key}");
        }
        for key in ["kernel.core_pattern", "vm.swappiness", "netx.y", "fs.file-max", "kernel/pid_max"] {
            let text = format!("sysctl {:?} is not in a separate kernel namespace", dotted(key));
            assert_eq!(refusal(key, &all), Some(text));
        }
        assert_eq!(
            refusal("kernel.hostname", &all).unwrap(),
            "sysctl \"kernel.hostname\" is not allowed as it conflicts with the OCI \"hostname\" field"
        );
        let joined = Namespace { kind: Network, path: Some("/proc/self/ns/net".into()) };
        let sysctl = [("net.core.somaxconn".to_owned(), "1".to_owned())].into();
        let error = check(&Linux { namespaces: vec![joined], sysctl, ..Linux::default() }).unwrap_err();
        assert_eq!(error.detail, "sysctl \"net.core.somaxconn\" not allowed in host network namespace");
    }
}
