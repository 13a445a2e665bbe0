//! Views: what the daemon sees of a container's file system, running or not.

use std::fs;
use std::path::{Path, PathBuf};

use runtime::Rootfs;
use runtime::view::{Origin, Place, Source, View, ViewMount};
use rustix::fs::{Mode, OFlags};
use sys::mount::Reach;

use crate::Case;
use crate::execs::{IDLE, running};
use crate::fixture::{Container, kill};

pub const CASES: &[Case] = &[
    ("views::of_a_running_container", of_a_running_container),
    ("views::for_reading_writes_nothing", for_reading_writes_nothing),
    ("views::for_writing_reaches_the_layer", for_writing_reaches_the_layer),
    ("views::of_a_directory", of_a_directory),
    ("views::the_host_table_is_untouched", the_host_table_is_untouched),
];

fn bind(source: &Path, destination: &str, read_only: bool) -> ViewMount {
    let source = Source::Bind { place: Place::Path(source.to_owned()), reach: Reach::Tree, read_only };
    ViewMount { destination: destination.into(), source }
}

fn rootfs(container: &Container) -> Rootfs {
    container.bundle.rootfs.clone()
}

fn upper(container: &Container) -> PathBuf {
    container.dir.path().join("upper")
}

fn text(view: &View, path: &str) -> String {
    String::from_utf8(view.root().read(path, 4096).unwrap_or_else(|e| panic!("{path}: {e}"))).unwrap()
}

fn write(view: &View, path: &str) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE;
    view.root().open(path, flags, Mode::from_raw_mode(0o644)).map(drop)
}

fn of_a_running_container() {
    let mut container = Container::sh(&format!("echo in > /mem/file; echo root > /made; {IDLE}"));
    let volume = tempfile::tempdir().unwrap();
    fs::write(volume.path().join("data"), "volume").unwrap();
    container.mount("tmpfs", "tmpfs", "/mem", &[]);
    container.mount("bind", volume.path().to_str().unwrap(), "/data", &["rbind", "ro"]);
    let (init, _pipes) = running(&container);
    let tmpfs = ViewMount { destination: "/mem".into(), source: Source::Tmpfs };
    let mounts = vec![bind(Path::new("/nowhere"), "/data", true), tmpfs, bind(Path::new("/nowhere"), "/gone", true)];
    let view = View::open(Origin::Process(init.pidfd.try_clone().unwrap()), mounts).unwrap();
    assert_eq!((text(&view, "/mem/file").as_str(), text(&view, "/data/data").as_str()), ("in\n", "volume"));
    assert_eq!(text(&view, "/made"), "root\n");
    // What the kernel shows in the container is no part of its files.
    assert!(view.root().stat("/proc/self").is_err() && view.root().stat("/dev/null").is_err());
    assert_eq!(write(&view, "/data/new").unwrap_err().raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
    write(&view, "/mem/from-outside").unwrap();
    let seen = container.exec_args(&init, &["ls", "/mem"]).unwrap().stdout;
    assert_eq!(seen, "file\nfrom-outside\n");
    kill(&init);
    // The file systems stay for the view, and go with it.
    assert_eq!(text(&view, "/mem/file"), "in\n");
}

fn for_reading_writes_nothing() {
    let container = Container::sh("true");
    fs::write(upper(&container).join("mine"), "layer").unwrap();
    let volume = tempfile::tempdir().unwrap();
    fs::write(volume.path().join("data"), "volume").unwrap();
    let before = fs::read_dir(upper(&container)).unwrap().count();
    let view = View::open(Origin::Read(rootfs(&container)), vec![bind(volume.path(), "/a/b", false)]).unwrap();
    assert_eq!((text(&view, "/mine").as_str(), text(&view, "/a/b/data").as_str()), ("layer", "volume"));
    assert!(view.root().stat("/bin/busybox").is_ok());
    // A start beside it is not disturbed, nor is the view.
    assert_eq!(container.run().code, 0);
    drop(view);
    let names: Vec<_> = fs::read_dir(upper(&container)).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name == "a"), "the mount point was made elsewhere: {names:?}");
    assert!(names.len() >= before);
}

fn for_writing_reaches_the_layer() {
    let container = Container::new(&["cat", "/new", "/data/new"]);
    let volume = tempfile::tempdir().unwrap();
    let mounts = || vec![bind(volume.path(), "/data", false)];
    let view = View::open(Origin::Write(rootfs(&container)), mounts()).unwrap();
    write(&view, "/new").unwrap();
    write(&view, "/data/new").unwrap();
    drop(view);
    assert!(upper(&container).join("new").is_file() && volume.path().join("new").is_file());
    let part = Source::Bind {
        place: Place::Beneath(volume.path().to_owned(), "new".into()),
        reach: Reach::Tree,
        read_only: true,
    };
    let mounts = vec![ViewMount { destination: "/data".into(), source: part }];
    let error = View::open(Origin::Write(rootfs(&container)), mounts).unwrap_err();
    assert!(error.message().starts_with("mounting /data: "), "a file on a directory: {error}");
    std::os::unix::fs::symlink("/etc", volume.path().join("out")).unwrap();
    let out = Source::Bind {
        place: Place::Beneath(volume.path().to_owned(), "out".into()),
        reach: Reach::Tree,
        read_only: false,
    };
    let mounts = vec![ViewMount { destination: "/out".into(), source: out }];
    assert!(View::open(Origin::Read(rootfs(&container)), mounts).is_err(), "a link out of the volume");
}

fn of_a_directory() {
    let container = Container::sh("true");
    let view = View::open(Origin::Write(Rootfs::Dir(container.lower())), Vec::new()).unwrap();
    write(&view, "/new").unwrap();
    assert!(container.lower().join("new").is_file());
    // A link leads nowhere but into the container.
    std::os::unix::fs::symlink("/../../../../etc/passwd", container.lower().join("out")).unwrap();
    assert!(text(&view, "/out").starts_with("root:x:0:0:root:/root:/bin/sh\nweb:"));
}

fn the_host_table_is_untouched() {
    let container = Container::sh("true");
    let table = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = table();
    let open = || View::open(Origin::Read(rootfs(&container)), vec![bind(Path::new("/etc"), "/data", true)]);
    let views = [open().unwrap(), open().unwrap()];
    assert_eq!(table(), before);
    drop(views);
    assert_eq!(table(), before);
}
