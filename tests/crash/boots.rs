//! Which containers a start of the daemon starts, and which of `--rm` it or a restart removes.

use serde_json::json;
use testkit::Daemon;
use testkit::command::{PATIENCE, eventually};

use crate::calls;
use crate::with_busybox;

/// Ends on SIGTERM with 0, and says when it would.
const OBEDIENT: &str = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done";
/// Policies of containers that were stopped by hand, the code that they ended with, and whether a start of the daemon starts them.
const STOPPED: [(&str, i64, bool); 8] = [
    ("no", 0, false),
    ("no", 137, false),
    ("always", 0, true),
    ("always", 137, true),
    ("unless-stopped", 0, false),
    ("unless-stopped", 137, false),
    ("on-failure", 0, false),
    // It goes by the code alone, as the reference's does.
    ("on-failure", 137, true),
];

fn stop(d: &Daemon, name: &str, code: i64) {
    let ready = || calls::log(d, name).lines().last() == Some("ready");
    assert!(eventually(PATIENCE, ready), "{name}: {}", calls::log(d, name));
    let wait = if code == 0 { 1000 } else { 0 };
    let signal = if code == 0 { "TERM" } else { "KILL" };
    let _ = d.http("POST", &format!("/containers/{name}/stop?t={wait}&signal={signal}"), "").expect(204);
    calls::until(d, name, "exited", code);
}

/// A container that was only created is not started, whatever its policy; one that was stopped by hand by some.
#[test]
fn what_was_never_started_stays_so() {
    let mut d = with_busybox();
    for (policy, code, _) in STOPPED {
        let body = calls::with_host(calls::script(OBEDIENT), json!({"RestartPolicy": {"Name": policy}}));
        calls::create(&d, &format!("created-{policy}-{code}"), &body);
        calls::run(&d, &format!("stopped-{policy}-{code}"), &body);
        stop(&d, &format!("stopped-{policy}-{code}"), code);
    }
    for ending in ["killed", "stopped"] {
        if ending == "killed" {
            d.crash()
        } else {
            d.restart()
        }
        let started = || STOPPED.into_iter().filter(|(_, _, starts)| *starts);
        started().for_each(|(policy, code, _)| calls::until(&d, &format!("stopped-{policy}-{code}"), "running", 0));
        for (policy, code, starts) in STOPPED {
            let status = |what: &str| calls::state(&d, &format!("{what}-{policy}-{code}")).0;
            assert_eq!(status("created"), "created", "{ending} {policy} {code}");
            assert_eq!(status("stopped"), if starts { "running" } else { "exited" }, "{ending} {policy} {code}");
        }
        started().for_each(|(policy, code, _)| stop(&d, &format!("stopped-{policy}-{code}"), code));
    }
    d.finish();
}

/// A restart by hand ends a run of a container with `--rm` and does not remove it; its next end does.
#[test]
fn a_restart_by_hand_removes_nothing() {
    let d = with_busybox();
    let body = calls::with_host(calls::script("sleep 1000"), json!({"AutoRemove": true}));
    let id = calls::run(&d, "c", &body);
    for _ in 0..3 {
        let before = calls::run_of(&d, "c");
        let _ = d.http("POST", "/containers/c/restart?t=0", "").expect(204);
        assert_ne!(calls::run_of(&d, "c"), before);
        assert_eq!(calls::inspect(&d, "c")["Id"], id.as_str());
    }
    let _ = d.http("POST", "/containers/c/stop?t=0", "").expect(204);
    assert!(eventually(PATIENCE, || d.http("GET", "/containers/c/json", "").status == 404));
    d.finish();
}
