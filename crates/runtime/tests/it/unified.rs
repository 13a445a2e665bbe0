//! The same on cgroup v2: in the case's own mount namespace only the unified hierarchy is left. On a hybrid machine it has
//! no controllers, so that limits are refused there; births, devices (BPF), freezing, killing and the view are the real thing.

use runtime::oci::Memory;
use runtime::{Process, Runtime};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::Case;
use crate::execs::{IDLE, running};
use crate::fixture::{Container, kill, wait};

pub const CASES: &[Case] = &[
    ("unified::start_and_exec", start_and_exec),
    ("unified::devices", devices),
    ("unified::freeze_and_kill", freeze_and_kill),
    ("unified::view", view),
    ("unified::missing_controller", missing_controller),
];

fn only_unified() {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = |line: &str| line.split(' ').nth(4).unwrap().to_owned();
    let all: Vec<&str> = table.lines().filter(|l| l.contains(" - cgroup")).collect();
    let unified = all.iter().find(|l| l.contains(" - cgroup2 ")).map(|l| point(l)).expect("a unified hierarchy");
    if unified != "/sys/fs/cgroup" {
        all.iter().filter(|l| l.contains(" - cgroup ")).for_each(|l| unmount(point(l), UnmountFlags::DETACH).unwrap());
        mount_bind(&unified, "/sys/fs/cgroup").unwrap();
    }
    let layout = sys::cgroup::Layout::detect().unwrap();
    assert_eq!(layout.version(), sys::cgroup::Version::V2);
}

fn container(script: &str) -> Container {
    only_unified();
    Container::sh(script)
}

fn own_cgroup(process: &Process) -> String {
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap();
    text.lines().find_map(|l| l.strip_prefix("0::")).unwrap().to_owned()
}

fn start_and_exec() {
    let container = container(IDLE);
    let (init, _pipes) = running(&container);
    assert_eq!(own_cgroup(&init), container.bundle.spec.linux.cgroups_path);
    let out = container.exec_args(&init, &["sh", "-c", "grep '^0:' /proc/self/cgroup"]).unwrap().stdout;
    assert_eq!(out, "0::/\n");
    kill(&init);
}

fn devices() {
    let out = container(
        "mknod /tmp/kmsg c 1 11 && echo made; cat /tmp/kmsg 2>&1 | head -c 60; \
         echo x > /dev/null && echo null; head -c 1 /dev/zero | wc -c; ls /dev/tty >/dev/null && echo tty",
    )
    .output();
    assert!(out.starts_with("made\ncat: can't open '/tmp/kmsg': Operation not permitted"), "{out}");
    assert!(out.ends_with("null\n1\ntty\n"), "{out}");
}

fn freeze_and_kill() {
    let container = container(IDLE);
    let (init, _pipes) = running(&container);
    let cgroup = runtime::builtin::cgroup(&container.bundle).unwrap();
    container.runtime.pause(&container.bundle).unwrap();
    assert!(cgroup.is_frozen());
    container.runtime.cleanup(&container.bundle).unwrap();
    assert_eq!(wait(&init), 128 + 9);
    assert!(!cgroup.exists());
}

fn view() {
    let out = container(
        "cat /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x 2>&1; grep ' /sys/fs/cgroup ' /proc/self/mountinfo",
    )
    .output();
    assert!(out.starts_with("1\n"), "{out}");
    assert!(out.contains("Read-only file system"), "{out}");
    assert_eq!(out.lines().last().and_then(|l| l.split(' ').nth(3)), Some("/"), "{out}");
}

fn missing_controller() {
    let mut container = container("true");
    container.linux().resources.memory = Some(Memory { limit: Some(64 << 20), ..Default::default() });
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    if controllers.contains("memory") {
        container.output();
    } else {
        let error = container.refused();
        assert!(error.to_string().contains("the memory cgroup controller is not available"), "{error}");
    }
}
