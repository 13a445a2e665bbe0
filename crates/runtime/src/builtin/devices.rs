//! Device nodes, the well-known links of `/dev`, and the console.
//!
//! With the tmpfs at `/dev` that was mounted a moment ago, entries are made relative to its descriptor: the image has had
//! no chance to put anything there. In a user namespace nodes cannot be made and the host's are bound instead.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use sys::mount::Reach;
use sys::pty;
use sys::rooted::Rooted;

use super::mounts::Mounted;
use super::tree;
use crate::error::{At, Stage, StartError};
use crate::oci;

/// Nodes that every container has: name, major, minor.
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// How nodes come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nodes {
    Make,
    Bind,
}

/// Fills `/dev`; nothing to do if the container brings its own.
pub(super) fn populate(
    root: &Rooted,
    mounted: &Mounted,
    devices: &[oci::Device],
    nodes: Nodes,
) -> Result<(), StartError> {
    let Some(dev) = mounted.dev else { return Ok(()) };
    for (name, major, minor) in DEFAULT {
        let device = oci::Device {
            path: format!("/dev/{name}"),
            kind: "c".into(),
            major: i64::from(major),
            minor: i64::from(minor),
            ..oci::Device::default()
        };
        if !devices.iter().any(|d| d.path == device.path) {
            node(dev, name, &device, nodes)?;
        }
    }
    for device in devices {
        let stage = || Stage::Device { path: device.path.clone() };
        // The console comes with the terminal, ptmx with devpts.
        if matches!(device.path.as_str(), "/dev/console" | "/dev/ptmx") {
            continue;
        }
        let path = Path::new(&device.path);
        let name = path.file_name().and_then(|n| n.to_str());
        let (Some(parent), Some(name)) = (path.parent(), name) else {
            return Err(StartError::new(stage(), Errno::INVAL.raw_os_error(), ""));
        };
        if parent == Path::new("/dev") {
            node(dev, name, device, nodes)?;
        } else {
            let parent = root.make_dir_all(parent, Mode::from_raw_mode(0o755)).at(stage, "mkdir")?;
            node(parent.as_fd(), name, device, nodes)?;
        }
    }
    links(dev, mounted.devpts.is_some())
}

fn node(dir: BorrowedFd<'_>, name: &str, device: &oci::Device, nodes: Nodes) -> Result<(), StartError> {
    let stage = || Stage::Device { path: device.path.clone() };
    if nodes == Nodes::Bind {
        return bind_node(dir, name, device).at(stage, "bind");
    }
    let kind = match device.kind.as_str() {
        "b" => FileType::BlockDevice,
        "c" | "u" => FileType::CharacterDevice,
        "p" => FileType::Fifo,
        _ => return Err(StartError::new(stage(), Errno::INVAL.raw_os_error(), "unknown device type")),
    };
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    let half = |number: i64| u32::try_from(number);
    let (Ok(major), Ok(minor)) = (half(device.major), half(device.minor)) else {
        return Err(StartError::new(stage(), Errno::INVAL.raw_os_error(), "device number out of range"));
    };
    let number = rustix::fs::makedev(major, minor);
    match rustix::fs::mknodat(dir, name, kind, mode, number) {
        Ok(()) => {}
        // Named twice; the later one counts.
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(dir, name, AtFlags::empty()).at(stage, "unlink")?;
            rustix::fs::mknodat(dir, name, kind, mode, number).at(stage, "")?;
        }
        Err(e) => return Err(e).at(stage, ""),
    }
    let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
    if uid == 0 && gid == 0 {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).at(stage, "chown")
}

fn bind_node(dir: BorrowedFd<'_>, name: &str, device: &oci::Device) -> rustix::io::Result<()> {
    let source = tree::clone_at(Path::new(&device.path), Reach::Mount)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
    tree::attach_in(source, dir, name)
}

fn links(dev: BorrowedFd<'_>, devpts: bool) -> Result<(), StartError> {
    for (name, text) in LINKS {
        if name == "ptmx" && !devpts {
            continue;
        }
        match rustix::fs::symlinkat(text, dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e).at(|| Stage::Device { path: format!("/dev/{name}") }, "symlink"),
        }
    }
    match rustix::fs::access("/proc/kcore", rustix::fs::Access::EXISTS) {
        Ok(()) => rustix::fs::symlinkat("/proc/kcore", dev, "core")
            .or_else(|e| if e == Errno::EXIST { Ok(()) } else { Err(e) })
            .at(|| Stage::Device { path: "/dev/core".into() }, "symlink"),
        Err(_) => Ok(()),
    }
}

/// A terminal of the container's own devpts instance, its peer also bound to `/dev/console`.
pub(super) fn console(root: &Rooted, mounted: &Mounted) -> Result<pty::Pair, StartError> {
    let stage = || Stage::Console;
    let pair = match &mounted.devpts {
        Some(devpts) => pty::open_in(*devpts).at(stage, "open ptmx")?,
        None => terminal_in(root)?,
    };
    // The source is a descriptor, the target is in our own tmpfs or, without one, resolved and checked to be a plain
    // file: neither can be a link to somewhere else (CVE-2025-52565).
    let peer = tree::clone_fd(pair.peer.as_fd(), Reach::Mount).at(stage, "open_tree")?;
    let target = match &mounted.dev {
        Some(dev) => {
            let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(dev, "console", flags, Mode::from_raw_mode(0o620)).at(stage, "create /dev/console")?
        }
        None => {
            let target = root.open("/dev/console", OFlags::PATH | OFlags::NOFOLLOW, Mode::empty());
            let target = target.at(stage, "open /dev/console")?;
            not_link(&target)?;
            target
        }
    };
    tree::attach(peer, &target).at(stage, "mount /dev/console")?;
    Ok(pair)
}

fn not_link(target: &OwnedFd) -> Result<(), StartError> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(target).at(|| Stage::Console, "fstat")?.st_mode);
    if kind.is_symlink() || kind.is_dir() {
        return Err(StartError::new(Stage::Console, Errno::LOOP.raw_os_error(), "/dev/console"));
    }
    Ok(())
}

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// A terminal of whatever devpts instance is at `/dev/pts` of a running container.
pub(super) fn terminal_in(root: &Rooted) -> Result<pty::Pair, StartError> {
    let stage = || Stage::Console;
    let devpts = root.open("/dev/pts", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).at(stage, "open /dev/pts")?;
    if rustix::fs::fstatfs(&devpts).at(stage, "statfs /dev/pts")?.f_type != DEVPTS_SUPER_MAGIC {
        return Err(StartError::new(Stage::Console, Errno::NODEV.raw_os_error(), "/dev/pts is not a devpts"));
    }
    pty::open_in(devpts.as_fd()).at(stage, "open ptmx")
}
