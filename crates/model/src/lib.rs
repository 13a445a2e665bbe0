//! The nouns and rules of the engine: everything about containers and images that can be stated without the kernel.
//!
//! No function here performs I/O or reads a clock; a function that depends on the time takes it. Texts that clients
//! compare stand beside the rule that raises them. The behaviour ids in tests (`B-st-1`) name rows of the inventory
//! of the reference engine's behaviours.
#![forbid(unsafe_code)]

pub mod authority;
pub mod capability;
pub mod clock;
pub mod cpuset;
pub mod device;
pub mod digest;
pub mod duration;
pub mod egress;
pub mod error;
pub mod fault;
pub mod filter;
pub mod grant;
pub mod health;
pub mod id;
pub mod lifecycle;
pub mod lock;
pub mod mount;
pub mod name;
pub mod order;
pub mod own_label;
pub mod platform;
pub mod port;
pub mod reference;
pub mod restart;
pub mod signal;
pub mod spares;
pub mod time;
pub mod ulimit;
pub mod units;
pub mod user;

pub use error::{Context, Error, Kind, Result, io_text, worded};
