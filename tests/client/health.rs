//! Health checks: what is probed, how often, for how long; who is told; what a daemon's death leaves of them.

use std::time::Duration;

use serde_json::Value;
use testkit::{Daemon, process};

use crate::{eventually, with_busybox};

const STATUS: &str = "{{.State.Health.Status}}";

/// A container that runs, with these options.
#[track_caller]
fn run(d: &Daemon, name: &str, options: &[&str]) {
    let words = [&["run", "-d", "--name", name], options, &["busybox", "sleep", "100000"]].concat();
    let _ = d.docker(&words).ok();
}

/// The results of the log: exit code and output.
fn log(d: &Daemon, name: &str) -> Vec<(i64, String)> {
    let log: Value = serde_json::from_str(&d.inspect(name, "{{json .State.Health.Log}}")).unwrap();
    let entry = |one: &Value| (one["ExitCode"].as_i64().unwrap(), one["Output"].as_str().unwrap().to_owned());
    log.as_array().unwrap().iter().map(entry).collect()
}

/// What events say of a container's health and execs so far, oldest first.
fn told(d: &Daemon, name: &str, filter: &str) -> Vec<String> {
    let until = d.exec_inside(&["date", "+%s.%N"]).text();
    let container = format!("container={name}");
    let words = ["events", "--since", "0", "--until", &until, "--filter", &container, "--filter", filter];
    let words = [&words[..], &["--format", "{{.Action}}"]].concat();
    d.docker(&words).ok().stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_container_becomes_healthy_and_unhealthy_and_healthy_again() {
    let d = with_busybox();
    let check = "test -e /tmp/well && echo well || { echo ill; exit 7; }";
    let options = ["--health-cmd", check, "--health-interval", "50ms", "--health-retries", "2"];
    run(&d, "c1", &options);
    d.until("c1", STATUS, "unhealthy");
    assert!(log(&d, "c1").iter().all(|one| *one == (7, "ill\n".into())), "{:?}", log(&d, "c1"));
    assert!(d.docker(&["ps"]).text().contains("(unhealthy)"));
    let _ = d.docker(&["exec", "c1", "touch", "/tmp/well"]).ok();
    d.until("c1", STATUS, "healthy");
    assert!(d.docker(&["ps"]).text().contains("(healthy)"));
    assert_eq!(d.docker(&["ps", "-q", "--filter", "health=healthy"]).text().lines().count(), 1);
    assert_eq!(d.docker(&["ps", "-q", "--filter", "health=unhealthy"]).text(), "");
    assert!(eventually(|| log(&d, "c1").iter().all(|one| *one == (0, "well\n".into()))));
    assert_eq!(log(&d, "c1").len(), 5);
    assert_eq!(d.inspect("c1", "{{.State.Health.FailingStreak}}"), "0");
    let _ = d.docker(&["exec", "c1", "rm", "/tmp/well"]).ok();
    d.until("c1", STATUS, "unhealthy");
    let status = ["health_status: unhealthy", "health_status: healthy", "health_status: unhealthy"];
    assert_eq!(told(&d, "c1", "event=health_status"), status);
    let listed = d.http("GET", "/v1.52/containers/json", "").expect(200);
    let listed: Value = serde_json::from_str(&listed.text()).unwrap();
    assert_eq!(listed[0]["Health"]["Status"], "unhealthy");
    // Of a container that has ended nobody says that it is healthy; a start begins anew.
    let _ = d.docker(&["stop", "-t", "0", "c1"]).ok();
    assert_eq!(d.inspect("c1", STATUS), "unhealthy");
    let _ = d.docker(&["start", "c1"]).ok();
    assert_eq!(d.inspect("c1", "{{.State.Health.FailingStreak}}").parse::<u32>().map(|streak| streak < 2), Ok(true));
    d.finish();
}

/// Events of each probe, its environment and user, and its session (B-hc-3).
#[test]
fn a_probe_is_an_exec_of_the_containers_user() {
    let d = with_busybox();
    let check = "echo $(id -u) $HELLO $PWD; exec >&2; echo err";
    let options =
        ["-u", "1000", "-e", "HELLO=world", "-w", "/tmp", "--health-cmd", check, "--health-interval", "100ms"];
    run(&d, "c1", &options);
    assert_eq!(
        d.inspect("c1", "{{.State.Health.Status}} {{len .State.Health.Log}}").split(' ').next(),
        Some("starting")
    );
    d.until("c1", STATUS, "healthy");
    assert_eq!(log(&d, "c1")[0], (0, "1000 world /tmp\nerr\n".into()));
    let line = format!("/bin/sh -c {check}");
    let wanted = [format!("exec_create: {line}"), format!("exec_start: {line}"), "exec_die".into()];
    let execs = || {
        let all = told(&d, "c1", "type=container");
        all.into_iter().filter(|action| action.starts_with("exec_")).collect::<Vec<_>>()
    };
    assert!(eventually(|| execs().len() >= 6));
    assert_eq!(execs()[..3], wanted);
    assert_eq!(execs()[3..6], wanted);
    // Probes do not pile up among the sessions that are remembered.
    let _ = d.docker(&["update", "--restart", "no", "c1"]).ok();
    d.finish();
}

/// B-hc-1, B-hc-2
#[test]
fn the_start_period_has_its_own_pace_and_forgives() {
    let d = with_busybox();
    let options = ["--health-cmd", "test -e /tmp/well", "--health-interval", "1h", "--health-retries", "1"];
    let options = [&options[..], &["--health-start-period", "1h", "--health-start-interval", "50ms"]].concat();
    run(&d, "c1", &options);
    assert!(d.docker(&["ps"]).text().contains("(health: starting)"));
    assert!(eventually(|| log(&d, "c1").len() == 5));
    assert_eq!(d.inspect("c1", "{{.State.Health.Status}} {{.State.Health.FailingStreak}}"), "starting 0");
    assert_eq!(d.docker(&["ps", "-q", "--filter", "health=starting"]).text().lines().count(), 1);
    let _ = d.docker(&["exec", "c1", "touch", "/tmp/well"]).ok();
    d.until("c1", STATUS, "healthy");
    d.finish();
}

/// A command that hangs, floods, leaves children, kills its container, or is not there at all (B-hc-1, B-hc-2).
#[test]
fn bad_commands_are_bounded() {
    let d = with_busybox();
    let every = ["--health-interval", "50ms", "--health-retries", "1", "--health-timeout", "400ms"];
    let with = |name: &str, check: &str| run(&d, name, &[&["--health-cmd", check], &every[..]].concat());
    with("hangs", "echo begins; sleep 4242 & trap '' TERM; sleep 4242");
    with("floods", "yes");
    with("missing", "/no/such/program");
    run(&d, "words", &[&["--health-cmd", "x"], &every[..]].concat());
    d.until("hangs", STATUS, "unhealthy");
    let (code, output) = log(&d, "hangs").remove(0);
    assert_eq!((code, output.as_str()), (-1, "Health check exceeded timeout (400ms): begins\n"));
    // What it has started is killed with it.
    assert!(eventually(|| d.docker(&["top", "hangs"]).text().matches("sleep 4242").count() <= 2));
    d.until("floods", STATUS, "unhealthy");
    let (code, output) = log(&d, "floods").remove(0);
    assert_eq!(code, -1);
    let wanted = format!("Health check exceeded timeout (400ms): {}...", "y\n".repeat(2048));
    assert_eq!(output, wanted);
    d.until("missing", STATUS, "unhealthy");
    assert_eq!(log(&d, "missing")[0].0, 127);
    let body = r#"{"Image":"busybox","Cmd":["sleep","1000"],"Healthcheck":{"Test":["CMD","/no/such"],"Interval":50000000,"Retries":1}}"#;
    let _ = d.http("POST", "/v1.52/containers/create?name=absent", body).expect(201);
    let _ = d.docker(&["start", "absent"]).ok();
    d.until("absent", STATUS, "unhealthy");
    let (code, output) = log(&d, "absent").remove(0);
    assert!(code == -1 && output.contains("/no/such") && output.contains("no such file"), "{code} {output}");
    with("kills", "kill -9 1; kill 1; kill -15 -1");
    with("ends", "true");
    let _ = d.docker(&["kill", "ends"]).ok();
    assert_eq!(d.inspect("ends", "{{.State.Status}} {{.State.Health.Status}}"), "exited unhealthy");
    let _ = d.docker(&["rm", "-f", "kills", "hangs", "floods", "missing", "absent", "words", "ends"]).ok();
    d.finish();
}

/// B-hc-3
#[test]
fn none_disables_and_the_images_check_is_inherited() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "base", "busybox", "sleep", "100000"]).ok();
    let change = "HEALTHCHECK --interval=50ms --retries=1 CMD test -e /well";
    let _ = d.docker(&["commit", "--change", change, "base", "checked"]).ok();
    let _ = d.docker(&["rm", "base"]).ok();
    let _ = d.docker(&["run", "-d", "--name", "own", "checked"]).ok();
    d.until("own", STATUS, "unhealthy");
    let _ = d.docker(&["run", "-d", "--name", "longer", "--health-retries", "1000000", "checked"]).ok();
    assert!(eventually(|| !log(&d, "longer").is_empty()));
    assert_eq!(d.inspect("longer", STATUS), "starting");
    let _ = d.docker(&["run", "-d", "--name", "none", "--no-healthcheck", "checked"]).ok();
    assert_eq!(d.inspect("none", "{{json .State.Health}}"), "null");
    assert_eq!(d.docker(&["ps", "--filter", "health=none", "--format", "{{.Names}}"]).text(), "none");
    let _ = d.docker(&["rm", "-f", "own", "longer", "none"]).ok();
    let _ = d.docker(&["rmi", "checked"]).ok();
    d.finish();
}

