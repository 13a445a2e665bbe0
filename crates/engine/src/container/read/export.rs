//! `GET /containers/{id}/changes` and `export`: what is in a container's root file system, read beside its processes.
//!
//! Both block. Nothing is mounted: the writable layer and the image's layers are read as they lie on the disk, so what is
//! mounted in the container (volumes, `/proc`, `/dev`) is not seen, and a running container is not disturbed.

use std::io::Write;

use events::Events;
use model::{Error, Kind, Result};
use snapshot::RootReader;

use crate::container::row::ContainerRow;
use crate::container::{Containers, publish};

/// What the container changed over its image, ordered by path; `None`: nothing.
pub fn changes(containers: &Containers, roots: &dyn RootReader, name: &str) -> Result<Option<Vec<api::ChangeItem>>> {
    let view = containers.find(name)?.view();
    let (id, layers) = (view.row.id.as_str(), snapshot::keys(&view.row.image.layers));
    let found = roots.changes(id, &layers).map_err(of_the_daemon)?;
    let item = |change: snapshot::Change| api::ChangeItem { path: change.path, kind: change.kind as u8 };
    Ok(Some(found.into_iter().map(item).collect()).filter(|items: &Vec<_>| !items.is_empty()))
}

/// Writes the root file system as a tar. Event: export.
///
/// Errors: `NotFound`, `Conflict` for a container that is dead or being removed.
pub fn export(
    containers: &Containers,
    roots: &dyn RootReader,
    events: &Events,
    name: &str,
    out: &mut dyn Write,
) -> Result<()> {
    let view = containers.find(name)?.view();
    let row = &view.row;
    refuse_dying(row, "export")?;
    let written = roots.export(row.id.as_str(), &snapshot::keys(&row.image.layers), out);
    written.map_err(|error| of_the_daemon(error).prefix(format!("Error exporting container {name}")))?;
    publish(events, row, "export", []);
    Ok(())
}

/// Refuses a container that is going away.
pub(in crate::container) fn refuse_dying(row: &ContainerRow, verb: &str) -> Result<()> {
    let why = match row.state {
        state if state.is_dead() => "Dead",
        state if state.is_removing() => "being removed",
        _ => return Ok(()),
    };
    Err(Error::conflict(format!("You cannot {verb} container {} which is {why}", row.id.as_str())))
}

/// A container that is there has a writable layer: one without is the daemon's fault, not the client's.
fn of_the_daemon(error: Error) -> Error {
    match error.kind() {
        Kind::NotFound => error.with_kind(Kind::System),
        _ => error,
    }
}
