//! Where a run has what lies outside of the store: the directory of its monitor and its control group.
//!
//! The settings decide it when the run begins; then the row remembers it ([`Place`]), since a later daemon's may be others.

use std::path::PathBuf;

use model::{Context, Result};
use run::Place;

use crate::container::definition::Definition;

use crate::container::row::ContainerRow;
use crate::host::Host;
use crate::settings::{ContainerDefaults, Roots, Settings};

/// Where the container's next run will be.
pub fn next(settings: &Settings, row: &Definition) -> Result<Place> {
    let cgroup = cgroups_path(&settings.containers, &row.host_config.cgroup_parent, row.id.as_str());
    let cgroup_origin = sys::cgroup::origin(&cgroup).context("finding the daemon's own cgroup")?;
    Ok(Place { dir: settings.roots.run(row.id.as_str()), cgroup, cgroup_origin })
}

/// Where its newest run is, or was.
fn newest(settings: &Settings, row: &ContainerRow) -> Result<Place> {
    row.run.place.clone().map_or_else(|| next(settings, row), Ok)
}

/// The directory of its newest run.
pub fn run_dir(roots: &Roots, row: &ContainerRow) -> PathBuf {
    row.run.place.as_ref().map_or_else(|| roots.run(row.id.as_str()), |place| place.dir.clone())
}

/// The control group of the container's newest run.
pub fn cgroup_of(host: &Host, settings: &Settings, row: &ContainerRow) -> Result<sys::cgroup::Cgroup> {
    newest(settings, row)?.cgroup(&host.cgroups)
}

/// `<parent>/<id>`; the reference's `/docker/<id>` by default. Without a slash in front it begins where the daemon is.
/// `own`: the parent that the container asked for; empty if it did not, or if nobody knows.
pub fn cgroups_path(defaults: &ContainerDefaults, own: &str, id: &str) -> String {
    let parent = [own, defaults.isolation.cgroup_parent.as_str(), "/docker"].into_iter().find(|p| !p.is_empty());
    let parent = parent.unwrap_or_default();
    let path = model::mount::clean(&format!("/{parent}/{id}"));
    if parent.starts_with('/') { path } else { path.trim_start_matches('/').to_owned() }
}
