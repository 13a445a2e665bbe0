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
mod loaded;
pub mod options;
pub mod parse;
pub mod reload;
pub mod settings;
pub mod signatures;
pub mod sizes;
pub mod tls;
mod usage;
pub mod validate;

pub use load::load;
pub use loaded::{Env, Exit, Loaded, Program, Source};
pub use options::Effect;
pub use reload::reload;
pub use settings::*;
