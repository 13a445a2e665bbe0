//! An answer is a promise: what was acknowledged is on the disk; what could not be recorded is refused and has not happened,
//! for this daemon and for the next one.

use std::path::PathBuf;

use serde_json::{Value, json};
use testkit::command::{PATIENCE, eventually};
use testkit::{Daemon, process};

use crate::calls;
use crate::with_busybox;

const NO_SPACE: &str = "no space left on device";

fn store(d: &Daemon) -> PathBuf {
    d.data_root().join("gantry.redb")
}

/// Refused for the disk, in the client's words.
#[track_caller]
fn is_refused(d: &Daemon, method: &str, path: &str, body: &Value) {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let answer = d.http(method, path, &text);
    assert_eq!(answer.status, 500, "{method} {path}: {}", answer.text());
    assert!(answer.message().to_lowercase().contains(NO_SPACE), "{method} {path}: {}", answer.message());
}

/// Processes in the control group of a container.
fn processes(d: &Daemon, id: &str) -> Vec<u32> {
    let groups = testkit::census::cgroup_roots(d.cgroup()).into_iter().map(|root| root.join(id));
    groups.flat_map(|group| process::in_cgroup(&group)).collect()
}

/// The actions of all events of the daemon so far.
fn actions(d: &Daemon) -> Vec<String> {
    let now = d.exec_inside(&["date", "+%s.%N"]).text();
    let text = d.http("GET", &format!("/events?since=0&until={now}"), "").expect(200).text();
    let action = |line: &str| Some(serde_json::from_str::<Value>(line).ok()?["Action"].as_str()?.to_owned());
    text.lines().filter_map(action).collect()
}

/// A container that ends only when a file appears in its `/v`, and tells of the stop signal.
fn deaf(place: &str) -> Value {
    let script = "trap 'echo TERM' TERM; echo up; while [ ! -e /v/go ]; do sleep 0.01; done; exit 3";
    let host = json!({"Binds": [format!("{place}:/v")], "RestartPolicy": {"Name": "unless-stopped"}});
    calls::with_host(calls::script(script), host)
}

/// A container that has never run, and one that ran and was stopped by hand.
struct Refused {
    ids: [String; 2],
}

impl Refused {
    const NAMES: [&str; 2] = ["new", "again"];

    fn make(d: &Daemon, policies: [&str; 2]) -> Refused {
        let make = |(name, policy): (&str, &str)| {
            let host = json!({"RestartPolicy": {"Name": policy}, "NetworkMode": "bridge"});
            calls::create(d, name, &calls::with_host(calls::script("sleep 1000"), host))
        };
        let [new, again] = Self::NAMES;
        let ids = [make((new, policies[0])), make((again, policies[1]))];
        calls::start(d, again);
        let _ = d.http("POST", "/containers/again/stop?t=0", "").expect(204);
        Refused { ids }
    }

    /// Neither runs, and no process of theirs goes on.
    #[track_caller]
    fn do_not_run(&self, d: &Daemon, when: &str) {
        for (name, id) in Self::NAMES.iter().zip(&self.ids) {
            let (status, ..) = calls::state(d, name);
            assert!(["created", "exited"].contains(&status.as_str()), "{name} is {status} {when}");
            assert_eq!(processes(d, id), [0; 0], "{name} goes on {when}");
        }
    }
}

/// With `call` failing on the store: start and restart are refused, and the next daemon finds nothing that was to run.
fn refused_starts(d: &mut Daemon, call: &str, policies: [&str; 2]) {
    let both = Refused::make(d, policies);
    let starts = |d: &Daemon| actions(d).iter().filter(|action| *action == "start").count();
    let before = starts(d);
    let fault = d.fail(call, &store(d), "ENOSPC");
    for (name, status) in Refused::NAMES.iter().zip(["created", "exited"]) {
        for verb in ["start", "restart"] {
            is_refused(d, "POST", &format!("/containers/{name}/{verb}"), &Value::Null);
            let (is, code, error) = calls::state(d, name);
            assert!(is == status && code == 128 && error.to_lowercase().contains(NO_SPACE), "{is} {code} {error}");
        }
    }
    both.do_not_run(d, "after a start that was refused");
    assert_eq!(starts(d), before, "a start that was refused was told of");
    d.kill9();
    drop(fault);
    d.again();
    both.do_not_run(d, "in the next daemon");
    for name in Refused::NAMES {
        calls::start(d, name);
        assert_eq!(calls::state(d, name).0, "running");
        calls::remove(d, name);
    }
}

#[test]
fn a_start_that_cannot_be_recorded_is_refused_and_taken_back() {
    let mut d = with_busybox();
    refused_starts(&mut d, "pwrite64", ["always", "unless-stopped"]);
    // A commit that was written and not synced may be on the disk all the same: a policy could go by it.
    refused_starts(&mut d, "fdatasync", ["no", "no"]);
    d.finish();
}

