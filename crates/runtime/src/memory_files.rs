//! Files that a container gets in memory: a tmpfs of their own, which nothing writes to behind them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};
use sys::mount::{Attr, Propagation, Reach, set_attr};

/// One of them.
pub struct MemoryFile<'f> {
    /// Its name, without slashes.
    pub name: &'f str,
    /// Its content.
    pub data: &'f [u8],
    /// Owner and group.
    pub owner: (u32, u32),
    /// Permissions.
    pub mode: u32,
}

/// Bytes of the file system beside the files' whole pages.
const SLACK: u64 = 64 << 10;
const PAGE: u64 = 4096;

/// A detached read-only mount with these files at its top; what they hold is not swapped out where the kernel can see to it
/// (`noswap`, tmpfs(5), Linux 6.4).
pub fn mount(files: &[MemoryFile<'_>]) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let bytes: u64 = files.iter().map(|file| (file.data.len() as u64).next_multiple_of(PAGE) + PAGE).sum();
    for (key, value) in [("mode", "0755".to_owned()), ("size", (bytes + SLACK).to_string())] {
        fsconfig_set_string(&context, key, value)?;
    }
    // An older kernel does not know it.
    let _ = fsconfig_set_flag(&context, "noswap");
    fsconfig_create(&context)?;
    let top = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    for file in files {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut made = File::from(rustix::fs::openat(&top, file.name, flags, Mode::RUSR | Mode::WUSR)?);
        made.write_all(file.data)?;
        let (uid, gid) = (Uid::from_raw(file.owner.0), Gid::from_raw(file.owner.1));
        rustix::fs::fchown(&made, Some(uid), Some(gid))?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(file.mode))?;
    }
    let attr = Attr(Attr::RDONLY.0 | Attr::NOSUID.0 | Attr::NODEV.0 | Attr::NOEXEC.0);
    set_attr(top.as_fd(), Reach::Mount, attr, Attr::default(), Some(Propagation::Private))?;
    Ok(top)
}