/// B-hc-3
#[test]
fn a_paused_container_is_not_probed() {
    let d = with_busybox();
    run(&d, "c1", &["--health-cmd", "date +%s%N >> /tmp/probes", "--health-interval", "50ms"]);
    d.until("c1", STATUS, "healthy");
    let _ = d.docker(&["pause", "c1"]).ok();
    assert!(d.docker(&["ps"]).text().contains("(Paused)"));
    assert_eq!(d.inspect("c1", STATUS), "unhealthy");
    let last = d.inspect("c1", "{{json .State.Health.Log}}");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(d.inspect("c1", "{{json .State.Health.Log}}"), last);
    let _ = d.docker(&["unpause", "c1"]).ok();
    d.until("c1", STATUS, "healthy");
    // Paused in the middle of a probe.
    let _ = d.docker(&["rm", "-f", "c1"]).ok();
    let slow = ["--health-cmd", "touch /tmp/begun; sleep 4242", "--health-interval", "50ms", "--health-timeout", "1h"];
    run(&d, "c2", &slow);
    assert!(eventually(|| d.docker(&["exec", "c2", "test", "-e", "/tmp/begun"]).code == 0));
    let _ = d.docker(&["pause", "c2"]).ok();
    let _ = d.docker(&["unpause", "c2"]).ok();
    assert!(eventually(|| d.docker(&["top", "c2"]).text().matches("sleep 4242").count() <= 1));
    assert_eq!(log(&d, "c2"), []);
    d.finish();
}

