//! A container's control group on either version: limits in force, freezing, killing, memory that runs out, namespaces,
//! devices, cgroups of the container's own.
//!
//! The same tests run under `cargo xtask test`, mostly with version 1, and under `cargo xtask vm` with version 2 alone.

use std::path::Path;
use std::time::{Duration, Instant};

use testkit::{Daemon, Options, Output};

use crate::{eventually, with_busybox, with_images};

/// Whether this machine has version 2 alone.
pub(crate) fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// What the container's cgroup says in a control file, by its names on version 1 and 2.
#[track_caller]
pub(crate) fn control(d: &Daemon, container: &str, v1: &str, v2: &str) -> String {
    let (id, name) = (d.inspect(container, "{{.Id}}"), if is_v2() { v2 } else { v1 });
    let groups = testkit::census::cgroups(d.cgroup());
    let file = groups.iter().filter(|dir| dir.ends_with(&id)).map(|dir| dir.join(name)).find(|file| file.exists());
    let file = file.unwrap_or_else(|| panic!("{name} is not in {groups:?}"));
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim().to_string()
}

/// Runs a container in the background with these options and this script.
#[track_caller]
fn start(d: &Daemon, name: &str, options: &[&str], script: &str) {
    let _ = d.docker(&[&["run", "-d", "--name", name], options, &["busybox", "sh", "-c", script]].concat()).ok();
}

/// Runs a script in a container to its end.
#[track_caller]
fn run(d: &Daemon, options: &[&str], script: &str) -> Output {
    d.docker(&[&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat())
}

#[track_caller]
fn exec(d: &Daemon, name: &str, script: &str) -> Output {
    d.docker(&["exec", name, "sh", "-c", script])
}

/// A place two steps below a parent, of which nothing exists before.
#[test]
fn every_limit_reaches_its_file() {
    let d = with_busybox();
    let parent = format!("/{}/two/steps", d.cgroup());
    let mut options = vec!["--cgroup-parent", &parent, "-m", "64m", "--memory-swap", "96m"];
    options.extend(["--memory-reservation", "32m", "--cpu-shares", "512", "--cpu-quota", "30000"]);
    options.extend(["--cpu-period", "50000", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "77"]);
    let rates = ["--device-read-bps", "--device-write-bps", "--device-read-iops", "--device-write-iops"];
    options.extend(rates.iter().flat_map(|rate| [rate, "/dev/loop0:4096"]));
    start(&d, "c1", &options, "exec sleep 1000");
    let same = |v1: &str, v2: &str, wanted: &str| assert_eq!(control(&d, "c1", v1, v2), wanted, "{v1} {v2}");
    same("memory.limit_in_bytes", "memory.max", "67108864");
    same("memory.soft_limit_in_bytes", "memory.low", "33554432");
    // The sum on the one, swap alone on the other.
    let swap = if is_v2() { "33554432" } else { "100663296" };
    same("memory.memsw.limit_in_bytes", "memory.swap.max", swap);
    same("cpu.shares", "cpu.weight", if is_v2() { "59" } else { "512" });
    same("cpu.cfs_quota_us", "cpu.max", if is_v2() { "30000 50000" } else { "30000" });
    same("cpuset.cpus", "cpuset.cpus", "0");
    same("cpuset.mems", "cpuset.mems", "0");
    same("pids.max", "pids.max", "77");
    if is_v2() {
        same("", "io.max", "7:0 rbps=4096 wbps=4096 riops=4096 wiops=4096");
    } else {
        for what in ["read_bps", "write_bps", "read_iops", "write_iops"] {
            same(&format!("blkio.throttle.{what}_device"), "", "7:0 4096");
        }
    }
    d.remove_containers();
    // Parents stay, as with the reference.
    for dir in testkit::census::cgroups(d.cgroup()).iter().rev() {
        std::fs::remove_dir(dir).unwrap();
    }
    d.finish();
}

/// What is not asked for is not limited, and what is taken back is not either.
#[test]
fn no_limit_is_none() {
    let d = with_busybox();
    start(&d, "c1", &["--pids-limit", "-1", "-m", "64m", "--memory-swap", "-1"], "exec sleep 1000");
    assert_eq!(control(&d, "c1", "pids.max", "pids.max"), "max");
    let swap = control(&d, "c1", "memory.memsw.limit_in_bytes", "memory.swap.max");
    assert!(swap == "max" || swap.parse::<u64>().unwrap() > 1 << 60, "{swap}");
    start(&d, "c2", &[], "exec sleep 1000");
    let memory = control(&d, "c2", "memory.limit_in_bytes", "memory.max");
    assert!(memory == "max" || memory.parse::<u64>().unwrap() > 1 << 60, "{memory}");
    let quota = control(&d, "c2", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "-1" || quota == "max 100000", "{quota}");
    // Memory alone: as much swap again.
    start(&d, "c3", &["-m", "64m"], "exec sleep 1000");
    let swap = if is_v2() { "67108864" } else { "134217728" };
    assert_eq!(control(&d, "c3", "memory.memsw.limit_in_bytes", "memory.swap.max"), swap);
    d.finish();
}

#[test]
fn processor_time_is_held_back() {
    let d = with_busybox();
    start(&d, "c1", &["--cpus", "0.1"], "while :; do :; done");
    let throttled = || {
        let text = control(&d, "c1", "cpu.stat", "cpu.stat");
        text.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse::<u64>().ok()).unwrap()
    };
    assert!(eventually(|| throttled() > 2), "{}", throttled());
    d.finish();
}

