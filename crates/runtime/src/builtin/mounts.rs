//! The mounts of the specification, in its order, each on a place resolved inside the root by the kernel.
//!
//! Sources of binds are cloned with their whole propagation before they are attached, attributes are set while the clone
//! is still detached: a bind is never writable for a moment. What the container's image contains (links, device nodes,
//! mounts over `/proc`) cannot redirect a mount, and nothing is mounted inside `/proc` but a few known files.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use sys::cgroup::Cgroup;
use sys::mount::{Attr, Reach, set_attr};
use sys::rooted::{Rooted, Target};

use super::enter;
use super::init::Shared;
use super::options::{self, Options};
use super::tree::{self, Fd, keep};
use crate::error::{At, Stage, StartError};
use crate::{foreign, oci};

/// Mounts that later steps work on by descriptor.
#[derive(Debug, Default)]
pub(super) struct Mounted {
    /// The fresh procfs at `/proc`.
    pub(super) proc: Option<Fd>,
    /// The tmpfs at `/dev`; `None` also if the specification binds something there.
    pub(super) dev: Option<Fd>,
    /// The instance at `/dev/pts`.
    pub(super) devpts: Option<Fd>,
}

/// Files of procfs that may be mounted over, as in runc (lxcfs and friends).
const PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];
/// What is said of anything but procfs over `/proc`.
const NOT_PROC: &str = "\"/proc\" cannot be mounted because it is not of type proc";
pub(super) const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// The container's place among the cgroups. It is taken as late as possible, since the parent is preparing it meanwhile.
pub(super) struct Place<'a> {
    cgroup: &'a Cgroup,
    /// Whether it is in a cgroup namespace of its own.
    private: bool,
    enter_cgroup: Option<&'a dyn Fn() -> Result<(), StartError>>,
}

impl<'a> Place<'a> {
    /// `enter_cgroup` enters the cgroup and its namespace.
    pub(super) fn new(
        cgroup: &'a Cgroup,
        private: bool,
        enter_cgroup: &'a dyn Fn() -> Result<(), StartError>,
    ) -> Place<'a> {
        Place { cgroup, private, enter_cgroup: Some(enter_cgroup) }
    }

    /// Takes the place, if that has not been done.
    pub(super) fn enter_cgroup(&mut self) -> Result<(), StartError> {
        self.enter_cgroup.take().map_or(Ok(()), |enter_cgroup| enter_cgroup())
    }
}

/// Mounts everything, and takes the container's place among the cgroups on the way.
pub(super) fn all(
    root: &Rooted,
    mut place: Place<'_>,
    shared: Option<&Shared<'_>>,
    mounts: &[oci::Mount],
) -> Result<Mounted, StartError> {
    let mut mounted = Mounted::default();
    for mount in mounts {
        let mut options = options::parse(&mount.options);
        if mount.kind == "bind" && options.bind.is_none() {
            options.bind = Some(Reach::Tree);
        }
        if let Some(reach) = options.bind {
            bind(root, mount, &options, reach)?;
        } else if matches!(mount.kind.as_str(), "cgroup" | "cgroup2") {
            place.enter_cgroup()?;
            cgroup_view(root, &place, Path::new(&mount.destination), &options)
                .map_err(|e| StartError { stage: stage(mount), ..e })?;
        } else {
            file_system(root, mount, options, (shared, &mut mounted))?;
        }
    }
    place.enter_cgroup()?;
    Ok(mounted)
}

fn stage(mount: &oci::Mount) -> Stage {
    Stage::Mount { source: mount.source.clone(), target: mount.destination.clone() }
}

