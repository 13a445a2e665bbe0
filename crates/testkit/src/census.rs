//! The leak census: what stands in a daemon's surroundings, and what stands there that did not before.
//!
//! - Taken after boot and again at the end; every *addition* is a leak, things that went away are not.
//! - Volatile parts (inode numbers, packet counters) are left out, so equal states compare equal.
//! - Teardown may still be under way when a client has its answer, so the comparison waits as long as leftovers go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::namespaces::Namespaces;
use crate::process;

/// How long leftovers may stay the same before they are leaks. Shorter than the time after which a monitor that its
/// daemon has forgotten ends by itself.
const SETTLE: Duration = Duration::from_secs(8);
const TICK: Duration = Duration::from_millis(10);
/// Directories of the data root in which nothing may stay.
const DATA_DIRS: [&str; 3] = ["containers", "tmp", "content/ingest"];

/// How a monitor without a container is called.
const SPARE_MONITOR: &str = "gantry-monitor --";

/// Name of the daemon's thread that waits for released links to go.
const LINK_SWEEP: &str = "links";

/// Whose surroundings are counted.
pub struct Subject<'a> {
    /// The namespaces that it runs in.
    pub namespaces: &'a Namespaces,
    /// The daemon, when it runs.
    pub daemon: Option<u32>,
    /// Its exec root.
    pub exec_root: &'a Path,
    /// Its data root.
    pub data_root: &'a Path,
    /// Name of its parent cgroup, without slashes.
    pub cgroup: &'a str,
    /// Connections that the test itself still holds open.
    pub connections: usize,
}

/// What was found, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    kinds: BTreeMap<&'static str, Vec<String>>,
}

impl Census {
    /// Counts everything.
    #[must_use]
    pub fn take(subject: &Subject<'_>) -> Self {
        let mut kinds = BTreeMap::new();
        kinds.insert("mount", subject.namespaces.mounts());
        kinds.insert(
            "link",
            lines(subject, &["ip", "-br", "link"], |l| l.split_whitespace().next().map(str::to_string)),
        );
        kinds.insert("named network namespace", lines(subject, &["ip", "netns"], |l| Some(l.to_string())));
        kinds.insert("nft rule", lines(subject, &["nft", "list", "ruleset"], |l| Some(without_counters(l))));
        kinds.insert("cgroup", cgroups(subject.cgroup).iter().map(|p| p.display().to_string()).collect());
        kinds.insert("process", processes(subject));
        kinds.insert("descriptor", descriptors(subject));
        kinds.insert("file", files(subject));
        // The data root may be brought elsewhere between two counts.
        let data_root = subject.data_root.display().to_string();
        kinds.values_mut().flatten().for_each(|item| *item = item.replace(&data_root, "<data-root>"));
        Self { kinds }
    }

    /// What `later` has and `self` has not, one line each.
    #[must_use]
    pub fn additions(&self, later: &Census) -> Vec<String> {
        let mut found = Vec::new();
        for (kind, items) in &later.kinds {
            let mut before = self.kinds.get(kind).cloned().unwrap_or_default();
            for item in items {
                match before.iter().position(|other| other == item) {
                    Some(at) => drop(before.swap_remove(at)),
                    None => found.push(format!("{kind}: {item}")),
                }
            }
        }
        found
    }
}

/// What was added since `before` and does not go away by itself.
#[must_use]
pub fn leaks(before: &Census, subject: &Subject<'_>) -> Vec<String> {
    let mut found = before.additions(&Census::take(subject));
    let mut since = Instant::now();
    while !found.is_empty() && since.elapsed() < SETTLE {
        std::thread::sleep(TICK);
        let left = before.additions(&Census::take(subject));
        if left.len() < found.len() {
            since = Instant::now();
        }
        found = left;
    }
    found
}

fn lines(subject: &Subject<'_>, words: &[&str], keep: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let output = subject.namespaces.run(words).ok().stdout;
    output.lines().map(str::trim).filter(|l| !l.is_empty() && *l != "}").filter_map(keep).collect()
}

/// A line of the ruleset without what changes by itself.
fn without_counters(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut kept = Vec::new();
    let mut at = 0;
    while at < words.len() {
        if words[at] == "counter" && words.get(at + 1) == Some(&"packets") {
            at += 5;
        } else {
            kept.push(words[at]);
            at += 1;
        }
    }
    kept.join(" ")
}

/// Directories below `/<name>` in every hierarchy; the top one itself is not counted.
#[must_use]
pub fn cgroups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in cgroup_roots(name) {
        walk(&root, &mut |path| {
            if path.is_dir() {
                found.push(path.to_path_buf());
            }
        });
    }
    found.sort();
    found
}

/// The directories `/<name>` of every hierarchy that exist.
#[must_use]
pub fn cgroup_roots(name: &str) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let mut roots = vec![top.join(name)];
    let entries = std::fs::read_dir(top).into_iter().flatten().flatten();
    roots.extend(entries.map(|hierarchy| hierarchy.path().join(name)));
    roots.retain(|path| path.is_dir());
    roots
}