/// A real disk's rate: what takes three seconds by the limit takes one at least.
#[test]
fn disk_rates_are_held() {
    let d = Options::new().ext4("64m").start();
    d.busybox();
    let mounts = d.exec_inside(&["cat", "/proc/self/mounts"]).ok().stdout;
    let place = format!(" {} ", d.data_root().display());
    let disk = mounts.lines().find_map(|line| line.split_once(&place).map(|(disk, _)| disk));
    let disk = disk.unwrap_or_else(|| panic!("{mounts}"));
    let limit = format!("{disk}:1mb");
    let begin = Instant::now();
    let script = "dd if=/dev/zero of=/file bs=64k count=48 oflag=direct 2>&1";
    let output = run(&d, &["--device-write-bps", &limit], script).ok();
    assert!(output.stdout.contains("48+0 records out"), "{output:?}");
    assert!(begin.elapsed() > Duration::from_secs(1), "{:?}", begin.elapsed());
    d.finish();
}

/// The kernel's own word for it.
#[test]
fn pausing_stops_every_process_by_the_freezer() {
    let d = with_busybox();
    start(&d, "c1", &[], "sleep 1000 & while :; do :; done");
    let frozen = |wanted: &str| {
        let id = d.inspect("c1", "{{.Id}}");
        let groups = testkit::census::cgroups(d.cgroup());
        let read = |dir: &std::path::PathBuf, file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        let own: Vec<_> = groups.iter().filter(|dir| dir.ends_with(&id)).collect();
        // A hybrid machine has two freezers; one of them does it.
        let v2 = own.iter().any(|dir| read(dir, "cgroup.events").lines().any(|line| line == "frozen 1"));
        let v1 = own.iter().any(|dir| read(dir, "freezer.state").trim() == "FROZEN");
        assert_eq!((v1 || v2).to_string(), wanted);
    };
    let processes = || d.docker(&["top", "c1", "-o", "pid,comm"]).text();
    assert!(eventually(|| processes().lines().count() == 3), "the shell has begun both");
    frozen("false");
    let _ = d.docker(&["pause", "c1"]).ok();
    frozen("true");
    assert_eq!(processes().lines().count(), 3, "{}", processes());
    let _ = d.docker(&["unpause", "c1"]).ok();
    frozen("false");
    assert_eq!(exec(&d, "c1", "echo alive").text(), "alive");
    // Whatever it is asked while it stands still, it can be ended.
    let _ = d.docker(&["pause", "c1"]).ok();
    let _ = d.docker(&["kill", "c1"]).ok();
    d.until("c1", "{{.State.Status}} {{.State.ExitCode}} {{.State.Paused}}", "exited 137 false");
    d.finish();
}

