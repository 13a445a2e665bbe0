//! What binds show of the host: sources that a request names, looked at before anything depends on them.

use std::collections::HashMap;

use model::mount::clean;
use model::{Error, Result};

use crate::container::definition::{Definition, MountKind, MountRow};
use crate::paths::{Need, Paths};

/// What is known of the host's paths that a create request names.
#[derive(Clone, Debug, Default)]
pub struct Sources(HashMap<String, bool>);

impl Sources {
    /// Looks at all sources of the request's `Mounts`, as they are written and in their clean form.
    ///
    /// Errors: `System` for one that does not answer.
    pub async fn look(paths: &Paths, host: &api::HostConfig) -> Result<Sources> {
        let binds = host.mounts.iter().filter(|mount| mount.kind == "bind" && mount.source.starts_with('/'));
        let sources = binds.flat_map(|mount| [mount.source.clone(), clean(&mount.source)]);
        paths.survey(sources.collect()).await.map(Sources)
    }

    /// Whether something is there. Relative paths are refused without a look.
    pub fn exists(&self, path: &str) -> bool {
        self.0.get(path).copied().unwrap_or(false)
    }
}

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
