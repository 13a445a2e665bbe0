//! Clients that wait: so many of each kind at one time, and everybody else is served meanwhile.

use std::time::Duration;

use testkit::Daemon;
use testkit::command::eventually;
use testkit::http::Connection;

use crate::with_busybox;

const PATIENCE: Duration = Duration::from_secs(60);

/// A client that has sent a request and read the head of its answer; the answer's text when it is a refusal.
fn waits(d: &Daemon, method: &str, path: &str) -> Result<Connection, String> {
    let mut connection = d.connection();
    let upgrade = if path.contains("/attach") { "Connection: Upgrade\r\nUpgrade: tcp\r\n" } else { "" };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: d\r\n{upgrade}Content-Length: 0\r\n\r\n");
    connection.send(head.as_bytes()).unwrap();
    let mut answer = connection.head().unwrap();
    if answer.status != 503 {
        assert!(matches!(answer.status, 101 | 200), "{path}: {}", answer.status);
        return Ok(connection);
    }
    answer.body = connection.body(&answer).unwrap();
    Err(answer.text())
}

/// Lets `limit` clients wait, then one more; then all leave, and there is room again.
#[track_caller]
fn bound(d: &Daemon, method: &str, path: &str, limit: usize, what: &str) {
    let mut clients: Vec<Connection> =
        (0..limit).map(|number| waits(d, method, path).unwrap_or_else(|text| panic!("{number}: {text}"))).collect();
    let refusal = format!("too many clients wait for {what}: at most {limit} at once");
    // The one that leaves and the one that is refused are told apart by the words.
    let refused = waits(d, method, path).err().unwrap_or_default();
    assert!(refused.contains(&refusal), "{path}: {refused:?}");
    assert_eq!(d.http("GET", "/_ping", "").expect(200).text(), "OK");
    clients.pop();
    assert!(eventually(PATIENCE, || waits(d, method, path).is_ok()), "{path}: no place is free again");
    drop(clients);
}

#[test]
fn clients_that_wait_are_bounded() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "running", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["create", "--name", "created", "busybox", "true"]).ok();
    let kinds = [
        ("GET", "/events", 1024, "events"),
        ("POST", "/containers/created/attach?stream=1&stdout=1", 1024, "the start of a container"),
        ("GET", "/containers/running/logs?follow=1&stdout=1", 4096, "more of a log"),
        ("POST", "/containers/running/wait", 4096, "the end of a container"),
    ];
    for (method, path, limit, what) in &kinds[..testkit::soak::rounds(2, kinds.len())] {
        bound(&d, method, path, *limit, what);
    }
    let _ = d.docker(&["rm", "-f", "running", "created"]).ok();
    d.finish();
}

/// Clients that were attached to a container that was never started and have left hold no descriptor of the daemon.
#[test]
fn a_client_that_left_before_the_start_is_let_go() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "created", "busybox", "true"]).ok();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", d.pid())).unwrap().count();
    let come_and_go = |count: usize| {
        (0..count).for_each(|_| drop(waits(&d, "POST", "/containers/created/attach?stream=1&stdout=1").unwrap()));
    };
    come_and_go(5);
    let before = open();
    come_and_go(100);
    assert!(
        eventually(PATIENCE, || {
            come_and_go(1);
            open() <= before + 5
        }),
        "{before} descriptors, then {}",
        open()
    );
    let _ = d.docker(&["rm", "created"]).ok();
    d.finish();
}
