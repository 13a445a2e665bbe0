//! Measures commits: `commits <directory> <writers> <commits per writer>`. Figures of `docs/design/0003` come from it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use store::{Row, Store, Table};

#[derive(Clone, Serialize, Deserialize)]
struct Container {
    name: String,
    config: String,
}

impl Row for Container {
    const VERSION: u32 = 1;
}

const CONTAINERS: Table<Container> = Table::new("containers");

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned()
}

fn main() {
    let mut args = std::env::args_os().skip(1);
    let dir = PathBuf::from(args.next().expect("a directory"));
    let mut number = || args.next().and_then(|n| n.to_str()?.parse::<usize>().ok()).expect("a number");
    let (writers, commits) = (number(), number());
    let begun = Instant::now();
    let store = Store::open(&dir.join("gantry.redb")).expect("opening");
    println!("open {:?}", begun.elapsed());
    let begun = Instant::now();
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let run = |writer: usize| {
            let store = store.clone();
            move || -> Vec<Duration> {
                let one = |n: usize| {
                    let row = Container { name: format!("c{n}"), config: "x".repeat(4000) };
                    let begun = Instant::now();
                    store
                        .write_blocking(move |tx| tx.put(&CONTAINERS, &format!("{writer}-{}", n % 200), &row))
                        .expect("writing");
                    begun.elapsed()
                };
                (0..commits).map(one).collect()
            }
        };
        let threads: Vec<_> = (0..writers).map(|writer| scope.spawn(run(writer))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("writer")).collect()
    });
    let all = begun.elapsed();
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!("{} writes in {all:?}: p50 {:?} p99 {:?}; {}", times.len(), at(50), at(99), resident());
    let begun = Instant::now();
    let rows = store.read(|tx| tx.scan(&CONTAINERS)).expect("reading");
    println!("scan of {} rows {:?}; {}", rows.len(), begun.elapsed(), resident());
}