/// Memory of a shared file counts, and the process that asks for more is killed, not the first one.
const EAT: &str = "dd if=/dev/zero of=/dev/shm/x bs=1M count=60 2>/dev/null; rm -f /dev/shm/x";

/// Nobody is killed, everybody waits, and that is told, once, as it is in the reference. (Version 2 cannot disable the killer.)
#[test]
fn memory_that_runs_out_without_the_killer_is_told() {
    let d = with_busybox();
    if is_v2() {
        return d.finish();
    }
    let limits = ["-m", "16m", "--memory-swap", "16m", "--oom-kill-disable"];
    // Only who touches its own memory waits: a system call that finds none fails.
    start(&d, "c1", &limits, "x=0123456789; while :; do x=$x$x; done");
    d.until("c1", "{{.State.Status}} {{.State.OOMKilled}}", "running true");
    let told = || d.docker(&["events", "--since", "1h", "--until", "0s", "-f", "event=oom"]).text();
    assert!(eventually(|| told().contains(" container oom ")), "{}", told());
    let control = control(&d, "c1", "memory.oom_control", "memory.events");
    assert!(control.contains("under_oom 1") && control.contains("oom_kill 0"), "{control}");
    let _ = d.docker(&["rm", "-f", "c1"]).ok();
    assert_eq!(told().lines().count(), 1, "{}", told());
    d.finish();
}

#[test]
fn memory_that_runs_out_beside_the_first_process() {
    let d = with_busybox();
    let limits = ["-m", "16m", "--memory-swap", "16m"];
    start(&d, "child", &limits, &format!("{EAT}; exit 3"));
    d.until("child", "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}", "exited 3 true");
    start(&d, "exec", &limits, "trap 'exit 4' TERM; while :; do sleep 0.1; done");
    let _ = exec(&d, "exec", EAT).ok();
    // It is known at once, and tells of itself.
    d.until("exec", "{{.State.Status}} {{.State.OOMKilled}}", "running true");
    let told =
        || d.docker(&["events", "--since", "1h", "--until", "0s", "-f", "event=oom", "-f", "container=exec"]).text();
    assert!(eventually(|| told().contains(" container oom ")), "{}", told());
    let _ = d.docker(&["stop", "-t", "60", "exec"]).ok();
    assert_eq!(d.inspect("exec", "{{.State.ExitCode}} {{.State.OOMKilled}}"), "4 true");
    assert_eq!(told().lines().count(), 1, "{}", told());
    // The next run begins anew.
    let _ = d.docker(&["start", "exec"]).ok();
    assert_eq!(d.inspect("exec", "{{.State.OOMKilled}}"), "false");
    let _ = d.docker(&["stop", "-t", "60", "exec"]).ok();
    assert_eq!(d.inspect("exec", "{{.State.ExitCode}} {{.State.OOMKilled}}"), "4 false");
    start(&d, "killed", &limits, "exec sleep 1000");
    let _ = d.docker(&["kill", "killed"]).ok();
    d.until("killed", "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}", "exited 137 false");
    d.finish();
}

/// A daemon that was not there when it happened hears of it.
#[test]
fn memory_that_runs_out_while_the_daemon_is_away() {
    let mut d = with_busybox();
    let script = format!("while [ ! -e /go ]; do sleep 0.1; done; {EAT}; touch /eaten; exec sleep 1000");
    let out = d.path("out");
    std::fs::create_dir(&out).unwrap();
    let script = script.replace("/go", "/out/go").replace("/eaten", "/out/eaten");
    let bind = format!("{}:/out", out.display());
    start(&d, "c1", &["-m", "16m", "--memory-swap", "16m", "-v", &bind], &script);
    d.kill9();
    std::fs::write(out.join("go"), "").unwrap();
    assert!(eventually(|| out.join("eaten").exists()));
    d.again();
    d.until("c1", "{{.State.Status}} {{.State.OOMKilled}}", "running true");
    let _ = d.docker(&["kill", "c1"]).ok();
    d.until("c1", "{{.State.Status}} {{.State.OOMKilled}}", "exited true");
    d.finish();
}

