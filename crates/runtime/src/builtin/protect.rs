//! Hiding and write-protecting parts of `/proc` and `/sys`.
//!
//! Sources and targets are descriptors that have been looked at: the null device must be the null device
//! (CVE-2025-31133).

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sys::mount::{Attr, Reach, set_attr};
use sys::rooted::{Rooted, openat2};

use super::mounts::Mounted;
use super::tree::{self, Fd, keep};
use crate::error::{At, Stage, StartError};

/// Covers files with the null device and directories with an empty read-only tmpfs. Paths that do not exist need none.
pub(super) fn mask(root: &Rooted, mounted: &Mounted, paths: &[String]) -> Result<(), StartError> {
    let mut null: Option<Fd> = None;
    let mut empty: Option<Fd> = None;
    for path in paths {
        let stage = || Stage::Protect { path: path.clone() };
        let Some(target) = existing(root, path)? else { continue };
        let kind = FileType::from_raw_mode(rustix::fs::fstat(target).at(stage, "fstat")?.st_mode);
        let cover = if kind.is_dir() {
            match empty {
                // Attached already, hence clonable on every kernel.
                Some(first) => tree::clone_fd(first, Reach::Mount).at(stage, "open_tree")?,
                None => {
                    let attr = Attr::RDONLY | Attr::NOSUID | Attr::NODEV | Attr::NOEXEC;
                    tree::new("tmpfs", "tmpfs", &["nr_blocks=1".into(), "nr_inodes=1".into()], attr)
                        .at(stage, "fsmount")?
                }
            }
        } else {
            if null.is_none() {
                null = Some(null_device(root, mounted)?);
            }
            let null = null.expect("set above");
            tree::clone_fd(null, Reach::Mount).at(stage, "open_tree")?
        };
        tree::attach(cover, target).at(stage, "move_mount")?;
        if kind.is_dir() && empty.is_none() {
            empty = Some(cover);
        }
    }
    Ok(())
}

/// The container's `/dev/null`, proved to be the null device.
fn null_device(root: &Rooted, mounted: &Mounted) -> Result<Fd, StartError> {
    let stage = || Stage::Protect { path: "/dev/null".into() };
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let null = keep(match &mounted.dev {
        Some(dev) => {
            openat2(dev.as_fd(), Path::new("null"), flags, Mode::empty(), ResolveFlags::BENEATH).at(stage, "")?
        }
        None => root.open("/dev/null", flags, Mode::empty()).at(stage, "")?,
    });
    let stat = rustix::fs::fstat(null).at(stage, "fstat")?;
    let is_null =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3);
    if is_null { Ok(null) } else { Err(StartError::new(stage(), Errno::NODEV.raw_os_error(), "not the null device")) }
}

/// Binds paths onto themselves, read-only, with all that is mounted below.
pub(super) fn write_protect(root: &Rooted, paths: &[String]) -> Result<(), StartError> {
    for path in paths {
        let stage = || Stage::Protect { path: path.clone() };
        let Some(target) = existing(root, path)? else { continue };
        let cover = tree::clone_fd(target, Reach::Tree).at(stage, "open_tree")?;
        set_attr(cover, Reach::Tree, Attr::RDONLY, Attr::default(), None).at(stage, "mount_setattr")?;
        tree::attach(cover, target).at(stage, "move_mount")?;
    }
    Ok(())
}

fn existing(root: &Rooted, path: &str) -> Result<Option<Fd>, StartError> {
    match root.locate(path) {
        Ok(fd) => Ok(Some(keep(fd))),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e).at(|| Stage::Protect { path: path.to_owned() }, ""),
    }
}
