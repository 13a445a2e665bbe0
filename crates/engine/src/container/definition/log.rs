//! The log of a container: its driver, and where it lies.

use logs::{Driver, Place};
use model::Result;

use super::Definition;
use crate::settings::Roots;

/// The driver of the container's log.
pub fn driver(row: &Definition) -> Result<&'static dyn Driver> {
    logs::find(&row.host_config.log_config.kind)
}

/// Where the container's log belongs.
pub fn place(roots: &Roots, row: &Definition) -> Place {
    Place { dir: roots.container(row.id.as_str()), id: row.id.as_str().into() }
}
