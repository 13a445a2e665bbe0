//! What is said of a result besides its files: where it comes from, and which packages are in it.

pub mod purl;
pub(crate) mod statement;
