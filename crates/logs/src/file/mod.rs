//! Logs in files: rotated, compressed in idle time, read beside their writer. What a driver adds is the form of the entries
//! ([`codec::Codec`]).

pub mod chain;
pub mod codec;
mod compress;
mod follow;
mod lines;
mod ordinal;
pub mod reader;
pub mod writer;
