//! `docker events`: order, window, filters.

use serde_json::Value;
use testkit::Daemon;

use crate::{eventually, with_busybox};

fn actions(text: &str) -> Vec<String> {
    let word = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        format!("{} {}", event["Type"].as_str().unwrap(), event["Action"].as_str().unwrap())
    };
    text.lines().map(word).collect()
}

#[test]
fn the_life_of_a_container() {
    let d = with_busybox();
    let _ = d.docker(&["run", "--rm", "--name", "r1", "busybox", "sh", "-c", "exit 3"]);
    let _ = d.docker(&["run", "-d", "--name", "s1", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["stop", "-t", "0", "s1"]).ok();
    let _ = d.docker(&["rm", "s1"]).ok();
    let of = |name: &str| {
        let filter = format!("container={name}");
        let until = now().to_string();
        let args = [
            "events",
            "--since",
            "0",
            "--until",
            &until,
            "--filter",
            &filter,
            "--filter",
            "type=container",
            "--format",
            "{{json .}}",
        ];
        actions(&d.docker(&args).ok().stdout).join(", ")
    };
    assert_eq!(of("r1"), "container create, container attach, container start, container die, container destroy");
    assert_eq!(
        of("s1"),
        "container create, container start, container kill, container kill, container stop, container die, container destroy"
    );
    let network = d
        .docker(&[
            "events",
            "--since",
            "0",
            "--until",
            &now().to_string(),
            "--filter",
            "type=network",
            "--format",
            "{{json .}}",
        ])
        .ok()
        .stdout;
    assert_eq!(actions(&network), ["network connect", "network disconnect", "network connect", "network disconnect"]);
    d.finish();
}

#[test]
fn attributes_and_old_fields() {
    let d = with_busybox();
    let _ = d.docker(&["run", "--name", "e1", "--label", "k=v", "busybox", "sh", "-c", "exit 3"]);
    let mut die = Value::Null;
    // Whoever waits for the end is told of it a moment before the event comes.
    assert!(eventually(|| {
        let text = d.http("GET", &format!("/v1.45/events?since=0&until={}", now()), "").text();
        let mut events = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        die = events.find(|e| e["Action"] == "die").unwrap_or_default();
        !die.is_null()
    }));
    assert_eq!(die["Actor"]["Attributes"]["exitCode"], "3");
    assert_eq!(die["Actor"]["Attributes"]["k"], "v");
    assert_eq!(die["Actor"]["Attributes"]["image"], "busybox");
    assert_eq!(die["Actor"]["Attributes"]["name"], "e1");
    assert_eq!((die["status"].as_str(), die["from"].as_str()), (Some("die"), Some("busybox")));
    assert_eq!(die["id"], die["Actor"]["ID"]);
    assert_eq!(die["scope"], "local");
    let newest = d.http("GET", &format!("/v1.52/events?since=0&until={}", now()), "").text();
    assert!(!newest.contains("\"status\""), "{newest}");
    d.finish();
}

pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1
}

/// Waits until a client listens to events.
pub fn listened(d: &Daemon) {
    assert!(eventually(|| d.http("GET", "/info", "").expect(200).json()["NEventsListener"] == 1));
}

#[test]
fn live() {
    let d = with_busybox();
    let mut stream =
        d.spawn(&["events", "--filter", "event=start", "--format", "{{.Action}} {{.Actor.Attributes.name}}"]);
    listened(&d);
    let _ = d.docker(&["run", "-d", "--name", "x1", "busybox", "sleep", "100"]).ok();
    stream.expect("start x");
    drop(stream);
    d.finish();
}

#[test]
fn execs_and_restarts() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "x1", "busybox", "sleep", "100"]).ok();
    let _ = d.docker(&["exec", "x1", "sh", "-c", "exit 4"]);
    let _ = d.docker(&["restart", "-t", "0", "x1"]).ok();
    let _ = d.docker(&["rename", "x1", "y1"]).ok();
    let until = now().to_string();
    let args = ["events", "--since", "0", "--until", &until, "--filter", "type=container", "--format", "{{json .}}"];
    let seen = actions(&d.docker(&args).ok().stdout).join(", ");
    let wanted = "container create, container start, container exec_create: sh -c exit 4, container exec_start: sh -c exit 4, container exec_die, container kill, container kill, container stop, container die, container start, container restart, container rename";
    let relaxed = |text: &str| text.replace("container kill, container kill", "container kill");
    assert_eq!(relaxed(&seen), relaxed(wanted));
    d.finish();
}
