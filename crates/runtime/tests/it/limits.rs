//! Cgroup limits: set, effective, changed, read, and gone afterwards.

use runtime::Runtime;
use runtime::oci::{Cpu, Memory, Pids, Resources};

use crate::Case;
use crate::fixture::{Container, kill};

pub const CASES: &[Case] = &[
    ("limits::files", files),
    ("limits::memory_kills", memory_kills),
    ("limits::pids", pids),
    ("limits::devices", devices),
    ("limits::update", update),
    ("limits::statistics", statistics),
    ("limits::nested_cgroups_are_removed", nested_cgroups_are_removed),
    ("limits::bad_values", bad_values),
];

fn with(script: &str, change: impl FnOnce(&mut Resources)) -> Container {
    let mut container = Container::sh(script);
    change(&mut container.linux().resources);
    container
}

/// `cat` of a control file of the own cgroup, whichever version.
const CAT: &str = "at() { cat /sys/fs/cgroup/$1/$2 2>/dev/null || cat /sys/fs/cgroup/$3; }; ";

fn files() {
    let script = format!(
        "{CAT} at memory memory.limit_in_bytes memory.max; at cpu cpu.shares cpu.weight; at cpu cpu.cfs_quota_us cpu.max; at pids pids.max pids.max; at cpuset cpuset.cpus cpuset.cpus"
    );
    let container = with(&script, |r| {
        r.memory = Some(Memory { limit: Some(64 << 20), swap: Some(128 << 20), ..Default::default() });
        r.cpu = Some(Cpu {
            shares: Some(512),
            quota: Some(50_000),
            period: Some(100_000),
            cpus: "0".into(),
            ..Default::default()
        });
        r.pids = Some(Pids { limit: 77 });
    });
    let out = container.output();
    let v1 = "67108864\n512\n50000\n77\n0\n";
    let v2 = "67108864\n59\n50000 100000\n77\n0\n";
    assert!(out == v1 || out == v2, "{out}");
}

fn memory_kills() {
    // A file in a tmpfs counts; dd is killed when it cannot be reclaimed.
    let container = with("dd if=/dev/zero of=/dev/shm/x bs=1M count=60 2>/dev/null; echo $?; rm -f /dev/shm/x", |r| {
        r.memory = Some(Memory { limit: Some(16 << 20), swap: Some(16 << 20), ..Default::default() });
    });
    let (process, pipes) = container.start().unwrap();
    let outcome = pipes.finish(&process);
    assert!(outcome.stdout.starts_with("137") || outcome.code == 137, "{outcome:?}");
    let cgroup = runtime::builtin::cgroup(&container.bundle).unwrap();
    assert!(cgroup.oom_kills().unwrap() >= 1);
}

fn pids() {
    let container =
        with("for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; echo $?", |r| r.pids = Some(Pids { limit: 5 }));
    let outcome = container.run();
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
}

fn devices() {
    // mknod of anything is allowed, opening is not.
    let container = Container::sh(
        "mknod /tmp/loop b 7 0 && mknod /tmp/kmsg c 1 11 && echo made; cat /tmp/kmsg 2>&1 | head -c 60; \
         dd if=/tmp/loop of=/dev/null bs=1 count=1 2>&1 | head -1; echo x > /dev/null && echo null",
    );
    let out = container.output();
    assert!(out.starts_with("made\ncat: can't open '/tmp/kmsg': Operation not permitted"), "{out}");
    assert!(out.contains("/tmp/loop': Operation not permitted") && out.ends_with("null\n"), "{out}");
}

fn update() {
    let container = Container::sh(super::execs::IDLE);
    let (init, _pipes) = super::execs::running(&container);
    for limit in [32 << 20, 256 << 20, 64 << 20] {
        let memory = Memory { limit: Some(limit), swap: Some(limit * 2), ..Default::default() };
        let resources = Resources { memory: Some(memory), ..Default::default() };
        container.runtime.update(&container.bundle, &resources).unwrap();
        let cgroup = runtime::builtin::cgroup(&container.bundle).unwrap();
        assert_eq!(cgroup.stats().memory.limit, limit as u64);
    }
    kill(&init);
}

fn statistics() {
    let container = Container::sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo up; exec sleep 1000");
    let (init, _pipes) = super::execs::running(&container);
    let stats = runtime::builtin::cgroup(&container.bundle).unwrap().stats();
    assert!(stats.cpu.total > 1_000_000, "{stats:?}");
    assert!(stats.memory.usage > 0 && stats.memory.limit == u64::MAX, "{stats:?}");
    assert_eq!(stats.pids.current, 1);
    kill(&init);
}

fn nested_cgroups_are_removed() {
    let container = Container::sh(super::execs::IDLE);
    let (init, _pipes) = super::execs::running(&container);
    let cgroup = runtime::builtin::cgroup(&container.bundle).unwrap();
    for view in cgroup.views() {
        std::fs::create_dir_all(view.path.join("a/b")).unwrap();
    }
    kill(&init);
    container.runtime.cleanup(&container.bundle).unwrap();
    assert!(!cgroup.exists());
}

fn bad_values() {
    let container = with("true", |r| r.cpu = Some(Cpu { cpus: "9999".into(), ..Default::default() }));
    let error = container.refused();
    assert!(error.to_string().contains("failed to write \"9999\" to \"cpuset.cpus\""), "{error}");
}
