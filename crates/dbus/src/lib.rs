//! A client of a message bus (D-Bus Specification 0.42): method calls, their replies, and signals, over the socket of the
//! bus, blocking and within a limit of time.
//!
//! Of the type system it has what is asked of a host's services here: numbers, strings, lists of strings and
//! dictionaries of those.
#![forbid(unsafe_code)]

mod address;
mod connection;
mod message;

pub use address::{Address, DEFAULT, parse};
pub use connection::{Connection, Error};
pub use message::{Call, HEAD, Kind, Malformed, Message, Value, decode, encode, length};
