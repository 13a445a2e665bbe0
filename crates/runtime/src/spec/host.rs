//! The facts of the host that a specification depends on, and the one place of `spec` that reads them.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::input::{DeviceNode, SourceMount};
use crate::oci;
use crate::seccomp::Arch;

/// What the host is and can do. Read once at start ([`HostFeatures::probe`]); `devices` again per privileged container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostFeatures {
    pub arch: Arch,
    /// Version and major revision, `(6, 1)`.
    pub kernel: (u32, u32),
    pub time_namespaces: bool,
    /// Recursive read-only mounts (`mount_setattr`, kernel ≥ 5.12, and a runtime that uses it).
    pub recursive_readonly: bool,
    /// Default masks that exist only on some machines: `/sys/devices/system/cpu/cpu<n>/thermal_throttle`.
    pub thermal_throttle: Vec<String>,
    /// `net.ipv4.ping_group_range` and `net.ipv4.ip_unprivileged_port_start` exist.
    pub ping_group_range: bool,
    pub unprivileged_port_start: bool,
    /// Gantry itself runs in a user namespace.
    pub in_user_namespace: bool,
    /// All device nodes under `/dev`, for privileged containers ([`host_devices`]).
    pub devices: Vec<oci::Device>,
}

/// Directories below `/dev` that are file systems of their own or not meant for containers.
const SKIPPED_DIRECTORIES: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
/// Depth of `/dev` and of `--device` directories.
const MAX_DEPTH: usize = 16;
const CPUS: &str = "/sys/devices/system/cpu";
/// The first kernel with `mount_setattr`.
const MOUNT_SETATTR: (u32, u32) = (5, 12);

impl HostFeatures {
    /// Reads everything but `devices`.
    pub fn probe() -> HostFeatures {
        let exists = |path: &str| Path::new(path).exists();
        let kernel = kernel();
        HostFeatures {
            arch: Arch::default(),
            kernel,
            time_namespaces: exists("/proc/self/ns/time"),
            recursive_readonly: kernel >= MOUNT_SETATTR,
            thermal_throttle: thermal_throttle(Path::new(CPUS)),
            ping_group_range: exists("/proc/sys/net/ipv4/ping_group_range"),
            unprivileged_port_start: exists("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
            in_user_namespace: fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| is_partial(&map)),
            devices: Vec::new(),
        }
    }
}

/// The running kernel's version.
pub(crate) fn kernel() -> (u32, u32) {
    kernel_version(&rustix::system::uname().release().to_string_lossy())
}

/// `6.1.0-18-amd64` → `(6, 1)`.
fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The initial user namespace maps all ids to themselves.
fn is_partial(map: &str) -> bool {
    map.split_whitespace().ne(["0", "0", "4294967295"])
}

fn thermal_throttle(cpus: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(cpus) else { return Vec::new() };
    let number = |name: &str| name.strip_prefix("cpu")?.parse::<u32>().ok();
    let mut found: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|e| Some((number(e.file_name().to_str()?)?, e.path().join("thermal_throttle"))))
        .filter(|(_, path)| path.exists())
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path.to_string_lossy().into_owned()).collect()
}

/// The device nodes under `/dev` that a privileged container gets.
pub fn host_devices() -> io::Result<Vec<oci::Device>> {
    let mut devices = Vec::new();
    walk(Path::new("/dev"), MAX_DEPTH, &mut |path, device| {
        if device.kind != "p" && path.file_name().is_none_or(|n| n != "console") {
            devices.push(device);
        }
    })?;
    Ok(devices)
}

/// Every device node below `dir`, in order of name; nodes that vanish meanwhile are left out.
fn walk(dir: &Path, depth: usize, found: &mut impl FnMut(&Path, oci::Device)) -> io::Result<()> {
    if depth == 0 {
        return Ok(());
    }
    let mut entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if !SKIPPED_DIRECTORIES.iter().any(|s| entry.file_name() == *s) {
                walk(&path, depth - 1, found)?;
            }
        } else if let Ok(Some(device)) = device(&path) {
            found(&path, device);
        }
    }
    Ok(())
}

/// The node at `path`, not following a symlink; `None` = no device node.
fn device(path: &Path) -> io::Result<Option<oci::Device>> {
    let data = fs::symlink_metadata(path)?;
    let kind = match data.file_type() {
        t if t.is_block_device() => "b",
        t if t.is_char_device() => "c",
        t if t.is_fifo() => "p",
        _ => return Ok(None),
    };
    Ok(Some(oci::Device {
        path: path.to_string_lossy().into_owned(),
        kind: kind.to_owned(),
        major: i64::from(rustix::fs::major(data.rdev())),
        minor: i64::from(rustix::fs::minor(data.rdev())),
        file_mode: Some(data.mode() & 0o7777),
        uid: Some(data.uid()),
        gid: Some(data.gid()),
    }))
}

