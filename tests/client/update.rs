//! `docker update`: limits that change where a container runs, is paused or is stopped, and its restart policy.

use testkit::Daemon;

use crate::cgroups::{control, is_v2};
use crate::{eventually, with_busybox};

#[track_caller]
fn update(d: &Daemon, name: &str, options: &[&str]) {
    let _ = d.docker(&[&["update"], options, &[name]].concat()).ok();
}

/// The refusal of a body, and that nothing has changed.
#[track_caller]
fn refused(d: &Daemon, name: &str, body: &str, status: u16) -> String {
    let before = d.inspect(name, "{{json .HostConfig}}");
    let answer = d.http("POST", &format!("/v1.52/containers/{name}/update"), body).expect(status);
    assert_eq!(d.inspect(name, "{{json .HostConfig}}"), before, "{body}");
    answer.message()
}

#[track_caller]
fn limits(d: &Daemon, name: &str, memory: u64, sum: u64) {
    assert_eq!(control(d, name, "memory.limit_in_bytes", "memory.max"), memory.to_string());
    let swap = if is_v2() { sum - memory } else { sum };
    assert_eq!(control(d, name, "memory.memsw.limit_in_bytes", "memory.swap.max"), swap.to_string());
}

#[test]
fn limits_change_at_once_and_stay() {
    let mut d = with_busybox();
    let run = ["run", "-d", "--name", "c", "-m", "64m", "--memory-swap", "96m", "busybox", "sleep", "1000"];
    let _ = d.docker(&run).ok();
    // Up beyond the sum in force, then down below it.
    update(&d, "c", &["-m", "128m", "--memory-swap", "160m"]);
    limits(&d, "c", 128 << 20, 160 << 20);
    update(&d, "c", &["-m", "32m", "--memory-swap", "48m"]);
    limits(&d, "c", 32 << 20, 48 << 20);
    let more = ["--memory-reservation", "16m", "--cpu-shares", "512", "--cpuset-cpus", "0", "--pids-limit", "55"];
    update(&d, "c", &more);
    update(&d, "c", &["--cpus", "0.5"]);
    let same = |v1: &str, v2: &str, wanted: &str| assert_eq!(control(&d, "c", v1, v2), wanted, "{v1} {v2}");
    same("memory.soft_limit_in_bytes", "memory.low", "16777216");
    same("cpu.shares", "cpu.weight", if is_v2() { "59" } else { "512" });
    same("cpu.cfs_quota_us", "cpu.max", if is_v2() { "50000 100000" } else { "50000" });
    same("cpuset.cpus", "cpuset.cpus", "0");
    same("pids.max", "pids.max", "55");
    limits(&d, "c", 32 << 20, 48 << 20);
    update(&d, "c", &["--pids-limit", "-1"]);
    same("pids.max", "pids.max", "max");
    let shown =
        |d: &Daemon| d.inspect("c", "{{.HostConfig.Memory}} {{.HostConfig.CpuShares}} {{.HostConfig.NanoCpus}}");
    assert_eq!(shown(&d), "33554432 512 500000000");

    // One that never ran.
    let _ = d.docker(&["create", "--name", "new", "busybox", "sleep", "1000"]).ok();
    update(&d, "new", &["-m", "24m", "--memory-swap", "24m"]);
    let _ = d.docker(&["start", "new"]).ok();
    limits(&d, "new", 24 << 20, 24 << 20);
    let _ = d.docker(&["rm", "-f", "new"]).ok();

    // Paused, after the end of the daemon, and stopped: the next run has them.
    let _ = d.docker(&["pause", "c"]).ok();
    update(&d, "c", &["-m", "40m", "--memory-swap", "48m"]);
    limits(&d, "c", 40 << 20, 48 << 20);
    let _ = d.docker(&["unpause", "c"]).ok();
    // A name is a prefix of ids, too.
    let (until, own) = (crate::events::now().to_string(), format!("container={}", d.inspect("c", "{{.Id}}")));
    let events =
        d.docker(&["events", "--since", "0", "--until", &until, "--filter", "event=update", "--filter", &own]).text();
    assert_eq!(events.lines().count(), 6, "{events}");
    d.kill9();
    d.again();
    assert_eq!(shown(&d), "41943040 512 500000000");
    let _ = d.docker(&["stop", "-t", "0", "c"]).ok();
    update(&d, "c", &["-m", "24m"]);
    let _ = d.docker(&["start", "c"]).ok();
    limits(&d, "c", 24 << 20, 48 << 20);
    let _ = d.docker(&["rm", "-f", "c"]).ok();
    d.finish();
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let d = with_busybox();
    let run =
        ["run", "-d", "--name", "c", "-m", "64m", "--memory-swap", "96m", "--cpus", "0.5", "busybox", "sleep", "1000"];
    let _ = d.docker(&run).ok();
    let _ = d.docker(&["run", "-d", "--rm", "--name", "gone", "busybox", "sleep", "1000"]).ok();
    let id = d.inspect("c", "{{.Id}}");
    let too_much = refused(&d, "c", r#"{"Memory":209715200}"#, 409);
    assert_eq!(
        too_much,
        format!(
            "Cannot update container {id}: Memory limit should be smaller than already set memoryswap limit, \
             update the memoryswap at the same time"
        )
    );
    assert_eq!(
        refused(&d, "c", r#"{"CpuPeriod":50000}"#, 409),
        format!(
            "Cannot update container {id}: Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set"
        )
    );
    assert_eq!(refused(&d, "c", r#"{"Memory":1000}"#, 400), "Minimum memory limit allowed is 6MB");
    assert_eq!(
        refused(&d, "c", r#"{"RestartPolicy":{"Name":"zz"}}"#, 400),
        "invalid restart policy: unknown policy 'zz'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
    );
    assert!(refused(&d, "c", r#"{"CpusetCpus":"999"}"#, 400).starts_with("Requested CPUs are not available"));
    let of_gone = refused(&d, "gone", r#"{"RestartPolicy":{"Name":"always"}}"#, 409);
    assert!(of_gone.ends_with("Restart policy cannot be updated because AutoRemove is enabled for the container"));
    let text = refused(&d, "c", r#"{"Memory":"x"}"#, 400);
    assert!(text.contains("Go struct field UpdateConfig.Resources.Memory of type int64"), "{text}");
    // What the kernel refuses is put back: a limit below what is in use that cannot be given up.
    if !is_v2() {
        let fill = "mount -t tmpfs none /mnt 2>/dev/null; dd if=/dev/zero of=/dev/shm/f bs=1M count=30 2>/dev/null";
        let _ = d.docker(&["exec", "c", "sh", "-c", fill]);
        let _ = refused(&d, "c", r#"{"Memory":10485760,"MemorySwap":10485760,"CpuShares":256}"#, 500);
        limits(&d, "c", 64 << 20, 96 << 20);
        assert_eq!(control(&d, "c", "cpu.shares", "cpu.weight"), "1024");
    }
    let _ = d.http("POST", "/containers/nosuch/update", "{}").expect(404);
    // Below 1.40 the limit of processes is not known; fields that are none of its business are ignored.
    let _ = d.http("POST", "/v1.39/containers/c/update", r#"{"PidsLimit":5,"Binds":["a:b"]}"#);
    assert_eq!(d.inspect("c", "{{.HostConfig.PidsLimit}}"), "<nil>");
    let answer = d.http("POST", "/v1.52/containers/c/update", "{}").expect(200);
    assert_eq!(answer.text().trim(), r#"{"Warnings":null}"#);
    let _ = d.docker(&["rm", "-f", "c", "gone"]).ok();
    d.finish();
}

/// A policy that changes while the container runs decides over that run's end.
#[test]
fn the_restart_policy_changes_live() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    update(&d, "c", &["--restart", "on-failure:3"]);
    assert_eq!(
        d.inspect("c", "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}"),
        "on-failure:3"
    );
    let _ = d.docker(&["exec", "c", "sh", "-c", "kill -9 1; kill 1"]);
    let pid = d.inspect("c", "{{.State.Pid}}");
    let _ = d.exec_inside(&["kill", "-9", &pid]);
    assert!(eventually(|| d.inspect("c", "{{.RestartCount}} {{.State.Status}}") == "1 running"));
    update(&d, "c", &["--restart", "no"]);
    let pid = d.inspect("c", "{{.State.Pid}}");
    let _ = d.exec_inside(&["kill", "-9", &pid]);
    d.until("c", "{{.State.Status}}", "exited");
    let _ = d.docker(&["rm", "-f", "c"]).ok();
    d.finish();
}
