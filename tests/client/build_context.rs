//! A directory that is built, and the client that builds it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use testkit::command::Output;
use testkit::{Daemon, command};

/// `docker build` with further words.
pub type Build = fn(&Daemon, &[&str]) -> Command;

/// A build context below the daemon's directory.
pub struct Context {
    pub dir: PathBuf,
    with: Build,
}

impl Context {
    pub fn new(d: &Daemon, name: &str, dockerfile: &str, with: Build) -> Context {
        let dir = d.path(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
        Context { dir, with }
    }

    pub fn file(self, path: &str, content: &str) -> Context {
        self.write(path, content);
        self
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn build(&self, d: &Daemon, args: &[&str]) -> Output {
        command::run(&mut (self.with)(d, &[args, &[self.dir.to_str().unwrap()]].concat()), b"")
    }
}
