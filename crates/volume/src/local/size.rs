//! The limit of a volume that is a directory: a quota of its file system.
//!
//! On btrfs the data is a subvolume, which is limited by its qgroup; on XFS and ext4 it gets a project of its own.

use std::fs::File;
use std::io;
use std::path::Path;

use model::{Context, Error, Result};
use sys::{btrfs, quota};

use crate::row::{DATA, data};

/// Numbers of projects from here on are Gantry's; those below may be in `/etc/projects`.
const FIRST: u32 = 1 << 20;
/// As many of them are tried.
const TRIES: u32 = 1 << 16;
/// Types of file systems (statfs(2)).
const EXT4: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;

/// Limits a volume below `root` to so many bytes.
///
/// Errors: `InvalidParameter` when its file system cannot, with what is missing.
pub(super) fn limit(root: &Path, name: &str, bytes: u64) -> Result<()> {
    let place = data(root, name);
    let failed = || format!("limiting the volume path '{}'", place.display());
    let dir = File::open(&place).with_context(failed)?;
    let kind = u64::try_from(rustix::fs::fstatfs(&dir).map_err(io::Error::from)?.f_type).unwrap_or(0);
    let limited = match btrfs::is_btrfs(&dir)? {
        true if !btrfs::is_subvolume(&dir)? => return Err(missing("its data is no subvolume")),
        true => btrfs::limit(&dir, bytes),
        false => by_project(root, &dir, bytes),
    };
    match limited {
        Err(error) if quota::is_unsupported(&error) => Err(missing(match kind {
            EXT4 => "ext4 counts projects when it was made with '-O quota,project' and is mounted with 'prjquota'",
            XFS => "XFS counts projects when it is mounted with 'prjquota', and the kernel has CONFIG_XFS_QUOTA",
            _ => "btrfs has quotas of subvolumes, XFS and ext4 have quotas of projects; this file system has neither",
        })),
        limited => limited.with_context(failed),
    }
}

/// The reference's words, and what it does not say.
fn missing(what: &str) -> Error {
    Error::invalid(format!("quota size requested but no quota support: {what}"))
}

fn by_project(root: &Path, dir: &File, bytes: u64) -> io::Result<()> {
    let project = match quota::project(dir)? {
        0 => free_project(root)?,
        project => project,
    };
    // The limit first: it says whether projects are counted at all.
    quota::limit_project(dir, project, bytes)?;
    quota::set_project(dir, project)
}

/// A number that no other volume has.
fn free_project(root: &Path) -> io::Result<u32> {
    let mut taken = Vec::new();
    for entry in std::fs::read_dir(root)? {
        // One that is being removed has no number to be kept.
        if let Ok(dir) = File::open(entry?.path().join(DATA)) {
            taken.push(quota::project(&dir)?);
        }
    }
    let free = (FIRST..FIRST + TRIES).find(|number| !taken.contains(number));
    free.ok_or_else(|| io::Error::other("all numbers of projects are taken"))
}

/// What is left of the limit of a volume whose directory goes.
pub(super) fn forget(root: &Path, name: &str) {
    let Ok(dir) = File::open(data(root, name)) else { return };
    if let Ok(project) = quota::project(&dir)
        && (FIRST..FIRST + TRIES).contains(&project)
    {
        // What is not taken back counts nothing any more.
        let _ = quota::limit_project(&dir, project, 0);
    }
}