/// A mount of a file system of its own.
fn file_system(
    root: &Rooted,
    mount: &oci::Mount,
    mut options: Options,
    (shared, mounted): (Option<&Shared<'_>>, &mut Mounted),
) -> Result<(), StartError> {
    let stage = || stage(mount);
    let path = Path::new(&mount.destination);
    if matches!(mount.kind.as_str(), "proc" | "sysfs") {
        ordinary_directory(root, path).at(stage, "must be mounted on ordinary directory")?;
    }
    if mount.kind == "tmpfs"
        && !options.data.iter().any(|o| o.starts_with("mode="))
        && let Ok(covered) = root.open(path, OFlags::PATH, Mode::empty()).map(keep)
    {
        // A tmpfs over a directory looks like the directory; one where nothing was is everybody's.
        let mode = rustix::fs::fstat(covered).at(stage, "fstat")?.st_mode & 0o7777;
        options.data.push(format!("mode={mode:04o}"));
    }
    if path == Path::new("/proc") && mount.kind != "proc" {
        return Err(StartError::new(stage(), 0, NOT_PROC));
    }
    let target = place(root, path, Target::Directory, stage)?;
    let call = call(mount, options.set.mount_flags(), &options.data);
    let fd = match shared {
        // Only a member of the PID namespace can make one of it.
        Some(shared) if mount.kind == "proc" => {
            enter::procfs(shared.executable.as_fd(), shared.namespace, &options.data, options.set)
                .map_err(|e| StartError { stage: stage(), ..e })?
        }
        _ => tree::new(&mount.kind, &mount.source, &options.data, options.set).at(stage, &call)?,
    };
    let attached = tree::attach(fd, target).map_err(|e| match e {
        Errno::INVAL if !is_dir(target) => Errno::NOTDIR,
        e => e,
    });
    attached.at(stage, &call)?;
    propagate(fd, &options).at(stage, "mount propagation")?;
    match (mount.destination.trim_end_matches('/'), mount.kind.as_str()) {
        ("/proc", "proc") => mounted.proc = Some(fd),
        ("/dev", "tmpfs") => mounted.dev = Some(fd),
        ("/dev/pts", "devpts") => mounted.devpts = Some(fd),
        _ => {}
    }
    Ok(())
}

fn bind(root: &Rooted, mount: &oci::Mount, options: &Options, reach: Reach) -> Result<(), StartError> {
    let stage = || stage(mount);
    let path = Path::new(&mount.destination);
    let call = call(mount, options.set.mount_flags() | reach.mount_flags(), &[]);
    let fd = source(mount, reach).at(stage, &call)?;
    if path == Path::new("/proc") && rustix::fs::fstatfs(fd).at(stage, "fstatfs")?.f_type != PROC_SUPER_MAGIC {
        return Err(StartError::new(stage(), 0, NOT_PROC));
    }
    let kind = FileType::from_raw_mode(rustix::fs::fstat(fd).at(stage, "fstat")?.st_mode);
    let target = if kind.is_dir() { Target::Directory } else { Target::File };
    let target = place(root, path, target, stage)?;
    if kind.is_dir() && !is_dir(target) {
        return Err(StartError::new(stage(), Errno::NOTDIR.raw_os_error(), creation(root, path)));
    }
    if !options.set_tree.is_empty() || !options.clear_tree.is_empty() {
        set_attr(fd, Reach::Tree, options.set_tree, options.clear_tree, None).at(stage, "mount_setattr")?;
    }
    // Top mount and propagation of the top mount in one call.
    if !options.set.is_empty() || !options.clear.is_empty() {
        set_attr(fd, Reach::Mount, options.set, options.clear, None).at(stage, "mount_setattr")?;
    }
    propagate(fd, options).at(stage, "mount propagation")?;
    let attached = tree::attach(fd, target).map_err(|e| match e {
        // What mount(2) says of a file on a directory, and the reference's clients know.
        Errno::INVAL if is_dir(target) != kind.is_dir() => Errno::NOTDIR,
        e => e,
    });
    attached.at(stage, &call)
}

/// The call of mount(2) that the reference's runtime would have made, as its errors show it: by a descriptor, whose number is the
/// same at every start.
fn call(mount: &oci::Mount, flags: u64, data: &[String]) -> String {
    let flags = if flags == 0 { String::new() } else { format!(", flags: {flags:#x}") };
    let data = if data.is_empty() { String::new() } else { format!(", data: {}", data.join(",")) };
    format!("mount {}:{} (via /proc/self/fd/6){flags}{data}", mount.source, mount.destination)
}

/// A copy of what is bound.
fn source(mount: &oci::Mount, reach: Reach) -> std::io::Result<Fd> {
    match foreign::source(mount, reach) {
        Some(tree) => tree.map(keep),
        None => Ok(tree::clone_at(Path::new(&mount.source), reach)?),
    }
}

fn is_dir(fd: Fd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode).is_dir())
}

fn propagate(fd: BorrowedFd<'_>, options: &Options) -> std::io::Result<()> {
    let none = Attr::default();
    options.propagation.iter().try_for_each(|(p, reach)| set_attr(fd, *reach, none, none, Some(*p)))
}

