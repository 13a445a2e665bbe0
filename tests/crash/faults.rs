//! Operations that fail after each of their steps in turn: the answer is the error, everything is taken back (twice, as
//! armed daemons do), and the next try succeeds.
//!
//! The steps are those that the daemon itself passes: it notes them in the file `passed` of the directory that
//! `GANTRY_FAULTS` names, and fails once after the one for which there is a file.

use std::path::Path;

use serde_json::{Value, json};
use testkit::Daemon;
use testkit::command::{PATIENCE, eventually};
use testkit::daemon::Options;
use testkit::fake_registry::{FakeRegistry, Image};
use testkit::images::Tar;

use crate::calls;

/// A daemon with the image `busybox` whose operations can be made to fail.
fn armed() -> (Daemon, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let d = Options::new().env("GANTRY_FAULTS", &dir.path().display().to_string()).start();
    d.busybox();
    (d, dir)
}

/// The steps of an operation that were passed since the last call, in order.
fn passed(dir: &Path, operation: &str) -> Vec<String> {
    let file = dir.join("passed");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let _ = std::fs::remove_file(file);
    let own = text.lines().filter(|point| point.split('.').next() == Some(operation));
    own.map(str::to_owned).collect()
}

/// Makes the operation fail after each of its steps. `attempt` tries it and tells status and message; `check` looks at what
/// a failure has left; `clean` takes a success back.
fn after_every_step(
    dir: &Path,
    (operation, steps): (&str, usize),
    attempt: impl Fn() -> (u16, String),
    check: impl Fn(&str),
    clean: impl Fn(),
) {
    passed(dir, operation);
    let (status, message) = attempt();
    assert!(status < 300, "{message}");
    clean();
    let points = passed(dir, operation);
    assert_eq!(points.len(), steps, "{points:?}");
    for point in points {
        std::fs::write(dir.join(&point), "").unwrap();
        let (status, message) = attempt();
        assert!(message.contains(&format!("the test made {point} fail")), "{point}: {status} {message}");
        assert!(!dir.join(&point).exists());
        check(&point);
        let (status, message) = attempt();
        assert!(status < 300, "after {point}: {status} {message}");
        clean();
    }
}

fn call(d: &Daemon, method: &str, path: &str, body: &Value) -> (u16, String) {
    let answer = d.http(method, path, &body.to_string());
    (answer.status, answer.text())
}

fn body() -> Value {
    let host = json!({"PortBindings": {"80/tcp": [{"HostPort": "8085"}], "81/udp": [{"HostPort": "8086"}]}});
    json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "Volumes": {"/data": {}}, "HostConfig": host})
}

/// The directories of runs: they are called by the ids of their containers.
fn runs(d: &Daemon) -> usize {
    let entries = std::fs::read_dir(d.exec_root()).unwrap().flatten();
    entries.filter(|entry| entry.file_name().len() == 64 && entry.path().is_dir()).count()
}

/// Nothing of a run is there.
fn no_run(d: &Daemon, point: &str) {
    assert_eq!(runs(d), 0, "{point}");
    let network = d.http("GET", "/networks/bridge", "").json();
    assert_eq!(network["Containers"].as_object().map_or(0, serde_json::Map::len), 0, "{point}: {network}");
    // The kernel removes a pair after its namespace.
    let bridged = |line: &str| line.contains("master docker0");
    let gone = || !d.exec_inside(&["ip", "-o", "link"]).stdout.lines().any(bridged);
    assert!(eventually(PATIENCE, gone), "{point}");
}

#[test]
fn create() {
    let (d, dir) = armed();
    let attempt = || call(&d, "POST", "/containers/create?name=c1", &body());
    let check = |point: &str| {
        assert_eq!(d.http("GET", "/containers/json?all=1", "").json(), json!([]), "{point}");
        assert_eq!(d.http("GET", "/volumes", "").json()["Volumes"], json!([]), "{point}");
        // What was made ahead for the next one has another name.
        let entries = std::fs::read_dir(d.data_root().join("containers")).unwrap().flatten();
        assert_eq!(entries.filter(|entry| entry.file_name().len() == 64).count(), 0, "{point}");
    };
    let clean = || drop(d.http("DELETE", "/containers/c1?v=1&force=1", "").expect(204));
    after_every_step(dir.path(), ("create", 5), attempt, check, clean);
    d.finish();
}

