//! Floods, bombs, frozen containers, a full disk: nothing of it may block or break anything else.

use std::time::{Duration, Instant};

use testkit::command::eventually;
use testkit::{Daemon, Options};

use crate::with_images;

/// `ps`, `inspect` and `logs --tail` answer quickly.
fn responsive(d: &Daemon, name: &str) {
    let mut connection = d.connection();
    for path in [
        "/containers/json?all=1".to_string(),
        format!("/containers/{name}/json"),
        format!("/containers/{name}/logs?stdout=1&tail=5"),
    ] {
        let begin = Instant::now();
        let answer = connection.request("GET", &path, "");
        assert_eq!(answer.status, 200, "{path}");
        assert!(begin.elapsed() < Duration::from_secs(2), "{path} took {:?}", begin.elapsed());
    }
}

#[test]
fn a_flood_of_output() {
    let d = with_images();
    let _ = d
        .docker(&["run", "-d", "--name", "f1", "--log-opt", "max-size=1m", "probe", "flood", "99999999999", "80"])
        .ok();
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..5 {
        responsive(&d, "f1");
    }
    assert_eq!(d.docker(&["run", "--rm", "busybox", "echo", "ok"]).text(), "ok");
    let _ = d.docker(&["kill", "f1"]).ok();
    d.finish();
}

#[test]
fn a_fork_bomb_under_a_limit() {
    let d = with_images();
    let _ = d.docker(&["run", "-d", "--name", "b1", "--pids-limit", "50", "probe", "fork-bomb"]).ok();
    std::thread::sleep(Duration::from_millis(700));
    responsive(&d, "b1");
    let begin = Instant::now();
    let _ = d.docker(&["kill", "b1"]).ok();
    d.until("b1", "{{.State.Status}}", "exited");
    assert!(begin.elapsed() < Duration::from_secs(10));
    d.finish();
}

#[test]
fn a_frozen_container() {
    let d = with_images();
    let _ =
        d.docker(&["run", "-d", "--name", "z1", "busybox", "sh", "-c", "while true; do echo x; sleep 0.1; done"]).ok();
    let _ = d.docker(&["pause", "z1"]).ok();
    responsive(&d, "z1");
    let begin = Instant::now();
    let _ = d.docker(&["stop", "-t", "1", "z1"]).ok();
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    d.finish();
}

#[test]
fn a_full_disk() {
    let d = Options::new().disk("48m").start();
    d.busybox();
    d.probe();
    let _ = d
        .docker(&[
            "run",
            "-d",
            "--name",
            "w1",
            "--log-opt",
            "max-size=1m",
            "busybox",
            "sh",
            "-c",
            "while true; do echo line; sleep 0.01; done",
        ])
        .ok();
    let filler = d.data_root().join("filler");
    let _ = d.exec_inside(&["sh", "-c", &format!("dd if=/dev/zero of={} bs=64k 2>/dev/null; true", filler.display())]);
    // Creating, starting and loading fail with a text; nothing dies.
    for n in 0..20 {
        let output = d.docker(&["create", "--name", &format!("c{n}"), "busybox", "true"]);
        if output.code != 0 {
            assert!(
                output.stderr.contains("no space left on device") || output.stderr.to_lowercase().contains("space"),
                "{output:?}"
            );
        }
    }
    responsive(&d, "w1");
    assert_eq!(d.inspect("w1", "{{.State.Status}}"), "running");
    let _ = d.exec_inside(&["rm", filler.to_str().unwrap()]).ok();
    assert_eq!(d.docker(&["run", "--rm", "busybox", "echo", "works again"]).text(), "works again");
    let lines = || d.docker(&["logs", "w1"]).ok().stdout.len();
    let before = lines();
    assert!(eventually(Duration::from_secs(10), || lines() > before), "the log stands still");
    d.finish();
}

#[test]
fn many_containers_come_and_go() {
    let d = with_images();
    let begin = Instant::now();
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let socket = d.socket();
            std::thread::spawn(move || {
                let mut connection = testkit::Connection::open(&socket).unwrap();
                for n in 0..10 {
                    cycle(&mut connection, &format!("w{worker}-{n}"));
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    d.finish();
}

fn cycle(connection: &mut testkit::Connection, name: &str) {
    let body = r#"{"Image":"probe","HostConfig":{"NetworkMode":"none"}}"#;
    let _ = connection.request("POST", &format!("/containers/create?name={name}"), body).expect(201);
    let _ = connection.request("POST", &format!("/containers/{name}/start"), "").expect(204);
    let waited = connection.request("POST", &format!("/containers/{name}/wait"), "").expect(200);
    assert_eq!(waited.json()["StatusCode"], 0);
    let _ = connection.request("DELETE", &format!("/containers/{name}"), "").expect(204);
}
