//! The daemon's configuration: defaults, then `daemon.json`, then flags, become one immutable [`Config`].
//!
//! - Every option is one row of the table in [`options`]; parsing, validation, `--help`, conflicts and reload read it.
//! - A key given both in the file and as a flag is an error (runtimes excepted), as in the reference.
//! - [`load`] reads no global state: arguments, environment and the file's path come in; texts for the terminal go out.
//! - A [`Config`] is never changed after construction; [`reload::reload`] makes a new one, all or nothing.

pub mod file;
pub mod flags;
pub mod go;
mod go_names;
pub mod hosts;
pub mod load;
pub mod options;
pub mod parse;
pub mod reload;
pub mod settings;
pub mod signatures;
pub mod sizes;
pub mod tls;
mod usage;
pub mod validate;

use std::collections::HashMap;

pub use load::load;
pub use options::Effect;
pub use reload::reload;
pub use settings::*;

/// Newest API version that the daemon speaks.
pub const MAX_API_VERSION: &str = "1.56";
/// Oldest API version that `min-api-version` may ask for.
pub const MIN_API_VERSION: &str = "1.24";
/// Default floor of the API version: the oldest, so that every client that can be served is. The reference's is 1.40.
pub const DEFAULT_MIN_API_VERSION: &str = MIN_API_VERSION;

/// What [`load`] found: the configuration and what is needed to load it again on SIGHUP.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The merged and validated configuration.
    pub config: Config,
    /// Sentences for the daemon's log, one warning each (options without effect yet, ignored flags).
    pub warnings: Vec<String>,
    /// Where it came from; [`reload`] reads the same sources again.
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
