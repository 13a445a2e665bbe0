//! Writers and readers of logs together, through files only; with every driver that keeps files.

#![allow(clippy::unwrap_used)] // a test may

use std::path::PathBuf;

use logs::{Driver, Place, ReadOptions, Sink, Source, Spec};

mod follow;
mod read;

/// A container's log.
#[derive(Clone)]
struct Log {
    driver: &'static dyn Driver,
    place: Place,
}

impl Log {
    fn spec(&self, options: &[(&str, &str)]) -> Spec {
        let options = options.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        self.driver.check(&options).unwrap();
        Spec { driver: self.driver.name().into(), options, attrs: String::new(), place: self.place.clone() }
    }

    fn writer(&self, options: &[(&str, &str)]) -> Box<dyn Sink> {
        logs::open(&self.spec(options)).unwrap().unwrap()
    }

    fn reader(&self, options: ReadOptions) -> Box<dyn Source> {
        self.driver.read(&self.place, options).unwrap().unwrap()
    }

    /// Another one, of this name.
    fn beside(&self, name: &str) -> Log {
        let dir = self.place.dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        Log { place: Place { dir, ..self.place.clone() }, ..self.clone() }
    }

    fn path(&self) -> PathBuf {
        self.driver.path(&self.place).unwrap()
    }
}

/// Runs a test with each driver, each time in a directory of its own.
fn with_each_driver(test: impl Fn(&Log)) {
    for driver in logs::names().map(|name| logs::find(name).unwrap()) {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { dir: dir.path().to_owned(), id: "l".into() };
        if driver.path(&place).is_some() {
            println!("{}", driver.name());
            test(&Log { driver, place });
        }
    }
}

/// The same with a log of json-file alone.
fn with_json_file(test: impl Fn(&Log)) {
    with_each_driver(|log| {
        if log.driver.name() == "json-file" {
            test(log)
        }
    });
}
