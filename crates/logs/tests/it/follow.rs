//! Following a log while it is written, rotated and compressed under the reader's hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use logs::{Batch, ReadOptions, Source, Stream, Watches};

use crate::{Log, with_each_driver};

/// A small reproducible random number generator.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// The number in a line that tells of lost ones.
fn lost(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("[gantry: ")?;
    assert!(rest.ends_with(" lost: the log was rotated before they were read]"), "{line}");
    rest.split(' ').next()?.parse().ok()
}

fn follower(log: &Log) -> Box<dyn Source> {
    log.reader(ReadOptions { follow: true, stdout: true, stderr: true, ..ReadOptions::default() })
}

/// The numbers of the lines that are seen; how many are missing before each that comes after a gap is checked.
fn follow(mut reader: Box<dyn Source>, ended: &AtomicBool, slow: Option<u64>) -> Vec<u64> {
    let mut random = slow.map(Random);
    let (mut out, mut numbers, mut next) = (Vec::new(), Vec::new(), 0);
    loop {
        out.clear();
        let batch = reader.next_batch(&mut out).unwrap();
        let text = std::str::from_utf8(&out).unwrap();
        for line in text.lines() {
            if let Some(lost) = lost(line) {
                next += lost;
                continue;
            }
            let number = line.trim_end_matches('x').parse::<u64>().unwrap();
            assert_eq!(number, next, "{} lines seen", numbers.len());
            next += 1;
            numbers.push(number);
        }
        match batch {
            Batch::More => {}
            Batch::Waiting if ended.load(Ordering::Acquire) => reader.finish(),
            Batch::Waiting => thread::sleep(Duration::from_micros(200)),
            Batch::End => return numbers,
        }
        if let Some(random) = &mut random {
            thread::sleep(Duration::from_micros(random.below(3000)));
        }
    }
}

/// Writes numbered lines in random portions with random idle time, until all of `lines` are written, and perhaps a few more: the
/// number of the next.
fn write(log: &Log, seed: u64, lines: std::ops::Range<u64>, max_file: u32) -> u64 {
    let mut log = log.writer(&[("max-size", "20000"), ("max-file", &max_file.to_string())]);
    let mut random = Random(seed);
    let mut next = lines.start;
    while next < lines.end {
        for _ in 0..random.below(40) {
            let filler = "x".repeat(random.below(300) as usize);
            log.write(Stream::Stdout, format!("{next}{filler}\n").as_bytes());
            next += 1;
        }
        log.flush();
        for _ in 0..random.below(8) {
            if log.has_idle_work() {
                log.idle();
            }
        }
        if random.below(4) == 0 {
            thread::sleep(Duration::from_micros(random.below(2000)));
        }
    }
    next
}

#[test]
fn random_rotation_loses_and_repeats_nothing() {
    with_each_driver(|log| {
        for seed in 1..=3_u64 {
            let log = log.beside(&seed.to_string());
            drop(log.writer(&[]));
            let ended = Arc::new(AtomicBool::new(false));
            let readers: Vec<_> = (0..3)
                .map(|n| {
                    let (log, ended) = (log.clone(), ended.clone());
                    // Slow readers fall many files behind, some of them compressed before they get there.
                    thread::spawn(move || {
                        follow(follower(&log), &ended, if n == 0 { None } else { Some(seed * 10 + n) })
                    })
                })
                .collect();
            let _ = write(&log, seed * 7919, 0..8_000, 1000);
            ended.store(true, Ordering::Release);
            for reader in readers {
                let numbers = reader.join().unwrap();
                let wrong = numbers.iter().zip(0..).find(|&(&got, expected)| got != expected);
                assert_eq!(wrong, None, "seed {seed}");
                assert!(numbers.len() >= 8_000, "seed {seed}: {} lines", numbers.len());
            }
        }
    });
}

#[test]
fn retention_says_how_many_lines_it_has_lost_and_never_repeats() {
    with_each_driver(|log| {
        drop(log.writer(&[]));
        let ended = Arc::new(AtomicBool::new(false));
        let reader = follower(log);
        // The first lines are gone when the reader begins.
        let begin = write(log, 4241, 0..2_000, 2);
        let reader = {
            let ended = ended.clone();
            thread::spawn(move || follow(reader, &ended, Some(5)))
        };
        let _ = write(log, 4242, begin..20_000, 2);
        ended.store(true, Ordering::Release);
        let numbers = reader.join().unwrap();
        // Every gap has been told of in full.
        assert!(numbers.len() < 20_000, "nothing was lost");
        assert!(*numbers.last().unwrap() >= 19_999);
    });
}

