//! What one start costs in execs, disk syncs and system calls, counted with strace.
//!
//! The daemon and everything it starts are traced; a process no longer counts once it has become the user's program.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use testkit::command::eventually;
use testkit::{Daemon, places, process};

use crate::engine::{Engine, Network};
use crate::figures::Figures;

const STARTS: usize = 10;
const SYNCS: [&str; 5] = ["fsync", "fdatasync", "sync", "syncfs", "msync"];

/// Counts while containers are started that then sleep.
pub fn per_start(daemon: &Daemon, engine: &Engine, figures: &mut Figures) {
    let dir = tempfile::Builder::new().prefix("gt-trace").tempdir_in("/tmp").expect("a directory in /tmp");
    let file = dir.path().join("trace");
    let mut client = engine.connect();
    let ids: Vec<String> = (0..STARTS).map(|_| client.create(&["sleep", "1000"], Network::None, "")).collect();
    let mut strace = Command::new(places::find("strace"))
        .args(["-f", "-qq", "-y", "-s", "64", "-o"])
        .arg(&file)
        .args(["-p", &daemon.pid().to_string()])
        .stderr(Stdio::null())
        .spawn()
        .expect("strace starts");
    let attached = || fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap_or_default();
    eventually(Duration::from_secs(5), || !attached().contains("TracerPid:\t0"));
    std::thread::sleep(Duration::from_millis(300));
    let before = fs::metadata(&file).map(|m| m.len()).unwrap_or(0);
    for id in &ids {
        client.start(id);
        std::thread::sleep(Duration::from_millis(100));
    }
    process::signal(strace.id(), Signal::INT);
    let _ = strace.wait();
    let text = fs::read(&file).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let counts = count(&text[usize::try_from(before).unwrap_or(0).min(text.len())..]);
    let each = |n: usize| n as f64 / STARTS as f64;
    figures.at_most("execs per start, the user's apart", each(counts.execs), "", Some(1.0));
    figures.at_most("disk syncs per start", each(counts.syncs), "", Some(2.0));
    figures.at_most("disk syncs of the journal of events beside a start", each(counts.beside), "", None);
    figures.at_most("system calls per start", each(counts.calls), "", Some(600.0));
    figures.at_most("written to the store per start", each(counts.stored) / 1024.0, "KiB", None);
    if std::env::var_os("GANTRY_BENCH_TRACE").is_some() {
        let mut names: Vec<_> = counts.by_name.into_iter().collect();
        names.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        names.iter().take(40).for_each(|(name, n)| println!("{:8.1} {name}", each(*n)));
    }
    ids.iter().for_each(|id| client.remove(id));
}

#[derive(Default)]
struct Counts {
    execs: usize,
    syncs: usize,
    /// Syncs of the journal of events, which no start waits for: one for many events.
    beside: usize,
    calls: usize,
    /// Bytes that were written at an offset, which only the store does.
    stored: usize,
    by_name: HashMap<String, usize>,
}

/// Counts the calls in a trace: `PID name(args…) = result`.
fn count(trace: &str) -> Counts {
    let mut counts = Counts::default();
    let mut users: HashSet<&str> = HashSet::new();
    let mut pending: HashSet<&str> = HashSet::new();
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if call.starts_with("<... execve resumed") && pending.remove(pid) && call.ends_with("= 0") {
            users.insert(pid);
        }
        if users.contains(pid) || call.starts_with("<...") || call.starts_with("---") || call.starts_with("+++") {
            continue;
        }
        let Some((name, rest)) = call.split_once('(') else { continue };
        if name == "execve" && rest.starts_with("\"/probe\"") {
            if call.ends_with("<unfinished ...>") {
                pending.insert(pid);
            } else if call.ends_with("= 0") {
                users.insert(pid);
            }
            continue;
        }
        counts.calls += 1;
        counts.execs += usize::from(name == "execve" || name == "execveat");
        match rest {
            _ if !SYNCS.contains(&name) => {}
            file if file.contains("/events>") || file.contains("/events/") => counts.beside += 1,
            _ => counts.syncs += 1,
        }
        if name == "pwrite64" {
            counts.stored += length(rest).unwrap_or(0);
        }
        *counts.by_name.entry(name.to_string()).or_default() += 1;
    }
    counts
}

/// The length among the arguments of a write: `FD, "TEXT"..., LENGTH, OFFSET) = …`.
fn length(arguments: &str) -> Option<usize> {
    let (_, rest) = arguments.rsplit_once('"')?;
    rest.split(", ").nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_program_does_not_count() {
        let trace = "10 openat(1) = 3\n10 fdatasync(3</d/gantry.db>) = 0\n10 fdatasync(4</d/events/1.log>) = 0\n11 execve(\"/proc/self/fd/5\", [\"m\"]) = 0\n12 execve(\"/probe\", [\"/probe\"] <unfinished ...>\n10 read(3) = 1\n12 <... execve resumed>) = 0\n12 nanosleep(1) = 0\n";
        let counts = count(trace);
        assert_eq!((counts.execs, counts.syncs, counts.beside, counts.calls), (1, 1, 1, 5));
    }

    #[test]
    fn bytes_are_counted() {
        let trace = "10 pwrite64(7, \"a, b\"..., 4096, 8192) = 4096\n10 pwrite64(7, \"c\", 1, 0 <unfinished ...>\n10 write(7, \"d\", 1) = 1\n";
        assert_eq!(count(trace).stored, 4097);
    }
}
