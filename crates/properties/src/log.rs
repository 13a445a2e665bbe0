//! Log files, which a container's owner or a crash may have spoilt.

use std::fs;

use logs::{Batch, Driver, Format, Place, ReadOptions, Shape};

/// Most bytes that are written of one byte read: a time and the members of JSON around an empty line.
const GROWTH: usize = 256;

/// A log of any driver is read to its end in every format, the same each time. A tail is the end of the whole, unless what
/// comes before is damaged so that nothing behind it is found from the front.
pub fn log(bytes: &[u8]) {
    for driver in logs::names().filter_map(|name| logs::find(name).ok()) {
        read_back(driver, bytes);
    }
}

fn read_back(driver: &dyn Driver, bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory");
    let place = Place { dir: dir.path().to_owned(), id: "x".into() };
    let Some(path) = driver.path(&place) else { return };
    fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
    fs::write(&path, bytes).expect("written");
    let read = |tail, shape, timestamps| {
        let format = Format { shape, timestamps, details: timestamps };
        let options = ReadOptions { tail, stdout: true, stderr: true, format, ..ReadOptions::default() };
        let mut reader = driver.read(&place, options).expect("readable").expect("opened");
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
        let end = read(Some(tail), Shape::Raw, false);
        assert!(whole.ends_with(&end) || driver.name() != "json-file", "the last {tail}");
    }
}
