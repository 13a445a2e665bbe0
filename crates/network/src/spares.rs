//! Network namespaces made ahead: making one takes the kernel a good part of the time that a container's start may take.
//!
//! `lo` is up in them; nothing else is there. They are held by their descriptors only.

use std::io;
use std::os::fd::OwnedFd;

use sys::netlink::namespace;

/// See the module.
#[derive(Debug, Default)]
pub struct Spares {
    waiting: model::spares::Spares<OwnedFd>,
}

impl Spares {
    /// A namespace that nobody else has: one that waits, or a new one.
    pub fn take(&self) -> io::Result<OwnedFd> {
        self.waiting.take().map_or_else(make, Ok)
    }

    /// Makes what is missing. Blocks.
    pub fn refill(&self) -> io::Result<()> {
        self.waiting.refill(make)
    }
}

fn make() -> io::Result<OwnedFd> {
    namespace::create_with(|_| sys::ns::loopback_up()).map(|made| made.0)
}
