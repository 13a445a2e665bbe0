//! Clients that take their time, in numbers: nobody else waits for them, and all that they hold is given back.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::command::{PATIENCE, eventually};
use testkit::{Connection, Daemon, process};

use crate::calls;
use crate::with_busybox;

/// Clients that follow one log.
const FOLLOWERS: usize = 1000;
/// Clients of each other kind that read nothing.
const STALLED: usize = 20;
/// A call beside them may take so many times what it takes without them, and this much longer.
const FACTOR: u32 = 20;
const ALLOWANCE: Duration = Duration::from_secs(2);

/// Sends a request and reads nothing of its answer but the head.
#[track_caller]
fn begun(d: &Daemon, request: &str) -> Connection {
    let mut client = d.connection();
    client.send(format!("{request} HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(client.head().unwrap().status, 200, "{request}");
    client
}

/// Sends a request and reads nothing at all.
#[track_caller]
fn unheard(d: &Daemon, request: &str) -> Connection {
    let mut client = d.connection();
    client.send(format!("{request} HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes()).unwrap();
    client
}

/// The longest time of each call in a few lives of a container.
fn figures(d: &Daemon) -> Vec<(&'static str, Duration)> {
    let mut figures = Vec::new();
    let mut call = |what: &'static str, method: &str, path: &str, status: u16| {
        let begin = Instant::now();
        let body = if what == "create" { calls::script("exec sleep 1000").to_string() } else { String::new() };
        let _ = d.http(method, path, &body).expect(status);
        figures.push((what, begin.elapsed()));
    };
    for _ in 0..5 {
        call("create", "POST", "/containers/create?name=life", 201);
        call("start", "POST", "/containers/life/start", 204);
        call("inspect", "GET", "/containers/life/json", 200);
        call("ps", "GET", "/containers/json?all=1", 200);
        call("logs", "GET", "/containers/life/logs?stdout=1", 200);
        call("images", "GET", "/images/json", 200);
        call("stop", "POST", "/containers/life/stop?t=0", 204);
        call("remove", "DELETE", "/containers/life", 204);
    }
    figures
}

fn longest(figures: &[(&'static str, Duration)], what: &str) -> Duration {
    figures.iter().filter(|(name, _)| *name == what).map(|(_, time)| *time).max().unwrap()
}

/// Everything that a slow client can hold, at once.
fn slow_clients(d: &Daemon) -> Vec<Connection> {
    let mut clients = Vec::new();
    for _ in 0..FOLLOWERS {
        clients.push(begun(d, "GET /containers/calm/logs?stdout=1&follow=1"));
    }
    for _ in 0..STALLED {
        clients.push(unheard(d, "GET /containers/calm/export"));
        clients.push(unheard(d, "GET /images/large/get"));
        clients.push(unheard(d, "GET /containers/flood/logs?stdout=1"));
        clients.push(unheard(d, "GET /containers/flood/logs?stdout=1&follow=1"));
        clients.push(unheard(d, "GET /events?since=1"));
        // The replay of the log never ends, either.
        clients.push(unheard(d, "POST /containers/flood/attach?logs=1&stream=1&stdout=1"));
        let mut attached = d.connection();
        assert_eq!(attached.upgrade("/containers/flood/attach?stream=1&stdout=1", "").status, 101);
        clients.push(attached);
        let mut loading = d.connection();
        loading.send(b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 1000000\r\n\r\nx").unwrap();
        clients.push(loading);
    }
    clients
}

#[test]
fn followers_and_stalled_readers_cost_nobody_anything() {
    let d = with_busybox();
    calls::run(&d, "calm", &calls::script("echo first; exec sleep 10000"));
    calls::exec(&d, "calm", &["dd", "if=/dev/urandom", "of=/large", "bs=1M", "count=8"]);
    let _ = d.http("POST", "/commit?container=calm&repo=large", "{}").expect(201);
    let flood = json!({"LogConfig": {"Type": "json-file", "Config": {"max-size": "8m", "max-file": "2"}}});
    calls::run(
        &d,
        "flood",
        &calls::with_host(calls::script("seq 1 1000000; while sleep 0.01; do echo more; done"), flood),
    );
    let quiet = figures(&d);
    let (descriptors, threads) = (process::descriptors(d.pid()).len(), process::threads(d.pid()).len());
    let mut clients = slow_clients(&d);
    let beside = figures(&d);
    for (what, _) in &quiet[..8] {
        let (alone, now) = (longest(&quiet, what), longest(&beside, what));
        assert!(now <= alone * FACTOR + ALLOWANCE, "{what} takes {now:?}, {alone:?} alone");
    }
    let busy = process::threads(d.pid()).len();
    assert!(busy < threads + 150, "{busy} threads, {threads} before");
    // Every follower still gets every line.
    calls::exec(&d, "calm", &["sh", "-c", "echo second > /proc/1/fd/1"]);
    for client in &mut clients[..FOLLOWERS] {
        let mut seen = Vec::new();
        while !seen.ends_with(b"second\n") {
            seen.extend(client.chunk().unwrap().expect("the follower goes on"));
        }
        assert_eq!(testkit::http::stream_text(&seen, 1), "first\nsecond\n");
    }
    // And its end, before whoever asked for it hears of it.
    let begin = Instant::now();
    let _ = d.http("POST", "/containers/calm/kill", "").expect(204);
    assert!(begin.elapsed() < PATIENCE);
    for client in &mut clients[..FOLLOWERS] {
        assert_eq!(client.chunk().unwrap(), None);
    }
    drop(clients);
    calls::remove(&d, "flood");
    let left = || process::descriptors(d.pid()).len();
    assert!(eventually(PATIENCE, || left() <= descriptors), "{} descriptors, {descriptors} before", left());
    d.finish();
}
