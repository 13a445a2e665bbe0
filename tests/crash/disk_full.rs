//! The disk below the data root is full: errors say so, nothing half-made stays, what runs goes on, and with space
//! everything works again without a restart.

use std::path::PathBuf;

use serde_json::{Value, json};
use testkit::command::{PATIENCE, eventually};
use testkit::{Daemon, Options};

use crate::calls::{self, COUNTER};

const NO_SPACE: &str = "no space left on device";

/// Takes all the space that is left, down to single blocks.
struct Filler(PathBuf);

impl Filler {
    fn fill(d: &Daemon) -> Filler {
        let filler = Filler(d.data_root().join("filler"));
        filler.take_more(d);
        filler
    }

    fn take_more(&self, d: &Daemon) {
        let script =
            "for size in 256k 4k 512; do dd if=/dev/zero bs=$size >> \"$0\" 2>/dev/null; done; sync -f \"$0\"; true";
        let _ = d.exec_inside(&["sh", "-c", script, &self.0.display().to_string()]).ok();
    }

    fn remove(self, d: &Daemon) {
        let _ = d.exec_inside(&["rm", &self.0.display().to_string()]).ok();
    }
}

/// A call that works, or fails for want of space; whether it worked.
#[track_caller]
fn works(d: &Daemon, method: &str, path: &str, body: &Value) -> bool {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let answer = d.http(method, path, &text);
    if matches!(answer.status, 200 | 201 | 204) {
        return true;
    }
    assert_eq!(answer.status, 500, "{method} {path}: {}", answer.text());
    assert!(answer.message().to_lowercase().contains(NO_SPACE), "{method} {path}: {}", answer.message());
    false
}

