//! The daemon goes and comes back: crash, graceful stop, and what was adopted works on. (More crashes: `tests/crash`.)

use std::time::Duration;

use testkit::{Options, process};

use crate::{eventually, with_busybox};

const COUNTER: &str = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.01; done";

#[test]
fn containers_run_on_and_no_line_is_lost() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "busybox", "sh", "-c", COUNTER]).ok();
    let pid = d.inspect("c1", "{{.State.Pid}}");
    let file = d.inspect("c1", "{{.LogPath}}");
    let lines = || std::fs::read_to_string(&file).unwrap_or_default().lines().count();
    for _ in 0..3 {
        let before = lines();
        assert!(eventually(|| lines() > before + 10));
        d.kill9();
        let before = lines();
        assert!(eventually(|| lines() > before + 10));
        d.again();
        assert_eq!(d.inspect("c1", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    }
    let _ = d.docker(&["stop", "-t", "1", "c1"]).ok();
    let log = d.docker(&["logs", "c1"]).ok().stdout;
    let numbers: Vec<usize> = log.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
    assert!(numbers.len() > 60, "{} lines", numbers.len());
    d.finish();
}

#[test]
fn an_end_while_the_daemon_is_away_is_recorded() {
    let mut d = with_busybox();
    let dir = tempfile::tempdir().unwrap();
    let bind = format!("{}:/told", dir.path().display());
    let script = "while [ ! -e /told/end ]; do sleep 0.05; done; echo last; exit 17";
    let _ = d.docker(&["run", "-d", "--name", "c1", "-v", &bind, "busybox", "sh", "-c", script]).ok();
    let _ = d.docker(&["run", "-d", "--rm", "--name", "r1", "-v", &bind, "busybox", "sh", "-c", script]).ok();
    let pids = ["c1", "r1"].map(|name| d.inspect(name, "{{.State.Pid}}").parse::<u32>().unwrap());
    d.kill9();
    std::fs::write(dir.path().join("end"), "").unwrap();
    assert!(eventually(|| !pids.iter().any(|pid| process::alive(*pid))));
    d.again();
    d.until("c1", "{{.State.Status}} {{.State.ExitCode}}", "exited 17");
    assert_eq!(d.docker(&["logs", "c1"]).text(), "last");
    assert!(eventually(|| !d.docker(&["ps", "-a"]).stdout.contains(" r1\n")));
    d.finish();
}

#[test]
fn everything_works_on_an_adopted_container() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-di", "--name", "c1", "busybox", "cat"]).ok();
    let _ = d.docker(&["run", "-dit", "--name", "t1", "busybox", "sh"]).ok();
    d.crash();
    assert_eq!(d.docker(&["exec", "c1", "echo", "in"]).text(), "in");
    assert!(d.docker(&["top", "c1"]).text().contains("cat"));
    let mut attached = d.spawn(&["attach", "--sig-proxy=false", "c1"]);
    assert!(eventually(|| {
        attached.write(b"typed\n");
        std::thread::sleep(Duration::from_millis(100));
        attached.stdout().contains("typed")
    }));
    attached.kill();
    let mut terminal = d.pty(&["attach", "t1"]);
    terminal.type_keys("echo $((6*7))\r");
    terminal.expect("42");
    drop(terminal);
    let _ = d.docker(&["pause", "c1"]).ok();
    let _ = d.docker(&["unpause", "c1"]).ok();
    let mut waiter = d.spawn(&["wait", "c1"]);
    let _ = d.docker(&["kill", "c1"]).ok();
    assert_eq!(waiter.end().text(), "137");
    let _ = d.docker(&["start", "c1"]).ok();
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "running");
    d.finish();
}

#[test]
fn a_graceful_stop_stops_containers_unless_live_restore() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["run", "-d", "--name", "always", "--restart", "always", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["update", "--restart", "no", "c1"]);
    d.restart();
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "exited");
    d.until("always", "{{.State.Status}}", "running");
    d.finish();

    let mut d = Options::new().args(&["--live-restore"]).start();
    d.busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    let pid = d.inspect("c1", "{{.State.Pid}}");
    d.restart();
    assert_eq!(d.inspect("c1", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    d.finish();
}

/// B-rs-3
#[test]
fn a_container_that_waits_for_its_restart_says_so() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "again", "--restart", "always", "busybox", "false"]).ok();
    for command in [&["top", "again"][..], &["exec", "again", "true"]] {
        assert!(eventually(|| d.docker(command).stderr.contains("is restarting, wait until the container is running")));
    }
    let _ = d.docker(&["rm", "-f", "again"]).ok();
    d.finish();
}
