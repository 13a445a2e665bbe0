//! What of a context is left out: `.dockerignore` and its patterns.

mod file;
mod pattern;

pub use file::ignore_patterns;
pub use pattern::{Matcher, Matches};