#[test]
fn a_stop_is_recorded_before_its_signal_goes_out() {
    let mut d = with_busybox();
    for verb in ["stop?t=1000", "kill?signal=TERM"] {
        let name = verb.split('?').next().unwrap();
        let place = d.path(name);
        std::fs::create_dir(&place).unwrap();
        calls::run(&d, name, &deaf(&place.display().to_string()));
        assert!(eventually(PATIENCE, || calls::log(&d, name) == "up\n"));
        let run = calls::run_of(&d, name);
        let path = format!("/containers/{name}/{verb}");
        let fault = d.fail("pwrite64", &store(&d), "ENOSPC");
        is_refused(&d, "POST", &path, &Value::Null);
        drop(fault);
        assert_eq!(calls::run_of(&d, name), run);
        assert_eq!(calls::log(&d, name), "up\n", "the signal of a {name} that was refused went out");
        // The daemon dies when the container has the signal; the next one knows that it was stopped.
        let asked = calls::aside(&d, "POST", &path);
        assert!(eventually(PATIENCE, || calls::log(&d, name) == "up\nTERM\n"));
        d.kill9();
        let _ = asked.join();
        std::fs::write(place.join("go"), "").unwrap();
        assert!(eventually(PATIENCE, || !process::alive(run.0)));
        d.again();
        calls::until(&d, name, "exited", 3);
        assert_eq!(calls::log(&d, name), "up\nTERM\n", "what was stopped by hand was started again");
        assert_eq!(calls::inspect(&d, name)["RestartCount"], 0);
    }
    d.finish();
}

#[test]
fn a_removal_whose_files_cannot_be_moved_is_dead_for_later_daemons_too() {
    let mut d = with_busybox();
    let id = calls::run(&d, "stuck", &calls::script("echo written > /file"));
    calls::until(&d, "stuck", "exited", 0);
    // What is mounted can be neither renamed nor removed.
    let place = d.data_root().join("containers").join(&id).display().to_string();
    let _ = d.exec_inside(&["mount", "--bind", &place, &place]).ok();
    for _ in 0..2 {
        let answer = d.http("DELETE", "/containers/stuck", "").expect(500);
        assert!(answer.message().contains("device or resource busy"), "{}", answer.message());
        assert_eq!(calls::state(&d, "stuck").0, "dead");
        assert!(!actions(&d).contains(&"destroy".to_owned()));
        d.crash();
        let (status, _, error) = calls::state(&d, "stuck");
        assert!(status == "dead" && error.contains("device or resource busy"), "{status} {error}");
        d.restart();
        assert_eq!(calls::state(&d, "stuck").0, "dead");
        assert_eq!(d.http("POST", "/containers/stuck/start", "").status, 409);
    }
    let _ = d.exec_inside(&["umount", &place]).ok();
    let _ = d.http("DELETE", "/containers/stuck", "").expect(204);
    assert_eq!(d.http("GET", "/containers/stuck/json", "").status, 404);
    d.finish();
}

/// Every verb that changes a row: refused, the old state is what clients and the next daemon see, and no event tells of it.
#[test]
fn what_cannot_be_recorded_has_not_happened() {
    let mut d = with_busybox();
    calls::create(&d, "made", &calls::script("sleep 1000"));
    calls::run(&d, "runs", &calls::script("sleep 1000"));
    let _ = d.http("POST", "/volumes/create", r#"{"Name":"kept"}"#).expect(201);
    let _ = d.http("POST", "/images/busybox/tag?repo=tagged", "").expect(201);
    let run = calls::run_of(&d, "runs");
    let names = |d: &Daemon| {
        let list = |path: &str| d.http("GET", path, "").expect(200).json();
        let (containers, images, volumes) =
            (list("/containers/json?all=1"), list("/images/json"), list("/volumes")["Volumes"].take());
        [containers, images, volumes].map(|list| {
            let names = |one: &Value| ["Names", "RepoTags", "Name"].map(|key| one[key].to_string()).concat();
            let mut names: Vec<_> = list.as_array().unwrap().iter().map(names).collect();
            names.sort();
            names
        })
    };
    let before = names(&d);
    let seen = actions(&d);
    let fault = d.fail("pwrite64", &store(&d), "ENOSPC");
    let new = calls::script("true");
    let refused = [
        ("POST", "/containers/create?name=other", new),
        ("POST", "/containers/made/rename?name=other", Value::Null),
        ("POST", "/containers/runs/rename?name=other", Value::Null),
        ("POST", "/containers/runs/pause", Value::Null),
        ("POST", "/volumes/create", json!({"Name": "other"})),
        ("DELETE", "/volumes/kept", Value::Null),
        ("POST", "/images/busybox/tag?repo=other", Value::Null),
        ("DELETE", "/images/tagged", Value::Null),
        ("POST", "/commit?container=made&repo=other", json!({})),
    ];
    for (method, path, body) in refused {
        is_refused(&d, method, path, &body);
    }
    assert_eq!(calls::run_of(&d, "runs"), run);
    let told: Vec<_> = actions(&d).split_off(seen.len());
    let changes: Vec<_> = told.iter().filter(|action| !["pause", "unpause"].contains(&action.as_str())).collect();
    assert_eq!(changes, [""; 0], "told of what was refused");
    d.kill9();
    drop(fault);
    d.again();
    assert_eq!(names(&d), before);
    assert_eq!(calls::run_of(&d, "runs"), run);
    for path in ["/containers/made/rename?name=other", "/images/busybox/tag?repo=other"] {
        let answer = d.http("POST", path, "");
        assert!(matches!(answer.status, 201 | 204), "{path}: {}", answer.text());
    }
    let _ = d.http("DELETE", "/images/other", "").expect(200);
    let _ = d.http("DELETE", "/images/tagged", "").expect(200);
    let _ = d.http("DELETE", "/volumes/kept", "").expect(204);
    d.finish();
}
