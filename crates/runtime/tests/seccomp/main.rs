//! The compiled default profile in the kernel. Needs root (loading a filter without `no_new_privs`).
//!
//! Each case loads the filter for good, and tries what it allows and refuses.
#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};

use runtime::seccomp::{Arch, compile, default_profile, resolve};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};
use sys::clone::{Flags, clone3};

const CASES: &[cases::Case] = &[("plain", plain), ("admin", admin)];

fn main() -> ExitCode {
    cases::run(CASES, || ())
}

fn confine(capabilities: &[&str]) {
    let capabilities: Vec<String> = capabilities.iter().map(|c| (*c).to_owned()).collect();
    let filter = resolve(&default_profile(), &capabilities, Arch::default(), (6, 1)).expect("a valid profile");
    let program = compile(&filter, Arch::default()).expect("it compiles");
    sys::seccomp::load(&program.instructions, program.flags).expect("the kernel takes the program (as root)");
}

/// The errno, 0 for success.
fn errno<T>(result: rustix::io::Result<T>) -> i32 {
    result.err().map_or(0, Errno::raw_os_error)
}

const EPERM: i32 = Errno::PERM.raw_os_error();
const ENOSYS: i32 = Errno::NOSYS.raw_os_error();
const AF_ALG: AddressFamily = AddressFamily::from_raw(38);
const AF_VSOCK: AddressFamily = AddressFamily::from_raw(40);

fn plain() {
    confine(&["CAP_CHOWN", "CAP_SYS_CHROOT"]);
    let family = |family| errno(socket(family, SocketType::DGRAM, None));
    assert_eq!([family(AddressFamily::INET), family(AF_ALG), family(AF_VSOCK)], [0, EPERM, EPERM]);
    assert_eq!(errno(rustix::process::chroot("/")), 0);
    assert_eq!(errno(rustix::system::sethostname(b"x")), EPERM);
    assert_eq!(refused(sys::ns::unshare(Flags::NEWNET)), EPERM);
    // Threads and programs start without clone3.
    assert_eq!(refused(clone3(Flags::default(), None).map(drop)), ENOSYS);
    std::thread::spawn(|| ()).join().expect("a thread");
    assert!(Command::new("true").status().expect("a program").success());
}

fn admin() {
    confine(&["CAP_SYS_ADMIN"]);
    assert_eq!(refused(sys::ns::unshare(Flags::NEWNS | Flags::NEWUTS | Flags::NEWNET)), 0);
    assert_eq!(errno(rustix::system::sethostname(b"x")), 0);
    assert_eq!(errno(rustix::process::chroot("/")), EPERM);
    assert_eq!(errno(socket(AF_VSOCK, SocketType::STREAM, None)), EPERM);
}

fn refused(result: std::io::Result<()>) -> i32 {
    result.err().map_or(0, |e| e.raw_os_error().expect("the kernel's error"))
}
