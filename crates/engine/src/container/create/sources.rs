//! Sources of binds that a request names, looked at before anything depends on them.

use std::collections::HashMap;

use model::Result;
use model::mount::clean;

use crate::paths::Paths;

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
