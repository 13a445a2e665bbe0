//! What has to be on the disk before a row says that a container runs: its writable layer and its volumes.
//!
//! As long as nothing was started in them they hold nothing, and a power cut costs nothing that could not be made again:
//! [`put_right`] does so at the daemon's start. So a create waits for no disk but for its row's, and the first start
//! syncs them beside its other work.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::{fs, io};

use blocking::Turn;
use model::{Error, Result};
use snapshot::RootStore;
use store::WriteTx;

use crate::Engine;
use crate::container::definition::Definition;
use crate::container::definition::log;
use crate::container::row::ContainerRow;
use crate::settings::Roots;

/// Directories on their way to the disk, beside a launch, on a thread of their own class.
pub struct Durable(Option<Receiver<Result<()>>>);

impl Durable {
    /// Begins with what nothing was ever started with. All else is durable.
    pub fn begin(engine: &Arc<Engine>, row: &ContainerRow, turn: Turn) -> Durable {
        let is_new = !row.run.was_started;
        let volumes: Vec<_> = row.volumes().map(|mount| mount.name.clone()).collect();
        if !is_new && volumes.is_empty() {
            return Durable(None);
        }
        let (engine, id) = (engine.clone(), row.id.clone());
        let (sender, done) = sync_channel(1);
        turn.begin(move |_| {
            let layer = if is_new { engine.snapshots.roots.make_durable(id.as_str()) } else { Ok(()) };
            let synced = layer.and_then(|()| volumes.iter().try_for_each(|name| engine.volumes.make_durable(name)));
            // A launch that has failed does not wait.
            drop(sender.send(synced));
        });
        Durable(Some(done))
    }

    /// Waits until they are there.
    pub fn wait(&mut self) -> Result<()> {
        let Some(done) = self.0.take() else { return Ok(()) };
        done.recv().unwrap_or_else(|_| Err(Error::system("syncing a container's directories broke off")))
    }
}

/// Notes that the container's volumes may hold something from now on.
pub fn note_use(tx: &mut WriteTx<'_, '_>, row: &Definition) -> Result<()> {
    row.volumes().try_for_each(|mount| ::volume::note_use(tx, &mount.name))
}

/// Takes away what lies where the files of a container are made, and is none: of a name that was not synced a power cut makes
/// whatever its inode was before, where there is no journal.
#[expect(clippy::disallowed_methods, reason = "before anybody is served")]
fn clear_files(roots: &Roots, row: &Definition) -> io::Result<()> {
    let dir = roots.container(row.id.as_str());
    let log_path = log::driver(row).ok().and_then(|driver| driver.path(&log::place(roots, row)));
    if let Some(parent) = log_path.as_deref().and_then(Path::parent)
        && fs::symlink_metadata(parent).is_ok_and(|found| !found.is_dir())
    {
        fs::remove_file(parent)?;
    }
    let made = [run::files::HOSTNAME, run::files::HOSTS, run::files::RESOLV_CONF].map(|name| dir.join(name));
    for path in made.into_iter().chain(log_path) {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&path)?,
            Ok(found) if !found.is_file() => fs::remove_file(&path)?,
            _ => {}
        }
    }
    Ok(())
}

/// Makes again what a power cut may have taken of the writable layers. One that cannot be made is told of, and the start of
/// its container says so.
pub fn put_right(writable: &dyn RootStore, roots: &Roots, rows: &[ContainerRow]) {
    for row in rows {
        if let Err(error) = clear_files(roots, row) {
            tracing::warn!(container = row.id.short(), %error, "something lies in the place of its files");
        }
    }
    for row in rows.iter().filter(|row| row.storage == writable.name()) {
        let is_new = !row.run.was_started && !row.run.was_written;
        match writable.put_right(row.id.as_str(), &snapshot::keys(&row.image.layers), is_new) {
            Ok(false) => {}
            Ok(true) => tracing::info!(container = row.id.short(), "made again what a power cut had taken"),
            Err(error) => tracing::warn!(container = row.id.short(), %error, "its writable layer is not whole"),
        }
    }
}
