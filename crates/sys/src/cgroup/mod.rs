//! Control groups of either version, found by looking.
//!
//! A container's cgroup has one path (`/docker/<id>`) below the root of *every* mounted hierarchy: each v1 controller's,
//! the named one of systemd, and the unified one, which on a hybrid machine carries no controllers but gives atomic kill
//! and freeze. A [`Cgroup`] is the set of these directories; it holds no descriptors, so that it survives anything.
//!
//! A path that is not absolute begins in each hierarchy where the calling process is, as with runc: at its own cgroup on
//! v1; on v2, where a cgroup with processes cannot hand controllers down, at the one above.
//!
//! On v1 a process joins by writing `0` into `tasks` itself: for a single thread moving itself the kernel skips the global
//! lock whose first taker waits for an RCU grace period. On v2 it is born there (`CLONE_INTO_CGROUP`).

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

mod control;
mod devices;
mod figures;
mod oom;
mod resources;
mod stats;

pub use control::Step;
pub use devices::{DeviceKind, DeviceRule};
pub use figures::Figures;
pub use oom::OomWatch;
pub use resources::{BlockDevice, Resources};
pub use stats::{BlkioEntry, Cpu, Memory, Pids, Stats};

const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
/// How often a directory is tried to be made whose parents others remove meanwhile.
const CREATE_ATTEMPTS: u32 = 50;
const MODE_DIR: Mode = Mode::from_raw_mode(0o755);

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// v1: what of the hierarchy is mounted there. All of it but inside of containers.
    root: PathBuf,
    unified: bool,
    /// v1: `cpu`, `cpuacct`, …, `name=systemd`. Empty for the unified one (its controllers are looked up on use).
    controllers: Vec<String>,
}

/// The hierarchies of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    hierarchies: Vec<Hierarchy>,
}

/// Which version carries the controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

impl Layout {
    /// Looks at the mounts of the calling process.
    pub fn detect() -> io::Result<Layout> {
        const USUAL: &str = "/sys/fs/cgroup";
        if rustix::fs::statfs(USUAL).is_ok_and(|s| s.f_type == CGROUP2_SUPER_MAGIC) {
            let (mount, root) = (PathBuf::from(USUAL), PathBuf::from("/"));
            let only = Hierarchy { mount, root, unified: true, controllers: Vec::new() };
            return Ok(Layout { hierarchies: vec![only] });
        }
        let mounts = crate::file::read_made("/proc/self/mountinfo")?;
        let layout = Layout::parse(&String::from_utf8_lossy(&mounts));
        if layout.hierarchies.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted"));
        }
        Ok(layout)
    }

    /// `mountinfo(5)`: `id parent dev root mountpoint options… - type source super-options`.
    fn parse(mountinfo: &str) -> Layout {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut right = right.split(' ');
            let kind = right.next().unwrap_or("");
            if !matches!(kind, "cgroup" | "cgroup2") {
                continue;
            }
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(mount)) = (left.next(), left.next()) else { continue };
            let unified = kind == "cgroup2";
            let flags = ["rw", "ro", "xattr", "clone_children", "favordynmods", "noprefix"];
            let controllers: Vec<String> = match right.nth(1) {
                Some(options) if !unified => options
                    .split(',')
                    .filter(|o| !flags.contains(o) && !o.starts_with("release_agent="))
                    .map(str::to_owned)
                    .collect(),
                _ => Vec::new(),
            };
            let (mount, root) = (PathBuf::from(unescape(mount)), PathBuf::from(unescape(root)));
            let hierarchy = Hierarchy { mount, root, unified, controllers };
            // The same hierarchy may be mounted twice; the first mount counts.
            let known = |h: &Hierarchy| h.unified == unified && h.controllers == hierarchy.controllers;
            if !hierarchies.iter().any(known) {
                hierarchies.push(hierarchy);
            }
        }
        Layout { hierarchies }
    }

    /// v2 only if there is nothing else: a hybrid machine's controllers are on v1.
    pub fn version(&self) -> Version {
        if self.hierarchies.iter().all(|h| h.unified) { Version::V2 } else { Version::V1 }
    }

    /// The controllers that limits can be set with.
    pub fn controllers(&self) -> Vec<String> {
        if self.version() == Version::V1 {
            return self.hierarchies.iter().flat_map(|h| h.controllers.iter().cloned()).collect();
        }
        let list = fs::read_to_string(self.hierarchies[0].mount.join("cgroup.controllers")).unwrap_or_default();
        list.split_whitespace().map(str::to_owned).collect()
    }

    /// Makes the cgroup `path` and its parents. On failure nothing of it is left.
    pub fn create(&self, path: &str) -> io::Result<Cgroup> {
        let cgroup = self.at(path)?;
        cgroup.create().inspect_err(|_| drop(cgroup.remove()))?;
        Ok(cgroup)
    }

    /// The cgroup `path`, whether or not it exists.
    pub fn at(&self, path: &str) -> io::Result<Cgroup> {
        self.below(&origin(path)?, path)
    }

    /// The same for a path that begins at `origin`, the [`origin`] of another process.
    pub fn below(&self, origin: &str, path: &str) -> io::Result<Cgroup> {
        let relative = path.trim_matches('/');
        if relative.is_empty() || relative.split('/').any(|c| matches!(c, "" | "." | "..")) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid cgroup path {path:?}")));
        }
        let version = self.version();
        let dir = |h: &Hierarchy| {
            let mut begin = h.place_of(origin);
            if version == Version::V2 {
                begin.pop();
            }
            Dir { path: h.mount.join(begin).join(relative), hierarchy: h.clone() }
        };
        Ok(Cgroup { dirs: self.hierarchies.iter().map(dir).collect(), version })
    }
}

