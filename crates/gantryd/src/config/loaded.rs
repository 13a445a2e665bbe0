//! What reading a configuration takes and gives.

use std::collections::HashMap;

use super::settings::Config;

/// What [`load`](super::load) found: the configuration and what is needed to load it again on SIGHUP.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The merged and validated configuration.
    pub config: Config,
    /// Sentences for the daemon's log, one warning each (options without effect yet, ignored flags).
    pub warnings: Vec<String>,
    /// Where it came from; [`reload`](super::reload) reads the same sources again.
    pub source: Source,
}

/// The inputs of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Arguments without the program's name.
    pub args: Vec<String>,
    /// The variables that the configuration reads (a subset of the process environment).
    pub env: Env,
}

/// Environment variables by name.
pub type Env = HashMap<String, String>;

/// The program that is being started, as its own texts name it.
#[derive(Clone, Copy)]
pub struct Program<'p> {
    /// The base name that it was called by.
    pub name: &'p str,
    /// What `--help` says of its commands; empty for `dockerd`, which has none.
    pub commands: &'p str,
}

/// The daemon ends without starting: `--help`, `--version`, `--validate`, or an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Process exit status.
    pub code: u8,
    /// Text for standard output, without a final newline; may be empty.
    pub stdout: String,
    /// Text for standard error, without a final newline; may be empty.
    pub stderr: String,
}

impl Exit {
    /// An error for standard error, status 1.
    #[must_use]
    pub fn failure(text: impl Into<String>) -> Self {
        Self { code: 1, stdout: String::new(), stderr: text.into() }
    }
}
