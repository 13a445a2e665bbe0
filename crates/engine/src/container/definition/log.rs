//! The log of a container: where it lies, and what every line carries.

use logs::{Driver, Place};
use model::Result;

use super::{Definition, command_line};
use crate::settings::Roots;

/// The driver of the container's log.
pub fn driver(row: &Definition) -> Result<&'static dyn Driver> {
    logs::find(&row.host_config.log_config.kind)
}

/// Where the container's log belongs.
pub fn place(roots: &Roots, row: &Definition) -> Place {
    Place { dir: roots.container(row.id.as_str()), id: row.id.as_str().into() }
}

/// The attributes that every line carries, by the container's log options.
pub fn attributes(row: &Definition) -> Result<String> {
    let command = command_line(&row.config);
    let labels: Vec<_> = row.config.labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let subject = logs::Subject {
        id: row.id.as_str(),
        name: &row.name,
        command: &command,
        image_id: row.image.id.as_str(),
        image_name: &row.config.image,
        env: row.config.env.as_deref().unwrap_or_default(),
        labels: &labels,
    };
    logs::attrs::build(&row.host_config.log_config.config.clone().unwrap_or_default(), &subject)
}
