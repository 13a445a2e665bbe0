//! `kill -9` of a container's monitor: the container ends with it, everybody is told, nothing hangs or stays.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::command::{PATIENCE, eventually};
use testkit::{Daemon, process};

use crate::calls::{self, COUNTER};
use crate::with_busybox;

/// Longest time until everybody knows of an end. Shorter than what the daemon has of patience with a slow monitor.
const TOLD: Duration = Duration::from_secs(9);

fn bridged(text: &str) -> Value {
    let mut body = calls::script(text);
    body["HostConfig"] = json!({"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostPort": "18081"}]}});
    body
}

#[track_caller]
fn kill_monitor(d: &Daemon, name: &str) -> u32 {
    let (pid, monitor) = (calls::run_of(d, name).0, calls::monitor_of(d, name));
    assert!(process::signal(monitor, Signal::KILL));
    pid
}

#[track_caller]
fn dies(pid: u32) {
    assert!(eventually(PATIENCE, || !process::alive(pid)), "the program outlived its monitor");
}

#[test]
fn everybody_is_told() {
    let d = with_busybox();
    let id = calls::run(&d, "told", &bridged(COUNTER));
    let waiting = calls::aside(&d, "POST", "/containers/told/wait");
    let following = calls::aside(&d, "GET", "/containers/told/logs?stdout=1&follow=1");
    let mut attached = d.connection();
    let head = attached.upgrade("/containers/told/attach?stream=1&stdout=1", "");
    assert_eq!(head.status, 101);
    let exec = d.http("POST", "/containers/told/exec", r#"{"Cmd":["sleep","1000"],"AttachStdout":true}"#).expect(201);
    let exec = exec.json()["Id"].as_str().unwrap().to_string();
    let mut running = d.connection();
    assert_eq!(running.upgrade(&format!("/exec/{exec}/start"), "{}").status, 101);
    let session = || d.http("GET", &format!("/exec/{exec}/json"), "").expect(200).json();
    assert!(eventually(PATIENCE, || session()["Running"] == true), "{}", session());
    assert!(eventually(PATIENCE, || calls::unbroken(&calls::log(&d, "told")) > 5), "it does not count");
    let begin = Instant::now();
    let pid = kill_monitor(&d, "told");
    calls::until(&d, "told", "exited", 137);
    assert!(begin.elapsed() < TOLD, "{:?}", begin.elapsed());
    dies(pid);
    assert!(calls::state(&d, "told").2.contains("monitor"), "{:?}", calls::state(&d, "told"));
    let (_, body) = waiting.join().unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&body).trim(), r#"{"StatusCode":137}"#);
    let (_, log) = following.join().unwrap().unwrap();
    assert!(calls::unbroken(&testkit::http::stream_text(&log, 1)) > 5);
    // Closed, gracefully or not.
    let _ = attached.rest();
    let _ = running.rest();
    let found = session();
    assert_eq!((&found["Running"], &found["ExitCode"]), (&json!(false), &json!(137)));
    // Its address and port are free, its cgroup is gone.
    let groups = testkit::census::cgroups(d.cgroup());
    assert!(!groups.iter().any(|g| g.display().to_string().contains(&id)), "{groups:?}");
    calls::run(&d, "next", &bridged("sleep 1000"));
    calls::remove(&d, "next");
    calls::start(&d, "told");
    assert!(calls::run_of(&d, "told").0 != pid);
    drop((attached, running));
    d.finish();
}

#[test]
fn restart_policies_count_it_as_a_failure() {
    let d = with_busybox();
    let policy = |name: &str, most: i64| json!({"RestartPolicy": {"Name": name, "MaximumRetryCount": most}});
    calls::run(&d, "always", &calls::with_host(bridged("sleep 1000"), policy("always", 0)));
    calls::run(&d, "once", &calls::with_host(calls::script("sleep 1000"), policy("on-failure", 1)));
    calls::run(&d, "gone", &calls::with_host(calls::script("sleep 1000"), json!({"AutoRemove": true})));
    for name in ["always", "once", "gone"] {
        dies(kill_monitor(&d, name));
    }
    for name in ["always", "once"] {
        // It is said to run until its end is noticed, too.
        assert!(eventually(PATIENCE, || calls::inspect(&d, name)["RestartCount"] == 1), "{name} does not start again");
        calls::until(&d, name, "running", 0);
        assert_eq!(calls::inspect(&d, name)["RestartCount"], 1);
    }
    dies(kill_monitor(&d, "once"));
    calls::until(&d, "once", "exited", 137);
    assert!(eventually(PATIENCE, || d.http("GET", "/containers/gone/json", "").status == 404));
    d.finish();
}