/// The daemon's descriptors, without its ends of the test's own connections and without the one that its sweep of
/// released links has as long as that thread exists (a few seconds by design; the links themselves are counted).
fn descriptors(subject: &Subject<'_>) -> Vec<String> {
    let Some(daemon) = subject.daemon else { return vec![] };
    let sweeping = usize::from(process::threads(daemon).iter().any(|name| name == LINK_SWEEP));
    let mut found = process::descriptors(daemon);
    for _ in 0..subject.connections + sweeping {
        if let Some(at) = found.iter().position(|target| target == "socket") {
            found.remove(at);
        }
    }
    // The journal of events goes on in another file now and then.
    found.iter_mut().for_each(|target| {
        if let Some((directory, _)) = target.split_once("/events/").filter(|_| target.ends_with(".log")) {
            *target = format!("{directory}/events/*.log");
        }
    });
    found
}

/// Monitors and container processes, zombies of the daemon included.
fn processes(subject: &Subject<'_>) -> Vec<String> {
    let mut pids: Vec<u32> = subject.namespaces.processes().iter().map(|p| p.pid).collect();
    let mut groups = cgroup_roots(subject.cgroup);
    groups.extend(cgroups(subject.cgroup));
    pids.extend(groups.iter().flat_map(|dir| process::in_cgroup(dir)));
    pids.extend(
        process::all().into_iter().filter(|pid| subject.daemon.is_some() && process::parent(*pid) == subject.daemon),
    );
    pids.sort_unstable();
    pids.dedup();
    pids.retain(|pid| Some(*pid) != subject.daemon && *pid != subject.namespaces.holder());
    // Monitors that wait for a container are the daemon's own, and come and go.
    pids.retain(|pid| process::command_line(*pid).is_none_or(|command| !command.starts_with(SPARE_MONITOR)));
    let show = |pid: &u32| {
        let zombie = if process::state(*pid) == Some('Z') { " (zombie)" } else { "" };
        process::command_line(*pid).map(|command| format!("{pid} {command}{zombie}"))
    };
    pids.iter().filter_map(show).collect()
}

fn files(subject: &Subject<'_>) -> Vec<String> {
    // Seen from inside, because the data root may be a mount of its own there.
    let root = format!("/proc/{}/root", subject.namespaces.holder());
    let mut found = Vec::new();
    let mut keep = |path: &Path| found.push(path.display().to_string().replacen(&root, "", 1));
    let mut roots = vec![subject.exec_root.to_path_buf()];
    roots.extend(DATA_DIRS.map(|dir| subject.data_root.join(dir)));
    for dir in roots {
        walk(Path::new(&format!("{root}{}", dir.display())), &mut keep);
    }
    found.sort();
    found
}

/// Everything below a directory, the directory itself not; links are not followed.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        visit(&entry.path());
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(kind: &'static str, items: &[&str]) -> Census {
        Census { kinds: BTreeMap::from([(kind, items.iter().map(ToString::to_string).collect())]) }
    }

    #[test]
    fn only_additions_count_and_they_count_by_number() {
        let before = census("link", &["lo", "docker0", "gone"]);
        let later = census("link", &["lo", "docker0", "docker0"]);
        assert_eq!(before.additions(&later), ["link: docker0"]);
        assert!(later.additions(&census("link", &["lo"])).is_empty());
    }

    #[test]
    fn counters_are_left_out() {
        assert_eq!(
            without_counters("\tct state established counter packets 5 bytes 400 accept"),
            "ct state established accept"
        );
    }

    #[test]
    fn leaks_in_real_namespaces_are_named() {
        let namespaces = Namespaces::new();
        let dir = tempfile::tempdir().unwrap();
        let (exec_root, data_root) = (dir.path().join("x"), dir.path().join("d"));
        std::fs::create_dir_all(data_root.join("tmp")).unwrap();
        std::fs::create_dir_all(&exec_root).unwrap();
        let subject = Subject {
            namespaces: &namespaces,
            daemon: None,
            exec_root: &exec_root,
            data_root: &data_root,
            cgroup: "gantry-test-none",
            connections: 0,
        };
        let before = Census::take(&subject);
        let _ = namespaces.run(&["ip", "link", "add", "left7", "type", "veth", "peer", "name", "left8"]).ok();
        let _ = namespaces.run(&["mount", "-t", "tmpfs", "none", data_root.to_str().unwrap()]).ok();
        let _ = namespaces.run(&["nft", "add table ip leaked"]).ok();
        std::fs::write(exec_root.join("left"), "").unwrap();
        let mut child = namespaces.command("sleep").arg("99").spawn().unwrap();
        let found = before.additions(&Census::take(&subject)).join("\n");
        child.kill().unwrap();
        child.wait().unwrap();
        for wanted in ["link: left7", "(tmpfs)", "nft rule: table ip leaked", "x/left", "sleep 99"] {
            assert!(found.contains(wanted), "{wanted} is not in {found}");
        }
    }
}