#[test]
fn start() {
    let (d, dir) = armed();
    calls::create(&d, "c1", &body());
    let attempt = || call(&d, "POST", "/containers/c1/start", &Value::Null);
    let check = |point: &str| {
        let state = d.http("GET", "/containers/c1/json", "").json()["State"].clone();
        assert_eq!((&state["Running"], &state["Pid"]), (&json!(false), &json!(0)), "{point}");
        assert!(state["Error"].as_str().unwrap().contains(point), "{point}: {state}");
        no_run(&d, point);
    };
    let clean = || {
        drop(d.http("POST", "/containers/c1/kill", "").expect(204));
        assert!(eventually(PATIENCE, || runs(&d) == 0));
    };
    after_every_step(dir.path(), ("start", 11), attempt, check, clean);
    calls::remove(&d, "c1");
    d.finish();
}

#[test]
fn exec() {
    let (d, dir) = armed();
    calls::create(&d, "c1", &body());
    let _ = d.http("POST", "/containers/c1/start", "").expect(204);
    let processes = || d.http("GET", "/containers/c1/top", "").json()["Processes"].as_array().unwrap().len();
    let attempt = || {
        let create = json!({"Cmd": ["sleep", "1000"]});
        let id = d.http("POST", "/containers/c1/exec", &create.to_string()).expect(201).json()["Id"].clone();
        call(&d, "POST", &format!("/exec/{}/start", id.as_str().unwrap()), &json!({"Detach": true}))
    };
    let check = |point: &str| assert!(eventually(PATIENCE, || processes() == 1), "{point}");
    let clean = || drop(d.http("POST", "/containers/c1/restart?t=0", "").expect(204));
    after_every_step(dir.path(), ("exec", 3), attempt, check, clean);
    calls::remove(&d, "c1");
    d.finish();
}

#[test]
fn remove() {
    let (d, dir) = armed();
    let create = || drop(calls::create(&d, "c1", &body()));
    create();
    let attempt = || call(&d, "DELETE", "/containers/c1?v=1", &Value::Null);
    let check = |point: &str| {
        let state = d.http("GET", "/containers/c1/json", "").json()["State"].clone();
        assert_eq!(state["Status"], "dead", "{point}");
    };
    after_every_step(dir.path(), ("remove", 4), attempt, check, create);
    calls::remove(&d, "c1");
    assert_eq!(d.http("GET", "/volumes", "").json()["Volumes"], json!([]));
    d.finish();
}

/// On two networks that take the published ports from each other.
fn on_networks(d: &Daemon) {
    for name in ["a", "b"] {
        let _ = d.http("POST", "/networks/create", &json!({"Name": name}).to_string()).expect(201);
    }
    let mut body = body();
    body["HostConfig"]["NetworkMode"] = json!("b");
    calls::create(d, "c1", &body);
    let _ = d.http("POST", "/containers/c1/start", "").expect(204);
}

/// The container is on these networks, in its row and in the kernel, and its ports are published.
fn is_on(d: &Daemon, networks: &[&str], point: &str) {
    let settings = d.http("GET", "/containers/c1/json", "").json()["NetworkSettings"].clone();
    let rows = settings["Networks"].as_object().unwrap();
    assert_eq!(rows.keys().map(String::as_str).collect::<Vec<_>>(), networks, "{point}");
    let bridged = |line: &str| line.contains("master br-");
    let links = || d.exec_inside(&["ip", "-o", "link"]).stdout.lines().filter(|line| bridged(line)).count();
    assert!(eventually(PATIENCE, || links() == networks.len()), "{point}: {} links", links());
    assert_eq!(settings["Ports"]["80/tcp"][0]["HostPort"], "8085", "{point}: {settings}");
    let sockets = d.exec_inside(&["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6"]).stdout;
    assert!(sockets.contains(":1F95 ") && sockets.contains(":1F96 "), "{point}: {sockets}");
    let leases = |name: &str| d.http("GET", &format!("/networks/{name}"), "").json()["Status"].to_string();
    for name in ["a", "b"] {
        let taken = if networks.contains(&name) { "\"IPsInUse\":4" } else { "\"IPsInUse\":3" };
        assert!(leases(name).contains(taken), "{point}: {name}: {}", leases(name));
    }
}

#[test]
fn connect() {
    let (d, dir) = armed();
    on_networks(&d);
    let change = |verb: &str| call(&d, "POST", &format!("/networks/a/{verb}"), &json!({"Container": "c1"}));
    let attempt = || change("connect");
    let check = |point: &str| is_on(&d, &["b"], point);
    let clean = || {
        is_on(&d, &["a", "b"], "connected");
        assert_eq!(change("disconnect").0, 200);
    };
    after_every_step(dir.path(), ("connect", 3), attempt, check, clean);
    calls::remove(&d, "c1");
    d.finish();
}

