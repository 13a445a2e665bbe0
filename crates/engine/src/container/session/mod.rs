//! Clients at the streams of a container: attached ones, exec sessions, and the sizes of their terminals.

pub mod attach;
pub mod exec;
pub mod resize;
mod user;
