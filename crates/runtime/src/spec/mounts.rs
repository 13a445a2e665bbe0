//! The list of mounts: defaults, Gantry's files, the user's mounts, and what read-only and privileged make of them.

use model::{Error, Result};

use super::input::{Access, Bind, ContainerSpec, Mount, MountKind, Propagation, Recursion, Shm};
use super::{HostFacts, INIT_PATH, defaults};
use crate::oci;

/// Mounts, and the propagation that the root needs for them.
pub(super) struct Planned {
    pub mounts: Vec<oci::Mount>,
    /// Empty = private.
    pub rootfs_propagation: String,
}

pub(super) fn plan(container: &ContainerSpec, host: &HostFacts, init: Option<&str>) -> Result<Planned> {
    let user = user_mounts(container);
    let mut mounts = default_mounts(container, &user);
    mounts.extend(init.map(init_mount));
    let mut root = None;
    for mount in &user {
        mounts.push(match &mount.kind {
            MountKind::Tmpfs { options } => tmpfs(&mount.target, options)?,
            MountKind::Bind(bind) => bind_mount(&mount.target, bind, host, &mut root)?,
        });
    }
    if container.readonly_rootfs {
        for mount in mounts.iter_mut().filter(|m| !stays_writable(m, &user)) {
            mount.options.push("ro".to_owned());
        }
    }
    for mount in &mut mounts {
        let sys = mount.destination == "/sys" && container.security.privileged;
        let cgroup = mount.kind == "cgroup" && writable_cgroups(container);
        if sys || cgroup {
            mount.options.retain(|o| o != "ro");
        }
    }
    let rootfs_propagation = root.map_or("", Propagation::as_str).to_owned();
    Ok(Planned { mounts, rootfs_propagation })
}

/// The user's mounts and Gantry's own binds, parents before children.
fn user_mounts(container: &ContainerSpec) -> Vec<Mount> {
    let mut all = container.mounts.user.clone();
    let own = |source: &str, access| Bind {
        source: source.to_owned(),
        access,
        propagation: Some(Propagation::RPrivate),
        ..Bind::default()
    };
    let mut add = |target: &str, bind| {
        if !all.iter().any(|m| m.target == target) {
            all.push(Mount { target: target.to_owned(), kind: MountKind::Bind(bind) });
        }
    };
    match &container.mounts.shm {
        Shm::Bind(source) => add(defaults::SHM, own(source, Access::ReadWrite)),
        Shm::Join => {
            let namespace = Some(oci::PASSED.to_owned());
            add(defaults::SHM, Bind { namespace, ..own(defaults::SHM, Access::ReadWrite) });
        }
        Shm::None | Shm::Private { .. } => {}
    }
    let access = if container.readonly_rootfs { Access::ReadOnly } else { Access::ReadWrite };
    for file in &container.mounts.files {
        add(&file.target, own(&file.source, access));
    }
    all.sort_by_key(|m| m.target.split('/').filter(|part| !part.is_empty()).count());
    all
}

/// The defaults that the user's mounts leave in place.
fn default_mounts(container: &ContainerSpec, user: &[Mount]) -> Vec<oci::Mount> {
    let taken = |target: &str| user.iter().any(|m| m.target == target);
    let own_dev = taken("/dev");
    let mut mounts = defaults::mounts();
    mounts.retain(|m| !(taken(&m.destination) || own_dev && m.destination.starts_with("/dev/")));
    match container.mounts.shm {
        Shm::Private { size } => {
            let shm = mounts.iter_mut().filter(|m| m.destination == defaults::SHM);
            shm.for_each(|m| m.options.push(format!("size={size}")));
        }
        Shm::None | Shm::Bind(_) | Shm::Join => mounts.retain(|m| m.destination != defaults::SHM),
    }
    mounts
}

fn init_mount(source: &str) -> oci::Mount {
    oci::Mount {
        destination: INIT_PATH.to_owned(),
        kind: "bind".to_owned(),
        source: source.to_owned(),
        options: vec!["bind".to_owned(), "ro".to_owned()],
        ..oci::Mount::default()
    }
}

fn stays_writable(mount: &oci::Mount, user: &[Mount]) -> bool {
    defaults::WRITABLE_MOUNTS.contains(&mount.destination.as_str())
        || user.iter().any(|m| m.target == mount.destination)
        || mount.options.iter().any(|o| o == "ro")
}