/// The node at `host_path` (symlinks followed) or all nodes below it, renamed to `container_path`, with `access` for each.
pub fn devices_from_path(host_path: &str, container_path: &str, access: &str) -> model::Result<Vec<DeviceNode>> {
    let failed = |why: String| {
        let text = format!("error gathering device information while adding custom device {host_path:?}: {why}");
        model::Error::system(text)
    };
    let real = fs::canonicalize(host_path).map_err(|e| failed(errno_text(&e)))?;
    let node = |path: &Path, mut device: oci::Device, name: String| {
        device.path = name;
        DeviceNode { device, host_path: path.to_string_lossy().into_owned(), access: access.to_owned() }
    };
    match device(&real) {
        Ok(Some(device)) => {
            // Known to the caller by the name that was asked for.
            return Ok(vec![node(Path::new(host_path), device, container_path.to_owned())]);
        }
        Ok(None) => {}
        Err(e) => return Err(failed(errno_text(&e))),
    }
    let mut nodes = Vec::new();
    if real.is_dir() {
        // What cannot be read is left out.
        let _ = walk(&real, MAX_DEPTH, &mut |path, device| {
            let below = path.strip_prefix(&real).expect("walk stays below its start");
            let name = Path::new(container_path).join(below).to_string_lossy().into_owned();
            nodes.push(node(path, device, name));
        });
    }
    if nodes.is_empty() { Err(failed("not a device node".to_owned())) } else { Ok(nodes) }
}

/// The kernel's words for the error, in the reference's spelling (lower case).
fn errno_text(error: &io::Error) -> String {
    model::io_text(error)
}

/// Major and minor number of the device file at `path`, for block I/O limits.
pub fn device_number(path: &str) -> io::Result<(i64, i64)> {
    let number = fs::metadata(path)?.rdev();
    Ok((i64::from(rustix::fs::major(number)), i64::from(rustix::fs::minor(number))))
}

/// The mount of `/proc/self/mountinfo` (its text) that the resolved `path` lies on.
pub fn source_mount(mountinfo: &str, path: &str) -> Option<SourceMount> {
    let mut best: Option<SourceMount> = None;
    for line in mountinfo.lines() {
        let mut fields = line.split(' ');
        let Some(point) = fields.nth(4).map(unescape) else { continue };
        let below = point == "/"
            || path.strip_prefix(point.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        // Of several mounts at one point the last is on top.
        if !below || best.as_ref().is_some_and(|b| b.point.len() > point.len()) {
            continue;
        }
        let optional: Vec<&str> = fields.skip(1).take_while(|f| *f != "-").collect();
        let has = |prefix: &str| optional.iter().any(|f| f.starts_with(prefix));
        best = Some(SourceMount { shared: has("shared:"), slave: has("master:"), point });
    }
    best
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions() {
        assert_eq!(kernel_version("6.1.0-18-amd64"), (6, 1));
        assert_eq!(kernel_version("4.8-rc5"), (4, 8));
        assert_eq!(kernel_version("odd"), (0, 0));
        assert!(HostFeatures::probe().kernel > (3, 0));
    }

    #[test]
    fn initial_user_namespace() {
        assert!(!is_partial("         0          0 4294967295\n"));
        assert!(is_partial("         0     100000      65536\n"));
    }

    #[test]
    fn mount_of_a_path() {
        let table = "22 1 0:1 / / rw,relatime shared:1 - ext4 /dev/x rw\n\
                     23 22 0:2 / /mnt/a\\040b rw master:3 - tmpfs tmpfs rw\n\
                     24 22 0:3 / /mnt/a\\040b rw - tmpfs tmpfs rw\n\
                     25 22 0:4 / /mnt rw master:5 shared:6 - tmpfs tmpfs rw\n";
        let at = |path| source_mount(table, path).unwrap();
        assert_eq!(at("/etc"), SourceMount { point: "/".into(), shared: true, slave: false });
        assert_eq!(at("/mnt/x"), SourceMount { point: "/mnt".into(), shared: true, slave: true });
        assert_eq!(at("/mnt/a b/c"), SourceMount { point: "/mnt/a b".into(), shared: false, slave: false });
        assert_eq!(at("/mntx").point, "/");
        assert_eq!(source_mount("", "/"), None);
    }

    #[test]
    fn device_nodes() {
        let null = devices_from_path("/dev/null", "/dev/void", "rw").unwrap();
        assert_eq!((null[0].device.path.as_str(), null[0].device.major, null[0].device.minor), ("/dev/void", 1, 3));
        assert_eq!((null[0].host_path.as_str(), null[0].access.as_str()), ("/dev/null", "rw"));
        assert_eq!(device_number("/dev/zero").unwrap(), (1, 5));
        let missing = devices_from_path("/dev/no-such", "/x", "rwm").unwrap_err();
        assert_eq!(
            missing.message(),
            "error gathering device information while adding custom device \"/dev/no-such\": \
             no such file or directory"
        );
        let plain = devices_from_path("/proc/version", "/x", "rwm").unwrap_err();
        assert!(plain.message().ends_with("not a device node"));
        let all = devices_from_path("/dev", "/d", "r").unwrap();
        assert!(all.iter().any(|n| n.device.path == "/d/null"));
        assert!(host_devices().unwrap().iter().any(|d| d.path == "/dev/null"));
    }
}