#[test]
fn the_namespace_by_default() {
    let d = with_busybox();
    start(&d, "plain", &[], "exec sleep 1000");
    let mode = if is_v2() { "private" } else { "host" };
    assert_eq!(d.inspect("plain", "{{.HostConfig.CgroupnsMode}}"), mode);
    start(&d, "privileged", &["--privileged"], "exec sleep 1000");
    assert_eq!(d.inspect("privileged", "{{.HostConfig.CgroupnsMode}}"), mode);
    let outside = testkit::process::namespace(d.pid(), "cgroup").unwrap();
    for name in ["plain", "privileged"] {
        assert_eq!(exec(&d, name, "readlink /proc/self/ns/cgroup").text() != outside, is_v2(), "{name}");
    }
    let info = d.docker(&["info", "-f", "{{json .SecurityOptions}}"]).text();
    assert_eq!(info.contains("name=cgroupns"), is_v2(), "{info}");
    d.finish();
}

/// In a namespace of its own the container sees its cgroup as the root; in the host's it sees where it really is.
#[test]
fn what_the_container_sees_of_cgroups() {
    let d = with_busybox();
    let paths = "cut -d: -f3 /proc/self/cgroup | sort -u";
    assert_eq!(run(&d, &["--cgroupns", "private"], paths).text(), "/");
    let host = run(&d, &["--cgroupns", "host", "--name", "h1"], paths).text();
    assert!(host.contains(&format!("/{}/", d.cgroup())), "{host}");
    let dir = if is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    let own = format!("cat {dir}/cgroup.procs | head -1; mkdir {dir}/inner 2>&1 && rmdir {dir}/inner && echo made");
    let private = run(&d, &["--cgroupns", "private"], &own).stdout;
    assert!(private.starts_with("1\n") && private.contains("Read-only file system"), "{private}");
    let writable = ["--cgroupns", "private", "--security-opt", "writable-cgroups=true"];
    assert_eq!(run(&d, &writable, &own).text(), "1\nmade");
    assert_eq!(run(&d, &["--cgroupns", "private", "--privileged"], &own).text(), "1\nmade");
    if is_v2() {
        // The whole hierarchy, and not to be changed.
        let all = run(&d, &["--cgroupns", "host"], "ls /sys/fs/cgroup; mkdir /sys/fs/cgroup/new 2>&1").stdout;
        assert!(all.contains(d.cgroup()) && all.contains("Read-only file system"), "{all}");
    }
    d.finish();
}

