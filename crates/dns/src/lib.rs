//! What the resolver of a sandbox needs to know of DNS: messages (RFC 1035, RFC 6891), the file that holds the names of a
//! network, the servers of a resolv.conf(5).
//!
//! No heap memory per query and no sockets: a monitor answers from a buffer that it has anyway.
#![forbid(unsafe_code)]

pub mod message;
pub mod names;
pub mod servers;