/// Where `path` begins: nowhere if it is absolute, else the calling process's `/proc/self/cgroup` (cgroups(7)).
pub fn origin(path: &str) -> io::Result<String> {
    if path.starts_with('/') { Ok(String::new()) } else { fs::read_to_string("/proc/self/cgroup") }
}

impl Hierarchy {
    /// Where a process of these cgroups is, below the mount point; nothing if it is outside of what is mounted.
    fn place_of(&self, cgroups: &str) -> PathBuf {
        let own = |controllers: &str| match controllers {
            "" => self.unified,
            list => !self.unified && list.split(',').any(|c| self.controllers.iter().any(|own| own == c)),
        };
        let place = cgroups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            own(controllers).then(|| Path::new(path).strip_prefix(&self.root).ok()).flatten()
        });
        let plain = place.filter(|p| p.components().all(|c| matches!(c, std::path::Component::Normal(_))));
        plain.unwrap_or(Path::new("")).to_owned()
    }
}

/// One hierarchy's directory of a cgroup.
#[derive(Clone, Debug)]
struct Dir {
    path: PathBuf,
    hierarchy: Hierarchy,
}

impl Dir {
    fn has(&self, controller: &str) -> bool {
        self.hierarchy.controllers.iter().any(|c| c == controller)
    }

    /// Somebody else may remove a parent that is empty for the moment, at any moment: it is made again.
    fn create(&self) -> io::Result<()> {
        for _ in 1..CREATE_ATTEMPTS {
            match self.create_once() {
                Err(e) if is_gone(&e) => std::thread::yield_now(),
                made => return made,
            }
        }
        self.create_once()
    }

    fn create_once(&self) -> io::Result<()> {
        match rustix::fs::mkdirat(CWD, &self.path, MODE_DIR) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => self.create_parents()?,
            Err(e) => return Err(e.into()),
        }
        if self.has("cpuset") {
            inherit_cpuset(&self.path, &self.hierarchy.mount)?;
        }
        Ok(())
    }

    /// The slow way, for the first container below a parent.
    fn create_parents(&self) -> io::Result<()> {
        let below = self.path.strip_prefix(&self.hierarchy.mount).expect("joined to the mount");
        let mut path = self.hierarchy.mount.clone();
        if self.hierarchy.unified {
            // The directory itself does not exist yet; its parents may not either.
            delegate(&path)?;
        }
        for name in below {
            path.push(name);
            match rustix::fs::mkdirat(CWD, &path, MODE_DIR) {
                Ok(()) if self.has("cpuset") && path != self.path => {
                    inherit_cpuset(&path, &self.hierarchy.mount)?;
                    // Children then start with their parent's sets, without further writes.
                    write_file(&path.join("cgroup.clone_children"), "1")?;
                }
                Ok(()) if self.hierarchy.unified && path != self.path => delegate(&path)?,
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// v2: hands the controllers down from the root to this directory.
    fn delegate_parents(&self) -> io::Result<()> {
        let mut path = self.hierarchy.mount.clone();
        for name in self.path.strip_prefix(&self.hierarchy.mount).expect("joined to the mount") {
            delegate(&path)?;
            path.push(name);
        }
        Ok(())
    }

    /// Where the unified line of a process's `/proc/PID/cgroup` leads to, if that is this directory or one below it.
    fn place_in(&self, text: &str) -> Option<PathBuf> {
        let path = text.lines().find_map(|l| l.strip_prefix("0::/"))?;
        let plain = Path::new(path).components().all(|c| matches!(c, std::path::Component::Normal(_)));
        let place = self.hierarchy.mount.join(path);
        (plain && place.starts_with(&self.path)).then_some(place)
    }

    /// Writes one control file of this directory.
    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        write_file(&self.path.join(file), value)
    }

    fn read(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(self.path.join(file))
    }
}

/// One write(2) to an existing control file.
fn write_file(path: &Path, value: &str) -> io::Result<()> {
    let file = rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    fs::File::from(file).write_all(value.as_bytes())
}

/// Whether a control file has nothing in it. One read tells.
fn is_blank(path: &Path) -> io::Result<bool> {
    let mut start = [0; 16];
    let file = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let n = rustix::io::read(&file, &mut start)?;
    Ok(start[..n].trim_ascii().is_empty())
}

/// Whether a directory vanished under the caller: `ENOENT` of its path, `ENODEV` of a file in it that was open.
fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV))
}

