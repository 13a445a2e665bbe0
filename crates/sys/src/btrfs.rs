//! Subvolumes of btrfs, their snapshots and their quotas (btrfs-ioctl(2), `linux/btrfs.h`).
//!
//! All calls need root. A subvolume is a directory that the file system can copy in one step and whose bytes it counts.

use std::ffi::{CStr, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::Stat;
use rustix::io::Errno;

/// `f_type` of statfs(2).
const MAGIC: u64 = 0x9123_683e;
/// The inode of the top of every subvolume (`BTRFS_FIRST_FREE_OBJECTID`).
const TOP: u64 = 256;
/// Bytes of an argument with a name.
const ARGUMENT: usize = 4096;
/// Where the name stands in it: version 1 and 2.
const NAME_1: usize = 8;
const NAME_2: usize = 56;
/// Bytes of the answer to `BTRFS_IOC_GET_SUBVOL_INFO`.
const INFO: usize = 504;
/// Where the subvolume's number stands in it.
const INFO_ID: usize = 0;

const SUBVOL_CREATE: c_ulong = request(WRITE, 14, ARGUMENT);
const SNAP_CREATE_V2: c_ulong = request(WRITE, 23, ARGUMENT);
const QUOTA_CTL: c_ulong = request(READ | WRITE, 40, 16);
const QGROUP_CREATE: c_ulong = request(WRITE, 42, 16);
const QGROUP_LIMIT: c_ulong = request(READ, 43, 48);
const GET_SUBVOL_INFO: c_ulong = request(READ, 60, INFO);

const WRITE: c_ulong = 1;
const READ: c_ulong = 2;
/// `BTRFS_QUOTA_CTL_ENABLE`.
const QUOTA_ENABLE: u64 = 1;
/// `BTRFS_QGROUP_LIMIT_MAX_RFER`.
const LIMIT_REFERENCED: u64 = 1;

/// `_IOC` of btrfs' type (ioctl(2)).
const fn request(direction: c_ulong, number: c_ulong, size: usize) -> c_ulong {
    direction << 30 | (size as c_ulong) << 16 | 0x94 << 8 | number
}

/// Whether a directory lies on btrfs.
pub fn is_btrfs(dir: impl AsFd) -> io::Result<bool> {
    Ok(u64::try_from(rustix::fs::fstatfs(dir)?.f_type) == Ok(MAGIC))
}

/// Whether a directory is the top of a subvolume.
pub fn is_subvolume(dir: impl AsFd) -> io::Result<bool> {
    let stat: Stat = rustix::fs::fstat(&dir)?;
    Ok(stat.st_ino == TOP && is_btrfs(dir)?)
}

/// Makes the subvolume `name`, which must be free, in a directory that is open for reading.
pub fn create(parent: impl AsFd, name: &CStr) -> io::Result<()> {
    let mut argument = [0; ARGUMENT];
    put_name(&mut argument, NAME_1, name)?;
    call(parent.as_fd(), SUBVOL_CREATE, &mut argument)
}

/// Makes `name` in `parent` a writable snapshot of a subvolume. Both are open for reading, and on one file system
/// (`EXDEV`).
pub fn snapshot(source: impl AsFd, parent: impl AsFd, name: &CStr) -> io::Result<()> {
    let mut argument = [0; ARGUMENT];
    argument[..8].copy_from_slice(&i64::from(source.as_fd().as_raw_fd()).to_ne_bytes());
    put_name(&mut argument, NAME_2, name)?;
    call(parent.as_fd(), SNAP_CREATE_V2, &mut argument)
}

/// The number of the subvolume that a directory is the top of.
pub fn id(subvolume: impl AsFd) -> io::Result<u64> {
    let mut answer = [0; INFO];
    call(subvolume.as_fd(), GET_SUBVOL_INFO, &mut answer)?;
    let bytes: [u8; 8] = answer[INFO_ID..INFO_ID + 8].try_into().map_err(io::Error::other)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Limits what a subvolume may hold, in bytes; 0: no limit. Quotas are switched on if they are off.
pub fn limit(subvolume: impl AsFd, bytes: u64) -> io::Result<()> {
    let subvolume = subvolume.as_fd();
    let group = id(subvolume)?;
    match set_limit(subvolume, group, bytes) {
        // Quotas are off; switched on, there is a group for each subvolume.
        Err(error) if is(&error, Errno::NOTCONN) => {
            call(subvolume, QUOTA_CTL, &mut words([QUOTA_ENABLE, 0]))?;
            set_limit(subvolume, group, bytes)
        }
        // Somebody has removed the group.
        Err(error) if is(&error, Errno::NOENT) => {
            call(subvolume, QGROUP_CREATE, &mut words([1, group]))?;
            set_limit(subvolume, group, bytes)
        }
        done => done,
    }
}

fn set_limit(subvolume: BorrowedFd<'_>, group: u64, bytes: u64) -> io::Result<()> {
    let most = if bytes == 0 { u64::MAX } else { bytes };
    let mut argument = words([group, LIMIT_REFERENCED, most, 0, 0, 0]);
    call(subvolume, QGROUP_LIMIT, &mut argument)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn words<const N: usize>(words: [u64; N]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn put_name(argument: &mut [u8; ARGUMENT], at: usize, name: &CStr) -> io::Result<()> {
    let name = name.to_bytes_with_nul();
    // The kernel's `BTRFS_SUBVOL_NAME_MAX`; a name of a directory has 255 bytes anyway.
    let place = argument.get_mut(at..at + name.len()).ok_or(Errno::NAMETOOLONG)?;
    place.copy_from_slice(name);
    Ok(())
}

/// One call with an argument of the size that its number says.
fn call(fd: BorrowedFd<'_>, number: c_ulong, argument: &mut [u8]) -> io::Result<()> {
    if argument.len() != (number >> 16 & 0x3fff) as usize {
        return Err(Errno::INVAL.into());
    }
    // SAFETY: the argument has the size that the request's number names; the kernel keeps nothing of it.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), number as _, argument.as_mut_ptr()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `linux/btrfs.h` computes them.
    #[test]
    fn numbers_of_the_requests() {
        let numbers = [SUBVOL_CREATE, SNAP_CREATE_V2, QUOTA_CTL, QGROUP_CREATE, QGROUP_LIMIT, GET_SUBVOL_INFO];
        let known = [0x5000_940e, 0x5000_9417, 0xc010_9428, 0x4010_942a, 0x8030_942b, 0x81f8_943c];
        assert_eq!(numbers, known);
    }

    #[test]
    fn elsewhere_nothing_is_a_subvolume() {
        let dir = std::fs::File::open("/proc").unwrap();
        assert!(!is_btrfs(&dir).unwrap() && !is_subvolume(&dir).unwrap());
        assert!(limit(&dir, 1).is_err() && create(&dir, c"x").is_err());
    }
}
