//! Containers that behave badly: nothing of it holds up anything else, and they can be removed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::command::{PATIENCE, eventually};
use testkit::{Daemon, process};

use crate::calls::{self, COUNTER};
use crate::with_images;

/// Longest time of what waits for nothing but work: far below what it must not wait for.
const SOON: Duration = Duration::from_secs(40);
/// Seconds that containers here have to stop unless the call says otherwise.
const LONG_STOP: i64 = 600;

#[track_caller]
fn soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let done = work();
    assert!(begin.elapsed() < SOON, "{what} took {:?}", begin.elapsed());
    done
}

/// Removes by force.
#[track_caller]
fn remove_soon(d: &Daemon, name: &str) {
    soon(&format!("removing {name}"), || calls::remove(d, name));
    assert!(!d.log().contains("monitor, which does not answer"), "the monitor of {name} stood still");
}

/// Stops with a second's grace, and not with the long one that the container asks for.
#[track_caller]
fn stop_soon(d: &Daemon, name: &str) {
    let stop = || d.http("POST", &format!("/containers/{name}/stop?t=1"), "").expect(204);
    let _ = soon(&format!("stopping {name}"), stop);
}

/// Busybox running a script, with a long time to stop.
fn script(text: &str) -> Value {
    let mut body = calls::script(text);
    body["StopTimeout"] = json!(LONG_STOP);
    body
}

