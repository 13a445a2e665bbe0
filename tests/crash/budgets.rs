//! Memory and disk that clients and containers decide on: bounded while it is used, given back afterwards.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::json;
use testkit::command::{PATIENCE, eventually};
use testkit::{Daemon, process};

use crate::calls;
use crate::with_busybox;

/// Memory that may stay after something large is over, KiB. What stays for good is no more for twice as much work.
const LEFT: u64 = 12 << 10;

/// Anonymous memory of a process, KiB: not what the executable's own pages take.
fn memory(pid: u32) -> u64 {
    process::memory_kib(pid, "status", "RssAnon").expect("the process runs")
}

/// Waits until the daemon has given back what it does not need.
#[track_caller]
fn settles(d: &Daemon, before: u64, what: &str) {
    let mut last = 0;
    let back = eventually(PATIENCE, || {
        last = memory(d.pid());
        last <= before + LEFT
    });
    assert!(back, "after {what} the daemon has {last} KiB, {before} before");
}

/// The daemon's memory, not beyond a bound while something goes on.
#[track_caller]
fn within(d: &Daemon, before: u64, more: u64, what: &str) {
    let now = memory(d.pid());
    assert!(now <= before + more, "{what}: the daemon has {now} KiB, {before} before");
}

#[test]
fn long_command_lines_are_listed_in_part() {
    let d = with_busybox();
    // 60 processes with two megabytes of arguments each, the most that the kernel takes.
    let script = "x=$(head -c 100000 /dev/zero | tr '\\0' x); for i in $(seq 60); do \
                  sh -c 'sleep 1000; :' $x $x $x $x $x $x $x $x $x $x $x $x $x $x $x $x $x $x $x & done; echo ready; wait";
    calls::run(&d, "long", &calls::script(script));
    assert!(eventually(PATIENCE, || calls::log(&d, "long").contains("ready")));
    let before = memory(d.pid());
    for _ in 0..3 {
        let listed = d.http("GET", "/containers/long/top", "").expect(200);
        assert!(listed.body.len() < 16 << 20, "{} bytes", listed.body.len());
        let count = listed.json()["Processes"].as_array().map_or(0, Vec::len);
        assert!(count >= 60, "{count} processes, {} bytes", listed.body.len());
        within(&d, before, 100 << 10, "listing");
    }
    settles(&d, before, "listing long command lines");
    d.finish();
}

