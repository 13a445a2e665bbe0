//! The program of a plugin of tests: it runs in the daemon's namespaces, notes what it is asked, and behaves as a file says.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use testkit::{Daemon, places};

use crate::eventually;

/// A running program, which ends with its owner.
pub struct PluginProgram {
    /// Where it notes what it is asked, and keeps what it has.
    pub dir: PathBuf,
    script: &'static str,
    words: Vec<String>,
    process: Child,
}

impl PluginProgram {
    /// Starts a Python script of this directory; `words` follow the name of its own directory.
    pub fn start(d: &Daemon, script: &'static str, name: &str, words: &[&str]) -> PluginProgram {
        let dir = d.path(name);
        std::fs::create_dir_all(&dir).unwrap();
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let process = spawn(d, script, &dir, &words);
        let program = PluginProgram { dir, script, words, process };
        program.await_ready();
        program
    }

    fn await_ready(&self) {
        assert!(eventually(|| self.dir.join("ready").exists()), "the plugin does not listen");
        std::fs::remove_file(self.dir.join("ready")).unwrap();
    }

    /// Ends it.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// A new process, which knows nothing of what the last one was told.
    pub fn again(&mut self, d: &Daemon) {
        self.process = spawn(d, self.script, &self.dir, &self.words);
        self.await_ready();
    }

    /// How it behaves from now on.
    pub fn mode(&self, mode: &str) {
        std::fs::write(self.dir.join("mode"), mode).unwrap();
    }

    /// The calls since the last look, a line each.
    pub fn take_calls(&self) -> String {
        let path = self.dir.join("calls");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(&path, "").unwrap();
        text
    }
}

impl Drop for PluginProgram {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(d: &Daemon, script: &str, dir: &std::path::Path, words: &[String]) -> Child {
    let script = format!("{}/client/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut command = d.namespaces().command(places::find("python3"));
    command.args([&script, &dir.display().to_string()]).args(words).stdin(Stdio::null());
    command.spawn().expect("python3 starts")
}
