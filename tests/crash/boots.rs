//! Which containers a start of the daemon starts, and which of `--rm` it or a restart removes.

use serde_json::{Value, json};
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

/// A container that was only created is not started, whatever its policy; one that was stopped by hand by some (B-rs-2, B-rs-4).
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

/// While a container waits for its restart it is running and restarting to clients, and has no process that they could use; who waits
/// for its end is told of each (B-rs-3).
#[test]
fn what_waits_for_its_restart() {
    let d = with_busybox();
    let place = d.path("place");
    std::fs::create_dir(&place).unwrap();
    let host = json!({"RestartPolicy": {"Name": "always"}, "Binds": [format!("{}:/place", place.display())]});
    let id = calls::run(&d, "c", &calls::with_host(calls::script("[ -e /place/go ] || exit 3; exec sleep 1000"), host));
    let shown = || {
        let all = calls::inspect(&d, "c");
        (all["State"].clone(), all["RestartCount"].as_u64().unwrap())
    };
    let calls = [
        ("POST", "/containers/c/attach?stream=1&stdout=1", ""),
        ("POST", "/containers/c/pause", ""),
        ("POST", "/containers/c/exec", r#"{"Cmd":["true"]}"#),
        ("GET", "/containers/c/top", ""),
    ];
    let (mut state, mut answers) = (Value::Null, Vec::new());
    // The pauses grow: one of them is long enough for all these calls.
    let held = eventually(PATIENCE, || {
        let before = shown();
        state = before.0.clone();
        answers = calls.map(|(method, path, body)| d.http(method, path, body)).into();
        state["Restarting"] == true && shown() == before
    });
    assert!(held, "{state}");
    for ((method, path, _), answer) in calls.iter().zip(&answers) {
        // On a connection that was about to become a stream errors are plain text.
        let (who, told) = match path.contains("attach") {
            true => ("container c".to_owned(), answer.text().trim_end().to_owned()),
            false => (format!("Container {id}"), answer.message()),
        };
        let text = format!("{who} is restarting, wait until the container is running");
        assert_eq!((answer.status, told), (409, text), "{method} {path}");
    }
    assert_eq!((&state["Status"], &state["Running"], &state["Pid"]), (&json!("restarting"), &json!(true), &json!(0)));
    assert_eq!((&state["ExitCode"], &state["Paused"]), (&json!(3), &json!(false)));
    let waiting = calls::aside(&d, "POST", "/containers/c/wait?condition=not-running");
    let (status, text) = waiting.join().unwrap().unwrap();
    let code: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((status, &code["StatusCode"]), (200, &json!(3)));
    // A stop ends the waiting; nothing comes afterwards.
    let _ = d.http("POST", "/containers/c/stop", "").expect(204);
    let (state, restarts) = shown();
    assert_eq!(
        (&state["Status"], &state["Restarting"], &state["Running"]),
        (&json!("exited"), &json!(false), &json!(false))
    );
    // A start by hand counts anew.
    assert!(restarts > 0);
    std::fs::write(place.join("go"), "").unwrap();
    calls::start(&d, "c");
    let (state, restarts) = shown();
    assert_eq!((&state["Status"], restarts), (&json!("running"), 0));
    d.finish();
}
