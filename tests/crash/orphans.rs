//! Runs that the store knows nothing of: their rows were not committed when the daemon died, or are gone again.
//!
//! The tests put an older store in the place of the newest one, which is what a crash before a commit looks like.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use testkit::command::{PATIENCE, eventually};
use testkit::{Daemon, process};

use crate::calls::{self, COUNTER};
use crate::with_busybox;

/// The store, and the mark that tells how far it has come: with a newer one the store is refused as an older copy.
const FILES: [&str; 2] = ["gantry.redb", "gantry.redb.mark"];

struct Backup([Vec<u8>; 2]);

impl Backup {
    /// The store as it is now.
    fn take(d: &mut Daemon) -> Backup {
        d.kill9();
        let backup = Backup(FILES.map(|name| std::fs::read(d.data_root().join(name)).unwrap()));
        d.again();
        backup
    }

    /// Kills the daemon and lets the next one find the older store.
    fn bring_back(&self, d: &mut Daemon) {
        d.kill9();
        for (name, bytes) in FILES.iter().zip(&self.0) {
            std::fs::write(d.data_root().join(name), bytes).unwrap();
        }
    }
}

#[track_caller]
fn is_gone(pid: u32) {
    assert!(eventually(PATIENCE, || !process::alive(pid)), "{pid} lives on");
}

fn nothing_of(d: &Daemon, id: &str) {
    let groups = testkit::census::cgroups(d.cgroup());
    assert!(!groups.iter().any(|g| g.display().to_string().contains(id)), "{groups:?}");
    for dir in [d.exec_root().join(id), d.data_root().join("containers").join(id)] {
        assert!(!dir.exists(), "{}", dir.display());
    }
}

#[test]
fn containers_without_a_row_are_ended() {
    let mut d = with_busybox();
    calls::run(&d, "known", &calls::script(COUNTER));
    let known = calls::run_of(&d, "known");
    let backup = Backup::take(&mut d);
    let mut body = calls::script("trap '' TERM; sleep 1000");
    body["HostConfig"] = json!({"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostPort": "18082"}]}});
    let plain = calls::run(&d, "plain", &body);
    let frozen = calls::run(&d, "frozen", &calls::script("sleep 1000"));
    let stuck = calls::run(&d, "stuck", &calls::script("sleep 1000"));
    let dead = calls::run(&d, "dead", &calls::with_host(calls::script("sleep 1000"), json!({"PidMode": "host"})));
    let _ = d.http("POST", "/containers/frozen/pause", "").expect(204);
    let monitors = ["plain", "stuck", "dead"].map(|name| calls::monitor_of(&d, name));
    let pids = ["plain", "stuck", "dead"].map(|name| calls::run_of(&d, name).0);
    backup.bring_back(&mut d);
    assert!(process::signal(monitors[1], Signal::STOP));
    assert!(process::signal(monitors[2], Signal::KILL));
    d.again();
    pids.iter().chain(&monitors).for_each(|pid| is_gone(*pid));
    for id in [&plain, &frozen, &stuck, &dead] {
        nothing_of(&d, id);
    }
    assert_eq!(calls::run_of(&d, "known"), known);
    // The port is free.
    calls::run(&d, "again", &body);
    d.finish();
}

#[test]
fn a_start_that_was_not_committed_is_undone() {
    let mut d = with_busybox();
    let mut body = calls::script(COUNTER);
    body["HostConfig"] = json!({"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostPort": "18083"}]}});
    calls::create(&d, "first", &body);
    calls::create(&d, "short", &calls::script("exit 3"));
    let always = json!({"RestartPolicy": {"Name": "always"}});
    calls::run(&d, "always", &calls::with_host(calls::script("sleep 1000"), always));
    calls::run(&d, "second", &calls::script("sleep 1000"));
    let _ = d.http("POST", "/containers/second/stop?t=0", "").expect(204);
    let _ = d.http("POST", "/containers/always/kill", "").expect(204);
    for name in ["second", "always"] {
        calls::until(&d, name, "exited", 137);
    }
    let backup = Backup::take(&mut d);
    for name in ["first", "short", "second"] {
        calls::start(&d, name);
    }
    let pids = ["first", "second"].map(|name| calls::run_of(&d, name).0);
    backup.bring_back(&mut d);
    d.again();
    pids.iter().for_each(|pid| is_gone(*pid));
    assert_eq!(calls::state(&d, "first"), ("created".into(), 0, String::new()));
    assert_eq!(calls::state(&d, "second").0, "exited");
    assert!(["created", "exited"].contains(&calls::state(&d, "short").0.as_str()));
    calls::until(&d, "always", "running", 0);
    for name in ["first", "second"] {
        calls::start(&d, name);
    }
    d.finish();
}

/// The end was committed, but its monitor had not been let go.
#[test]
fn a_removed_container_does_not_come_back() {
    let mut d = with_busybox();
    for round in 0..8 {
        let name = format!("removed-{round}");
        let id = calls::run(&d, &name, &calls::script("sleep 1000"));
        let pid = calls::run_of(&d, &name).0;
        let removing = calls::aside(&d, "DELETE", &format!("/containers/{name}?force=1"));
        std::thread::sleep(Duration::from_millis(round * 2));
        d.crash();
        let answered = removing.join().unwrap().is_ok_and(|(status, _)| status == 204);
        let there = d.http("GET", &format!("/containers/{id}/json"), "").status == 200;
        assert!(!(answered && there), "{name} came back");
        if there {
            calls::remove(&d, &name);
        }
        is_gone(pid);
        nothing_of(&d, &id);
    }
    d.finish();
}