/// A writer that goes on with a log counts what was there before it.
#[test]
fn lines_lost_over_several_runs_of_a_container_are_counted() {
    with_each_driver(|log| {
        drop(log.writer(&[]));
        for compress in [false, true] {
            let options = ReadOptions { follow: true, stdout: true, ..ReadOptions::default() };
            let mut reader = log.reader(options);
            let (mut seen, mut total) = (0, 0);
            let mut read = |reader: &mut dyn Source| loop {
                let mut out = Vec::new();
                let batch = reader.next_batch(&mut out).unwrap();
                for line in std::str::from_utf8(&out).unwrap().lines() {
                    seen += lost(line).unwrap_or(1);
                }
                match batch {
                    Batch::More => {}
                    Batch::Waiting | Batch::End => return seen,
                }
            };
            let before = read(&mut *reader);
            for run in 0..5 {
                let (max_file, compress) = (1 + run % 3, compress && run % 3 > 0);
                let options =
                    [("max-file", &*max_file.to_string()), ("compress", &*compress.to_string()), ("max-size", "5000")];
                let mut log = log.writer(&options);
                for _ in 0..1 + run * 137 {
                    log.write(Stream::Stdout, b"a line\n");
                    total += 1;
                    log.idle();
                }
                log.flush();
                while log.has_idle_work() {
                    log.idle();
                }
                if run % 2 == 0 {
                    assert_eq!(read(&mut *reader), before + total, "run {run}");
                }
            }
            reader.finish();
            assert_eq!(read(&mut *reader), before + total);
        }
    });
}

#[test]
fn a_reader_that_starts_while_the_log_rotates_sees_each_line_once() {
    with_each_driver(|log| {
        drop(log.writer(&[]));
        let done = Arc::new(AtomicBool::new(false));
        let writer = {
            let (log, done) = (log.clone(), done.clone());
            thread::spawn(move || {
                let _ = write(&log, 99, 0..10_000, 1000);
                done.store(true, Ordering::Release);
            })
        };
        while !done.load(Ordering::Acquire) {
            let options = ReadOptions { stdout: true, ..ReadOptions::default() };
            let mut reader = log.reader(options);
            let mut out = Vec::new();
            while reader.next_batch(&mut out).unwrap() == Batch::More {}
            let text = String::from_utf8(out).unwrap();
            let numbers = text.lines().map(|l| l.trim_end_matches('x').parse::<u64>().unwrap());
            assert_eq!(numbers.zip(0..).find(|&(got, expected)| got != expected), None);
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_line_is_there_when_its_directory_has_changed() {
    with_each_driver(|log| {
        let mut writer = log.writer(&[("max-size", "1"), ("max-file", "3"), ("compress", "false")]);
        let watches = Watches::new().unwrap();
        let _ = watches.add(log.path().parent().unwrap()).unwrap();
        let options = ReadOptions { follow: true, stdout: true, ..ReadOptions::default() };
        let mut reader = log.reader(options);
        // Every line but the first rotates the log.
        for n in 0..20 {
            let mut out = Vec::new();
            assert_eq!(reader.next_batch(&mut out).unwrap(), Batch::Waiting);
            writer.write(Stream::Stdout, format!("{n}\n").as_bytes());
            writer.flush();
            let mut changes = 0;
            watches.drain(|_| changes += 1);
            assert!(changes > 0);
            assert_eq!(reader.next_batch(&mut out).unwrap(), Batch::More);
            assert_eq!(out, format!("{n}\n").as_bytes());
        }
        reader.finish();
        assert_eq!(reader.next_batch(&mut Vec::new()).unwrap(), Batch::End);
    });
}

#[test]
fn until_ends_a_follower() {
    with_each_driver(|log| {
        drop(log.writer(&[]));
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64;
        let until = now() + 200_000_000;
        let options = ReadOptions { follow: true, stdout: true, until: Some(until), ..ReadOptions::default() };
        let mut reader = log.reader(options);
        while reader.next_batch(&mut Vec::new()).unwrap() == Batch::Waiting {
            thread::sleep(Duration::from_millis(1));
        }
        let late = now() - until;
        assert!((0..60_000_000_000).contains(&late), "{late} ns after the time");
    });
}
