//! Log files, which a container's owner or a crash may have spoilt.

use std::fs;

use logs::{Batch, Format, ReadOptions, Reader, Shape};

/// Most bytes that are written of one byte read: a time and the members of JSON around an empty line.
const GROWTH: usize = 256;

/// A log is read to its end in every format, the same each time, and a tail is the end of the whole.
pub fn log(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("x-json.log");
    fs::write(&path, bytes).expect("written");
    let read = |tail, shape, timestamps| {
        let format = Format { shape, timestamps, details: timestamps };
        let options = ReadOptions { tail, stdout: true, stderr: true, format, ..ReadOptions::default() };
        let mut reader = Reader::open(&path, options).expect("opened");
        let mut out = Vec::new();
        while reader.next_batch(&mut out).is_ok_and(|batch| batch != Batch::End) {}
        assert!(out.len() <= GROWTH * (bytes.len() + 1), "{} bytes of {}", out.len(), bytes.len());
        out
    };
    for shape in [Shape::Raw, Shape::Frames, Shape::Json, Shape::JsonSequence] {
        let whole = read(None, shape, true);
        assert_eq!(read(None, shape, true), whole);
    }
    let whole = read(None, Shape::Raw, false);
    for tail in [0, 1, 3] {
        assert!(whole.ends_with(&read(Some(tail), Shape::Raw, false)), "the last {tail}");
    }
}