fn containers(d: &Daemon) -> Vec<String> {
    let root = format!("/proc/{}/root{}/containers", d.namespaces().holder(), d.data_root().display());
    let entries = std::fs::read_dir(root).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Creating and starting on a full disk: all or nothing. The names of what was made.
fn create_and_start(d: &Daemon, filler: &Filler) -> Vec<String> {
    let mut made = Vec::new();
    for n in 0..30 {
        let name = format!("full-{n}");
        if works(d, "POST", &format!("/containers/create?name={name}"), &calls::script("sleep 1000")) {
            made.push(name);
        } else {
            assert_eq!(d.http("GET", &format!("/containers/{name}/json"), "").status, 404);
        }
    }
    assert_eq!(containers(d).len(), 5 + LARGE.len() + made.len());
    filler.take_more(d);
    for name in ["waiting", "waiting-too"] {
        if !works(d, "POST", &format!("/containers/{name}/start"), &Value::Null) {
            assert_eq!(calls::state(d, name).0, "created");
        }
    }
    for n in 0..3 {
        works(d, "POST", "/volumes/create", &json!({"Name": format!("volume-{n}")}));
    }
    made
}

/// Containers whose rows are so large that a start needs room in the store that a full disk has not.
const LARGE: [&str; 3] = ["large-1", "large-2", "large-3"];
/// Bytes of a label of such a row: the store reserves some mebibytes ahead.
const LARGE_LABEL: usize = 1 << 20;

fn create_large(d: &Daemon) {
    for name in LARGE {
        let mut body = calls::script("sleep 1000");
        body["Labels"] = json!({"large": "x".repeat(LARGE_LABEL)});
        calls::create(d, name, &body);
    }
}

/// Starts on a full disk, with a crash behind each: what was acknowledged runs on, what was refused does not run.
fn start_large(d: &mut Daemon, filler: &Filler) {
    let mut refused = 0;
    for name in LARGE {
        filler.take_more(d);
        let run = works(d, "POST", &format!("/containers/{name}/start"), &Value::Null).then(|| calls::run_of(d, name));
        refused += usize::from(run.is_none());
        filler.take_more(d);
        d.crash();
        match run {
            Some(run) => assert_eq!(calls::run_of(d, name), run, "an acknowledged start is lost"),
            None => assert_eq!(calls::state(d, name).0, "created"),
        }
    }
    assert!(refused > 0, "the store has had room for everything");
}

/// There is space again: what was refused works, what went on still does.
fn works_again(d: &Daemon) {
    calls::run(d, "after", &calls::script("echo after"));
    calls::until(d, "after", "exited", 0);
    assert_eq!(calls::log(d, "after"), "after\n");
    for name in ["waiting", "waiting-too"] {
        if calls::state(d, name).0 != "running" {
            calls::start(d, name);
        }
        assert!(eventually(PATIENCE, || calls::state(d, name).0 == "running"));
    }
    let lines = || calls::log(d, "counting").lines().count();
    let before = lines();
    assert!(eventually(PATIENCE, || lines() > before), "the log stands at {before} lines");
}

fn full(options: Options) {
    let mut d = options.start();
    d.busybox();
    for name in ["counting", "ending", "executing"] {
        calls::run(&d, name, &calls::script(COUNTER));
    }
    for name in ["waiting", "waiting-too"] {
        calls::create(&d, name, &calls::script("echo started; sleep 1000"));
    }
    create_large(&d);
    let runs = ["counting", "executing"].map(|name| calls::run_of(&d, name));
    let filler = Filler::fill(&d);
    start_large(&mut d, &filler);

    let made = create_and_start(&d, &filler);
    // What goes on, and what makes room.
    calls::prompt(&d, &["counting", "ending", "waiting"]);
    let exec = d.http("POST", "/containers/executing/exec", r#"{"Cmd":["true"]}"#).expect(201).json();
    let path = format!("/exec/{}/start", exec["Id"].as_str().unwrap());
    let _ = d.http("POST", &path, r#"{"Detach":true}"#).expect(200);
    let _ = d.http("POST", "/containers/ending/stop?t=0", "").expect(204);
    assert_eq!(calls::state(&d, "ending").0, "exited");
    let load = d.connection().try_request("POST", "/images/load", "x");
    assert!(load.is_ok());

    // The daemon crashes and comes back on the full disk.
    filler.take_more(&d);
    d.crash();
    assert_eq!(["counting", "executing"].map(|name| calls::run_of(&d, name)), runs);
    // Commands still find it: what they look for has not lost its place on the disk.
    assert_eq!(d.faults(), ["unknown-file: file filler: nothing that Gantry has made"]);
    let ending = calls::state(&d, "ending");
    assert!(ending.0 == "exited", "{ending:?}");
    calls::prompt(&d, &["counting", "ending", "waiting"]);
    filler.take_more(&d);
    calls::remove(&d, "ending");
    assert_eq!(d.http("GET", "/containers/ending/json", "").status, 404);

    filler.remove(&d);
    works_again(&d);
    assert_eq!(["counting", "executing"].map(|name| calls::run_of(&d, name)), runs);
    for name in made {
        calls::remove(&d, &name);
    }
    d.finish();
}

#[test]
fn in_memory() {
    full(Options::new().disk("40m"));
}

#[test]
fn on_ext4() {
    full(Options::new().ext4("64m"));
}

/// An image that does not fit leaves nothing, and one that fits is taken afterwards.
#[test]
fn while_loading_an_image() {
    let d = Options::new().disk("24m").start();
    let blob: Vec<u8> = (0..30_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let layer = testkit::images::Tar::new().file("blob", 0o644, &blob).bytes();
    let archive = testkit::images::docker_archive("large:latest", &[layer], &json!({"Cmd": ["sh"]}));
    for _ in 0..3 {
        let mut connection = d.connection();
        let head = format!("POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n", archive.len());
        connection.send(head.as_bytes()).unwrap();
        // The daemon may have had enough before the end.
        let _ = connection.send(&archive);
        let head = connection.head().unwrap();
        let body = String::from_utf8_lossy(&connection.body(&head).unwrap_or_default()).into_owned();
        assert!(body.to_lowercase().contains(NO_SPACE), "{} {body}", head.status);
        calls::prompt(&d, &[]);
    }
    d.busybox();
    calls::run(&d, "fits", &calls::script("echo fits"));
    calls::until(&d, "fits", "exited", 0);
    d.finish();
}