#[test]
fn disconnect() {
    let (d, dir) = armed();
    on_networks(&d);
    let change = |verb: &str| call(&d, "POST", &format!("/networks/a/{verb}"), &json!({"Container": "c1"}));
    assert_eq!(change("connect").0, 200);
    let attempt = || change("disconnect");
    let check = |point: &str| is_on(&d, &["a", "b"], point);
    let clean = || {
        is_on(&d, &["b"], "disconnected");
        assert_eq!(change("connect").0, 200);
    };
    after_every_step(dir.path(), ("disconnect", 2), attempt, check, clean);
    calls::remove(&d, "c1");
    d.finish();
}

/// The published TCP port is listened to.
fn is_open(d: &Daemon) -> bool {
    d.exec_inside(&["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6"]).stdout.contains(":1F95 ")
}

/// The daemon dies after each step of a start: the container does not run, or runs with all that it has.
#[test]
fn death_while_starting() {
    let (mut d, dir) = armed();
    calls::create(&d, "c1", &body());
    let _ = d.http("POST", "/containers/c1/start", "").expect(204);
    let points = passed(dir.path(), "start");
    let _ = d.http("POST", "/containers/c1/kill", "").expect(204);
    for point in points {
        std::fs::write(dir.path().join(&point), "die").unwrap();
        assert_ne!(d.docker(&["start", "c1"]).code, 0, "{point}");
        d.wait_end();
        d.again();
        let runs = || d.inspect("c1", "{{.State.Running}}") == "true";
        if runs() {
            assert!(eventually(PATIENCE, || is_open(&d)), "{point}");
            let _ = d.http("POST", "/containers/c1/kill", "").expect(204);
        }
        assert!(eventually(PATIENCE, || !runs() && !is_open(&d)), "{point}");
        no_run(&d, &point);
    }
    calls::remove(&d, "c1");
    d.finish();
}

/// The daemon dies after each step of a change of networks: its successor brings row and kernel in line.
#[test]
fn death_while_networks_change() {
    let (mut d, dir) = armed();
    on_networks(&d);
    let points = ["connect.record", "connect.plug", "connect.commit", "disconnect.record", "disconnect.unplug"];
    for point in points {
        let verb = point.split('.').next().unwrap();
        if verb == "disconnect" {
            let _ = d.docker(&["network", "connect", "a", "c1"]).ok();
        }
        std::fs::write(dir.path().join(point), "die").unwrap();
        assert_ne!(d.docker(&["network", verb, "a", "c1"]).code, 0, "{point}");
        d.wait_end();
        d.again();
        // What the row says, which is the way there or back; the kernel says the same.
        let networks = d.http("GET", "/containers/c1/json", "").json()["NetworkSettings"]["Networks"].clone();
        let names: Vec<_> = networks.as_object().unwrap().keys().map(String::as_str).collect();
        let expected: &[&str] = if point == "connect.commit" { &["a", "b"] } else { &["b"] };
        assert_eq!(names, expected, "{point}");
        let is_settled = || {
            let inner =
                d.docker(&["exec", "c1", "sh", "-c", "ls /sys/class/net | grep -c eth; ip route | grep -c default"]);
            inner.text() == format!("{}\n1", names.len())
        };
        assert!(eventually(PATIENCE, is_settled), "{point}");
        assert!(eventually(PATIENCE, || is_open(&d)), "{point}");
        is_on(&d, &names, point);
        if names.len() == 2 {
            let _ = d.docker(&["network", "disconnect", "a", "c1"]).ok();
        }
    }
    calls::remove(&d, "c1");
    d.finish();
}

#[test]
fn pull() {
    let (d, dir) = armed();
    let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
    let layer = Tar::new().file("content", 0o644, b"x").bytes();
    fake.image("app", "1.0", &Image::new(&[layer], &json!({"Cmd": ["/x"]})));
    let attempt = || {
        let answer = d.http("POST", "/images/create?fromImage=127.0.0.1:5001/app&tag=1.0", "");
        let failed = answer.text().contains("errorDetail");
        (if failed { 500 } else { answer.status }, answer.text())
    };
    let name = "/images/127.0.0.1:5001/app:1.0";
    let check = |point: &str| assert_eq!(d.http("GET", &format!("{name}/json"), "").status, 404, "{point}");
    let clean = || drop(d.http("DELETE", name, "").expect(200));
    after_every_step(dir.path(), ("pull", 6), attempt, check, clean);
    d.finish();
}
