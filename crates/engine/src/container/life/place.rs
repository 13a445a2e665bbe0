//! Where a run has what lies outside of the store: the directory of its monitor and its control group.
//!
//! The settings decide it when the run begins; then the row remembers it ([`RunPlace`]), since a later daemon's may be others.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use model::{Context, Error, Result};

use crate::container::row::{ContainerRow, RunPlace};
use crate::settings::{ContainerDefaults, Roots, Settings};
use crate::system::Host;

/// Where the container's next run will be.
pub fn next(settings: &Settings, row: &ContainerRow) -> Result<RunPlace> {
    let cgroup = cgroups_path(&settings.containers, &row.host_config.cgroup_parent, row.id.as_str());
    let cgroup_origin = sys::cgroup::origin(&cgroup).context("finding the daemon's own cgroup")?;
    Ok(RunPlace { dir: settings.roots.run(row.id.as_str()), cgroup, cgroup_origin })
}

/// Where its newest run is, or was.
fn newest(settings: &Settings, row: &ContainerRow) -> Result<RunPlace> {
    row.run.place.clone().map_or_else(|| next(settings, row), Ok)
}

/// The directory of its newest run.
pub fn run_dir(roots: &Roots, row: &ContainerRow) -> PathBuf {
    row.run.place.as_ref().map_or_else(|| roots.run(row.id.as_str()), |place| place.dir.clone())
}

/// Makes the directory of a run that begins.
pub fn make_run_dir(dir: &Path) -> Result<()> {
    // What a killed monitor left behind is of no use any more.
    remove_run_dir(dir)?;
    DirBuilder::new().mode(0o700).create(dir).with_context(|| format!("creating {}", dir.display()))
}

/// Removes the directory of a run that is over; absent is fine.
pub fn remove_run_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from(e).prefix(format!("removing {}", dir.display())))
        }
        _ => Ok(()),
    }
}

/// The control group of the container's newest run.
pub fn cgroup_of(host: &Host, settings: &Settings, row: &ContainerRow) -> Result<sys::cgroup::Cgroup> {
    cgroup_at(host, &newest(settings, row)?)
}

/// The control group of a run.
pub fn cgroup_at(host: &Host, place: &RunPlace) -> Result<sys::cgroup::Cgroup> {
    Ok(host.cgroups.below(&place.cgroup_origin, &place.cgroup)?)
}

/// `<parent>/<id>`; the reference's `/docker/<id>` by default. Without a slash in front it begins where the daemon is.
/// `own`: the parent that the container asked for; empty if it did not, or if nobody knows.
pub fn cgroups_path(defaults: &ContainerDefaults, own: &str, id: &str) -> String {
    let parent = [own, defaults.isolation.cgroup_parent.as_str(), "/docker"].into_iter().find(|p| !p.is_empty());
    let parent = parent.unwrap_or_default();
    let path = model::mount::clean(&format!("/{parent}/{id}"));
    if parent.starts_with('/') { path } else { path.trim_start_matches('/').to_owned() }
}
