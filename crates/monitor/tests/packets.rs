//! Packets of earlier versions, kept as data: what daemons and monitors of then sent is understood as it was meant.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a test may

use std::fmt::Debug;

use monitor::proto::{self, Event, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;

const FIRST: &str = include_str!("golden/packets-first.txt");

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// A packet of then is that of now whose new fields are zero. Fields that came after the data was made follow at its end.
fn is_understood<T: Serialize + DeserializeOwned + Debug + PartialEq>(then: &str, now: &str) {
    let old = proto::decode::<T>(&bytes(then)).unwrap_or_else(|error| panic!("{then}: {error:?}"));
    assert_eq!(old, proto::decode::<T>(&bytes(now)).unwrap(), "{then}");
    let (again, now) = (proto::encode(old.seq, old.body), bytes(now));
    let (known, newer) = again.split_at(now.len().min(again.len()));
    assert_eq!(known, now, "{then}");
    assert!(newer.iter().all(|byte| *byte == 0), "{then}: {newer:?}");
}

#[test]
fn packets_of_earlier_versions_are_understood() {
    let lines = FIRST.lines().filter(|line| !line.starts_with('#'));
    let mut seen = 0;
    for line in lines {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["request", then, now] => is_understood::<Request>(then, now),
            ["event", then, now] => is_understood::<Event>(then, now),
            _ => panic!("{line}"),
        }
        seen += 1;
    }
    assert!(seen > 20);
}