/// `/proc` and `/sys` of an image that are links would put the kernel's files, and the masks over them, elsewhere.
fn ordinary_directory(root: &Rooted, path: &Path) -> std::io::Result<()> {
    match root.open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).map(keep) {
        Ok(fd) if FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode).is_dir() => Ok(()),
        Ok(_) => Err(Errno::NOTDIR.into()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// The place of a mount. One on procfs is refused: a container that hides its `/proc/self/…` could redirect what is
/// written there. (A mount over `/proc` as a whole is found by its parent's being no procfs.)
fn place(root: &Rooted, path: &Path, target: Target, stage: impl Fn() -> Stage) -> Result<Fd, StartError> {
    let inside = || {
        let text = format!("{path:?} cannot be mounted because it is inside /proc");
        StartError::new(stage(), 0, &text)
    };
    let allowed = PROC_FILES.iter().any(|p| Path::new(p) == path);
    let below = path.starts_with("/proc") && path != Path::new("/proc");
    let target = match root.mount_point(path, target) {
        // Nothing can be made there.
        Err(_) if below && !allowed => return Err(inside()),
        Err(error) if error.raw_os_error() == Some(Errno::NOTDIR.raw_os_error()) => {
            return Err(error).at(&stage, &creation(root, path));
        }
        point => keep(point.at(&stage, "")?),
    };
    if !allowed && rustix::fs::fstatfs(target).at(&stage, "fstatfs")?.f_type == PROC_SUPER_MAGIC {
        return Err(inside());
    }
    Ok(target)
}

/// What the reference's runtime says of a place that cannot be made, since a file is in its way; paths are the container's.
fn creation(root: &Rooted, path: &Path) -> String {
    let is_file = |at: &&Path| root.open(at, OFlags::PATH, Mode::empty()).map(keep).is_ok_and(|fd| !is_dir(fd));
    let file = path.ancestors().find(is_file).unwrap_or(path);
    format!("create mount destination for {} mount: cannot mkdir in {}", path.display(), file.display())
}

/// `/sys/fs/cgroup`: the container's own directory of every hierarchy, bound. Inside the container's cgroup namespace
/// these look exactly like fresh mounts, at a fraction of the price. In the host's namespace a fresh mount of v2 is the whole
/// hierarchy, in which `/proc/self/cgroup` names the container's place.
fn cgroup_view(root: &Rooted, place: &Place<'_>, path: &Path, options: &Options) -> Result<(), StartError> {
    let stage = || Stage::Cgroup;
    let readonly = Attr(options.set.0 & Attr::RDONLY.0);
    let own = Attr::NOSUID | Attr::NODEV | Attr::NOEXEC | readonly;
    let target = keep(root.mount_point(path, Target::Directory).at(stage, "")?);
    let views = place.cgroup.views();
    if let [only] = views.as_slice()
        && place.cgroup.version() == sys::cgroup::Version::V2
    {
        let source = if place.private { &only.path } else { &only.top };
        let fd = tree::clone_at(source, Reach::Mount).at(stage, "open_tree")?;
        set_attr(fd, Reach::Mount, own, Attr::default(), None).at(stage, "mount_setattr")?;
        return tree::attach(fd, target).at(stage, "move_mount");
    }
    let data = ["mode=755".to_owned()];
    let top = tree::new("tmpfs", "tmpfs", &data, Attr::default()).at(stage, "fsmount")?;
    tree::attach(top, target).at(stage, "move_mount")?;
    // The tmpfs is fresh and ours: names in it are safe.
    rustix::process::fchdir(top).at(stage, "fchdir")?;
    for view in &views {
        rustix::fs::mkdir(&view.name, Mode::from_raw_mode(0o755)).at(stage, "mkdir")?;
        rustix::mount::mount_bind(&view.path, &view.name).at(stage, "bind")?;
        // `cpu,cpuacct` is also found as `cpu` and as `cpuacct`.
        for alias in view.name.split(',').filter(|_| view.name.contains(',')) {
            rustix::fs::symlink(&view.name, alias).at(stage, "symlink")?;
        }
    }
    rustix::process::chdir("/").at(stage, "chdir")?;
    set_attr(top, Reach::Tree, own, Attr::default(), None).at(stage, "mount_setattr")
}
