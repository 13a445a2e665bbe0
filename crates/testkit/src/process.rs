//! Looking at processes through `/proc`, and killing exactly those that were found.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// One process as the census shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Its command line, blanks between the words.
    pub command: String,
}

/// All processes.
#[must_use]
pub fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// Command line of a process; its name in brackets when it has none.
#[must_use]
pub fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    if bytes.is_empty() {
        return fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| format!("[{}]", name.trim()));
    }
    let words: Vec<_> = bytes.split(|b| *b == 0).filter(|w| !w.is_empty()).map(String::from_utf8_lossy).collect();
    Some(words.join(" "))
}

/// Makes a process that waits in a system call run in a loop without end as soon as the call is over: the instruction it
/// returns to becomes a jump to itself (x86-64), written through `/proc/<pid>/mem`. Whether that was done.
#[must_use]
pub fn spin_after_wait(pid: u32) -> bool {
    const JUMP_TO_ITSELF: [u8; 2] = [0xeb, 0xfe];
    // proc(5): number, six arguments, stack pointer, program counter; or the word `running`.
    let Ok(call) = fs::read_to_string(format!("/proc/{pid}/syscall")) else { return false };
    let counter = call.split_whitespace().nth(8).and_then(|word| word.strip_prefix("0x"));
    let Some(at) = counter.and_then(|digits| u64::from_str_radix(digits, 16).ok()) else { return false };
    let memory = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/mem"));
    memory.and_then(|memory| memory.write_all_at(&JUMP_TO_ITSELF, at)).is_ok()
}

/// The namespace of one kind that a process lives in, such as `mnt:[4026531841]`.
#[must_use]
pub fn namespace(pid: u32, kind: &str) -> Option<String> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok().map(|link| link.display().to_string())
}

/// True while the process exists and is not a zombie.
#[must_use]
pub fn alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// The state letter of `/proc/<pid>/stat`.
#[must_use]
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].trim_start().chars().next()
}

/// Names of a process's threads.
#[must_use]
pub fn threads(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return vec![] };
    let name = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("comm")).ok();
    entries.flatten().filter_map(name).map(|name| name.trim().to_string()).collect()
}

/// Parent of a process.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].split_whitespace().nth(1)?.parse().ok()
}

/// One line of `/proc/<pid>/smaps_rollup` or `/proc/<pid>/status`, in KiB.
#[must_use]
pub fn memory_kib(pid: u32, file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// What the open descriptors of a process point at, sorted; sockets, pipes and anonymous inodes without their numbers.
#[must_use]
pub fn descriptors(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return vec![] };
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|target| {
            // A rebuilt executable is "deleted" without being a leak.
            let text = target.display().to_string().replace(" (deleted)", "");
            match text.split_once(":[") {
                Some((kind, _)) if !text.starts_with('/') => kind.to_string(),
                _ => text,
            }
        })
        .collect();
    found.sort();
    found
}

/// Sends a signal; false when there is no such process.
pub fn signal(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Processes in any of these cgroups (directories).
#[must_use]
pub fn in_cgroup(dir: &Path) -> Vec<u32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}
