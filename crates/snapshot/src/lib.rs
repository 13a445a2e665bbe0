//! snapshot
#![forbid(unsafe_code)]