fn writable_cgroups(container: &ContainerSpec) -> bool {
    // Read only cannot be had there: a mount in a user namespace cannot be remounted.
    container.namespaces.user.is_some() || container.security.writable_cgroups.unwrap_or(container.security.privileged)
}

fn bind_mount(target: &str, bind: &Bind, host: &HostFacts, root: &mut Option<Propagation>) -> Result<oci::Mount> {
    if let Some(needed) = required_of_root(bind)?
        && (needed == Propagation::Shared || root.is_none())
    {
        // Shared outranks slave outranks private.
        *root = Some(needed);
    }
    let mut options = vec![if bind.recursion == Recursion::Top { "bind" } else { "rbind" }];
    options.extend(match bind.access {
        Access::ReadWrite => None,
        Access::ReadOnlyTop => Some("ro"),
        Access::ReadOnly if host.recursive_readonly => Some("rro"),
        Access::ReadOnly => Some("ro"),
        Access::ReadOnlyForced if host.recursive_readonly => Some("rro"),
        Access::ReadOnlyForced => {
            return Err(Error::system("rro is not supported: no mount_setattr (kernel is older than 5.12?)"));
        }
    });
    options.extend(bind.propagation.map(Propagation::as_str));
    Ok(oci::Mount {
        destination: target.to_owned(),
        kind: "bind".to_owned(),
        source: bind.source.clone(),
        subpath: bind.subpath.clone(),
        namespace: bind.namespace.clone(),
        tree: bind.tree,
        options: options.into_iter().map(str::to_owned).collect(),
    })
}

/// What the bind's propagation needs of the root mount, if the host's mount can give it.
fn required_of_root(bind: &Bind) -> Result<Option<Propagation>> {
    let Some(propagation) = bind.propagation else { return Ok(None) };
    let source = bind.source_mount.clone().unwrap_or_default();
    let refused = |kind: &str| {
        let text = format!("path {} is mounted on {} but it is not a {kind} mount", bind.source, source.point);
        Error::system(text)
    };
    match propagation {
        Propagation::Private | Propagation::RPrivate => Ok(None),
        Propagation::Shared | Propagation::RShared if source.shared => Ok(Some(Propagation::Shared)),
        Propagation::Shared | Propagation::RShared => Err(refused("shared")),
        Propagation::Slave | Propagation::RSlave if source.shared || source.slave => Ok(Some(Propagation::RSlave)),
        Propagation::Slave | Propagation::RSlave if bind.propagation_optional => Ok(None),
        Propagation::Slave | Propagation::RSlave => Err(refused("shared or slave")),
    }
}

fn tmpfs(target: &str, options: &str) -> Result<oci::Mount> {
    let defaults = ["noexec", "nosuid", "nodev", "rprivate"];
    let given = options.split(',').filter(|_| !options.is_empty());
    Ok(oci::Mount {
        destination: target.to_owned(),
        kind: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        options: merge_tmpfs_options(defaults.into_iter().chain(given))?,
        ..oci::Mount::default()
    })
}

/// Words that turn the same mount flag on or off; the last one given counts.
const FLAGS: &[&[&str]] = &[
    &["ro", "rw"],
    &["nosuid", "suid"],
    &["nodev", "dev"],
    &["noexec", "exec"],
    &["sync", "async"],
    &["dirsync"],
    &["remount"],
    &["mand", "nomand"],
    &["noatime", "atime"],
    &["nodiratime", "diratime"],
    &["relatime", "norelatime"],
    &["strictatime", "nostrictatime"],
    &["bind", "rbind", "unbindable", "runbindable", "private", "rprivate", "shared", "rshared", "slave", "rslave"],
];

/// Keys of `key=value` options.
const DATA: [&str; 8] = ["", "size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];

/// Of options about the same thing the last one stays, in its place.
fn merge_tmpfs_options<'a>(options: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let options: Vec<&str> = options.filter(|o| *o != "defaults").collect();
    let mut seen = Vec::new();
    let mut merged = Vec::new();
    for option in options.into_iter().rev() {
        let subject = match FLAGS.iter().find(|words| words.contains(&option)) {
            Some(words) => words[0],
            None => match option.split_once('=') {
                Some((key, value)) if DATA.contains(&key) => {
                    check_tmpfs_number(key, value)?;
                    key
                }
                _ => {
                    let key = option.split('=').next().unwrap_or_default();
                    return Err(Error::system(format!("invalid tmpfs option {key:?}")));
                }
            },
        };
        if !seen.contains(&subject) {
            seen.push(subject);
            merged.push(option.to_owned());
        }
    }
    merged.reverse();
    Ok(merged)
}

