//! A view: the file system of a container, its volumes included, for the daemon to read from and write to.
//!
//! A view is a mount namespace without a process, kept by a descriptor. It holds the container's root and its mounts, but
//! neither `/proc`, `/sys` nor `/dev`, as the reference's view does. The view of a running container shares the file
//! systems that its processes see, its tmpfs mounts included; otherwise they are mounted anew. The host's mount table never
//! changes.
//!
//! The namespace is made on a thread that does nothing else and ends, because setns(2) and unshare(2) change the calling
//! thread only and a thread that has entered a container's namespace must serve nobody else. Making it may block for as long
//! as the source of a bind does; the caller waits for [`OPEN_WAIT`] at most.

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use model::{Context, Error, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, open_tree,
};
use sys::clone::Flags;
use sys::mount::{Attr, Propagation, Reach, set_attr, set_root_propagation};
use sys::rooted::{Rooted, Target};

use crate::{Rootfs, overlay};

/// How long the making of a view may take.
pub const OPEN_WAIT: Duration = Duration::from_secs(30);
/// Bytes of the thread's stack.
const STACK: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub struct View {
    root: Rooted,
    /// Keeps the mounts below the root; closed after it.
    _namespace: OwnedFd,
}

/// What a view shows.
pub enum Origin {
    /// The mounts of a running process, by its pidfd.
    Process(OwnedFd),
    /// A root file system that no process has mounted, for reading: nothing is written to its writable layer, so that it may
    /// be mounted elsewhere meanwhile.
    Read(Rootfs),
    /// The same for writing. The caller sees to it that nobody else mounts it as long as the view lives.
    Write(Rootfs),
}

/// A mount of the container.
#[derive(Debug)]
pub struct ViewMount {
    /// Absolute, within the container.
    pub destination: PathBuf,
    /// What is mounted there. In the view of a process only whether it has mounts below counts.
    pub source: Source,
}

/// What a mount shows.
#[derive(Debug)]
pub enum Source {
    /// A file or directory of the host.
    Bind {
        /// Opened with `O_PATH`, or not yet.
        place: Place,
        /// Whether mounts below it are seen.
        reach: Reach,
        /// Writes fail with `EROFS`.
        read_only: bool,
    },
    /// An empty file system in memory, gone with the view.
    Tmpfs,
}

/// Where the source of a bind is.
#[derive(Debug)]
pub enum Place {
    /// A path of the daemon; looked up on the view's thread.
    Path(PathBuf),
    /// A part of the directory at the first path; no link on the way may lead out of it.
    Beneath(PathBuf, PathBuf),
    /// A detached mount, for this view alone.
    Tree(OwnedFd),
}

impl View {
    /// Makes a view. `mounts` are in the order in which they are mounted.
    ///
    /// Errors: `Unavailable` when it takes longer than [`OPEN_WAIT`]; `System` from the kernel, with the mount's name.
    pub fn open(origin: Origin, mounts: Vec<ViewMount>) -> Result<View> {
        let (sender, outcome) = mpsc::sync_channel(1);
        let making = thread::Builder::new()
            .name("view".into())
            .stack_size(STACK)
            .spawn(move || drop(sender.send(make(origin, &mounts))))
            .context("starting the thread of a view")?;
        match outcome.recv_timeout(OPEN_WAIT) {
            Ok(made) => {
                // It has nothing left to do but to end.
                drop(making.join());
                made
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(Error::unavailable("the container's file system could not be opened in time"))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(Error::system("opening the container's file system broke off"))
            }
        }
    }

    /// The container's `/`.
    pub fn root(&self) -> &Rooted {
        &self.root
    }
}

