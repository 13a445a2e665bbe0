//! clone3, pidfds, users, capabilities.

use std::os::fd::{AsFd, AsRawFd};

use sys::capability::{self, Set, Sets};
use sys::clone::{Flags, Side, clone3};
use sys::process::{self, Block, exit_now, wait};

use crate::Case;

pub const CASES: &[Case] = &[
    ("processes::threads_are_refused", threads_are_refused),
    ("processes::namespaces", namespaces),
    ("processes::wait_and_signal", wait_and_signal),
    ("processes::user_and_capabilities", user_and_capabilities),
    ("processes::descriptors", descriptors),
];

/// The exit code of a child that runs `body`.
fn child(flags: Flags, body: impl FnOnce() -> i32) -> i32 {
    match clone3(flags, None).unwrap() {
        Side::Child => exit_now(body()),
        Side::Parent { pidfd, .. } => wait(pidfd.as_fd(), Block::Yes).unwrap().unwrap(),
    }
}

fn threads_are_refused() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || told.recv());
    assert_eq!(clone3(Flags::default(), None).unwrap_err().raw_os_error(), Some(16));
    tell.send(()).unwrap();
    thread.join().unwrap().unwrap();
}

fn namespaces() {
    let flags = Flags::NEWPID | Flags::NEWUTS | Flags::NEWIPC | Flags::NEWNS | Flags::NEWNET | Flags::NEWTIME;
    let code = child(flags, || {
        process::set_hostname("other").unwrap();
        sys::ns::loopback_up().unwrap();
        rustix::process::getpid().as_raw_nonzero().get()
    });
    assert_eq!(code, 1);
    assert_ne!(rustix::system::uname().nodename().to_str().unwrap(), "other");
}

fn wait_and_signal() {
    let Side::Parent { pidfd, .. } = (match clone3(Flags::default(), None).unwrap() {
        Side::Child => loop {
            std::thread::sleep(std::time::Duration::from_secs(100));
        },
        parent => parent,
    }) else {
        unreachable!()
    };
    assert_eq!(wait(pidfd.as_fd(), Block::No).unwrap(), None);
    process::signal(&pidfd, 15).unwrap();
    assert_eq!(wait(pidfd.as_fd(), Block::Yes).unwrap(), Some(128 + 15));
    assert_eq!(process::signal(&pidfd, 15).unwrap_err().raw_os_error(), Some(3));
    assert_eq!(child(Flags::default(), || 42), 42);
}

fn user_and_capabilities() {
    let code = child(Flags::default(), || {
        let keep = Set::from_names(&["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
        capability::limit_bounding(keep).unwrap();
        process::keep_capabilities(true).unwrap();
        process::set_ids(1000, 1001, &[1001, 7]).unwrap();
        let net = Set::from_names(&["CAP_NET_BIND_SERVICE"]);
        capability::set(Sets { effective: net, permitted: net, inheritable: net }).unwrap();
        capability::set_ambient(net).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let has = |line: &str| status.lines().any(|l| l == line);
        let all = [
            has("Uid:\t1000\t1000\t1000\t1000"),
            has("Gid:\t1001\t1001\t1001\t1001"),
            has("CapBnd:\t0000000000000401"),
            has("CapEff:\t0000000000000400"),
            has("CapAmb:\t0000000000000400"),
        ];
        i32::from(all != [true; 5])
    });
    assert_eq!(code, 0);
}

fn descriptors() {
    let code = child(Flags::default(), || {
        let file = std::fs::File::open("/").unwrap();
        let file = rustix::io::dup(&file).unwrap();
        let other = std::fs::File::open("/").unwrap();
        process::close_all_but(&[file.as_fd()]).unwrap();
        let open = |fd: i32| std::path::Path::new(&format!("/proc/self/fd/{fd}")).exists();
        let (kept, closed) = (open(file.as_raw_fd()), !open(other.as_raw_fd()));
        // No destructor may run: what it would close is closed.
        exit_now(i32::from(!kept || !closed))
    });
    assert_eq!(code, 0);
}
