//! Dockerfiles: read, checked and turned into a graph of build steps (BuildKit's LLB).
//!
//! Pure: no I/O, no clock. What a conversion has to know of images and contexts it asks its caller for.
#![forbid(unsafe_code)]

mod error;
mod git;
pub mod ignore;
pub mod image;
pub mod instruction;
pub mod lint;
pub mod llb;
pub mod parse;
pub mod shell;
mod suggest;
mod text;

pub use error::{Error, Lines, Result};