/// Makes and starts an exec session without streams; the answer to the start.
#[track_caller]
fn exec_soon(d: &Daemon, name: &str, words: &[&str]) -> testkit::Response {
    let body = json!({"Cmd": words}).to_string();
    let exec = d.http("POST", &format!("/containers/{name}/exec"), &body).expect(201).json();
    let path = format!("/exec/{}/start", exec["Id"].as_str().unwrap());
    soon(&format!("{words:?} in {name}"), || d.http("POST", &path, r#"{"Detach":true}"#))
}

#[test]
fn a_flood_of_output() {
    let d = with_images();
    let options = json!({"LogConfig": {"Type": "json-file", "Config": {"max-size": "2m", "max-file": "2"}}});
    calls::run(&d, "short", &calls::with_host(calls::script("yes"), options));
    calls::run(
        &d,
        "long",
        &json!({"Image": "probe", "Cmd": ["flood", "600000000", "3000"], "HostConfig": {"NetworkMode": "none"}}),
    );
    calls::run(&d, "calm", &calls::script(COUNTER));
    // A client that never reads, and one that never reads the log.
    let mut attached = d.connection();
    assert_eq!(attached.upgrade("/containers/short/attach?stream=1&stdout=1", "").status, 101);
    let mut following = d.connection();
    following.send(b"GET /containers/short/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        calls::prompt(&d, &["short", "long", "calm"]);
        std::thread::sleep(Duration::from_millis(100));
    }
    let rss = process::memory_kib(d.pid(), "status", "RssAnon").unwrap();
    assert!(rss < 40 << 10, "the daemon has {rss} KiB");
    let monitor = calls::monitor_of(&d, "short");
    let rss = process::memory_kib(monitor, "status", "RssAnon").unwrap();
    assert!(rss < 30 << 10, "the monitor has {rss} KiB");
    for name in ["short", "long"] {
        remove_soon(&d, name);
    }
    assert!(eventually(PATIENCE, || calls::unbroken(&calls::log(&d, "calm")) > 100), "the calm one stands");
    drop((attached, following));
    d.finish();
}

#[test]
fn sigterm_is_ignored() {
    let d = with_images();
    let deaf = script("trap '' TERM; echo ready; while true; do sleep 0.1; done");
    for name in ["deaf", "deafer"] {
        calls::run(&d, name, &deaf);
        assert!(eventually(PATIENCE, || calls::log(&d, name).contains("ready")));
    }
    let begin = Instant::now();
    stop_soon(&d, "deaf");
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(calls::state(&d, "deaf").0, "exited");
    assert_eq!(calls::state(&d, "deaf").1, 137);
    // A long stop holds up nothing, not even its own container.
    let stopping = calls::aside(&d, "POST", "/containers/deafer/stop");
    std::thread::sleep(Duration::from_millis(300));
    calls::prompt(&d, &["deaf", "deafer"]);
    let _ = exec_soon(&d, "deafer", &["true"]).expect(200);
    remove_soon(&d, "deafer");
    assert!(matches!(stopping.join().unwrap(), Ok((204 | 404, _))));
    d.finish();
}

#[test]
fn a_fork_bomb_under_a_limit() {
    let d = with_images();
    let host = json!({"NetworkMode": "none", "PidsLimit": 60});
    let bomb = json!({"Image": "probe", "Cmd": ["fork-bomb"], "StopTimeout": LONG_STOP, "HostConfig": host});
    for name in ["bomb", "bomb-stopped"] {
        calls::run(&d, name, &bomb);
    }
    calls::run(&d, "calm", &calls::script(COUNTER));
    std::thread::sleep(Duration::from_secs(1));
    calls::prompt(&d, &["bomb", "calm"]);
    let top = soon("top", || d.http("GET", "/containers/bomb/top", "").expect(200).json());
    assert!(top["Processes"].as_array().unwrap().len() <= 60);
    // There is hardly a place for another process: an answer comes nevertheless.
    let _ = exec_soon(&d, "bomb", &["/probe", "true"]);
    stop_soon(&d, "bomb-stopped");
    for name in ["bomb", "bomb-stopped"] {
        remove_soon(&d, name);
    }
    d.finish();
}

/// The switch of the freezer, whichever version of control groups this is.
fn freezer(d: &Daemon, id: &str) -> (PathBuf, &'static str, &'static str) {
    let groups = testkit::census::cgroups(d.cgroup());
    let own = groups.into_iter().filter(|g| g.ends_with(id));
    let switch =
        own.flat_map(|dir| [(dir.join("freezer.state"), "FROZEN", "THAWED"), (dir.join("cgroup.freeze"), "1", "0")]);
    // A hybrid machine has both; the old one stops signals too.
    let mut found: Vec<_> = switch.filter(|(path, ..)| path.exists()).collect();
    found.sort_by_key(|(path, ..)| !path.ends_with("freezer.state"));
    found.swap_remove(0)
}

#[test]
fn frozen_behind_the_daemons_back() {
    let d = with_images();
    calls::run(&d, "calm", &calls::script(COUNTER));
    for name in ["stopped", "removed", "killed"] {
        let id = calls::run(&d, name, &script(COUNTER));
        let (file, frozen, _) = freezer(&d, &id);
        std::fs::write(file, frozen).unwrap();
    }
    calls::prompt(&d, &["stopped", "calm"]);
    // A process cannot be started in there: an error.
    let answer = exec_soon(&d, "stopped", &["true"]);
    assert!(answer.status >= 400, "{} {}", answer.status, answer.text());
    calls::prompt(&d, &["stopped", "calm"]);
    stop_soon(&d, "stopped");
    assert_eq!(calls::state(&d, "stopped").1, 137);
    let _ = d.http("POST", "/containers/killed/kill", "").expect(204);
    calls::until(&d, "killed", "exited", 137);
    remove_soon(&d, "removed");
    d.finish();
}

#[test]
fn paused() {
    let d = with_images();
    for name in ["stopped", "removed", "killed", "crashed"] {
        calls::run(&d, name, &script(COUNTER));
        let _ = d.http("POST", &format!("/containers/{name}/pause"), "").expect(204);
    }
    calls::prompt(&d, &["stopped", "removed"]);
    let refused = d.http("POST", "/containers/stopped/exec", r#"{"Cmd":["true"]}"#).expect(409);
    assert!(refused.message().contains("is paused, unpause the container before exec"), "{}", refused.message());
    stop_soon(&d, "stopped");
    let _ = d.http("POST", "/containers/killed/kill", "").expect(204);
    calls::until(&d, "killed", "exited", 137);
    remove_soon(&d, "removed");
    let monitor = calls::inspect(&d, "crashed")["State"]["Pid"].as_u64().and_then(|pid| process::parent(pid as u32));
    assert!(process::signal(monitor.unwrap(), rustix::process::Signal::KILL));
    calls::until(&d, "crashed", "exited", 137);
    d.finish();
}

/// Without a PID namespace of its own a container's end does not end its other processes by itself.
#[test]
fn children_left_in_the_hosts_pid_namespace() {
    let d = with_images();
    let host = json!({"PidMode": "host"});
    let body = calls::with_host(calls::script("sleep 1234 & echo $!; sleep 0.3; exit 5"), host);
    calls::run(&d, "parent", &body);
    soon("the end", || calls::until(&d, "parent", "exited", 5));
    let child: u32 = calls::log(&d, "parent").trim().parse().unwrap();
    assert!(eventually(PATIENCE, || !process::alive(child)), "{child} lives on");
    calls::start(&d, "parent");
    remove_soon(&d, "parent");
    d.finish();
}
