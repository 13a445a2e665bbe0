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

/// Makes the directory of a run that begins. What a killed monitor left behind is of no use any more.
pub fn make_dir(dir: &Path) -> Result<()> {
    remove_dir(dir)?;
    DirBuilder::new().mode(0o700).create(dir).with_context(|| format!("creating {}", dir.display()))
}

/// Removes the directory of a run that is over; absent is fine.
pub fn remove_dir(dir: &Path) -> Result<()> {
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