#[test]
fn long_heads_share_a_budget() {
    let d = with_busybox();
    let before = memory(d.pid());
    let head = |end: &str| format!("GET /_ping HTTP/1.1\r\nHost: d\r\nX-Long: {}{end}", "x".repeat(200 << 10));
    let mut clients: Vec<UnixStream> = (0..2000)
        .map(|n| {
            let mut client = UnixStream::connect(d.socket()).unwrap();
            // Half of them keep the daemon waiting for the end of the head. A refused one may be closed in the middle.
            drop(client.write_all(head(if n % 2 == 0 { "\r\n\r\n" } else { "" }).as_bytes()));
            client
        })
        .collect();
    within(&d, before, 120 << 10, "long heads");
    // Ordinary clients are served meanwhile.
    calls::prompt(&d, &[]);
    let refused = clients.iter_mut().rev().any(|client| {
        let mut text = [0; 12];
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        client.read_exact(&mut text).is_ok() && &text == b"HTTP/1.1 503"
    });
    assert!(refused, "nobody was told");
    drop(clients);
    settles(&d, before, "long heads");
    // One after the other each is served, and the connection of a large request is not kept.
    for _ in 0..100 {
        let mut client = UnixStream::connect(d.socket()).unwrap();
        client.write_all(head("\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    settles(&d, before, "long heads one after the other");
    d.finish();
}

#[test]
fn large_bodies_share_a_budget() {
    let d = with_busybox();
    let before = memory(d.pid());
    let body = format!(r#"{{"Image":"{}"#, "x".repeat(3 << 20));
    let request = format!(
        "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len() + 1
    );
    let clients: Vec<UnixStream> = (0..100)
        .map(|_| {
            let mut client = UnixStream::connect(d.socket()).unwrap();
            client.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
            drop(client.write_all(request.as_bytes()));
            client
        })
        .collect();
    within(&d, before, 120 << 10, "large bodies");
    calls::run(&d, "ordinary", &calls::script("exec sleep 1000"));
    calls::remove(&d, "ordinary");
    drop(clients);
    settles(&d, before, "large bodies");
    d.finish();
}

#[test]
fn a_refused_create_with_every_port_leaves_nothing() {
    let d = with_busybox();
    let ports: serde_json::Map<_, _> =
        (1..=65535).map(|port| (format!("{port}/tcp"), json!([{"HostPort": "x"}]))).collect();
    let body = json!({"Image": "busybox", "HostConfig": {"PortBindings": ports}}).to_string();
    let before = memory(d.pid());
    for _ in 0..5 {
        let answer = d.http("POST", "/containers/create", &body);
        assert_eq!(answer.status, 400, "{}", answer.text());
        within(&d, before, 300 << 10, "refusing");
    }
    settles(&d, before, "refused creates");
    d.finish();
}

#[test]
fn execs_that_are_never_started_are_bounded() {
    let d = with_busybox();
    for name in ["many", "one"] {
        calls::run(&d, name, &calls::script("exec sleep 10000"));
    }
    let make = |connection: &mut testkit::Connection, name: &str, body: &str| -> String {
        let made = connection.request("POST", &format!("/containers/{name}/exec"), body).expect(201).json();
        made["Id"].as_str().unwrap().to_owned()
    };
    let mut connection = d.connection();
    let own = make(&mut connection, "one", r#"{"Cmd":["true"]}"#);
    let before = memory(d.pid());
    let body = json!({"Cmd": ["true", "x".repeat(50_000)]}).to_string();
    let first = make(&mut connection, "many", &body);
    for n in 0..testkit::soak::rounds(3000, 15_000) {
        let _ = make(&mut connection, "many", &body);
        if n % 500 == 0 {
            within(&d, before, 60 << 10, "making execs");
        }
    }
    for _ in 0..testkit::soak::rounds(3000, 15_000) {
        let _ = make(&mut connection, "many", r#"{"Cmd":["true"]}"#);
    }
    within(&d, before, 60 << 10, "making execs");
    // The first has expired, and its start says so; the last one and another container's start.
    let start = |id: &str| d.http("POST", &format!("/exec/{id}/start"), r#"{"Detach":true}"#);
    assert_eq!(start(&first).status, 404);
    let old = make(&mut connection, "many", r#"{"Cmd":["true"]}"#);
    for _ in 0..1024 {
        let _ = make(&mut connection, "many", r#"{"Cmd":["true"]}"#);
    }
    let refused = start(&old);
    assert_eq!(refused.status, 404);
    assert!(refused.message().contains("has expired"), "{}", refused.message());
    let last = make(&mut connection, "many", r#"{"Cmd":["true"]}"#);
    let _ = start(&last).expect(200);
    let _ = start(&own).expect(200);
    drop(connection);
    calls::remove(&d, "many");
    settles(&d, before, "execs that were never started");
    d.finish();
}

#[test]
fn silent_attached_clients_share_a_budget_of_disk() {
    const MIB: u64 = 1 << 20;
    let d = testkit::Options::new().disk("1500m").start();
    d.busybox();
    let none = json!({"LogConfig": {"Type": "none"}});
    calls::run(
        &d,
        "flood",
        &calls::with_host(calls::script("while [ ! -e /go ]; do sleep 0.05; done; exec yes"), none),
    );
    let free = || {
        let text = d.exec_inside(&["stat", "-f", "-c", "%a %S", &d.data_root().display().to_string()]).text();
        let (blocks, size) = text.split_once(' ').unwrap();
        blocks.parse::<u64>().unwrap() * size.trim().parse::<u64>().unwrap()
    };
    let silent: Vec<_> = (0..250)
        .map(|_| {
            let mut client = d.connection();
            assert_eq!(client.upgrade("/containers/flood/attach?stream=1&stdout=1", "").status, 101);
            client
        })
        .collect();
    let before = free();
    let monitor = calls::monitor_of(&d, "flood");
    calls::exec(&d, "flood", &["touch", "/go"]);
    let mut least = before;
    for _ in 0..40 {
        least = least.min(free());
        let resident = memory(monitor);
        assert!(resident < 16 << 10, "the monitor has {resident} KiB");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(before - least <= 600 * MIB, "{} MiB of the disk", (before - least) / MIB);
    assert!(before - least >= 8 * MIB, "nothing was written to the disk");
    // Who reads gets on: those who take nothing hold it up for some seconds at most.
    let mut reader = d.connection();
    assert_eq!(reader.upgrade("/containers/flood/attach?stream=1&stdout=1", "").status, 101);
    assert_eq!(reader.exactly(1 << 20).unwrap().len(), 1 << 20);
    drop((silent, reader));
    assert!(eventually(PATIENCE, || before - free() <= 16 * MIB), "{} MiB stay", (before - free()) / MIB);
    calls::remove(&d, "flood");
    d.finish();
}

#[test]
fn a_day_of_mixed_work_leaves_no_memory_behind() {
    let d = with_busybox();
    let round = |n: usize| {
        let name = format!("work-{n}");
        calls::run(&d, &name, &calls::script("echo out; echo err >&2; exec sleep 1000"));
        calls::exec(&d, &name, &["sh", "-c", "echo x > /file"]);
        for path in ["json", "top", "logs?stdout=1&tail=5", "changes", "stats?stream=0&one-shot=1", "export"] {
            let _ = d.http("GET", &format!("/containers/{name}/{path}"), "");
        }
        let _ = d.http("POST", &format!("/commit?container={name}&repo=made&tag={n}"), "{}").expect(201);
        let _ = d.http("GET", &format!("/images/made:{n}/get"), "").expect(200);
        for path in ["/containers/json?all=1&size=1", "/images/json", "/system/df", "/info", "/events?since=1&until=2"]
        {
            let _ = d.http("GET", path, "").expect(200);
        }
        let _ = d.http("POST", &format!("/containers/{name}/stop?t=0"), "").expect(204);
        calls::remove(&d, &name);
    };
    (0..10).for_each(round);
    settles(&d, 0, "some work");
    let first = memory(d.pid());
    let rounds = testkit::soak::rounds(40, 400);
    (10..10 + rounds).for_each(round);
    // Each image that stays is known, with its rows in memory.
    settles(&d, first, "mixed work");
    d.finish();
}