/// What a systemd or an engine in a container does: processes into a leaf, controllers handed down. A cgroup that does so
/// takes no processes itself.
#[test]
fn exec_into_a_container_that_divides_its_cgroup() {
    let d = with_busybox();
    let options = ["--privileged", "--cgroupns", "private", "-m", "64m"];
    let dir = if is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    let divide = format!(
        "mkdir -p {dir}/inner/leaf && echo 1 > {dir}/inner/leaf/cgroup.procs || exit 1
         if [ -e {dir}/cgroup.subtree_control ]; then
             echo +pids +memory > {dir}/cgroup.subtree_control && echo +pids > {dir}/inner/cgroup.subtree_control || exit 1
         fi
         trap 'exit 5' TERM; touch /ready; while :; do sleep 0.1; done"
    );
    start(&d, "c1", &options, &divide);
    let ready = |name: &str| eventually(|| d.docker(&["exec", name, "test", "-e", "/ready"]).code == 0);
    assert!(ready("c1"), "{:?}", d.docker(&["logs", "c1"]));
    let place = "grep -E '^0:|:pids:' /proc/self/cgroup";
    if is_v2() {
        assert_eq!(exec(&d, "c1", place).text(), "0::/inner/leaf");
    }
    assert_eq!(d.docker_input(&["exec", "-i", "c1", "cat"], b"in").ok().stdout, "in");
    assert_eq!(exec(&d, "c1", "exit 9").code, 9);
    // The limit is that of the whole.
    assert_eq!(control(&d, "c1", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert!(d.docker(&["top", "c1"]).text().lines().count() >= 2);
    let _ = d.docker(&["pause", "c1"]).ok();
    let _ = d.docker(&["unpause", "c1"]).ok();
    let _ = exec(&d, "c1", "true").ok();
    let _ = d.docker(&["stop", "-t", "60", "c1"]).ok();
    assert_eq!(d.inspect("c1", "{{.State.ExitCode}}"), "5");
    let _ = d.docker(&["start", "c1"]).ok();
    let _ = d.docker(&["rm", "-f", "c1"]).ok();
    d.finish();
}

/// A child of the container's cgroup for threads makes its cgroup the domain of them, which takes processes as before; a
/// process may also be in such a child itself.
#[test]
fn exec_beside_threaded_cgroups() {
    let d = with_busybox();
    let options = ["--privileged", "--cgroupns", "private"];
    let threaded = "if [ -e /sys/fs/cgroup/cgroup.type ]; then
            mkdir /sys/fs/cgroup/threads && echo threaded > /sys/fs/cgroup/threads/cgroup.type || exit 1
        fi
        touch /ready; exec sleep 1000";
    start(&d, "c1", &options, threaded);
    assert!(
        eventually(|| d.docker(&["exec", "c1", "test", "-e", "/ready"]).code == 0),
        "{:?}",
        d.docker(&["logs", "c1"])
    );
    if is_v2() {
        assert_eq!(
            exec(&d, "c1", "cat /sys/fs/cgroup/cgroup.type; cat /proc/self/cgroup").text(),
            "domain threaded\n0::/"
        );
        let _ = exec(&d, "c1", "echo +cpu > /sys/fs/cgroup/cgroup.subtree_control").ok();
        assert_eq!(exec(&d, "c1", "cat /proc/self/cgroup").text(), "0::/");
        let _ = exec(&d, "c1", "echo 1 > /sys/fs/cgroup/threads/cgroup.procs").ok();
        assert_eq!(exec(&d, "c1", "cat /proc/1/cgroup; cat /proc/self/cgroup").text(), "0::/threads\n0::/");
    }
    let processes = d.docker(&["top", "c1", "-o", "pid,comm"]).text();
    assert!(processes.ends_with(" sleep"), "{processes}");
    let _ = d.docker(&["pause", "c1"]).ok();
    let _ = d.docker(&["unpause", "c1"]).ok();
    let _ = exec(&d, "c1", "sleep 1000 & true").ok();
    let _ = d.docker(&["rm", "-f", "c1"]).ok();
    d.finish();
}

/// Version 2 lets a cgroup with processes hand no controllers down: below it there are containers, but no limits.
#[test]
fn a_parent_with_processes_gives_no_limits() {
    let d = with_busybox();
    start(&d, "first", &[], "exec sleep 1000");
    let parent = format!("/{}/{}", d.cgroup(), d.inspect("first", "{{.Id}}"));
    assert_eq!(run(&d, &["--cgroup-parent", &parent], "echo hello").text(), "hello");
    let limited = run(&d, &["--cgroup-parent", &parent, "--pids-limit", "50", "-m", "64m"], "echo hello");
    if is_v2() {
        limited.fails(125, "the memory cgroup controller is not available");
    } else {
        assert_eq!(limited.text(), "hello");
    }
    assert_eq!(exec(&d, "first", "echo alive").text(), "alive");
    d.finish();
}

#[test]
fn devices_by_rule() {
    let d = with_busybox();
    let opens = |options: &[&str], script: &str| run(&d, options, script).code == 0;
    // The container makes the node itself.
    let node = "mknod /tmp/n c 10 237 && dd if=/tmp/n of=/dev/null bs=1 count=0 2>/dev/null";
    assert!(!opens(&[], node));
    assert!(opens(&["--device-cgroup-rule", "c 10:237 r"], node));
    assert!(opens(&["--device-cgroup-rule", "c 10:* rwm"], node));
    assert!(!opens(&["--device-cgroup-rule", "c 10:238 rwm"], node));
    assert!(!opens(&["--device-cgroup-rule", "b 10:237 rwm"], node));
    assert!(opens(&["--privileged"], node));
    let write = "mknod /tmp/n c 10 237 && : >> /tmp/n";
    assert!(!opens(&["--device-cgroup-rule", "c 10:237 r"], write));
    let disk = "dd if=/dev/disk of=/dev/null bs=1 count=0 2>/dev/null";
    assert!(opens(&["--device", "/dev/loop0:/dev/disk:r"], disk));
    assert!(!opens(&["--device", "/dev/loop0:/dev/disk:r"], ": >> /dev/disk"));
    assert!(!opens(&["--device", "/dev/loop0:/dev/disk:w"], disk));
    // An exec is under the same rules.
    start(&d, "c1", &["--device", "/dev/loop0:/dev/disk:r"], "exec sleep 1000");
    assert_eq!((exec(&d, "c1", disk).code, exec(&d, "c1", ": >> /dev/disk").code), (0, 1));
    d.finish();
}

#[test]
fn what_info_says() {
    let d = with_busybox();
    let info = d.http("GET", "/info", "").expect(200).json();
    assert_eq!(
        (&info["CgroupDriver"], &info["CgroupVersion"]),
        (&"cgroupfs".into(), &if is_v2() { "2" } else { "1" }.into())
    );
    for able in ["MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit"] {
        assert_eq!(info[able], true, "{able}");
    }
    assert_eq!(info["OomKillDisable"], !is_v2());
    let warnings = info["Warnings"].to_string();
    assert!(!warnings.contains("support") || warnings.contains("cgroup v1 is deprecated"), "{warnings}");
    assert_eq!(warnings.contains("cgroup v1"), !is_v2(), "{warnings}");
    let text = d.docker(&["info"]).ok().stdout;
    let version = format!(" Cgroup Driver: cgroupfs\n Cgroup Version: {}\n", if is_v2() { "2" } else { "1" });
    assert!(text.contains(&version), "{text}");
    d.finish();
}

/// What version 2 does not have is left out, and said.
#[test]
fn limits_of_version_1_alone() {
    let d = with_busybox();
    let create = |host: &str| {
        let body = format!(r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{host}}}"#);
        d.http("POST", "/containers/create", &body)
    };
    let created = create(r#"{"Memory":67108864,"OomKillDisable":true,"MemorySwappiness":50}"#).expect(201).json();
    let warnings = created["Warnings"].to_string();
    assert_eq!(warnings.contains("OomKillDisable discarded"), is_v2(), "{warnings}");
    assert_eq!(warnings.contains("Memory swappiness discarded"), is_v2(), "{warnings}");
    let id = created["Id"].as_str().unwrap();
    let kept = d.inspect(id, "{{json .HostConfig.OomKillDisable}} {{json .HostConfig.MemorySwappiness}}");
    assert_eq!(kept, if is_v2() { "null null" } else { "true 50" });
    let _ = d.docker(&["start", id]).ok();
    d.until(id, "{{.State.Status}} {{.State.ExitCode}}", "exited 0");
    if is_v2() {
        let refused = create(r#"{"CpuRealtimeRuntime":1000}"#).expect(400);
        assert_eq!(refused.message(), "kernel does not support CPU real-time scheduler");
    }
    d.finish();
}

/// Processes that its end does not end by itself: outside of a PID namespace only the cgroup knows them.
#[test]
fn what_forks_in_the_hosts_pid_namespace_goes_with_its_container() {
    let d = with_images();
    let limits = ["-d", "--pid", "host", "--pids-limit", "40"];
    for name in ["killed", "stopped", "removed"] {
        let _ = d.docker(&[&["run", "--name", name], &limits[..], &["probe", "fork-bomb"]].concat()).ok();
    }
    let crowd = |name: &str| control(&d, name, "pids.current", "pids.current").parse::<u32>().unwrap();
    for name in ["killed", "stopped", "removed"] {
        assert!(eventually(|| crowd(name) > 20), "{name}: {}", crowd(name));
    }
    let _ = d.docker(&["kill", "killed"]).ok();
    let _ = d.docker(&["stop", "-t", "1", "stopped"]).ok();
    let _ = d.docker(&["rm", "-f", "removed"]).ok();
    d.until("killed", "{{.State.Status}} {{.State.ExitCode}}", "exited 137");
    d.until("stopped", "{{.State.Status}}", "exited");
    let left = testkit::census::cgroups(d.cgroup());
    assert!(left.is_empty(), "{left:?}");
    d.finish();
}
