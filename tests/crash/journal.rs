//! Events, when the daemon is killed: none that was seen or acknowledged is lost, and none is told twice.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use testkit::command::{PATIENCE, eventually};
use testkit::{Connection, Daemon, soak};

use crate::{calls, with_busybox};

/// Events that are acknowledged before a kill, at least.
const LEAST: usize = 50;

/// All events that there are.
#[track_caller]
pub fn all(d: &Daemon) -> Vec<Value> {
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    let text = d.http("GET", &format!("/events?ids=1&since=0&until={until}"), "").expect(200).text();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn signals(events: &[Value]) -> usize {
    events.iter().filter(|event| event["Actor"]["Attributes"]["signal"] == "28").count()
}

#[test]
fn a_killed_daemon_loses_no_event() {
    let mut d = with_busybox();
    let _ = calls::run(&d, "c", &calls::script("exec sleep 100000"));
    let (mut least, mut most) = (0, 0);
    for round in 0..soak::rounds(10, 200) {
        let (asked, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let socket = d.socket();
        let socket = &socket;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let Ok(mut client) = Connection::open(socket) else { return };
                    loop {
                        asked.fetch_add(1, Ordering::Relaxed);
                        match client.try_request("POST", "/containers/c/kill?signal=WINCH", "") {
                            Ok(answer) if answer.status == 204 => _ = told.fetch_add(1, Ordering::Relaxed),
                            _ => return,
                        }
                    }
                });
            }
            let is_due = eventually(PATIENCE, || told.load(Ordering::Relaxed) >= LEAST);
            d.kill9();
            assert!(is_due, "round {round}");
        });
        d.again();
        (least, most) = (least + told.into_inner(), most + asked.into_inner());
        let events = all(&d);
        for pair in events.windows(2) {
            assert_eq!(pair[0]["eventID"].as_u64().unwrap() + 1, pair[1]["eventID"].as_u64().unwrap(), "{pair:#?}");
        }
        let seen = signals(&events);
        assert!((least..=most).contains(&seen), "round {round}: {least} acknowledged, {most} asked for, {seen} told");
    }
    d.finish();
}