/// A probe outlives the daemon that began it, and none of its results is lost.
#[test]
fn a_daemon_that_dies_loses_no_probe() {
    let mut d = with_busybox();
    let check = "touch /tmp/begun; until [ -e /tmp/go ]; do sleep 0.05; done; echo went; exit 3";
    run(&d, "slow", &["--health-cmd", check, "--health-interval", "50ms", "--health-timeout", "1h"]);
    let fast = ["--health-cmd", "echo fast", "--health-interval", "50ms"];
    run(&d, "fast", &fast);
    d.until("fast", STATUS, "healthy");
    assert!(eventually(|| d.docker(&["exec", "slow", "test", "-e", "/tmp/begun"]).code == 0));
    let pid = d.inspect("slow", "{{.State.Pid}}");
    d.kill9();
    std::fs::write(format!("/proc/{pid}/root/tmp/go"), "").unwrap();
    d.again();
    // The result of the probe of the last daemon's.
    assert!(eventually(|| log(&d, "slow").first() == Some(&(3, "went\n".into()))));
    assert_eq!(d.inspect("fast", STATUS), "healthy", "it was, and is");
    d.until("slow", STATUS, "unhealthy");
    let before = d.inspect("fast", "{{json .State.Health.Log}}");
    assert!(eventually(|| d.inspect("fast", "{{json .State.Health.Log}}") != before));
    // What is unhealthy stays so over a daemon's death, and over a clean restart.
    d.crash();
    assert_eq!(d.inspect("slow", STATUS), "unhealthy");
    d.finish();
}