/// Numbers as tmpfs(5) has them, within their range: the kernel takes a size modulo 2^64, and 0 is no limit at all.
fn check_tmpfs_number(key: &str, value: &str) -> Result<()> {
    let fits = match key {
        "size" | "nr_blocks" | "nr_inodes" => tmpfs_size(value).is_some(),
        "uid" | "gid" => unsigned(value, 10).is_some_and(|id| id <= u64::from(model::user::MAX_ID)),
        "mode" => unsigned(value, 8).is_some_and(|mode| mode <= 0o7777),
        _ => true,
    };
    match fits {
        true => Ok(()),
        false => Err(Error::system(format!("invalid tmpfs option \"{key}={value}\": value out of range"))),
    }
}

/// Digits only: no sign.
fn unsigned(digits: &str, radix: u32) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// A number (`0x…` and `0…`, too) with a binary unit or a percent sign; `None` where it exceeds a signed 64-bit number.
fn tmpfs_size(text: &str) -> Option<u64> {
    const UNITS: [&str; 7] = ["", "k", "m", "g", "t", "p", "e"];
    // Of the machine's memory, several times which is still less than 2^64 bytes.
    const MOST_PERCENT: u64 = 10_000;
    let number = |digits: &str| match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(digits), _) => unsigned(digits, 16),
        (None, Some(digits)) if !digits.is_empty() => unsigned(digits, 8),
        _ => unsigned(digits, 10),
    };
    if let Some(percent) = text.strip_suffix('%') {
        return number(percent).filter(|percent| *percent <= MOST_PERCENT);
    }
    let (digits, unit) = match text.char_indices().last() {
        // In a hexadecimal number it is a digit.
        Some((at, unit)) if unit.is_ascii_alphabetic() && !text.starts_with("0x") => text.split_at(at),
        _ => (text, ""),
    };
    let power = UNITS.iter().position(|name| unit.eq_ignore_ascii_case(name))?;
    let bytes = number(digits)?.checked_mul(1 << (10 * power))?;
    i64::try_from(bytes).ok().map(|_| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_tmpfs_have_their_range() {
        let merge = |option: &str| tmpfs("/t", option).map(drop);
        for good in [
            "size=64m",
            "size=0",
            "size=50%",
            "size=0x1000",
            "size=010",
            "size=7E",
            "nr_inodes=1k",
            "nr_blocks=9",
            "size=9223372036854775807",
            "uid=0",
            "gid=2147483647",
            "mode=1777",
            "mode=0755",
            "mpol=interleave",
        ] {
            assert!(merge(good).is_ok(), "{good}");
        }
        for bad in [
            "size=18446744073709551616",
            "size=18446744073709551615",
            "size=9223372036854775808",
            "size=16777216t",
            "size=8e",
            "size=16E",
            "size=-1",
            "size=+1",
            "size=",
            "size=m",
            "size=1mm",
            "size=1z",
            "size=1.5g",
            "size=99999%",
            "nr_inodes=18446744073709551616",
            "nr_blocks=16777216t",
            "uid=4294967295",
            "uid=4294967296",
            "uid=2147483648",
            "gid=4294967295",
            "gid=-1",
            "uid=+1",
            "uid=",
            "mode=10000",
            "mode=8",
            "mode=-1",
            "mode=37777777777",
            "size=é",
        ] {
            let text = merge(bad).unwrap_err().to_string();
            assert_eq!(text, format!("invalid tmpfs option \"{bad}\": value out of range"));
        }
    }

    #[test]
    fn tmpfs_options() {
        let merge = |text: &str| tmpfs("/t", text).map(|m| m.options.join(","));
        assert_eq!(merge("").unwrap(), "noexec,nosuid,nodev,rprivate");
        assert_eq!(merge("rw,exec,size=1g").unwrap(), "nosuid,nodev,rprivate,rw,exec,size=1g");
        assert_eq!(merge("size=1m,defaults,size=2m,shared").unwrap(), "noexec,nosuid,nodev,size=2m,shared");
        assert_eq!(merge("what").unwrap_err().message(), "invalid tmpfs option \"what\"");
        assert_eq!(merge("what=1").unwrap_err().message(), "invalid tmpfs option \"what\"");
    }
}
