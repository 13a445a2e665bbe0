//! rtnetlink and nf_tables against the real kernel, each test in a network namespace of its own thread.
//!
//! Needs root. Nothing here mounts anything, so the mount namespace is not changed. The programs `ip` and `nft` serve
//! as second opinions; the code under test never runs them.

mod links;
mod rules;

use std::os::fd::BorrowedFd;
use std::process::Command;

/// Runs `body` on a thread in a new namespace with `lo` up.
fn in_namespace(body: impl FnOnce(BorrowedFd<'_>) + Send) {
    sys::netlink::namespace::create_with(|namespace| {
        let mut socket = sys::netlink::Socket::route()?;
        let mut batch = sys::netlink::Batch::new();
        sys::netlink::link::set_up(&mut batch, sys::netlink::link::LOOPBACK);
        socket.request(&mut batch)?;
        body(namespace);
        Ok(())
    })
    .expect("a network namespace (root is needed)");
}

/// Standard output of a program that must succeed, run in the calling thread's namespace.
fn output(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).output().expect(program);
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}
