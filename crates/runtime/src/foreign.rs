//! Sources of binds that containers have a hand in: what another one shows (its `/dev/shm`; what a user names as
//! `/proc/<pid>/root/…`), and a part of a volume, where they may have put links.
//!
//! A mount can be cloned in its own mount namespace only, so that the process goes there and comes back. Single-threaded
//! processes only, as for every namespace.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use sys::clone::Flags;
use sys::mount::Reach;
use sys::ns;
use sys::rooted::Rooted;

use crate::oci;

/// A detached copy of such a source, or the mount that was passed for it; `None`: it is a path to be taken as it stands.
pub(crate) fn source(mount: &oci::Mount, reach: Reach) -> Option<io::Result<OwnedFd>> {
    let path = Path::new(&mount.source);
    if mount.tree.is_some() {
        let opened = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        return Some(opened.map_err(io::Error::from));
    }
    let foreign = match &mount.namespace {
        Some(namespace) => Some(Foreign { namespace: namespace.into(), path: path.to_owned() }),
        None => Foreign::parse(path),
    };
    if let Some(foreign) = foreign {
        return Some(foreign.clone_tree());
    }
    (!mount.subpath.is_empty()).then(|| {
        let place = Rooted::open_dir(path)?.locate_beneath(&mount.subpath)?;
        let recursive = if reach == Reach::Tree { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
        Ok(open_tree(place, "", COPY | OpenTreeFlags::AT_EMPTY_PATH | recursive)?)
    })
}

const COPY: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// A source in another process's mount namespace.
#[derive(Debug, PartialEq, Eq)]
struct Foreign {
    /// `/proc/<pid>/ns/mnt`, or a descriptor of this process.
    namespace: PathBuf,
    /// The path as that process sees it.
    path: PathBuf,
}

impl Foreign {
    /// `None`: the source is a path of this process.
    fn parse(source: &Path) -> Option<Foreign> {
        let (pid, path) = source.to_str()?.strip_prefix("/proc/")?.split_once("/root/")?;
        let pid: u32 = pid.parse().ok()?;
        Some(Foreign { namespace: format!("/proc/{pid}/ns/mnt").into(), path: Path::new("/").join(path) })
    }

    /// A detached copy of the tree.
    fn clone_tree(&self) -> io::Result<OwnedFd> {
        let open = |path: &Path, flags| rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty());
        let theirs = open(&self.namespace, OFlags::RDONLY)?;
        let own = open(Path::new("/proc/self/ns/mnt"), OFlags::RDONLY)?;
        let root = open(Path::new("/"), OFlags::PATH | OFlags::DIRECTORY)?;
        ns::join(theirs.as_fd(), Flags::NEWNS)?;
        let tree = open_tree(CWD, &self.path, COPY | OpenTreeFlags::AT_RECURSIVE);
        ns::join(own.as_fd(), Flags::NEWNS)?;
        // Coming back leads to the namespace's root, which need not be the process's.
        rustix::process::fchdir(&root)?;
        rustix::process::chroot(".")?;
        Ok(tree?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_sources_are_foreign() {
        let shm = Foreign::parse(Path::new("/proc/42/root/dev/shm")).unwrap();
        assert_eq!(shm, Foreign { namespace: "/proc/42/ns/mnt".into(), path: "/dev/shm".into() });
        for own in ["/dev/shm", "/proc/42/rootfs/x", "/proc/self/root/x", "/proc/42/root", "/srv/proc/42/root/x"] {
            assert_eq!(Foreign::parse(Path::new(own)), None, "{own}");
        }
    }
}
