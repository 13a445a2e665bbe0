//! Limits on what a directory and all below it may hold: project quotas of XFS and ext4 (quotactl(2), `linux/dqblk_xfs.h`, `FS_IOC_FSSETXATTR` of
//! ioctl_xfs_fsgetxattr(2)).
//!
//! A directory gets a project's number, which everything that is made in it inherits; the file system counts by the number.

use std::ffi::{c_long, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`, and the bytes of their argument (`struct fsxattr`).
const GET: c_ulong = 0x801c_581f;
const SET: c_ulong = 0x401c_5820;
const ATTRIBUTES: usize = 28;
/// Where flags and the project's number stand in it.
const FLAGS_AT: usize = 0;
const PROJECT_AT: usize = 12;
/// `FS_XFLAG_PROJINHERIT`.
const INHERIT: u32 = 0x200;

/// `Q_XSETQLIM` of project quotas (`PRJQUOTA`), as quotactl(2) puts them together.
const SET_LIMITS: u32 = (0x5804 << 8) | 2;
/// Bytes of `struct fs_disk_quota`.
const LIMITS: usize = 112;
/// `FS_DQUOT_VERSION`, `FS_PROJ_QUOTA`, and `FS_DQ_BSOFT | FS_DQ_BHARD`.
const VERSION: u8 = 1;
const OF_PROJECT: u8 = 2;
const BLOCKS: u16 = 0xc;
/// Bytes in which limits are counted.
const BLOCK: u64 = 512;

/// The project of a directory; 0: it has none.
pub fn project(dir: impl AsFd) -> io::Result<u32> {
    let attributes = get(dir.as_fd())?;
    Ok(number(&attributes, PROJECT_AT))
}

/// Makes a directory, and what is made in it from now on, one of this project.
pub fn set_project(dir: impl AsFd, project: u32) -> io::Result<()> {
    let dir = dir.as_fd();
    let mut attributes = get(dir)?;
    let flags = number(&attributes, FLAGS_AT) | INHERIT;
    attributes[FLAGS_AT..FLAGS_AT + 4].copy_from_slice(&flags.to_ne_bytes());
    attributes[PROJECT_AT..PROJECT_AT + 4].copy_from_slice(&project.to_ne_bytes());
    call(dir, SET, &mut attributes)
}

/// Limits what a project may hold on the file system of `dir`, in bytes; 0: no limit.
///
/// Errors: `ESRCH` when the file system does not count projects; `ENOSYS` before Linux 5.14.
pub fn limit_project(dir: impl AsFd, project: u32, bytes: u64) -> io::Result<()> {
    let mut limits = [0; LIMITS];
    limits[0] = VERSION;
    limits[1] = OF_PROJECT;
    limits[2..4].copy_from_slice(&BLOCKS.to_ne_bytes());
    limits[4..8].copy_from_slice(&project.to_ne_bytes());
    let blocks = bytes.div_ceil(BLOCK).to_ne_bytes();
    limits[8..16].copy_from_slice(&blocks);
    limits[16..24].copy_from_slice(&blocks);
    let (fd, id) = (c_long::from(dir.as_fd().as_raw_fd()), c_long::from(project));
    // SAFETY: the argument has the size that the command reads; the kernel keeps nothing of it.
    let r = unsafe { libc::syscall(libc::SYS_quotactl_fd, fd, c_long::from(SET_LIMITS), id, limits.as_ptr()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn get(dir: BorrowedFd<'_>) -> io::Result<[u8; ATTRIBUTES]> {
    let mut attributes = [0; ATTRIBUTES];
    call(dir, GET, &mut attributes)?;
    Ok(attributes)
}

fn number(bytes: &[u8; ATTRIBUTES], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn call(dir: BorrowedFd<'_>, request: c_ulong, attributes: &mut [u8; ATTRIBUTES]) -> io::Result<()> {
    // SAFETY: both requests take an argument of this size; the kernel keeps nothing of it.
    let r = unsafe { libc::ioctl(dir.as_raw_fd(), request as _, attributes.as_mut_ptr()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether an error says that the file system has no such quotas, or has them switched off.
pub fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [Errno::SRCH, Errno::NOSYS, Errno::NOTTY, Errno::OPNOTSUPP, Errno::NODEV, Errno::INVAL];
    unsupported.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_counts_projects_that_is_told() {
        let dir = std::fs::File::open("/proc").unwrap();
        assert!(is_unsupported(&limit_project(&dir, 7, 1 << 20).unwrap_err()));
        assert!(is_unsupported(&set_project(&dir, 7).unwrap_err()));
    }
}