fn make(origin: Origin, mounts: &[ViewMount]) -> Result<View> {
    // Looked up before the thread leaves: the container has a `/proc` of its own, or none.
    let proc = open_dir("/proc").context("opening /proc")?;
    sys::ns::unshare(Flags::NEWNS).context("making a mount namespace")?;
    let (root, trees) = match origin {
        Origin::Process(process) => {
            // Into the container's namespace, and with a copy of its mounts out of it again.
            sys::ns::join(process.as_fd(), Flags::NEWNS).context("joining the container's mount namespace")?;
            sys::ns::unshare(Flags::NEWNS).context("making a mount namespace")?;
            set_root_propagation(Reach::Tree, Propagation::Private).context("making mounts private")?;
            of_process(mounts)?
        }
        Origin::Read(rootfs) => {
            set_root_propagation(Reach::Tree, Propagation::Private).context("making mounts private")?;
            (readable(rootfs)?, anew(mounts)?)
        }
        Origin::Write(rootfs) => {
            set_root_propagation(Reach::Tree, Propagation::Private).context("making mounts private")?;
            (writable(&rootfs)?, anew(mounts)?)
        }
    };
    attach(&root, open_dir("/").context("opening /")?).context("mounting the root")?;
    let root = Rooted::from_fd(root);
    for (mount, tree) in mounts.iter().zip(trees) {
        if let Some(tree) = tree {
            place(&root, &mount.destination, &tree)
                .with_context(|| format!("mounting {}", mount.destination.display()))?;
        }
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::openat(&proc, "thread-self/ns/mnt", flags, Mode::empty());
    Ok(View { root, _namespace: namespace.context("opening the mount namespace")? })
}

type Trees = Vec<Option<OwnedFd>>;

/// Detached copies of the root and of the mounts that stand in the thread's namespace; one that is gone is left out.
fn of_process(mounts: &[ViewMount]) -> Result<(OwnedFd, Trees)> {
    let top = open_dir("/").context("opening the container's root")?;
    let root = copy(&top, Reach::Mount).context("copying the container's root")?;
    let inside = Rooted::from_fd(top);
    let trees = mounts.iter().map(|mount| {
        let Ok(place) = inside.locate(&mount.destination) else { return Ok(None) };
        let tree = copy(&place, mount.reach());
        tree.map(Some).with_context(|| format!("copying the mount at {}", mount.destination.display()))
    });
    Ok((root, trees.collect::<Result<_>>()?))
}

/// Detached mounts of what a container that does not run would have.
fn anew(mounts: &[ViewMount]) -> Result<Trees> {
    let tree = |mount: &ViewMount| match &mount.source {
        Source::Tmpfs => Ok(tmpfs()?),
        Source::Bind { place, reach, read_only } => {
            let found = match place {
                Place::Tree(tree) => {
                    let tree = tree.try_clone()?;
                    if *read_only {
                        set_attr(tree.as_fd(), *reach, Attr::RDONLY, Attr::default(), None)?;
                    }
                    return Ok(tree);
                }
                Place::Path(path) => rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?,
                Place::Beneath(top, part) => Rooted::open_dir(top)?.locate_beneath(part)?,
            };
            let tree = copy(&found, *reach)?;
            if *read_only {
                set_attr(tree.as_fd(), *reach, Attr::RDONLY, Attr::default(), None)?;
            }
            Ok::<_, io::Error>(tree)
        }
    };
    let named =
        |mount: &ViewMount| tree(mount).map(Some).with_context(|| format!("mounting {}", mount.destination.display()));
    mounts.iter().map(named).collect()
}

impl ViewMount {
    fn reach(&self) -> Reach {
        match self.source {
            Source::Bind { reach, .. } => reach,
            Source::Tmpfs => Reach::Mount,
        }
    }
}

fn writable(rootfs: &Rootfs) -> Result<OwnedFd> {
    match rootfs {
        Rootfs::Dir(path) => directory(path),
        Rootfs::Overlay { lower, upper, work } => {
            Ok(overlay::mount(lower, upper, work, upper).context("mounting the container's root")?)
        }
    }
}

/// The writable layer lies below one in memory here: mount points that are missing are made there.
fn readable(rootfs: Rootfs) -> Result<OwnedFd> {
    let (lower, upper) = match rootfs {
        Rootfs::Dir(path) => return directory(&path),
        Rootfs::Overlay { lower, upper, .. } => (lower, upper),
    };
    let memory = tmpfs().context("making a layer in memory")?;
    // In a place of the thread's own namespace; overlay looks its layers up by path.
    let stand = upper.clone();
    let lower: Vec<PathBuf> = std::iter::once(upper).chain(lower).collect();
    let layers = lower.iter().map(open_dir).collect::<rustix::io::Result<Vec<_>>>();
    let layers = layers.context("opening the container's layers")?;
    attach(&memory, open_dir(&stand).context("opening the writable layer")?).context("mounting a layer in memory")?;
    let own = |name: &str| -> Result<PathBuf> {
        rustix::fs::mkdirat(&memory, name, Mode::from_raw_mode(0o700)).context("making a layer in memory")?;
        Ok(stand.join(name))
    };
    let (above, work) = (own("upper")?, own("work")?);
    // The root looks as it does in the writable layer.
    let like = rustix::fs::fstat(&layers[0]).context("reading the writable layer")?;
    std::os::unix::fs::chown(&above, Some(like.st_uid), Some(like.st_gid)).context("making a layer in memory")?;
    let mode = Permissions::from_mode(like.st_mode & 0o7777);
    std::fs::set_permissions(&above, mode).context("making a layer in memory")?;
    let paths: Vec<PathBuf> =
        layers.iter().map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd()).into()).collect();
    let mounted = overlay::mount(&paths, &above, &work, &above);
    mounted.context("mounting the container's root")
}

fn directory(path: &Path) -> Result<OwnedFd> {
    let found = open_dir(path).context("opening the container's root")?;
    copy(&found, Reach::Tree).context("copying the container's root")
}

fn open_dir(path: impl AsRef<Path>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path.as_ref(), flags, Mode::empty())
}

/// A detached copy of the mount (or tree) at a descriptor, private.
fn copy(place: &OwnedFd, reach: Reach) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let recursive = if reach == Reach::Tree { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    Ok(open_tree(place, "", flags | recursive)?)
}

fn tmpfs() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "1777")?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

fn attach(tree: &OwnedFd, target: OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", target, "", flags)?)
}

/// Mounts a tree on its place, which is made if it is missing.
fn place(root: &Rooted, destination: &Path, tree: &OwnedFd) -> io::Result<()> {
    let is_dir = FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode).is_dir();
    let target = if is_dir { Target::Directory } else { Target::File };
    attach(tree, root.mount_point(destination, target)?)
}
