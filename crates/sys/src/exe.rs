//! The running program as a file that nobody can write to.
//!
//! A process in a container can open `/proc/<pid>/exe` of a Gantry process that has entered it; if that opened the
//! daemon's program for writing, the container would own the host (CVE-2019-5736). The file is therefore executed through
//! a read-only mount that is attached nowhere: opening it for writing through the magic link fails with `EROFS`, while its
//! pages in the page cache stay shared with the daemon's. Where no such mount can be made a sealed copy in memory serves.
//!
//! A detached mount that is still a mount namespace of its own could be changed by whoever reaches it and has
//! `CAP_SYS_ADMIN` (mount_setattr(2) asks for no more). So its own descriptor is closed: what remains is a file on a mount
//! that is in no namespace, which nobody can change, copy or attach any more.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::mount::{Attr, Reach, set_attr};

const OWN: &str = "/proc/self/exe";

/// A descriptor of this program that opens for reading and executing only. Execute it as `/proc/self/fd/<n>`.
pub fn sealed() -> io::Result<OwnedFd> {
    read_only_mount(&own()?).or_else(|_| copy())
}

/// The file that this process runs: a sealed one if it was started from [`sealed`].
pub fn own() -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, OWN, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

fn read_only_mount(file: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(file, "", flags | OpenTreeFlags::AT_EMPTY_PATH).or_else(|_| {
        // The file was opened in another mount namespace; perhaps it has the same name in this one.
        let path = std::fs::read_link(OWN)?;
        let tree = open_tree(CWD, &path, flags)?;
        same_file(file, &tree).then_some(tree).ok_or(io::Error::from(io::ErrorKind::NotFound))
    })?;
    set_attr(tree.as_fd(), Reach::Mount, Attr::RDONLY | Attr::NOSUID | Attr::NODEV, Attr::default(), None)?;
    // The same place, but no reason for the mount to stay in a namespace: that ends with `tree`.
    let path = format!("/proc/self/fd/{}", tree.as_raw_fd());
    Ok(rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

fn same_file(a: impl AsFd, b: impl AsFd) -> bool {
    match (rustix::fs::fstat(a), rustix::fs::fstat(b)) {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
        _ => false,
    }
}

/// Costs the program's size in memory, once.
fn copy() -> io::Result<OwnedFd> {
    let mut source = File::open(Path::new(OWN))?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag and make every memfd executable.
    let target = rustix::fs::memfd_create("gantry", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("gantry", flags))?;
    let mut target = File::from(target);
    io::copy(&mut source, &mut target)?;
    rustix::fs::fcntl_add_seals(&target, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(target.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_change_the_mount_of_a_sealed_program() {
        let sealed = sealed().unwrap();
        let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
        assert!(File::options().write(true).open(&path).is_err());
        let flags = rustix::fs::fstatvfs(&sealed).unwrap().f_flag;
        assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
        let changed = set_attr(sealed.as_fd(), Reach::Mount, Attr::default(), Attr::RDONLY, None);
        assert_eq!(changed.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        assert_eq!(open_tree(&sealed, "", flags).unwrap_err(), rustix::io::Errno::INVAL);
        assert!(std::process::Command::new(&path).arg("--list").output().unwrap().status.success());
    }

    #[test]
    fn a_copy_runs_and_cannot_be_written() {
        let copy = copy().unwrap();
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        let mut file = File::options().write(true).open(&path).unwrap();
        assert!(io::Write::write(&mut file, b"x").is_err());
        drop(file);
        let listed = std::process::Command::new(&path).arg("--list").output().unwrap();
        assert!(listed.status.success());
    }
}
