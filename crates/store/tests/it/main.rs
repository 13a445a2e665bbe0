//! The store against a process that dies at any moment, and against a full disk.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use model::lock::Mutex;
use serde::{Deserialize, Serialize};
use store::{Row, Store, Table};

const DIR: &str = "GANTRY_STORE_CRASH_DIR";
const WRITERS: u64 = 6;
const ROUNDS: u64 = 50;

/// Two tables, written together: a row in one without the other is a torn commit.
const LEFT: Table<Number> = Table::new("left");
const RIGHT: Table<Number> = Table::new("right");

#[derive(Serialize, Deserialize)]
struct Number {
    n: u64,
    padding: String,
}

impl Row for Number {
    const VERSION: u32 = 1;
}

fn file(dir: &Path) -> PathBuf {
    dir.join("gantry.redb")
}

/// Not a test of its own: the process that [`acknowledged_rows_survive_kill_9`] kills.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = Store::open(&file(Path::new(&dir))).unwrap();
    let next = store.read(|tx| Ok(tx.scan(&LEFT)?.iter().map(|(_, row)| row.n).max().unwrap_or(0))).unwrap() + 1;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = store.clone();
            scope.spawn(move || {
                for n in next.. {
                    let key = format!("{writer}");
                    let padding = "x".repeat((n % 3000) as usize);
                    let row = Number { n, padding };
                    let written = store.write_blocking(move |tx| {
                        tx.put(&LEFT, &key, &row)?;
                        tx.put(&RIGHT, &key, &row)?;
                        // Churn: rows come and go as containers do.
                        tx.put(&LEFT, &format!("{key}-{}", row.n), &row)?;
                        tx.delete(&LEFT, &format!("{key}-{}", row.n.saturating_sub(20)))
                    });
                    written.unwrap();
                    // One write per line: what arrives whole was acknowledged.
                    std::io::stdout().lock().write_all(format!("ack {writer} {n}\n").as_bytes()).unwrap();
                }
            });
        }
    });
}

/// When a life is counted from.
#[derive(Clone, Copy, PartialEq)]
enum From {
    /// The start of the child: it may be killed while it opens the store, or before.
    Start,
    /// The first commit that it was told of.
    FirstCommit,
}

/// Starts the child, kills it after `life`, answers the last number each writer was told is durable.
fn one_life(dir: &Path, from: From, life: Duration) -> BTreeMap<u64, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (told, first) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut acks = BTreeMap::new();
        for line in out.lines().map_while(Result::ok) {
            if let Some((writer, n)) = line.strip_prefix("ack ").and_then(|rest| rest.split_once(' ')) {
                acks.insert(writer.parse().unwrap(), n.parse().unwrap());
                let _ = told.send(());
            }
        }
        acks
    });
    if from == From::FirstCommit {
        first.recv().expect("the child commits");
    }
    std::thread::sleep(life);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

/// Held by a test that starts processes: one that has not begun yet holds the files of its sibling tests open, locks
/// included.
static STARTING: Mutex<()> = Mutex::new(());

#[test]
fn acknowledged_rows_survive_kill_9() {
    let _turn = STARTING.lock();
    let dir = tempfile::tempdir().unwrap();
    let mut seed = 0x9e37_79b9_u64;
    let mut slowest = Duration::ZERO;
    let mut known = BTreeMap::new();
    for round in 0..ROUNDS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let from = if round % 2 == 0 { From::Start } else { From::FirstCommit };
        let acks = one_life(dir.path(), from, Duration::from_millis(5 + (seed >> 33) % 120));
        known.extend(acks);
        let begun = Instant::now();
        let store = Store::open(&file(dir.path())).unwrap();
        slowest = slowest.max(begun.elapsed());
        let (left, right) = store.read(|tx| Ok((tx.scan(&LEFT)?, tx.scan(&RIGHT)?))).unwrap();
        let left: BTreeMap<_, _> = left.into_iter().map(|(key, row)| (key, row.n)).collect();
        for (key, row) in &right {
            assert_eq!(left.get(key), Some(&row.n), "round {round}: a torn commit");
        }
        for (writer, n) in &known {
            let found = left.get(&writer.to_string()).copied().unwrap_or(0);
            assert!(found >= *n, "round {round}: writer {writer} was told of {n}, found {found}");
        }
    }
    assert!(slowest < Duration::from_secs(30), "opening after a crash took {slowest:?}");
}

/// A store whose maker was killed can be opened, wherever that was.
#[test]
fn a_store_is_made_whole_or_not_at_all() {
    let _turn = STARTING.lock();
    for life in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        one_life(dir.path(), From::Start, Duration::from_micros(life * 500));
        Store::open(&file(dir.path())).unwrap();
    }
}

/// A full disk refuses a commit; nothing is torn, and the store works again when there is room.
#[test]
fn a_full_disk_passes() {
    let _turn = STARTING.lock();
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let status = Command::new("unshare")
        .args([
            "-m",
            "sh",
            "-c",
            "mount -t tmpfs -o size=6m none \"$1\" && exec \"$2\" --exact full_disk_child --nocapture",
            "sh",
        ])
        .arg(&mount)
        .arg(std::env::current_exe().unwrap())
        .env(DIR, &mount)
        .status()
        .unwrap();
    assert!(status.success(), "needs root");
}

/// Not a test of its own: what [`a_full_disk_passes`] runs on a file system of 6 MB.
#[test]
fn full_disk_child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let store = Store::open(&file(dir)).unwrap();
    let write = |n: u64| {
        let row = Number { n, padding: "x".repeat(20_000) };
        store.write_blocking(move |tx| tx.put(&LEFT, &format!("{n:05}"), &row))
    };
    let refused = (0..1000).find(|n| write(*n).is_err()).expect("6 MB do not hold 20 MB");
    let rows = |store: &Store| store.read(|tx| tx.keys(&LEFT)).unwrap().len() as u64;
    assert_eq!(rows(&store), refused);
    // Deletions and small writes make room and go on.
    for n in 0..refused / 2 {
        store.write_blocking(move |tx| tx.delete(&LEFT, &format!("{n:05}"))).unwrap();
    }
    write(9999).unwrap();
    assert_eq!(rows(&store), refused - refused / 2 + 1);
    drop(store);
    assert_eq!(rows(&Store::open(&file(dir)).unwrap()), refused - refused / 2 + 1);
}
