//! From arguments and environment to a [`Loaded`] configuration.

use super::{Env, Exit, Loaded};

/// Reads flags, then `daemon.json`, merges and validates. `args` are without the program's name (`program` is its base name).
pub fn load(_program: &str, _args: &[String], _env: &Env) -> Result<Loaded, Exit> {
    todo!()
}
