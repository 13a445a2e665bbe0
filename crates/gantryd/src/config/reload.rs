//! SIGHUP: the file is read again and the reloadable options are taken from it, all or nothing.

use super::{Config, Loaded};

/// The outcome of a reload.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// The new configuration; everything not reloadable is as before.
    pub config: Config,
    /// Attributes of the `daemon reload` event, all reloadable values.
    pub attributes: Vec<(String, String)>,
    /// Sentences for the daemon's log.
    pub warnings: Vec<String>,
}

/// Reads the sources of `loaded` again on top of `current`. An error leaves everything as it was.
pub fn reload(_loaded: &Loaded, _current: &Config) -> Result<Reloaded, String> {
    todo!()
}