#[test]
fn while_the_daemon_is_away() {
    let mut d = with_busybox();
    let always = json!({"RestartPolicy": {"Name": "always"}});
    calls::run(&d, "plain", &bridged("sleep 1000"));
    calls::run(&d, "always", &calls::with_host(calls::script("sleep 1000"), always));
    calls::run(&d, "gone", &calls::with_host(calls::script("sleep 1000"), json!({"AutoRemove": true})));
    calls::run(&d, "other", &calls::script(COUNTER));
    let other = calls::run_of(&d, "other");
    let monitors = ["plain", "always", "gone"].map(|name| (calls::run_of(&d, name).0, calls::monitor_of(&d, name)));
    d.kill9();
    for (_, monitor) in monitors {
        assert!(process::signal(monitor, Signal::KILL));
    }
    d.again();
    monitors.iter().for_each(|(pid, _)| dies(*pid));
    calls::until(&d, "plain", "exited", 137);
    calls::until(&d, "always", "running", 0);
    assert!(eventually(PATIENCE, || d.http("GET", "/containers/gone/json", "").status == 404));
    assert_eq!(calls::run_of(&d, "other"), other);
    calls::run(&d, "next", &bridged("sleep 1000"));
    d.finish();
}

/// Whoever dies first, and however shortly after the other follows.
#[test]
fn together_with_the_daemon() {
    let mut d = with_busybox();
    for millis in [0, 1, 3, 10, 30] {
        calls::run(&d, "both", &bridged("sleep 1000"));
        let pid = kill_monitor(&d, "both");
        std::thread::sleep(Duration::from_millis(millis));
        d.crash();
        dies(pid);
        calls::until(&d, "both", "exited", 137);
        calls::remove(&d, "both");
    }
    d.finish();
}

/// A monitor that is killed as soon as it is there: the start fails or succeeds, and nothing of it stays.
#[test]
fn in_the_middle_of_a_start() {
    let d = with_busybox();
    for (round, millis) in [0, 0, 1, 2, 4, 6, 8, 12, 16, 24].into_iter().enumerate() {
        let name = format!("early-{round}");
        let id = calls::create(&d, &name, &bridged("sleep 1000"));
        let starting = calls::aside(&d, "POST", &format!("/containers/{name}/start"));
        let wanted = format!("gantry-monitor {id}");
        let mut found = None;
        eventually(PATIENCE, || {
            found = process::all().into_iter().find(|pid| process::command_line(*pid).as_ref() == Some(&wanted));
            found.is_some()
        });
        std::thread::sleep(Duration::from_millis(millis));
        assert!(process::signal(found.expect("the monitor appears"), Signal::KILL));
        let (status, _) = starting.join().unwrap().unwrap();
        match status {
            204 => calls::until(&d, &name, "exited", 137),
            500 => calls::until(&d, &name, "created", 128),
            other => panic!("start: {other}"),
        }
        // The next start works.
        calls::start(&d, &name);
        calls::remove(&d, &name);
    }
    d.finish();
}

/// By a program that sees it, or by mistake: the daemon notices.
#[test]
fn a_monitor_that_was_stopped_goes_on() {
    let d = with_busybox();
    calls::run(&d, "stopped", &calls::script(COUNTER));
    let monitor = calls::monitor_of(&d, "stopped");
    for _ in 0..2 {
        assert!(process::signal(monitor, Signal::STOP));
        let count = || calls::unbroken(&calls::log(&d, "stopped"));
        let before = count();
        assert!(eventually(PATIENCE, || count() > before + 20), "it stands at {before}");
    }
    assert!(d.log().contains("was stopped by a signal; it was let go on"), "{}", d.log());
    calls::remove(&d, "stopped");
    d.finish();
}

/// A monitor that stands still holds up nothing but its own container, and that one can be removed.
#[test]
fn stopped_and_not_killed() {
    let mut d = with_busybox();
    for name in ["still", "fine"] {
        calls::run(&d, name, &calls::script(COUNTER));
    }
    let (run, monitor) = (calls::run_of(&d, "still"), calls::monitor_of(&d, "still"));
    assert!(process::signal(monitor, Signal::STOP));
    calls::prompt(&d, &["still", "fine"]);
    d.crash();
    calls::prompt(&d, &["still", "fine"]);
    assert_eq!(calls::run_of(&d, "still"), run);
    assert!(process::signal(monitor, Signal::CONT));
    let exec = d.http("POST", "/containers/still/exec", r#"{"Cmd":["true"]}"#).expect(201).json();
    let path = format!("/exec/{}/start", exec["Id"].as_str().unwrap());
    let _ = d.http("POST", &path, r#"{"Detach":true}"#).expect(200);
    assert!(process::signal(monitor, Signal::STOP));
    let begin = Instant::now();
    calls::remove(&d, "still");
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    for pid in [run.0, monitor] {
        assert!(eventually(PATIENCE, || !process::alive(pid)), "{pid} lives on");
    }
    d.finish();
}
