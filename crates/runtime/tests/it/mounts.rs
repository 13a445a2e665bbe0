//! What is mounted, how, and that mount points are made.

use std::fs;

use runtime::{Stage, What};

use crate::Case;
use crate::fixture::{Container, host};

pub const CASES: &[Case] = &[
    ("mounts::defaults", defaults),
    ("mounts::devices", devices),
    ("mounts::binds", binds),
    ("mounts::recursive_readonly", recursive_readonly),
    ("mounts::propagation", propagation),
    ("mounts::missing_source", missing_source),
    ("mounts::file_on_directory", file_on_directory),
    ("mounts::tmpfs", tmpfs),
    ("mounts::readonly_root", readonly_root),
    ("mounts::cgroup_view", cgroup_view),
    ("mounts::host_table_is_untouched", host_table_is_untouched),
    ("mounts::own_dev", own_dev),
    ("mounts::shared_propagation", shared_propagation),
];

/// `mountpoint options type` of each line of /proc/self/mounts.
fn table(out: &str) -> Vec<(String, String, String)> {
    out.lines()
        .map(|l| {
            let f: Vec<&str> = l.split(' ').collect();
            (f[1].to_owned(), f[3].to_owned(), f[2].to_owned())
        })
        .collect()
}

fn defaults() {
    let table = table(&Container::new(&["cat", "/proc/self/mounts"]).output());
    let unified = sys::cgroup::Layout::detect().unwrap().version() == sys::cgroup::Version::V2;
    let of = |target: &str| {
        let found = table.iter().rev().find(|(t, ..)| t == target);
        found.unwrap_or_else(|| panic!("{target} in {table:?}")).clone()
    };
    let expect = [
        ("/", "rw,", "overlay"),
        ("/proc", "rw,nosuid,nodev,noexec,relatime", "proc"),
        ("/dev", "rw,nosuid,size=65536k,mode=755", "tmpfs"),
        ("/dev/pts", "rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666", "devpts"),
        ("/sys", "ro,nosuid,nodev,noexec,relatime", "sysfs"),
        ("/sys/fs/cgroup", "ro,nosuid,nodev,noexec,relatime", if unified { "cgroup2" } else { "tmpfs" }),
        ("/dev/mqueue", "rw,nosuid,nodev,noexec,relatime", "mqueue"),
        ("/dev/shm", "rw,nosuid,nodev,noexec,relatime,size=65536k", "tmpfs"),
        ("/proc/sys", "ro,nosuid,nodev,noexec,relatime", "proc"),
        ("/proc/keys", "rw,nosuid,size=65536k,mode=755", "tmpfs"),
        ("/sys/firmware", "ro,", "tmpfs"),
    ];
    for (target, options, kind) in expect {
        let (_, o, k) = of(target);
        assert!(o.starts_with(options) && k == kind, "{target}: {o} {k}");
    }
}

fn devices() {
    let mut container = Container::sh(
        "stat -c '%n %F %t:%T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/net/x; \
         for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; stat -c %a:%u:%g /dev/net/x",
    );
    container.linux().devices.push(runtime::oci::Device {
        path: "/dev/net/x".into(),
        kind: "c".into(),
        major: 10,
        minor: 200,
        file_mode: Some(0o640),
        uid: Some(3),
        gid: Some(4),
    });
    let out = container.output();
    let expected = "/dev/null character special file 1:3 666
/dev/zero character special file 1:5 666
/dev/full character special file 1:7 666
/dev/random character special file 1:8 666
/dev/urandom character special file 1:9 666
/dev/tty character special file 5:0 666
/dev/net/x character special file a:c8 640
/proc/self/fd
/proc/self/fd/0
/proc/self/fd/1
/proc/self/fd/2
pts/ptmx
640:3:4
";
    assert_eq!(out, expected);
}

fn binds() {
    let mut container = Container::sh(
        "cat /data/f /file; touch /data/new && touch /ro/x 2>/dev/null || echo refused; stat -c '%a %F' /data /file",
    );
    let source = container.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("f"), "content\n").unwrap();
    let source = source.to_str().unwrap().to_owned();
    container.mount("bind", &source, "/data", &["rbind", "rprivate"]);
    container.mount("bind", &source, "/ro", &["rbind", "rprivate", "ro"]);
    container.mount("bind", &format!("{source}/f"), "/file", &["rbind", "rprivate"]);
    let out = container.output();
    assert!(out.starts_with("content\ncontent\nrefused\n"), "{out}");
    assert!(std::path::Path::new(&source).join("new").exists());
    assert!(!std::path::Path::new(&source).join("x").exists());
}

