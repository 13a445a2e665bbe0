//! Signals by hand, and what the restart policy makes of the end that comes of them, at once or later.

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::command::{PATIENCE, eventually};
use testkit::{Daemon, process};

use crate::calls;
use crate::with_busybox;

/// Ends on TERM, INT and USR1, and says when it would; HUP it ignores.
const SCRIPT: &str = "trap '' HUP; trap 'exit 3' TERM INT USR1; echo ready; while :; do sleep 0.05; done";

/// A container that runs, with a restart policy and, unless it is empty, a stop signal.
fn run(d: &Daemon, name: &str, (policy, stop_signal): (&str, &str)) {
    let mut body = calls::with_host(calls::script(SCRIPT), json!({"RestartPolicy": {"Name": policy}}));
    if !stop_signal.is_empty() {
        body["StopSignal"] = Value::from(stop_signal);
    }
    calls::run(d, name, &body);
    is_ready(d, name, 1);
}

/// Its program has been ready so many times.
#[track_caller]
fn is_ready(d: &Daemon, name: &str, times: usize) {
    let ready = || calls::log(d, name).matches("ready").count() >= times;
    assert!(eventually(PATIENCE, ready), "{name}: {}", calls::log(d, name));
}

fn kill(d: &Daemon, name: &str, signal: &str) {
    let _ = d.http("POST", &format!("/containers/{name}/kill?signal={signal}"), "").expect(204);
}

/// SIGKILL and the stop signal count as a stop; where none is named, every signal does. Whatever else it is sent, the policy holds (B-rs-2).
#[test]
fn the_signals_that_count_as_a_stop() {
    let d = with_busybox();
    let stays_down = [
        ("always", "", "TERM"),
        ("always", "", "INT"),
        ("unless-stopped", "", "USR1"),
        ("on-failure", "", "INT"),
        ("always", "INT", "2"),
        ("always", "SIGINT", "INT"),
        ("always", "USR1", "KILL"),
    ];
    for (n, (policy, stop_signal, signal)) in stays_down.into_iter().enumerate() {
        let name = format!("down{n}");
        run(&d, &name, (policy, stop_signal));
        kill(&d, &name, signal);
        // No restart is pending when the end is shown.
        calls::until(&d, &name, "exited", if signal == "KILL" { 137 } else { 3 });
        assert_eq!(calls::inspect(&d, &name)["RestartCount"], 0, "{policy} {stop_signal} {signal}");
    }
    let comes_back = [("always", "TERM", "INT"), ("always", "USR1", "TERM"), ("on-failure", "INT", "USR1")];
    for (n, (policy, stop_signal, signal)) in comes_back.into_iter().enumerate() {
        let name = format!("back{n}");
        run(&d, &name, (policy, stop_signal));
        kill(&d, &name, signal);
        is_ready(&d, &name, 2);
    }
    // It counts for the end of this run, however late, and for no other.
    let end = |name: &str| assert!(process::signal(calls::run_of(&d, name).0, Signal::USR1));
    run(&d, "later", ("always", ""));
    kill(&d, "later", "HUP");
    end("later");
    calls::until(&d, "later", "exited", 3);
    calls::start(&d, "later");
    is_ready(&d, "later", 2);
    end("later");
    is_ready(&d, "later", 3);
    d.finish();
}

/// A signal that counts as a stop lets a paused container go on, so that it may end; another one waits.
#[test]
fn a_paused_container_is_sent_a_signal() {
    let d = with_busybox();
    for (name, stop_signal, status) in [("plain", "", "running"), ("named", "TERM", "paused")] {
        run(&d, name, ("no", stop_signal));
        let _ = d.http("POST", &format!("/containers/{name}/pause"), "").expect(204);
        kill(&d, name, "HUP");
        assert!(eventually(PATIENCE, || calls::state(&d, name).0 == status), "{name}: {:?}", calls::state(&d, name));
        kill(&d, name, "TERM");
        calls::until(&d, name, "exited", 3);
    }
    d.finish();
}
