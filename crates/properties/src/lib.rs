//! What must hold of bytes that strangers wrote: one function per reader, for any input whatever.
//!
//! A function takes the bytes and panics when the property does not hold. The fuzz targets (`fuzz/`) and the tests of
//! this crate call the same functions: the first for hours, the second over the committed seeds and what proptest makes.
#![forbid(unsafe_code)]

mod archive;
mod documents;
mod hosts;
mod layer;
mod ps_output;
mod reference;
mod seccomp;
mod signatures;

pub use archive::archive;
pub use documents::documents;
pub use hosts::hosts_toml;
pub use layer::{extraction, layer};
pub use ps_output::ps_output;
pub use reference::reference;
pub use seccomp::seccomp_profile;
pub use signatures::signatures;
