//! Containers that behave badly: nothing of it holds up anything else, and they can be removed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::{Daemon, process};

use crate::calls::{self, COUNTER};
use crate::with_images;

/// Removes by force and tells how long that took.
#[track_caller]
fn remove_soon(d: &Daemon, name: &str) {
    let begin = Instant::now();
    calls::remove(d, name);
    assert!(begin.elapsed() < Duration::from_secs(8), "removing {name} took {:?}", begin.elapsed());
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
    let rss = process::memory_kib(d.pid(), "status", "VmRSS").unwrap();
    assert!(rss < 40 << 10, "the daemon has {rss} KiB");
    let monitor = calls::monitor_of(&d, "short");
    let rss = process::memory_kib(monitor, "status", "VmRSS").unwrap();
    assert!(rss < 30 << 10, "the monitor has {rss} KiB");
    for name in ["short", "long"] {
        remove_soon(&d, name);
    }
    assert!(calls::unbroken(&calls::log(&d, "calm")) > 100);
    drop((attached, following));
    d.finish();
}

#[test]
fn sigterm_is_ignored() {
    let d = with_images();
    let deaf = calls::script("trap '' TERM; echo ready; while true; do sleep 0.1; done");
    for name in ["deaf", "deafer"] {
        calls::run(&d, name, &deaf);
        assert!(testkit::command::eventually(Duration::from_secs(5), || calls::log(&d, name).contains("ready")));
    }
    let begin = Instant::now();
    let _ = d.http("POST", "/containers/deaf/stop?t=1", "").expect(204);
    assert!((1..4).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    assert_eq!(calls::state(&d, "deaf").0, "exited");
    assert_eq!(calls::state(&d, "deaf").1, 137);
    // A long stop holds up nothing, not even its own container.
    let stopping = calls::aside(&d, "POST", "/containers/deafer/stop?t=20");
    std::thread::sleep(Duration::from_millis(300));
    calls::prompt(&d, &["deaf", "deafer"]);
    let exec = d.http("POST", "/containers/deafer/exec", r#"{"Cmd":["true"]}"#).expect(201).json();
    let path = format!("/exec/{}/start", exec["Id"].as_str().unwrap());
    let _ = d.http("POST", &path, r#"{"Detach":true}"#).expect(200);
    remove_soon(&d, "deafer");
    assert!(matches!(stopping.join().unwrap(), Ok((204 | 404, _))));
    d.finish();
}

#[test]
fn a_fork_bomb_under_a_limit() {
    let d = with_images();
    let bomb = json!({"Image": "probe", "Cmd": ["fork-bomb"], "HostConfig": {"NetworkMode": "none", "PidsLimit": 60}});
    for name in ["bomb", "bomb-stopped"] {
        calls::run(&d, name, &bomb);
    }
    calls::run(&d, "calm", &calls::script(COUNTER));
    std::thread::sleep(Duration::from_secs(1));
    calls::prompt(&d, &["bomb", "calm"]);
    let begin = Instant::now();
    let top = d.http("GET", "/containers/bomb/top", "").expect(200).json();
    assert!(top["Processes"].as_array().unwrap().len() <= 60);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    // There is no place for another process: an error, at once.
    let exec = d.http("POST", "/containers/bomb/exec", r#"{"Cmd":["/probe","true"]}"#).expect(201).json();
    let path = format!("/exec/{}/start", exec["Id"].as_str().unwrap());
    let begin = Instant::now();
    let answer = d.http("POST", &path, r#"{"Detach":true}"#);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?} {}", begin.elapsed(), answer.text());
    let _ = d.http("POST", "/containers/bomb-stopped/stop?t=1", "").expect(204);
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
        let id = calls::run(&d, name, &calls::script(COUNTER));
        let (file, frozen, _) = freezer(&d, &id);
        std::fs::write(file, frozen).unwrap();
    }
    calls::prompt(&d, &["stopped", "calm"]);
    // A process cannot be started in there: an error, or it waits; others do not.
    let exec = d.http("POST", "/containers/stopped/exec", r#"{"Cmd":["true"]}"#);
    if exec.status == 201 {
        let path = format!("/exec/{}/start", exec.json()["Id"].as_str().unwrap());
        let begin = Instant::now();
        let answer = d.http("POST", &path, r#"{"Detach":true}"#);
        assert!(answer.status >= 400, "{} {}", answer.status, answer.text());
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
    calls::prompt(&d, &["stopped", "calm"]);
    let begin = Instant::now();
    let _ = d.http("POST", "/containers/stopped/stop?t=1", "").expect(204);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
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
        calls::run(&d, name, &calls::script(COUNTER));
        let _ = d.http("POST", &format!("/containers/{name}/pause"), "").expect(204);
    }
    calls::prompt(&d, &["stopped", "removed"]);
    let refused = d.http("POST", "/containers/stopped/exec", r#"{"Cmd":["true"]}"#).expect(409);
    assert!(refused.message().contains("is paused, unpause the container before exec"), "{}", refused.message());
    let begin = Instant::now();
    let _ = d.http("POST", "/containers/stopped/stop?t=1", "").expect(204);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
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
    let begin = Instant::now();
    calls::until(&d, "parent", "exited", 5);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let child: u32 = calls::log(&d, "parent").trim().parse().unwrap();
    assert!(!process::alive(child), "{child} lives on");
    calls::start(&d, "parent");
    remove_soon(&d, "parent");
    d.finish();
}