fn recursive_readonly() {
    let mut container = Container::sh("touch /plain/sub/x && touch /deep/sub/y 2>/dev/null; ls /plain/sub");
    let source = container.dir.path().join("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    let sub = source.join("sub");
    rustix::mount::mount("tmpfs", &sub, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let source = source.to_str().unwrap().to_owned();
    container.mount("bind", &source, "/plain", &["rbind", "rprivate", "ro"]);
    container.mount("bind", &source, "/deep", &["rbind", "rprivate", "ro", "rro"]);
    assert_eq!(container.output(), "x\n");
    rustix::mount::unmount(&sub, rustix::mount::UnmountFlags::DETACH).unwrap();
}

fn propagation() {
    let mut container = Container::sh("cat /proc/self/mountinfo");
    let source = container.dir.path().to_str().unwrap().to_owned();
    container.mount("bind", &source, "/private", &["rbind", "rprivate"]);
    container.mount("bind", &source, "/shared", &["rbind", "rshared"]);
    let out = container.output();
    let line = |target: &str| out.lines().find(|l| l.split(' ').nth(4) == Some(target)).unwrap().to_owned();
    assert!(!line("/private").contains("shared:"), "{out}");
    assert!(line("/shared").contains("shared:"), "{out}");
    assert!(!line("/").contains("shared:"), "{out}");
}

fn missing_source() {
    let mut container = Container::new(&["true"]);
    container.mount("bind", "/does/not/exist", "/data", &["rbind", "rprivate"]);
    let error = container.refused();
    assert!(matches!(&error.stage, Stage::Mount { target, .. } if target == "/data"), "{error:?}");
    let (error, code) = error.to_error(What::Create);
    assert!(error.message().contains("error mounting \"/does/not/exist\" to rootfs at \"/data\""), "{error}");
    assert!(error.message().contains("no such file or directory"), "{error}");
    assert_eq!(code, 127);
}

fn file_on_directory() {
    let mut container = Container::new(&["true"]);
    let file = container.dir.path().join("f");
    fs::write(&file, "").unwrap();
    container.mount("bind", file.to_str().unwrap(), "/etc", &["rbind", "rprivate"]);
    let (error, code) = container.refused().to_error(What::Create);
    assert!(error.message().ends_with("Check if the specified host path exists and is the expected type"), "{error}");
    assert_eq!(code, 127);
}

fn tmpfs() {
    let mut container = Container::sh("stat -c %a /srv /new /given; grep ' /srv ' /proc/mounts");
    fs::set_permissions(container.lower().join("srv"), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    container.mount("tmpfs", "tmpfs", "/srv", &["noexec", "nosuid", "nodev", "size=1m"]);
    container.mount("tmpfs", "tmpfs", "/new", &["noexec"]);
    container.mount("tmpfs", "tmpfs", "/given", &["mode=1777"]);
    let out = container.output();
    assert!(out.starts_with("711\n1777\n1777\ntmpfs /srv tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k"), "{out}");
}

fn readonly_root() {
    let mut container = Container::sh("touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo shm");
    container.bundle.spec.root.readonly = true;
    assert_eq!(container.output(), "refused\nshm\n");
}

fn cgroup_view() {
    // One hierarchy lies there, or a directory of hierarchies.
    let script = "cd /sys/fs/cgroup; cat cgroup.procs */cgroup.procs; mkdir x 2>&1; grep cgroup /proc/self/mountinfo";
    let out = Container::sh(script).output();
    // Only itself is in there, and the roots of the mounts are the cgroup namespace's.
    assert!(out.lines().any(|l| l == "1"), "{out}");
    assert!(out.contains("Read-only file system"), "{out}");
    let roots: Vec<&str> =
        out.lines().filter(|l| l.contains(" - cgroup")).filter_map(|l| l.split(' ').nth(3)).collect();
    assert!(!roots.is_empty() && roots.iter().all(|r| *r == "/"), "{out}");
}

fn host_table_is_untouched() {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let container = Container::sh(super::execs::IDLE);
    let (init, _pipes) = super::execs::running(&container);
    assert_eq!(before, fs::read_to_string("/proc/self/mountinfo").unwrap());
    super::fixture::kill(&init);
    assert_eq!(before, fs::read_to_string("/proc/self/mountinfo").unwrap());
}

fn own_dev() {
    // The host's /dev as a bind, as `-v /dev:/dev` does: nothing is made in it.
    let before = host("ls", &["/dev"]);
    let mut container = Container::sh("test -c /dev/null && echo null");
    container.bundle.spec.mounts.retain(|m| !m.destination.starts_with("/dev"));
    container.mount("bind", "/dev", "/dev", &["rbind", "rprivate"]);
    assert_eq!(container.output(), "null\n");
    assert_eq!(before, host("ls", &["/dev"]));
}

fn shared_propagation() {
    let mut container = Container::sh("mkdir -p /vol/sub && mount -t tmpfs none /vol/sub && echo mounted");
    let source = container.dir.path().join("vol");
    fs::create_dir(&source).unwrap();
    rustix::mount::mount("tmpfs", &source, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    use rustix::mount::MountPropagationFlags as P;
    rustix::mount::mount_change(&source, P::SHARED).unwrap();
    container.mount("bind", source.to_str().unwrap(), "/vol", &["rbind", "rshared"]);
    container.linux().rootfs_propagation = "rshared".into();
    let caps = container.process().capabilities.as_mut().unwrap();
    for set in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
        set.push("CAP_SYS_ADMIN".into());
    }
    assert_eq!(container.output(), "mounted\n");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(table.contains("/vol/sub "), "the container's mount has arrived: {table}");
    rustix::mount::unmount(source.join("sub"), rustix::mount::UnmountFlags::DETACH).unwrap();
    rustix::mount::unmount(&source, rustix::mount::UnmountFlags::DETACH).unwrap();
}
