//! Why a container that was killed still lives: what its processes wait for, as far as the kernel tells (proc_pid_stat(5),
//! proc_pid_wchan(5)). Nothing is read that a process could hold up: neither its memory nor its files.

use std::fmt::Write;
use std::fs;

use sys::cgroup::Cgroup;

/// Processes that are looked at.
const PROCESSES: usize = 64;
/// Threads of each.
const THREADS: usize = 64;
/// Of so many it is said what they wait for.
const NAMED: usize = 3;

/// What the processes of the group wait for, in words; empty: nothing can be said.
pub fn describe(cgroup: &Cgroup) -> String {
    let mut numbers = cgroup.processes().unwrap_or_default();
    numbers.sort_unstable();
    let waits: Vec<String> = numbers.iter().take(PROCESSES).filter_map(|pid| of_process(*pid)).collect();
    if waits.is_empty() && cgroup.is_frozen() {
        return "its processes are frozen".into();
    }
    let mut text = waits.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    if waits.len() > NAMED {
        // Writing to a string cannot fail.
        let _ = write!(text, "; and {} more", waits.len() - NAMED);
    }
    text
}

/// What a process waits for that cannot be interrupted; one of its threads is enough.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
fn of_process(pid: i32) -> Option<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().take(THREADS);
    threads.into_iter().find_map(|thread| {
        let place = thread.path();
        let stat = fs::read_to_string(place.join("stat")).ok()?;
        let wchan = fs::read_to_string(place.join("wchan")).unwrap_or_default();
        explain(pid, &stat, &wchan)
    })
}

/// What one thread waits for; its name may hold anything.
fn explain(pid: i32, stat: &str, wchan: &str) -> Option<String> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let name: String = name.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect();
    match (rest.split_whitespace().next()?, wchan.trim()) {
        ("D", wchan) if wchan.contains("refrigerator") => Some(format!("process {pid} ({name}) is frozen")),
        ("D", "" | "0") => {
            Some(format!("process {pid} ({name}) waits for the kernel, a disk or a file system perhaps"))
        }
        ("D", wchan) => Some(format!("process {pid} ({name}) waits for the kernel in {wchan}")),
        ("t", _) => Some(format!("process {pid} ({name}) is traced")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_interrupted_is_told() {
        let told = |stat: &str, wchan: &str| explain(7, stat, wchan).unwrap_or_default();
        assert_eq!(
            told("7 (cat) D 1 7", "request_wait_answer"),
            "process 7 (cat) waits for the kernel in request_wait_answer"
        );
        assert_eq!(
            told("7 (a) S) (b) D 1", "0\n"),
            "process 7 (a) S) (b) waits for the kernel, a disk or a file system perhaps"
        );
        assert_eq!(told("7 (cat) D 1 7", "__refrigerator"), "process 7 (cat) is frozen");
        assert_eq!(told("7 (cat) t 1 7", "ptrace_stop"), "process 7 (cat) is traced");
        for other in ["7 (cat) S 1 7", "7 (cat) Z 1", "7 (cat)", "", "7 cat D"] {
            assert_eq!(told(other, "x"), "", "{other}");
        }
        assert_eq!(of_process(i32::MAX), None);
    }
}
