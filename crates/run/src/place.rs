//! Where a run has what lies outside of the store: the directory of its monitor and its control group.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use model::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use sys::cgroup::{Cgroup, Layout};

/// Where a run has what lies outside of the store. A daemon that comes later may have other settings, or a cgroup of its
/// own elsewhere, so the place is recorded with the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The directory of its monitor's socket and exit record.
    pub dir: PathBuf,
    /// Its cgroup's path, as in the OCI specification of the run.
    pub cgroup: String,
    /// Where the path begins ([`sys::cgroup::origin`]); empty for an absolute one.
    pub cgroup_origin: String,
}

impl Place {
    /// The control group of the run.
    pub fn cgroup(&self, layout: &Layout) -> Result<Cgroup> {
        Ok(layout.below(&self.cgroup_origin, &self.cgroup)?)
    }

    /// Kills what is left in the control group and removes it; one that is not there is fine.
    pub fn clear_cgroup(&self, layout: &Layout) -> Result<()> {
        clear(&self.cgroup(layout)?).context("clearing the cgroup of a run")
    }
}

/// The directory of the links to network namespaces, beside those of the runs.
const NAMESPACES: &str = "netns";
/// Digits of a container's id in the name of its link, as with the reference.
const KEY_DIGITS: usize = 12;

/// The directory with the links to the network namespaces of runs.
pub fn namespaces(exec_root: &Path) -> PathBuf {
    exec_root.join(NAMESPACES)
}

/// Where nsenter(1) finds the network namespace of the run with this directory: a link to its file below /proc. It stands from
/// before the program runs until the run is over, whoever is the daemon.
pub fn sandbox_key(dir: &Path) -> PathBuf {
    let id = dir.file_name().map(|id| id.to_string_lossy().chars().take(KEY_DIGITS).collect::<String>());
    namespaces(dir.parent().unwrap_or(Path::new("/"))).join(id.unwrap_or_default())
}

/// Makes the link for a run whose first process is `pid`.
pub fn link_namespace(dir: &Path, pid: i32) -> Result<()> {
    let key = sandbox_key(dir);
    let target = format!("/proc/{pid}/ns/net");
    let link = || std::os::unix::fs::symlink(&target, &key);
    let linked = match link() {
        // Of a run that nobody has put away.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            fs::remove_file(&key)?;
            link()
        }
        other => other,
    };
    linked.with_context(|| format!("linking {}", key.display()))
}

/// Makes the link for a run that a daemon without such links has started.
pub fn link_namespace_again(dir: &Path, pid: i32) -> Result<()> {
    match fs::symlink_metadata(sandbox_key(dir)) {
        Ok(_) => Ok(()),
        Err(_) => link_namespace(dir, pid),
    }
}

/// Removes the links of runs that have no directory any more.
pub fn sweep_namespaces(exec_root: &Path) {
    let names = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let runs = names(exec_root);
    let dir = namespaces(exec_root);
    for name in names(&dir) {
        if !runs.iter().any(|run| run.starts_with(&name)) {
            // What cannot be removed leads nowhere.
            let _ = fs::remove_file(dir.join(name));
        }
    }
}

/// Makes the directory of a run that begins. What a killed monitor left behind is of no use any more.
pub fn make_dir(dir: &Path) -> Result<()> {
    remove_dir(dir)?;
    DirBuilder::new().mode(0o700).create(dir).with_context(|| format!("creating {}", dir.display()))
}

/// Removes the directory of a run that is over, and the link to its namespace; absent is fine.
pub fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_file(sandbox_key(dir)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::from(e).prefix(format!("removing {}", sandbox_key(dir).display())));
        }
        _ => {}
    }
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from(e).prefix(format!("removing {}", dir.display())))
        }
        _ => Ok(()),
    }
}

/// Kills what is left in a cgroup and removes it; one that is not there is fine.
pub fn clear(cgroup: &Cgroup) -> std::io::Result<()> {
    cgroup.kill_all()?;
    cgroup.remove()
}
