//! What a run costs the daemon for ever: nothing. Runs of every kind, thousands of them, and its tables and its memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::http::Connection;
use testkit::{Daemon, process, soak};

use crate::{eventually, with_busybox};

/// Clients at once.
const CLIENTS: usize = 4;
/// Looks at the daemon's memory, spread over the runs.
const LOOKS: usize = 10;
/// Growth of the resident memory over the second half of the runs that is no growth: pages of an allocator come and go.
const LEVEL_KIB: u64 = 3 * 1024;

/// A kind of run: the body of its create request, and the status of its start. `{n}` is a number of its own.
const KINDS: &[(&str, &str, u16)] = &[
    ("none", r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"none"}}"#, 204),
    ("host", r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"host"}}"#, 204),
    ("bridge", r#"{"Image":"busybox","Cmd":["true"]}"#, 204),
    ("container", r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"container:base"}}"#, 204),
    ("ports", r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"PortBindings":{"80/tcp":[{}],"81/udp":[{}]}}}"#, 204),
    ("no program", r#"{"Image":"busybox","Cmd":["/nosuch"]}"#, 400),
    ("no program, none", r#"{"Image":"busybox","Cmd":["/nosuch"],"HostConfig":{"NetworkMode":"none"}}"#, 400),
    (
        "taken port",
        r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"PortBindings":{"80/tcp":[{}],"82/tcp":[{"HostPort":"8099"}]}}}"#,
        500,
    ),
];

fn tables(d: &Daemon) -> serde_json::Value {
    let mut control = Connection::open(&d.exec_root().join("control.sock")).unwrap();
    control.request("GET", "/tables", "").expect(200).json()
}

fn cycle(api: &mut Connection, (kind, body, status): (&str, &str, u16)) {
    let created = api.request("POST", "/containers/create", body);
    assert_eq!(created.status, 201, "{kind}: {}", created.text());
    let id = created.json()["Id"].as_str().unwrap().to_owned();
    let started = api.request("POST", &format!("/containers/{id}/start"), "");
    assert_eq!(started.status, status, "{kind}: {}", started.text());
    if status == 204 {
        let _ = api.request("POST", &format!("/containers/{id}/wait"), "").expect(200);
    }
    let _ = api.request("DELETE", &format!("/containers/{id}?force=1"), "").expect(204);
}

/// Runs `rounds` containers of each kind.
fn runs(d: &Daemon, rounds: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut api = d.connection();
                while let n = next.fetch_add(1, Ordering::Relaxed)
                    && n < rounds * KINDS.len()
                {
                    cycle(&mut api, KINDS[n % KINDS.len()]);
                }
            });
        }
    });
}

#[test]
fn runs_of_every_kind_leave_nothing_in_the_daemon() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "base", "-p", "8099:80", "busybox", "sleep", "100000"]).ok();
    runs(&d, 1);
    let mut before = tables(&d);
    let settled = eventually(|| {
        before = tables(&d);
        before["lingering-links"] == 0
    });
    assert!(settled, "{before}");
    let rounds = soak::rounds(500, 10_000);
    let mut memory = Vec::new();
    for _ in 0..LOOKS {
        runs(&d, rounds / LOOKS);
        memory.push(process::memory_kib(d.pid(), "status", "RssAnon:").unwrap());
    }
    println!("resident memory in KiB, after each tenth of {} runs: {memory:?}", rounds * KINDS.len());
    let mut after = tables(&d);
    assert!(
        eventually(|| {
            after = tables(&d);
            after == before
        }),
        "{before} became {after}"
    );
    if soak::is_on() {
        let (half, last) = (memory[LOOKS / 2 - 1], memory[LOOKS - 1]);
        assert!(last <= half + LEVEL_KIB, "{memory:?} KiB");
    }
    let _ = d.docker(&["rm", "-f", "base"]).ok();
    d.finish();
}
