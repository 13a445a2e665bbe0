//! The daemon dies while images come and the collector takes them: what is listed is whole, and nothing is left over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::command::{PATIENCE, eventually};
use testkit::images::Tar;
use testkit::{Connection, Daemon, Options};

const ROUNDS: u64 = 12;
/// Bytes of the one file of an image.
const FILE: usize = 2 << 20;
/// Bytes of the disk.
const DISK: u64 = 64 << 20;

/// Imports images of their own content, one after the other, until the daemon is gone.
fn import_until_gone(socket: &std::path::Path, round: u64, stop: &AtomicBool) {
    for n in 0.. {
        let name = format!("r{round}n{n}");
        let content: Vec<u8> = name.bytes().cycle().take(FILE).collect();
        let tar =
            String::from_utf8(Tar::new().file("data", 0o644, &content).bytes()).expect("a tar of letters and zeros");
        let path = format!("/images/create?fromSrc=-&repo={name}&changes=CMD+x");
        let answer = Connection::open(socket).and_then(|mut connection| connection.try_request("POST", &path, &tar));
        if answer.is_err() || stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

fn images(d: &Daemon) -> Vec<Value> {
    d.http("GET", "/images/json", "").expect(200).json().as_array().unwrap().clone()
}

/// What lies in a directory of the data root.
fn entries(d: &Daemon, path: &str) -> Vec<String> {
    let script = format!("ls -A {}/{path}", d.data_root().display());
    d.exec_inside(&["sh", "-c", &script]).text().lines().map(String::from).collect()
}

/// Bytes that are free on the disk.
fn room(d: &Daemon) -> u64 {
    let root = d.data_root().display().to_string();
    let output = d.exec_inside(&["df", "--output=avail", "-B1", &root]).text();
    output.lines().last().and_then(|bytes| bytes.trim().parse().ok()).expect("df tells a number")
}

/// How many images the collector has taken.
fn collected(d: &Daemon) -> usize {
    d.log().matches("collected image=").count()
}

/// Every image that is listed can be used.
#[track_caller]
fn all_are_whole(d: &Daemon) {
    for image in images(d) {
        let body = json!({"Image": image["Id"], "Cmd": ["x"]}).to_string();
        let answer = d.http("POST", "/containers/create", &body);
        // The collector goes on meanwhile.
        if answer.status == 404 {
            continue;
        }
        let id = answer.expect(201).json()["Id"].as_str().unwrap().to_owned();
        let _ = d.http("DELETE", &format!("/containers/{id}"), "").expect(204);
    }
}

#[test]
fn a_daemon_that_dies_while_it_collects_loses_and_leaks_nothing() {
    let rules = json!({"image-gc": {"high": "50%", "low": "30%", "min-age": "0s", "interval": "1s"}});
    let mut d = Options::new().disk(&DISK.to_string()).config(&rules.to_string()).start();
    let mut moment = 7_u64;
    for round in 0..ROUNDS {
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (socket, stop) = (d.socket(), AtomicBool::new(false));
        let collected = std::thread::scope(|scope| {
            for lane in 0..2 {
                let (socket, stop) = (&socket, &stop);
                scope.spawn(move || import_until_gone(socket, round * 10 + lane, stop));
            }
            // From the first image that it takes on.
            let before = collected(&d);
            let collects = eventually(PATIENCE, || collected(&d) > before);
            std::thread::sleep(Duration::from_millis((moment >> 33) % 900));
            stop.store(true, Ordering::Relaxed);
            d.kill9();
            collects
        });
        assert!(collected, "round {round}: the collector has nothing to do; {}", d.log());
        d.again();
        // The new daemon goes on collecting; until then there may be no room for a container.
        assert!(eventually(PATIENCE, || room(&d) > DISK / 2), "round {round}: {} bytes are free", room(&d));
        all_are_whole(&d);
    }
    for image in images(&d) {
        let _ = d.http("DELETE", &format!("/images/{}?force=1", image["Id"].as_str().unwrap()), "");
    }
    assert_eq!(images(&d), Vec::<Value>::new());
    assert_eq!(entries(&d, "content/blobs/sha256"), [""; 0]);
    assert_eq!(entries(&d, "content/ingest"), [""; 0]);
    assert!(
        entries(&d, "snapshots/overlay").iter().all(|name| name.len() < 64),
        "{:?}",
        entries(&d, "snapshots/overlay")
    );
    assert_eq!(entries(&d, "snapshots/overlay/tmp"), [""; 0]);
    d.finish();
}
