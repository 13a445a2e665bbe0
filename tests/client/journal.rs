//! The journal of events: over restarts, for readers that sleep, by id, damaged.

use std::fs;

use serde_json::Value;
use testkit::{Daemon, soak};

use crate::events::now;
use crate::{eventually, with_busybox};

/// The events that a query answers, up to now.
#[track_caller]
fn events(d: &Daemon, query: &str) -> Vec<Value> {
    let text = d.http("GET", &format!("/events?ids=1&until={}&{query}", now()), "").expect(200).text();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn id(event: &Value) -> u64 {
    event["eventID"].as_u64().unwrap()
}

/// Every number from the first to the last, once and in order.
#[track_caller]
fn are_whole(events: &[Value]) {
    for pair in events.windows(2) {
        assert_eq!(id(&pair[0]) + 1, id(&pair[1]), "{pair:#?}");
    }
}

#[test]
fn a_restart_forgets_no_event() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "--name", "one", "busybox", "true"]).ok();
    let before = events(&d, "since=0");
    assert_eq!(id(&before[0]), 1);
    d.crash();
    let _ = d.docker(&["rename", "one", "two"]).ok();
    d.restart();
    let _ = d.docker(&["rm", "two"]).ok();
    let after = events(&d, "since=0");
    are_whole(&after);
    assert_eq!(after[..before.len()], before);
    // By the time of one of them, by its id, and as the CLI asks.
    let die = after.iter().find(|event| event["Action"] == "die").unwrap();
    let nanos = die["timeNano"].as_i64().unwrap();
    let since = events(&d, &format!("since={}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000));
    let first = after.iter().position(|event| event["timeNano"].as_i64().unwrap() >= nanos).unwrap();
    assert_eq!(since, after[first..]);
    let behind = events(&d, &format!("after={}", id(die)));
    assert_eq!(behind, after[usize::try_from(id(die)).unwrap()..]);
    let until = now().to_string();
    let shown = d.docker(&[
        "events",
        "--since",
        "1h",
        "--until",
        &until,
        "--filter",
        "event=rename",
        "--format",
        "{{.Action}}",
    ]);
    assert_eq!(shown.ok().stdout, "rename\n");
    let refused = d.http("GET", "/events?after=1000000", "").expect(400).message();
    assert_eq!(refused, format!("event 1000000 is newer than the newest one, {}", id(after.last().unwrap())));
    d.finish();
}

/// As many events as `long`, while a client that has asked for them reads nothing.
#[test]
fn a_reader_that_sleeps_misses_none() {
    let count = soak::rounds(6_000, 100_000);
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c", "busybox", "sleep", "100000"]).ok();
    let mut asleep = d.connection();
    asleep.send(b"GET /events?ids=1 HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    assert_eq!(asleep.head().unwrap().status, 200);
    let mut client = d.connection();
    for _ in 0..count {
        // A signal of which nothing comes.
        let _ = client.request("POST", "/containers/c/kill?signal=WINCH", "").expect(204);
    }
    let mut seen = Vec::new();
    let mut rest = Vec::new();
    while seen.len() < count {
        rest.extend(asleep.chunk().unwrap().expect("the stream goes on"));
        let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in rest.drain(..end).collect::<Vec<_>>().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            seen.push(serde_json::from_slice::<Value>(line).unwrap());
        }
    }
    are_whole(&seen);
    assert!(seen.iter().all(|event| event["Action"] == "kill"), "{seen:#?}");
    drop(asleep);
    let all = events(&d, "since=0");
    are_whole(&all);
    assert_eq!(all.iter().filter(|event| event["Action"] == "kill").count(), count);
    d.finish();
}

/// A journal that is damaged, cut short or emptied is named, costs what was hit, and stops nothing.
#[test]
fn a_damaged_journal_is_named_and_stops_nothing() {
    type Damage = fn(&mut Vec<u8>);
    let kinds: [(&str, Damage); 3] = [
        ("changed", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
        ("cut short", |bytes| bytes.truncate(bytes.len() / 2)),
        ("emptied", Vec::clear),
    ];
    for (kind, damage) in kinds {
        let mut d = with_busybox();
        let _ = d.docker(&["run", "--rm", "busybox", "true"]).ok();
        assert_eq!(d.stop(), 0);
        let dir = d.data_root().join("events");
        let file = fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
        let mut bytes = fs::read(&file).unwrap();
        damage(&mut bytes);
        fs::write(&file, bytes).unwrap();
        d.again();
        let warning = format!("WARNING: the journal of events was damaged: {}", file.display());
        let info = d.docker(&["info"]);
        assert!(info.stderr.contains(&warning), "{kind}: {info:?}");
        assert!(d.data_root().join("quarantine/events").is_dir(), "{kind}");
        let _ = d.docker(&["run", "--name", "later", "busybox", "true"]).ok();
        assert!(
            eventually(|| events(&d, "since=0").iter().any(|event| event["Action"] == "die")),
            "{kind}: {:#?}",
            events(&d, "since=0")
        );
        let seen = events(&d, "since=0");
        let gap = seen.iter().find(|event| event["Action"] == "gap").unwrap_or_else(|| panic!("{kind}: {seen:#?}"));
        assert_eq!(gap["Type"], "daemon", "{kind}");
        assert_eq!(gap["Actor"]["Attributes"]["last"], id(gap).to_string(), "{kind}");
        // A filter does not hide that something is missing.
        let images = events(&d, "since=0&filters=%7B%22type%22%3A%5B%22image%22%5D%7D");
        assert!(images.iter().any(|event| event["Action"] == "gap"), "{kind}: {images:#?}");
        // It is mended.
        d.restart();
        assert!(!d.docker(&["info"]).stderr.contains("journal"), "{kind}");
        let _ = fs::remove_dir_all(d.data_root().join("quarantine"));
        d.finish();
    }
}
