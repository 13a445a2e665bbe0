//! Advice on Dockerfiles: the rules of `--check` and who is told of them.

mod config;
pub mod rule;

pub use config::{Linter, Place, Settings, Warning};
pub use rule::Rule;