/// v1: a cpuset without processors or without memory accepts no process (`ENOSPC`); take from the parent what is missing.
///
/// Each file is looked at for itself: somebody else who makes the same parent may have written the one and not yet the
/// other. What has been set stays.
fn inherit_cpuset(path: &Path, root: &Path) -> io::Result<()> {
    if path == root {
        return Ok(());
    }
    let mut parent_has = false;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = path.join(file);
        if !is_blank(&own)? {
            continue;
        }
        let parent = path.parent().expect("below the hierarchy's root");
        if !std::mem::replace(&mut parent_has, true) {
            inherit_cpuset(parent, root)?;
        }
        let value = fs::read_to_string(parent.join(file))?;
        match write_file(&own, value.trim()) {
            // Somebody who makes the same has set it meanwhile, and perhaps changed it.
            Err(error) if is_blank(&own)? => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// v2: lets the children of `path` use every controller that `path` has. A cgroup with processes of its own cannot
/// delegate most of them (`EBUSY`): the limits that need them will say so when they are set.
fn delegate(path: &Path) -> io::Result<()> {
    let Ok(have) = fs::read_to_string(path.join("cgroup.controllers")) else { return Ok(()) };
    let on = fs::read_to_string(path.join("cgroup.subtree_control"))?;
    for controller in have.split_whitespace().filter(|c| !on.split_whitespace().any(|o| o == *c)) {
        let _ = write_file(&path.join("cgroup.subtree_control"), &format!("+{controller}"));
    }
    Ok(())
}

/// A container's cgroup: the directories of one path in every hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroup {
    dirs: Vec<Dir>,
    version: Version,
}

impl Cgroup {
    pub fn version(&self) -> Version {
        self.version
    }

    /// Makes the directories of all hierarchies that do not exist yet.
    pub fn create(&self) -> io::Result<()> {
        self.dirs.iter().try_for_each(|d| d.create().map_err(|e| e_at(e, &d.path)))
    }

    /// Makes the unified directory alone and opens it for `CLONE_INTO_CGROUP`; `None` on a pure v1 machine.
    pub fn create_birthplace(&self) -> io::Result<Option<OwnedFd>> {
        self.unified().map_or(Ok(()), |d| d.create().map_err(|e| e_at(e, &d.path)))?;
        self.birthplace()
    }

    /// The v1 directory of a controller.
    fn controller(&self, name: &str) -> Option<&Dir> {
        self.dirs.iter().find(|d| d.has(name))
    }

    fn unified(&self) -> Option<&Dir> {
        self.dirs.iter().find(|d| d.hierarchy.unified)
    }

    /// The directory of `controller` on v1, else the unified one.
    fn dir_of(&self, controller: &str) -> Option<&Dir> {
        self.controller(controller).or_else(|| self.unified())
    }

    /// The unified directory, opened for `CLONE_INTO_CGROUP`; `None` on a pure v1 machine.
    pub fn birthplace(&self) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.unified().map(|d| Ok(rustix::fs::openat(CWD, &d.path, flags, Mode::empty())?)).transpose()
    }

    /// The unified directory that process `pid` is in: this cgroup's or one below it. A cgroup that hands controllers down
    /// takes no processes itself (`EBUSY`), and a container that does so has moved its own into a child.
    pub fn birthplace_of(&self, pid: i32) -> io::Result<Option<OwnedFd>> {
        let Some(dir) = self.unified() else { return Ok(None) };
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let place = dir.place_in(&text).ok_or(Errno::NOENT)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Some(rustix::fs::openat(CWD, &place, flags, Mode::empty())?))
    }

    /// Moves the calling process, which must have one thread, into every v1 hierarchy's directory. It will not see these
    /// paths any more once it is in the container's root. A directory that is gone is `NotFound`.
    pub fn enter_v1(&self) -> io::Result<()> {
        for dir in self.dirs.iter().filter(|d| !d.hierarchy.unified) {
            let tasks =
                rustix::fs::openat(CWD, dir.path.join("tasks"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(&tasks, b"0")?;
            // The next execve, or exit, closes it with everything else.
            std::mem::forget(tasks);
        }
        Ok(())
    }

    /// The directories as a container is to see them below `/sys/fs/cgroup`.
    pub fn views(&self) -> Vec<View> {
        let view = |d: &Dir| {
            let name = d.hierarchy.mount.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            View { name, path: d.path.clone(), top: d.hierarchy.mount.clone() }
        };
        self.dirs.iter().map(view).collect()
    }

    /// Whether any hierarchy still has it.
    pub fn exists(&self) -> bool {
        self.dirs.iter().any(|d| d.path.exists())
    }
}

/// One hierarchy of a cgroup: the name of its mount point (`cpu,cpuacct`), the cgroup's directory and the mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub name: String,
    pub path: PathBuf,
    pub top: PathBuf,
}

