//! Mount attributes, the sealed program, rooted paths under attack, terminals.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::mount::{MountFlags, OpenTreeFlags, mount, open_tree};
use sys::mount::{Attr, Propagation, Reach, set_attr};
use sys::rooted::{Rooted, Target};

use crate::Case;

pub const CASES: &[Case] = &[
    ("files::read_only_clone", read_only_clone),
    ("files::sealed_program", sealed_program),
    ("files::rename_race", rename_race),
    ("files::terminal_of_an_instance", terminal_of_an_instance),
    ("files::propagation", propagation),
];

/// A directory that goes away with the case's mount namespace.
fn scratch() -> &'static str {
    mount("tmpfs", "/mnt", "tmpfs", MountFlags::empty(), None).unwrap();
    "/mnt"
}

fn read_only_clone() {
    let dir = scratch();
    fs::write(format!("{dir}/f"), "x").unwrap();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, format!("{dir}/f"), flags).unwrap();
    set_attr(tree.as_fd(), Reach::Mount, Attr::RDONLY, Attr::default(), None).unwrap();
    let path = format!("/proc/self/fd/{}", tree.as_raw_fd());
    let error = fs::File::options().write(true).open(&path).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ROFS.raw_os_error()));
    assert_eq!(fs::read(&path).unwrap(), b"x");
    fs::write(format!("{dir}/f"), "the original is writable").unwrap();
}

fn sealed_program() {
    let sealed = sys::exe::sealed().unwrap();
    let flags = rustix::fs::fstatvfs(&sealed).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
    assert!(fs::File::options().write(true).open(&path).is_err());
    let out = std::process::Command::new(&path).arg("--list").output().unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains("files::sealed_program"));
}

/// A component changes between a directory and a link out of the root as fast as it can.
fn rename_race() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let dir = scratch();
    for path in ["root/a", "root/link", "outside"] {
        fs::create_dir_all(format!("{dir}/{path}")).unwrap();
    }
    fs::remove_dir(format!("{dir}/root/link")).unwrap();
    symlink("../outside", format!("{dir}/root/link")).unwrap();
    let racer = std::thread::spawn(move || {
        while !DONE.load(Ordering::Relaxed) {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let (a, b) = (format!("{dir}/root/a"), format!("{dir}/root/link"));
            rustix::fs::renameat_with(CWD, a, CWD, b, flags).unwrap();
        }
    });
    let rooted = Rooted::open_dir(format!("{dir}/root")).unwrap();
    for n in 0..3000 {
        let _ = rooted.make_dir_all(format!("a/x{n}/y"), Mode::from_raw_mode(0o755));
        let _ = rooted.mount_point(format!("link/z{n}/f"), Target::File);
    }
    DONE.store(true, Ordering::Relaxed);
    racer.join().unwrap();
    assert_eq!(fs::read_dir(format!("{dir}/outside")).unwrap().count(), 0);
}

fn terminal_of_an_instance() {
    let dir = scratch();
    mount("devpts", dir, "devpts", MountFlags::empty(), Some(c"newinstance,ptmxmode=0666")).unwrap();
    let devpts = fs::File::open(dir).unwrap();
    let pair = sys::pty::open_in(devpts.as_fd()).unwrap();
    assert!(std::path::Path::new("/mnt/0").exists());
    sys::pty::resize(&pair.master, 5, 6).unwrap();
    let size = rustix::termios::tcgetwinsize(&pair.peer).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (5, 6));
    rustix::io::write(&pair.peer, b"out").unwrap();
    let mut buffer = [0; 8];
    assert_eq!(rustix::io::read(&pair.master, &mut buffer).unwrap(), 3);
}

fn propagation() {
    let dir = fs::File::open(scratch()).unwrap();
    let none = Attr::default();
    set_attr(dir.as_fd(), Reach::Mount, none, none, Some(Propagation::Shared)).unwrap();
    let line = || {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().rfind(|l| l.contains(" /mnt ")).unwrap().to_owned()
    };
    assert!(line().contains("shared:"));
    set_attr(dir.as_fd(), Reach::Tree, none, none, Some(Propagation::Private)).unwrap();
    assert!(!line().contains("shared:"));
}
