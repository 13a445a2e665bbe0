//! Commits and exports that are cut off, by the daemon's death or by a full disk: no container stays frozen, no image is
//! half there, what was acknowledged stands.

use std::path::Path;
use std::time::SystemTime;

use serde_json::json;
use testkit::command::{PATIENCE, eventually};
use testkit::{Connection, Options};

use crate::calls;
use crate::ledger::{Answered, Dice};
use crate::with_busybox;

const ROUNDS: u64 = 20;
/// Longest time that the daemon lives on in one round, in milliseconds.
const LONGEST_LIFE: u64 = 400;
const NAMES: [&str; 2] = ["one", "two"];

/// Commits a container as long as the daemon lives; what was acknowledged.
fn commit_on(socket: &Path, name: &str, round: u64, answered: &Answered) -> Vec<String> {
    let mut made = Vec::new();
    for n in 0.. {
        let path = format!("/commit?container={name}&repo={name}&tag={round}-{n}");
        let answer = Connection::open(socket).and_then(|mut connection| connection.try_request("POST", &path, ""));
        match answer {
            Ok(answer) => {
                let _ = answer.expect(201);
                made.push(format!("{name}:{round}-{n}"));
                answered.add();
            }
            Err(_) => return made,
        }
    }
    made
}

fn export_on(socket: &Path) {
    while let Ok(mut connection) = Connection::open(socket) {
        if connection.try_request("GET", "/containers/one/export", "").is_err() {
            return;
        }
    }
}

#[test]
fn a_daemon_killed_over_commits() {
    let mut d = with_busybox();
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    eprintln!("seed {seed}");
    let mut dice = Dice::new(seed);
    for name in NAMES {
        calls::run(
            &d,
            name,
            &calls::script(
                "head -c 200000 /dev/urandom > /data; echo ready; i=0; while true; do i=$((i+1)); echo $i > /n; sleep 0.01; done",
            ),
        );
    }
    let runs = NAMES.map(|name| calls::run_of(&d, name));
    let ready = || NAMES.iter().all(|name| calls::log(&d, name) == "ready\n");
    assert!(eventually(PATIENCE, ready), "the containers have no data");
    let answered = Answered::default();
    let mut made = Vec::new();
    for round in 0..ROUNDS {
        let socket = d.socket();
        let worked = std::thread::scope(|scope| {
            let commits = NAMES.map(|name| {
                let (socket, answered) = (&socket, &answered);
                scope.spawn(move || commit_on(socket, name, round, answered))
            });
            scope.spawn(|| export_on(&socket));
            let worked = answered.random_moment(round, 2, &mut dice, LONGEST_LIFE);
            d.kill9();
            made.extend(commits.into_iter().flat_map(|thread| thread.join().unwrap()));
            worked
        });
        assert!(worked, "round {round}: only {} commits were answered", answered.count());
        d.again();
        for name in NAMES {
            assert_eq!(calls::state(&d, name).0, "running", "round {round}: {name}");
            let number =
                || d.http("POST", &format!("/containers/{name}/exec"), r#"{"Cmd":["cat","/n"],"AttachStdout":true}"#);
            let _ = number().expect(201);
        }
    }
    assert_eq!(NAMES.map(|name| calls::run_of(&d, name)), runs);
    assert!(made.len() as u64 >= ROUNDS);
    for name in &made {
        let _ = d.http("GET", &format!("/images/{name}/json"), "").expect(200);
    }
    // The newest of them is whole.
    let body =
        json!({"Image": made.last(), "Cmd": ["sh", "-c", "wc -c < /data"], "HostConfig": {"NetworkMode": "none"}});
    calls::run(&d, "made", &body);
    calls::until(&d, "made", "exited", 0);
    assert_eq!(calls::log(&d, "made").trim(), "200000");
    assert_eq!(d.faults(), [""; 0]);
    d.finish();
}

#[test]
fn a_full_disk_under_a_commit() {
    let d = Options::new().disk("32m").start();
    d.busybox();
    calls::run(&d, "big", &calls::script("head -c 12000000 /dev/urandom > /big; echo done; sleep 1000"));
    assert!(eventually(PATIENCE, || calls::log(&d, "big") == "done\n"));
    for _ in 0..3 {
        let answer = d.http("POST", "/commit?container=big&repo=made", "").expect(500);
        assert!(answer.message().to_lowercase().contains("no space left on device"), "{}", answer.message());
        assert_eq!(calls::state(&d, "big").0, "running");
        calls::prompt(&d, &["big"]);
    }
    assert_eq!(d.http("GET", "/images/made/json", "").status, 404);
    calls::exec(&d, "big", &["rm", "/big"]);
    let _ = d.http("POST", "/commit?container=big&repo=made", "").expect(201);
    d.finish();
}
