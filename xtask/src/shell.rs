//! Running cargo and other programs, and finding the workspace.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

/// Where cargo puts what it builds for `profile` (`debug` or `release`).
pub fn build_dir(profile: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("the running executable has a path");
    let own = exe.parent().expect("an executable lies in a directory");
    own.parent().expect("a profile lies in a directory").join(profile)
}

/// `cargo` in the workspace.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Runs a program with its output on the screen.
pub fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}

/// Runs a program and takes its standard output.
pub fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program with its standard output on the screen and each line given to `line`; true when it succeeded.
pub fn watch(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool, String> {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("{command:?}: {e}"))?;
    let stdout = child.stdout.take().expect("stdout is piped");
    for bytes in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
        let text = String::from_utf8_lossy(&bytes);
        println!("{text}");
        line(&text);
    }
    Ok(child.wait().map_err(|e| e.to_string())?.success())
}

/// Runs a program with its output on the screen: whether it succeeded, and its standard error.
pub fn complaints(command: &mut Command) -> Result<(bool, String), String> {
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(|e| format!("{command:?}: {e}"))?;
    let stderr = child.stderr.take().expect("stderr is piped");
    let mut text = String::new();
    for bytes in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&bytes);
        eprintln!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    Ok((child.wait().map_err(|e| e.to_string())?.success(), text))
}

/// A program on `PATH` or where plain users' `PATH` does not look.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"]);
    dirs.map(|dir| Path::new(dir).join(name)).find(|candidate| candidate.is_file())
}

/// Fails unless run by root.
pub fn require_root(what: &str) -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    match uid.and_then(|ids| ids.split_whitespace().nth(1)) {
        Some("0") => Ok(()),
        _ => Err(format!("{what} needs root")),
    }
}
