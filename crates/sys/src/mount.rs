//! The mount calls that rustix lacks: `mount_setattr`, and fsconfig with long values.
//!
//! Everything else of the mount interface is rustix's `rustix::mount`, which is safe.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Attributes of a mount, `MOUNT_ATTR_*` of linux/mount.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr(pub u64);

impl Attr {
    /// `MOUNT_ATTR_RDONLY`: nothing can be written.
    pub const RDONLY: Attr = Attr(0x1);
    /// `MOUNT_ATTR_NOSUID`: set-id bits and file capabilities have no effect.
    pub const NOSUID: Attr = Attr(0x2);
    /// `MOUNT_ATTR_NODEV`: device nodes cannot be opened.
    pub const NODEV: Attr = Attr(0x4);
    /// `MOUNT_ATTR_NOEXEC`: programs cannot be executed.
    pub const NOEXEC: Attr = Attr(0x8);
    /// Mask of the access time modes; 0 = relatime.
    pub const ATIME: Attr = Attr(0x70);
    /// `MOUNT_ATTR_NOATIME`: access times are not updated.
    pub const NOATIME: Attr = Attr(0x10);
    /// `MOUNT_ATTR_STRICTATIME`: access times are always updated.
    pub const STRICTATIME: Attr = Attr(0x20);
    /// `MOUNT_ATTR_NODIRATIME`: access times of directories are not updated.
    pub const NODIRATIME: Attr = Attr(0x80);
    /// `MOUNT_ATTR_NOSYMFOLLOW`: symbolic links are not followed.
    pub const NOSYMFOLLOW: Attr = Attr(0x20_0000);

    /// The same as flags of mount(2), `MS_*` of linux/mount.h.
    pub fn mount_flags(self) -> u64 {
        const MS_NOATIME: u64 = 0x400;
        const MS_NODIRATIME: u64 = 0x800;
        const MS_NOSYMFOLLOW: u64 = 0x100;
        const MS_STRICTATIME: u64 = 1 << 24;
        let same = Attr::RDONLY.0 | Attr::NOSUID.0 | Attr::NODEV.0 | Attr::NOEXEC.0;
        let others = [
            (Attr::NOATIME, MS_NOATIME),
            (Attr::NODIRATIME, MS_NODIRATIME),
            (Attr::NOSYMFOLLOW, MS_NOSYMFOLLOW),
            (Attr::STRICTATIME, MS_STRICTATIME),
        ];
        let others = others.into_iter().filter(|(attr, _)| self.0 & attr.0 != 0);
        others.fold(self.0 & same, |flags, (_, flag)| flags | flag)
    }

    /// Whether no attribute is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::ops::BitOrAssign for Attr {
    fn bitor_assign(&mut self, other: Attr) {
        self.0 |= other.0;
    }
}

impl std::ops::BitOr for Attr {
    type Output = Attr;
    fn bitor(self, other: Attr) -> Attr {
        Attr(self.0 | other.0)
    }
}

/// How mount events spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// `MS_PRIVATE`: neither sent nor received.
    Private,
    /// `MS_SLAVE`: received only.
    Slave,
    /// `MS_SHARED`: sent and received.
    Shared,
    /// `MS_UNBINDABLE`: private, and cannot be bound elsewhere.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// How much of a tree a change reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Mount,
    Tree,
}

impl Reach {
    /// The flags of mount(2) that bind so much.
    pub fn mount_flags(self) -> u64 {
        match self {
            Reach::Mount => libc::MS_BIND,
            Reach::Tree => libc::MS_BIND | libc::MS_REC,
        }
    }
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the attributes of the mount (or tree of mounts) that `fd` is the root of.
pub fn set_attr(
    fd: BorrowedFd<'_>,
    reach: Reach,
    set: Attr,
    clear: Attr,
    propagation: Option<Propagation>,
) -> io::Result<()> {
    let attr =
        MountAttr { set: set.0, clear: clear.0, propagation: propagation.map_or(0, Propagation::bits), userns_fd: 0 };
    mount_setattr(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH, reach, &attr)
}

/// Changes the propagation of the mount at the process's root directory.
pub fn set_root_propagation(reach: Reach, propagation: Propagation) -> io::Result<()> {
    let attr = MountAttr { set: 0, clear: 0, propagation: propagation.bits(), userns_fd: 0 };
    mount_setattr(libc::AT_FDCWD, c"/", 0, reach, &attr)
}

fn mount_setattr(fd: i32, path: &std::ffi::CStr, flags: i32, reach: Reach, attr: &MountAttr) -> io::Result<()> {
    let flags = flags | if reach == Reach::Tree { libc::AT_RECURSIVE } else { 0 };
    let size = size_of::<MountAttr>();
    // SAFETY: path is a C string, attr points to `size` readable bytes.
    let r = unsafe { libc::syscall(libc::SYS_mount_setattr, fd, path.as_ptr(), flags, attr, size) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
