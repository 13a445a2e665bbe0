//! Clients that vanish in the middle: the daemon lets go of everything of theirs, the containers notice nothing.

use std::time::{Duration, Instant};

use testkit::command::{PATIENCE, eventually};
use testkit::{Connection, Daemon, process};

use crate::calls::{self, COUNTER};
use crate::with_busybox;

const TIMES: usize = 25;
/// The daemon's descriptors for a running container: the line to its monitor, the monitor's process, and the container's
/// first.
const PER_CONTAINER: usize = 3;
/// Longest start with clients that have left. Shorter than the daemon waits for one client that has not.
const ARRIVAL: Duration = Duration::from_secs(9);

/// Sends bytes, reads the head of the answer if `answered`, and is gone.
#[track_caller]
fn vanish(d: &Daemon, request: &str, answered: bool) {
    let mut connection = Connection::open(&d.socket()).unwrap();
    connection.send(request.as_bytes()).unwrap();
    if answered {
        let head = connection.head().unwrap();
        assert!(matches!(head.status, 101 | 200), "{request}: {}", head.status);
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n")
}

fn post(path: &str, more: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: d\r\n{more}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// How many descriptors the daemon has. Before the first start everything for it is there already.
fn descriptors(d: &Daemon) -> usize {
    process::descriptors(d.pid()).len()
}

/// Descriptors of the daemon go back to so many.
#[track_caller]
fn settles(d: &Daemon, before: usize, what: &str) {
    let back = eventually(PATIENCE, || descriptors(d) <= before);
    let now = process::descriptors(d.pid());
    assert!(back, "{what}: {} descriptors, {before} before: {now:?}", now.len());
}

/// The container named `steady` counts on.
#[track_caller]
fn goes_on(d: &Daemon) {
    let count = || calls::unbroken(&calls::log(d, "steady"));
    let before = count();
    assert!(eventually(PATIENCE, || count() > before + 5), "it stands at {before}");
}

#[test]
fn in_the_middle_of_a_stream() {
    let d = with_busybox();
    let before = descriptors(&d) + 2 * PER_CONTAINER;
    calls::run(&d, "steady", &calls::script(COUNTER));
    let mut tty = calls::script("while true; do echo x; sleep 0.01; done");
    (tty["Tty"], tty["OpenStdin"]) = (true.into(), true.into());
    calls::run(&d, "terminal", &tty);
    let run = calls::run_of(&d, "steady");
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
    for round in 0..TIMES {
        let answered = round % 3 != 0;
        for path in
            ["/containers/steady/logs?stdout=1&follow=1", "/containers/steady/logs?stdout=1&follow=1&tail=0", "/events"]
        {
            vanish(&d, &get(path), answered);
        }
        for path in [
            "/containers/steady/attach?stream=1&stdout=1&stderr=1",
            "/containers/steady/attach?stream=1&stdout=1&logs=1",
            "/containers/terminal/attach?stream=1&stdin=1&stdout=1",
        ] {
            vanish(&d, &post(path, upgrade, ""), answered);
        }
        vanish(&d, &post("/containers/steady/wait", "", ""), answered);
        vanish(&d, &post("/containers/steady/wait?condition=removed", "", ""), answered);
    }
    settles(&d, before, "streams");
    let monitors = [calls::monitor_of(&d, "steady"), calls::monitor_of(&d, "terminal")];
    for monitor in monitors {
        let few = eventually(PATIENCE, || process::descriptors(monitor).len() < 25);
        assert!(few, "{:?}", process::descriptors(monitor));
    }
    assert_eq!(calls::run_of(&d, "steady"), run);
    goes_on(&d);
    d.finish();
}

#[test]
fn in_the_middle_of_an_exec() {
    let d = with_busybox();
    let before = descriptors(&d) + PER_CONTAINER;
    calls::run(&d, "steady", &calls::script(COUNTER));
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
    for round in 0..TIMES {
        let script = if round % 2 == 0 { "cat" } else { "while true; do echo x; sleep 0.02; done" };
        let body = serde_json::json!({"Cmd": ["sh", "-c", script], "AttachStdin": true, "AttachStdout": true});
        let exec = d.http("POST", "/containers/steady/exec", &body.to_string()).expect(201).json();
        let path = format!("/exec/{}/start", exec["Id"].as_str().unwrap());
        vanish(&d, &post(&path, upgrade, "{}"), round % 3 != 0);
    }
    settles(&d, before, "execs");
    goes_on(&d);
    d.finish();
}

#[test]
fn before_the_container_starts() {
    let d = with_busybox();
    let before = descriptors(&d) + PER_CONTAINER;
    calls::create(&d, "later", &calls::script("echo hello; sleep 1000"));
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
    for round in 0..TIMES {
        vanish(&d, &post("/containers/later/attach?stream=1&stdout=1", upgrade, ""), round % 3 != 0);
        vanish(&d, &post("/containers/later/wait?condition=next-exit", "", ""), round % 3 != 0);
    }
    // Attached clients of a container that never starts are noticed by the next one at the latest.
    let begin = Instant::now();
    calls::start(&d, "later");
    assert!(begin.elapsed() < ARRIVAL, "{:?}", begin.elapsed());
    settles(&d, before, "waiting clients");
    assert!(eventually(PATIENCE, || calls::log(&d, "later") == "hello\n"));
    d.finish();
}

#[test]
fn in_the_middle_of_a_request() {
    let d = with_busybox();
    let before = descriptors(&d);
    let body = calls::script("sleep 1000").to_string();
    for round in 0..TIMES {
        let whole = post(&format!("/containers/create?name=half-{round}"), "", &body);
        vanish(&d, &whole[..whole.len() - 1 - round], false);
        vanish(&d, &whole[..round * 3], false);
    }
    // An image that never arrives in full.
    let archive = testkit::images::busybox_archive();
    let head = format!("POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n", archive.len());
    for part in [0, 1000, archive.len() / 2, archive.len() - 1] {
        let mut connection = Connection::open(&d.socket()).unwrap();
        connection.send(head.as_bytes()).unwrap();
        connection.send(&archive[..part]).unwrap();
    }
    settles(&d, before, "halves");
    let list = d.http("GET", "/containers/json?all=1", "").expect(200).json();
    assert_eq!(list.as_array().unwrap().len(), 0, "{list}");
    d.finish();
}

/// What was asked for in full is done, whether or not anybody hears of it.
#[test]
fn behind_a_whole_request() {
    let d = with_busybox();
    let body = calls::script("sleep 1000").to_string();
    let soon = |what: &dyn Fn() -> bool| eventually(PATIENCE, what);
    for round in 0..TIMES {
        let name = format!("whole-{round}");
        vanish(&d, &post(&format!("/containers/create?name={name}"), "", &body), false);
        let path = format!("/containers/{name}/json");
        assert!(soon(&|| d.http("GET", &path, "").status == 200), "{name} was not created");
        vanish(&d, &post(&format!("/containers/{name}/start"), "", ""), false);
        assert!(soon(&|| calls::state(&d, &name).0 == "running"), "{name} was not started");
        vanish(&d, &post(&format!("/containers/{name}/stop?t=0"), "", ""), false);
        assert!(soon(&|| calls::state(&d, &name).0 == "exited"), "{name} was not stopped");
        vanish(&d, &format!("DELETE /containers/{name} HTTP/1.1\r\nHost: d\r\n\r\n"), false);
        assert!(soon(&|| d.http("GET", &path, "").status == 404), "{name} was not removed");
    }
    d.finish();
}

/// A client that ends its side and reads on is served to the end.
#[test]
fn half_closed_clients_are_served() {
    let d = with_busybox();
    calls::run(&d, "short", &calls::script("sleep 0.5; echo end; exit 6"));
    let mut connection = d.connection();
    connection.send(post("/containers/short/wait", "", "").as_bytes()).unwrap();
    connection.half_close().unwrap();
    let head = connection.head().unwrap();
    assert_eq!(String::from_utf8_lossy(&connection.body(&head).unwrap()).trim(), r#"{"StatusCode":6}"#);
    drop(connection);
    d.finish();
}