/// Keeps the errno's text and adds the path.
fn e_at(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
42 31 0:29 / /mnt/a\\040b rw,relatime - cgroup cgroup rw,cpu,cpuacct
";

    #[test]
    fn hybrid_layout() {
        let layout = Layout::parse(HYBRID);
        assert_eq!(layout.version(), Version::V1);
        assert_eq!(layout.controllers(), ["cpu", "cpuacct", "name=systemd"]);
        assert_eq!(layout.hierarchies.len(), 3);
        let cgroup = layout.at("/docker/x").unwrap();
        assert_eq!(cgroup.controller("cpuacct").unwrap().path, Path::new("/sys/fs/cgroup/cpu,cpuacct/docker/x"));
        assert_eq!(cgroup.dir_of("memory").unwrap().path, Path::new("/sys/fs/cgroup/unified/docker/x"));
    }

    #[test]
    fn unified_layout() {
        let layout = Layout::parse("35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(layout.version(), Version::V2);
    }

    #[test]
    fn a_process_is_found_below_its_containers_cgroup_only() {
        let layout = Layout::parse("35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let cgroup = layout.at("/docker/x").unwrap();
        let place = |text: &str| cgroup.dirs[0].place_in(text);
        assert_eq!(place("0::/docker/x\n").unwrap(), Path::new("/sys/fs/cgroup/docker/x"));
        let inner = place("4:memory:/elsewhere\n0::/docker/x/init.scope\n").unwrap();
        assert_eq!(inner, Path::new("/sys/fs/cgroup/docker/x/init.scope"));
        for other in
            ["0::/\n", "0::/docker/xy\n", "0::/docker/x/../y\n", "0::/../docker/x\n", "4:memory:/docker/x\n", ""]
        {
            assert_eq!(place(other), None, "{other:?}");
        }
    }

    #[test]
    fn paths_are_checked() {
        let layout = Layout::parse(HYBRID);
        for path in ["", "/", "/a/../b", "a//b", "./a"] {
            assert!(layout.at(path).is_err(), "{path}");
        }
    }

    #[test]
    fn relative_paths_begin_where_the_process_is() {
        let paths = |mountinfo: &str, own: &str| {
            let cgroup = Layout::parse(mountinfo).below(own, "a/x").unwrap();
            cgroup.dirs.into_iter().map(|d| d.path.display().to_string()).collect::<Vec<_>>()
        };
        let top = "/sys/fs/cgroup";
        let own = "4:cpu,cpuacct:/s/d\n1:name=systemd:/s/e.service\n0::/s/e.service\n";
        assert_eq!(
            paths(HYBRID, own),
            [
                format!("{top}/cpu,cpuacct/s/d/a/x"),
                format!("{top}/systemd/s/e.service/a/x"),
                format!("{top}/unified/s/e.service/a/x")
            ]
        );
        assert_eq!(paths(HYBRID, "4:cpu,cpuacct:/\n")[0], format!("{top}/cpu,cpuacct/a/x"));
        let part = "32 31 0:29 /docker/c /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(paths(part, "4:cpu:/docker/c/d\n"), [format!("{top}/cpu/d/a/x")]);
        assert_eq!(paths(part, "4:cpu:/elsewhere\n"), [format!("{top}/cpu/a/x")]);
        let unified = "35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        for (own, path) in [("/s/e.service", "s/a/x"), ("/e.scope", "a/x"), ("/", "a/x"), ("/../e", "a/x")] {
            assert_eq!(paths(unified, &format!("0::{own}\n")), [format!("{top}/{path}")], "{own}");
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape("/a\\040b\\134"), "/a b\\");
        assert_eq!(unescape("/a\\x"), "/a\\x");
    }
}
