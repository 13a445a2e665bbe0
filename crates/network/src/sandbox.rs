//! A sandbox: the network namespace of a container, which any number of endpoints are joined to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// Whose network a container has.
#[derive(Debug)]
pub enum Sandbox {
    /// The daemon's own.
    Host,
    /// A namespace.
    Own(Namespace),
}

/// A namespace that links are made in.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
    /// How many links were made in a namespace that had none but loopback; `UNKNOWN` = look first.
    links: AtomicU32,
}

const UNKNOWN: u32 = u32::MAX;

impl Namespace {
    /// One with nothing but loopback in it.
    pub fn empty(fd: OwnedFd) -> Namespace {
        Namespace { fd, links: AtomicU32::new(0) }
    }

    /// One that has links.
    pub fn furnished(fd: OwnedFd) -> Namespace {
        Namespace { fd, links: AtomicU32::new(UNKNOWN) }
    }

    /// How many links were made here, where that is known.
    pub fn links(&self) -> Option<u32> {
        Some(self.links.load(Ordering::Relaxed)).filter(|links| *links != UNKNOWN)
    }

    /// A link was made.
    pub fn count_link(&self) {
        if let Some(links) = self.links() {
            self.links.store(links + 1, Ordering::Relaxed);
        }
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Sandbox {
    /// The namespace, where it is not the daemon's.
    pub fn namespace(&self) -> Option<&Namespace> {
        match self {
            Sandbox::Host => None,
            Sandbox::Own(namespace) => Some(namespace),
        }
    }

    /// The descriptor of the namespace, where it is not the daemon's.
    pub fn into_fd(self) -> Option<OwnedFd> {
        match self {
            Sandbox::Host => None,
            Sandbox::Own(namespace) => Some(namespace.fd),
        }
    }
}
