//! volume
#![forbid(unsafe_code)]
