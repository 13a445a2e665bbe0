//! Image builds: a solver of graphs of steps, its cache, and the builder of the classic API over it.
//!
//! BuildKit's LLB is the language between whoever describes a build and the solver ([`graph`]). A step's result is layers under
//! local keys, known by what the step depends on ([`key`], [`record`]); layers are packed and hashed when they are exported
//! ([`export`]), not before. Programs are run by somebody above ([`job::Runner`]): this crate knows no containers.
#![forbid(unsafe_code)]

pub mod attest;
mod builder;
pub mod cache;
mod caches;
pub mod cancel;
pub mod classic;
mod content;
mod copy;
pub mod export;
pub mod files;
pub mod frontend;
pub mod graph;
pub mod history;
pub mod job;
pub mod key;
mod mode;
mod op;
pub mod pattern;
pub mod policy;
pub mod record;
pub mod result;
pub mod root;
pub mod solve;
pub mod sources;
pub mod usage;

pub use crate::builder::Builder;
pub use crate::sources::image::{key_of, of_image};
