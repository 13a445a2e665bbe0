//! A command's line, taken apart.

use crate::config::Config;
use crate::control::Asked;

/// A command as it was called.
pub struct Call {
    /// The daemon's configuration, as the daemon itself would read it.
    pub config: Config,
    /// As many as the command needs, or takes.
    pub operands: Vec<String>,
    /// Those that were given.
    pub switches: Vec<String>,
}

impl Call {
    /// What a command of it needs that asks the daemon.
    pub fn asked(&self) -> Asked<'_> {
        Asked { exec_root: &self.config.paths.exec_root, operands: &self.operands, switches: &self.switches }
    }

    /// Whether the command's switch was given.
    pub fn has(&self, switch: &str) -> bool {
        self.switches.iter().any(|given| given == switch)
    }
}
