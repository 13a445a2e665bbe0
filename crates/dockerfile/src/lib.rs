//! Dockerfiles: read, checked and turned into a graph of build steps (BuildKit's LLB).
//!
//! Pure: no I/O, no clock. What a conversion has to know of images and contexts it asks its caller for.
#![forbid(unsafe_code)]

pub mod llb;
