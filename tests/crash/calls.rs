//! Short names for the calls that these tests make.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::command::{PATIENCE, eventually};
use testkit::{Connection, Daemon, process};

/// A line every 10 ms, numbered from 1.
pub const COUNTER: &str = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.01; done";
/// Longest answer of a call that must never wait for anything. Shorter than the daemon's own patience with a monitor.
pub const PROMPT: Duration = Duration::from_secs(4);

/// The body of a create call: busybox without a network, running a shell script.
pub fn script(text: &str) -> Value {
    json!({"Image": "busybox", "Cmd": ["sh", "-c", text], "HostConfig": {"NetworkMode": "none"}})
}

/// Merges `more` into the body's `HostConfig`.
pub fn with_host(mut body: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        body["HostConfig"][key] = value.clone();
    }
    body
}

/// Creates; the id.
#[track_caller]
pub fn create(d: &Daemon, name: &str, body: &Value) -> String {
    let answer = d.http("POST", &format!("/containers/create?name={name}"), &body.to_string()).expect(201);
    answer.json()["Id"].as_str().unwrap().to_string()
}

/// Starts.
#[track_caller]
pub fn start(d: &Daemon, name: &str) {
    let _ = d.http("POST", &format!("/containers/{name}/start"), "").expect(204);
}

/// Creates and starts; the id.
#[track_caller]
pub fn run(d: &Daemon, name: &str, body: &Value) -> String {
    let id = create(d, name, body);
    start(d, name);
    id
}

/// Runs a further process to its end, which is a success.
#[track_caller]
pub fn exec(d: &Daemon, name: &str, words: &[&str]) {
    let body = json!({"Cmd": words}).to_string();
    let made = d.http("POST", &format!("/containers/{name}/exec"), &body).expect(201).json();
    let path = format!("/exec/{}", made["Id"].as_str().unwrap());
    // Without a stream to read, the call ends when the process has begun.
    let _ = d.http("POST", &format!("{path}/start"), r#"{"Detach":true}"#).expect(200);
    let mut last = Value::Null;
    let ended = eventually(PATIENCE, || {
        last = d.http("GET", &format!("{path}/json"), "").expect(200).json();
        last["Running"] == false
    });
    assert!(ended && last["ExitCode"] == 0, "{words:?}: {last}");
}

/// Inspects.
#[track_caller]
pub fn inspect(d: &Daemon, name: &str) -> Value {
    d.http("GET", &format!("/containers/{name}/json"), "").expect(200).json()
}

/// `Status`, `ExitCode` and `Error` of the state.
#[track_caller]
pub fn state(d: &Daemon, name: &str) -> (String, i64, String) {
    let state = &inspect(d, name)["State"];
    let text = |key: &str| state[key].as_str().unwrap().to_string();
    (text("Status"), state["ExitCode"].as_i64().unwrap(), text("Error"))
}

/// Init's pid and the start time of a running container.
#[track_caller]
pub fn run_of(d: &Daemon, name: &str) -> (u32, String) {
    let state = &inspect(d, name)["State"];
    assert_eq!(state["Status"], "running", "{name}: {state}");
    (u32::try_from(state["Pid"].as_u64().unwrap()).unwrap(), state["StartedAt"].as_str().unwrap().to_string())
}

/// The monitor of a running container.
#[track_caller]
pub fn monitor_of(d: &Daemon, name: &str) -> u32 {
    let monitor = process::parent(run_of(d, name).0).expect("the container has a parent");
    assert_ne!(monitor, d.pid());
    assert!(process::command_line(monitor).unwrap().contains("gantry-monitor"), "{:?}", process::command_line(monitor));
    monitor
}

/// Waits for status and exit code.
#[track_caller]
pub fn until(d: &Daemon, name: &str, status: &str, code: i64) {
    let mut last = Default::default();
    let seen = eventually(PATIENCE, || {
        last = state(d, name);
        last.0 == status && last.1 == code
    });
    assert!(seen, "{name} is {last:?}, not {status} {code}");
}

/// Removes by force.
#[track_caller]
pub fn remove(d: &Daemon, name: &str) {
    let _ = d.http("DELETE", &format!("/containers/{name}?force=1&v=1"), "").expect(204);
}

/// The whole log as text.
#[track_caller]
pub fn log(d: &Daemon, name: &str) -> String {
    let body = d.http("GET", &format!("/containers/{name}/logs?stdout=1"), "").expect(200).body;
    testkit::http::stream_text(&body, 1)
}

/// The counter's log has every line once, in order; how many there are.
#[track_caller]
pub fn unbroken(text: &str) -> usize {
    let numbers: Vec<usize> = text.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    let first_gap = numbers.iter().zip(1..).find(|(found, wanted)| **found != *wanted);
    assert!(first_gap.is_none(), "a gap: {first_gap:?} of {}", numbers.len());
    numbers.len()
}

/// `ps`, `inspect` and `logs --tail` answer promptly, for every one of `names`.
#[track_caller]
pub fn prompt(d: &Daemon, names: &[&str]) {
    let mut connection = d.connection();
    let mut ask = |path: &str| {
        let begin = Instant::now();
        let answer = connection.request("GET", path, "");
        assert_eq!(answer.status, 200, "{path}");
        assert!(begin.elapsed() < PROMPT, "{path} took {:?}", begin.elapsed());
    };
    ask("/_ping");
    ask("/containers/json?all=1");
    for name in names {
        ask(&format!("/containers/{name}/json"));
        ask(&format!("/containers/{name}/logs?stdout=1&tail=5"));
    }
}

/// A request whose answer is read on another thread: its status and body, or why there is none.
pub fn aside(d: &Daemon, method: &str, path: &str) -> std::thread::JoinHandle<Result<(u16, Vec<u8>), String>> {
    let (socket, method, path) = (d.socket(), method.to_string(), path.to_string());
    std::thread::spawn(move || {
        let mut connection = Connection::open(&socket).map_err(|e| e.to_string())?;
        let answer = connection.try_request(&method, &path, "").map_err(|e| e.to_string())?;
        Ok((answer.status, answer.body))
    })
}
