//! clone3: a child process in new namespaces, by one call.
//!
//! The child is a copy of the calling process (no shared memory), which must have one thread only: then nothing, not even
//! the allocator, can be in a half-done state in the child. [`clone3`] refuses otherwise, without a look into `/proc`, which
//! may be a container's, unless a seccomp filter leaves no other way.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Namespaces and behaviours of the child (`CLONE_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u64);

impl Flags {
    /// `CLONE_NEWTIME`, time_namespaces(7).
    pub const NEWTIME: Flags = Flags(0x80);
    /// `CLONE_NEWNS`, mount_namespaces(7).
    pub const NEWNS: Flags = Flags(0x0002_0000);
    /// `CLONE_NEWCGROUP`, cgroup_namespaces(7).
    pub const NEWCGROUP: Flags = Flags(0x0200_0000);
    /// `CLONE_NEWUTS`, uts_namespaces(7).
    pub const NEWUTS: Flags = Flags(0x0400_0000);
    /// `CLONE_NEWIPC`, ipc_namespaces(7).
    pub const NEWIPC: Flags = Flags(0x0800_0000);
    /// `CLONE_NEWUSER`, user_namespaces(7).
    pub const NEWUSER: Flags = Flags(0x1000_0000);
    /// `CLONE_NEWPID`, pid_namespaces(7).
    pub const NEWPID: Flags = Flags(0x2000_0000);
    /// `CLONE_NEWNET`, network_namespaces(7).
    pub const NEWNET: Flags = Flags(0x4000_0000);
    /// The child becomes a sibling: a child of the caller's own parent, told of its end by the caller's own exit signal.
    pub const PARENT: Flags = Flags(0x8000);
    const PIDFD: u64 = 0x1000;
    const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const INTO_CGROUP: u64 = 0x2_0000_0000;

    /// Whether all flags of `other` are set.
    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets the flags of `other`.
    pub fn insert(&mut self, other: Flags) {
        self.0 |= other.0;
    }

    /// Clears the flags of `other`.
    pub fn remove(&mut self, other: Flags) {
        self.0 &= !other.0;
    }

    /// From [`Flags::bits`].
    pub fn from_bits(bits: u64) -> Flags {
        Flags(bits)
    }

    /// The `CLONE_*` bits, as unshare and setns take them.
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// In which of the two processes the caller finds itself.
#[derive(Debug)]
pub enum Side {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// `struct clone_args` of linux/sched.h, version 2.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Whether the calling process has one thread. A seccomp filter may refuse the question; `/proc` answers then.
fn has_one_thread() -> io::Result<bool> {
    // unshare(2): of a process with one thread nothing changes, any other gets EINVAL.
    // SAFETY: no memory is passed.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EINVAL) => Ok(false),
        // One directory entry per thread; nlink counts them beside "." and "..".
        _ => Ok(rustix::fs::stat("/proc/self/task")?.st_nlink == 3),
    }
}

/// Splits the calling process in two. All signal handlers of the child are reset to default. `cgroup` is a directory of
/// the unified hierarchy in which the child is born. A process with more than one thread gets `EBUSY`.
pub fn clone3(flags: Flags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    if !has_one_thread()? {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let mut pidfd: RawFd = -1;
    // clone3(2): a sibling has no exit signal of its own.
    let exit_signal = if flags.contains(Flags::PARENT) { 0 } else { libc::SIGCHLD };
    let mut args = CloneArgs {
        flags: flags.0 | Flags::PIDFD | Flags::CLEAR_SIGHAND,
        pidfd: &raw mut pidfd as u64,
        exit_signal: exit_signal as u64,
        ..CloneArgs::default()
    };
    if let Some(fd) = cgroup {
        args.flags |= Flags::INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM and no new stack, so the child continues on its own copy of this stack; args outlives the call;
    // the process has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        // SAFETY: the kernel has stored a new descriptor, owned by nobody else.
        pid => Ok(Side::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}