#[test]
fn an_unhealthy_container_is_restarted_by_its_label_and_never_in_a_hurry() {
    let d = with_busybox();
    let every = ["--health-cmd", "exit 1", "--health-interval", "20ms", "--health-retries", "1", "--stop-timeout", "0"];
    run(&d, "c1", &[&["--label", "gantry.restart=on-unhealthy:3"], &every[..]].concat());
    d.until("c1", "{{.RestartCount}} {{.State.Status}} {{.State.Health.Status}}", "3 running unhealthy");
    let started = d.inspect("c1", "{{.State.StartedAt}}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(d.inspect("c1", "{{.RestartCount}} {{.State.StartedAt}}"), format!("3 {started}"));
    // By hand the counting begins anew; a stop by hand is the end of it.
    let _ = d.docker(&["restart", "-t", "0", "c1"]).ok();
    d.until("c1", "{{.RestartCount}}", "3");
    let _ = d.docker(&["stop", "-t", "0", "c1"]).ok();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(d.inspect("c1", "{{.State.Status}}"), "exited");
    for (label, options, text) in [
        ("gantry.restart=on-unhealthy", &["--no-healthcheck"][..], "needs a health check"),
        ("gantry.restart=on-unhealthy", &["--rm", "--health-cmd", "x"], "can't create 'AutoRemove' container"),
        ("gantry.restart=always", &["--health-cmd", "x"], "invalid label gantry.restart=\"always\""),
        ("gantry.health=ftp://:1", &[], "invalid target \"ftp://:1\""),
        ("gantry.health=tcp://:1", &["--health-cmd", "x"], "conflicting options"),
    ] {
        let words = [&["create", "--label", label], options, &["busybox", "true"]].concat();
        d.docker(&words).fails(1, text);
    }
    d.finish();
}

/// The daemon dies between the stop of an unhealthy container and its next start: the restart is not forgotten.
#[test]
fn a_restart_that_was_due_is_made_by_the_next_daemon() {
    let mut d = with_busybox();
    let check = "test ! -e /tmp/ill";
    let options = ["--label", "gantry.restart=on-unhealthy", "--health-cmd", check, "--health-interval", "50ms"];
    let options = [&options[..], &["--health-retries", "1", "--stop-timeout", "1000"]].concat();
    let script = "trap '' TERM; rm -f /tmp/ill; while :; do sleep 0.1; done";
    let words = [&["run", "-d", "--name", "c1"], &options[..], &["busybox", "sh", "-c", script]].concat();
    let _ = d.docker(&words).ok();
    d.until("c1", STATUS, "healthy");
    let pid = d.inspect("c1", "{{.State.Pid}}");
    let _ = d.docker(&["exec", "c1", "touch", "/tmp/ill"]).ok();
    // It ignores the stop signal.
    d.until("c1", STATUS, "unhealthy");
    d.kill9();
    assert!(process::signal(pid.parse().unwrap(), rustix::process::Signal::KILL));
    d.again();
    d.until("c1", STATUS, "healthy");
    assert_ne!(d.inspect("c1", "{{.State.Pid}}"), pid);
    d.finish();
}

/// Whoever starts it again, a container is what it was at its first start until it has been probed (B-hc-3).
#[test]
fn every_run_begins_as_starting() {
    let mut d = with_busybox();
    let every = ["--health-cmd", "test -e /run/well", "--health-interval", "50ms", "--health-retries", "1000000"];
    // The files of each run are its own.
    let words = ["--tmpfs", "/run", "--restart", "always", "--stop-timeout", "0"];
    run(&d, "c1", &[&words[..], &every[..]].concat());
    for (n, by) in ["policy", "hand", "restart", "daemon"].into_iter().enumerate() {
        assert_eq!(d.inspect("c1", STATUS), "starting", "before {by}");
        let _ = d.docker(&["exec", "c1", "touch", "/run/well"]).ok();
        d.until("c1", STATUS, "healthy");
        let pid = d.inspect("c1", "{{.State.Pid}}");
        match by {
            "policy" => assert!(process::signal(pid.parse().unwrap(), rustix::process::Signal::KILL)),
            "hand" => ["stop", "start"].into_iter().for_each(|verb| drop(d.docker(&[verb, "c1"]).ok())),
            "restart" => drop(d.docker(&["restart", "c1"]).ok()),
            _ => d.restart(),
        }
        assert!(eventually(|| !["0", &pid].contains(&d.inspect("c1", "{{.State.Pid}}").as_str())), "{by}");
        d.until("c1", STATUS, "starting");
        assert_eq!(told(&d, "c1", "event=health_status"), vec!["health_status: healthy"; n + 1], "{by}");
    }
    d.finish();
}

/// No program of the image is needed: the container's own network is reached from outside.
#[test]
fn targets_are_probed_from_inside_the_containers_network() {
    let d = with_busybox();
    let every = ["--health-interval", "50ms", "--health-retries", "1"];
    let page = "mkdir -p /www; echo well > /www/ready; httpd -f -p 127.0.0.1:8080 -h /www";
    let start = |name: &str, label: &str, network: &str, script: &str| {
        let label = format!("gantry.health={label}");
        let words = ["run", "-d", "--name", name, "--label", &label, "--network", network];
        let words = [&words[..], &every[..], &["busybox", "sh", "-c", script]].concat();
        let _ = d.docker(&words).ok();
    };
    start("web", "http://:8080/ready", "bridge", page);
    start("alone", "http://localhost:8080/ready", "none", page);
    start("absent", "http://:8080/absent", "none", page);
    start("db", "tcp://:5432", "none", "nc -ll -p 5432 -e cat");
    start("dead", "tcp://:5432", "none", "sleep 100000");
    start("mute", "http://:5432/", "none", "nc -ll -p 5432 -e sleep 100000");
    start("beside", "http://:8080/ready", "container:web", "sleep 100000");
    for name in ["web", "alone", "db", "beside"] {
        d.until(name, STATUS, "healthy");
    }
    for (name, text) in [("absent", "HTTP/1.1 404 Not Found"), ("dead", "onnection refused")] {
        d.until(name, STATUS, "unhealthy");
        assert!(log(&d, name).last().unwrap().1.contains(text), "{:?}", log(&d, name));
    }
    assert_eq!(d.inspect("mute", STATUS), "starting");
    assert_eq!(told(&d, "web", "event=health_status"), ["health_status: healthy"]);
    assert_eq!(told(&d, "web", "event=exec_create"), [""; 0]);
    d.finish();
}

/// Nothing is written for a probe that changes nothing but the log.
#[test]
fn probes_that_change_nothing_write_nothing() {
    let d = with_busybox();
    run(&d, "c1", &["--health-cmd", "true", "--health-interval", "20ms"]);
    d.until("c1", STATUS, "healthy");
    let store = d.data_root().join("gantry.redb");
    let written = || std::fs::metadata(&store).unwrap().modified().unwrap();
    // What follows the start is written by then.
    assert!(eventually(|| {
        let before = written();
        std::thread::sleep(Duration::from_millis(500));
        written() == before
    }));
    let (before, log) = (written(), d.inspect("c1", "{{json .State.Health.Log}}"));
    assert!(eventually(|| d.inspect("c1", "{{json .State.Health.Log}}") != log));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(written(), before);
    d.finish();
}
