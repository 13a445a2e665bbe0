//! Sources of binds, looked at before a start.

use model::{Error, Result};

use crate::container::definition::{Definition, MountKind, MountRow};
use crate::paths::{Need, Paths};

/// Sources of binds that vanished since create are made again, as the reference does for `Binds` (B-vol-2).
pub async fn prepare(paths: &Paths, row: &Definition) -> Result<()> {
    let binds = || row.mounts.iter().filter(|mount| mount.kind == MountKind::Bind);
    let need = |made: bool| if made { Need::Directory } else { Need::Look };
    let asked = binds().map(|mount| (mount.source.clone(), need(!mount.from_mounts))).collect();
    let found = paths.answers(asked).await?;
    match binds().find(|mount| mount.from_mounts && !found.get(&mount.source).copied().unwrap_or(false)) {
        None => Ok(()),
        Some(MountRow { source, .. }) => Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {source}"
        ))),
    }
}
