//! Making links inside a sandbox.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use model::{Context, Error, Result};
use rustix::io::Errno;
use sys::netlink::{Batch, Socket, link, namespace};

use super::{announce, device};
use crate::config::Enabled;
use crate::sandbox::Namespace;

/// The first index that is free in most new namespaces (1 is loopback).
const FIRST_INDEX: u32 = 2;
const DISABLE_IPV6: &str = "net/ipv6/conf/default/disable_ipv6";
const ACCEPT_ADVERTISEMENTS: &str = "net/ipv6/conf/default/accept_ra";

/// Indices of links to come. The base moves on when a kernel puts links of its own into new namespaces.
#[derive(Debug)]
pub struct Indices {
    base: AtomicU32,
}

impl Default for Indices {
    fn default() -> Indices {
        Indices { base: AtomicU32::new(FIRST_INDEX) }
    }
}

impl Indices {
    /// An index that is free in the sandbox. In one with links of unknown number it is looked up.
    pub fn next(&self, sandbox: &Namespace) -> Result<u32> {
        let Some(links) = sandbox.links() else {
            let highest = namespace::enter(sandbox.fd(), || Ok(highest(&mut Socket::route()?)));
            return Ok(highest.context("entering a network namespace")? + 1);
        };
        Ok(self.base.load(Ordering::Relaxed) + links)
    }

    /// The kernel has links up to this index in new namespaces.
    fn begin_after(&self, highest: u32) {
        self.base.store(highest + 1, Ordering::Relaxed);
    }
}

fn highest(socket: &mut Socket) -> u32 {
    let present = link::list(socket).unwrap_or_default();
    present.iter().map(|link| link.index).max().unwrap_or(FIRST_INDEX)
}

/// Why links were not made.
#[derive(Debug)]
pub enum Refused {
    /// A name or an index is taken; another one may not be.
    Taken,
    Failed(Error),
}

/// What a link to come begins with.
#[derive(Clone, Copy, Debug)]
pub struct Nature {
    /// It may have IPv6.
    pub ipv6: Enabled,
    /// It announces its addresses.
    pub announces: Enabled,
}

/// Carries a batch out inside the sandbox, whose message `creation` makes a link. The socket stays inside.
pub fn furnish(
    sandbox: &Namespace,
    indices: &Indices,
    Nature { ipv6, announces }: Nature,
    creation: usize,
    mut batch: Batch,
) -> Result<Socket, Refused> {
    let made = namespace::enter(sandbox.fd(), || {
        let mut socket = Socket::route()?;
        announce::settings("default").for_each(|setting| set(&setting, if announces.yes() { "1" } else { "0" }));
        // What links to come begin with; it is set only while this one is made.
        if ipv6.yes() {
            set(ACCEPT_ADVERTISEMENTS, "0");
        } else {
            set(DISABLE_IPV6, "1");
        }
        let made = socket.request(&mut batch);
        if !ipv6.yes() {
            set(DISABLE_IPV6, "0");
        }
        let highest = if made.is_ok() { 0 } else { highest(&mut socket) };
        Ok((socket, made, highest))
    });
    let (socket, made, highest) = made.context("entering a network namespace").map_err(Refused::Failed)?;
    match made {
        Ok(()) => {
            sandbox.count_link();
            Ok(socket)
        }
        Err(error) if error.index == creation && error.errno == Errno::EXIST => Err(Refused::Taken),
        Err(error) if error.index == creation && error.errno == Errno::BUSY => {
            if sandbox.links() == Some(0) {
                indices.begin_after(highest);
            }
            Err(Refused::Taken)
        }
        Err(error) => Err(Refused::Failed(device::failed(error))),
    }
}

/// Deletes a link inside a sandbox, where there is one of that name.
pub fn remove(sandbox: BorrowedFd<'_>, link: &str) {
    let removed = namespace::enter(sandbox, || Ok(device::remove(&mut Socket::route()?, link)));
    if let Err(error) = removed.map_err(Error::from).flatten() {
        tracing::warn!(%error, link, "cannot delete a container's link");
    }
}

fn set(name: &str, value: &str) {
    match namespace::set_sysctl(name, value) {
        Ok(()) => (),
        // A kernel without IPv6.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
        Err(error) => tracing::warn!(%error, name, "cannot change a setting of a container's links"),
    }
}
