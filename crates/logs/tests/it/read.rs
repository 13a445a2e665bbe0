//! Reading a log that stands still.

use std::fs;

use logs::{Batch, Format, ReadOptions, Shape, Stream};

use crate::{Log, with_each_driver, with_json_file};

/// Options of a log in small files.
const SMALL: &[(&str, &str)] = &[("max-size", "5000"), ("max-file", "5")];

fn write_lines(log: &Log, count: usize) {
    let mut log = log.writer(SMALL);
    for n in 0..count {
        let stream = if n % 10 == 9 { Stream::Stderr } else { Stream::Stdout };
        log.write(stream, format!("line {n}\n").as_bytes());
        if n % 50 == 0 {
            log.flush();
            log.idle();
        }
    }
    log.flush();
    while log.has_idle_work() {
        log.idle();
    }
}

fn read(log: &Log, options: ReadOptions) -> String {
    let mut reader = log.reader(options);
    let mut out = Vec::new();
    while reader.next_batch(&mut out).unwrap() == Batch::More {}
    String::from_utf8(out).unwrap()
}

fn both() -> ReadOptions {
    ReadOptions { stdout: true, stderr: true, ..ReadOptions::default() }
}

#[test]
fn tails_across_compressed_files() {
    with_each_driver(|log| {
        write_lines(log, 1000);
        let rotated = |end: &str| std::path::PathBuf::from(format!("{}{end}", log.path().display())).exists();
        assert!(rotated(".4.gz") && !rotated(".1"));
        let all = read(log, both());
        let first: usize = 1000 - all.lines().count();
        assert_eq!(all, (first..1000).map(|n| format!("line {n}\n")).collect::<String>());
        for tail in [0, 1, 50, 130, 200, 300, 100_000] {
            let expected: String = (first.max(1000 - tail.min(1000))..1000).map(|n| format!("line {n}\n")).collect();
            assert_eq!(read(log, ReadOptions { tail: Some(tail as u64), ..both() }), expected, "tail {tail}");
        }
        let errors = read(log, ReadOptions { stdout: false, tail: Some(100), ..both() });
        assert_eq!(errors.lines().count(), 10);
    });
}

#[test]
fn since_and_until_over_the_whole_chain() {
    with_each_driver(|log| {
        write_lines(log, 1000);
        let format = Format { timestamps: true, ..Format::default() };
        let stamped = read(log, ReadOptions { format, ..both() });
        let lines: Vec<&str> = stamped.lines().collect();
        const DAY: i64 = 86_400_000_000_000;
        let of_day = |line: &str| -> i64 {
            let (second, fraction) = line.split_once(' ').unwrap().0.trim_end_matches('Z').split_once('.').unwrap();
            assert_eq!(fraction.len(), 9);
            let time = second.split_once('T').unwrap().1;
            let seconds = time.split(':').fold(0, |n, part| n * 60 + part.parse::<i64>().unwrap());
            seconds * 1_000_000_000 + fraction.parse::<i64>().unwrap()
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64;
        // The day may have ended since the line was written.
        let at = |line: &str| match now - now.rem_euclid(DAY) + of_day(line) {
            future if future > now => future - DAY,
            past => past,
        };
        let (from, to) = (lines.len() / 3, lines.len() / 2);
        let window = ReadOptions { since: Some(at(lines[from])), until: Some(at(lines[to])), format, ..both() };
        assert_eq!(read(log, window).lines().collect::<Vec<_>>(), lines[from..=to]);
    });
}

#[test]
fn broken_lines_and_broken_archives_are_passed_over() {
    with_json_file(|log| {
        let good =
            |text: &str| format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-23T17:37:59Z\"}}\n");
        let rotated = |end: &str| std::path::PathBuf::from(format!("{}{end}", log.path().display()));
        assert_eq!(read(log, ReadOptions { follow: true, ..both() }), "");
        fs::write(rotated(".2.gz"), b"\x1f\x8b\x08\x00 no gzip at all").unwrap();
        fs::write(rotated(".1"), [good("a").as_bytes(), b"{\"log\":\"cut off"].concat()).unwrap();
        let broken =
            [good("b").as_bytes(), b"\0\0\0\0\n{\"log\":\xff}\n{}\n", good("c").as_bytes(), b"{\"log\":\"d"].concat();
        fs::write(log.path(), broken).unwrap();
        assert_eq!(read(log, both()), "a\nb\nc\n");
        assert_eq!(read(log, ReadOptions { tail: Some(1), ..both() }), "c\n");
        assert_eq!(read(log, ReadOptions { tail: Some(20), ..both() }), "a\nb\nc\n");
    });
}

#[test]
fn frames_of_a_long_line() {
    with_each_driver(|log| {
        let mut writer = log.writer(&[]);
        writer.write(Stream::Stderr, &[vec![b'x'; 40_000], b"\nend".to_vec()].concat());
        writer.finish(Stream::Stderr);
        writer.flush();
        let format = Format { shape: Shape::Frames, ..Format::default() };
        let mut reader = log.reader(ReadOptions { format, ..both() });
        let mut out = Vec::new();
        while reader.next_batch(&mut out).unwrap() == Batch::More {}
        let mut lengths = Vec::new();
        let mut rest = &out[..];
        while let Some((header, tail)) = rest.split_at_checked(8) {
            let length = u32::from_be_bytes(header[4..].try_into().unwrap()) as usize;
            assert_eq!(header[..4], [2, 0, 0, 0]);
            lengths.push(length);
            rest = &tail[length..];
        }
        assert_eq!(lengths, [16_384, 16_384, 7_233, 3]);
    });
}
