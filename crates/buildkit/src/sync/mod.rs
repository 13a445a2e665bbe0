//! Trees of files between a client and the daemon, in the packets of fsutil: statuses in the order of a walk, requests for the
//! content of some of them, data, an end in both directions.

pub(crate) mod mode;
mod receive;
pub(crate) mod transfer;

pub use receive::{Differ, Receiver};
