//! One sample: read off the kernel, and shown in the reference's form.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use api::stats::{
    BlkioStatEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, ThrottlingData,
};
use blocking::Blocking;
use events::now;
use model::time::Timestamp;
use sys::cgroup::{BlkioEntry, Cgroup, Layout, Stats, Version};

use crate::container::view::ContainerView;

/// Bytes of a file of `/proc` that are read: a container may have made many links.
const PROC_FILE: u64 = 256 * 1024;
/// Links of a container that are shown.
const LINKS: usize = 256;
/// Of `/proc/stat` (proc(5), `sysconf(_SC_CLK_TCK)`).
const NANOS_PER_TICK: u64 = 10_000_000;
/// user, nice, system, idle, iowait, irq, softirq: what the reference adds up.
const CPU_FIELDS: usize = 7;
/// The link that every network namespace has.
const LOOPBACK: &str = "lo";

/// What the reference shows of `memory.stat` of version 1.
#[rustfmt::skip]
const MEMORY_V1: [&str; 32] = [
    "cache", "rss", "rss_huge", "mapped_file", "dirty", "writeback", "pgpgin", "pgpgout", "pgfault", "pgmajfault",
    "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable",
    "hierarchical_memory_limit", "hierarchical_memsw_limit",
    "total_cache", "total_rss", "total_rss_huge", "total_mapped_file", "total_dirty", "total_writeback", "total_pgpgin",
    "total_pgpgout", "total_pgfault", "total_pgmajfault", "total_inactive_anon", "total_active_anon",
    "total_inactive_file", "total_active_file", "total_unevictable",
];
/// The same of version 2.
#[rustfmt::skip]
const MEMORY_V2: [&str; 31] = [
    "anon", "file", "kernel_stack", "slab", "sock", "shmem", "file_mapped", "file_dirty", "file_writeback", "anon_thp",
    "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable", "slab_reclaimable",
    "slab_unreclaimable", "pgfault", "pgmajfault", "workingset_refault", "workingset_activate",
    "workingset_nodereclaim", "pgrefill", "pgscan", "pgsteal", "pgactivate", "pgdeactivate", "pglazyfree",
    "pglazyfreed", "thp_fault_alloc", "thp_collapse_alloc",
];

/// A container to be measured.
pub(super) struct Subject {
    cgroup: Cgroup,
    pid: i32,
    init: Option<Arc<OwnedFd>>,
}

impl Subject {
    /// `None` for one that does not run.
    pub(super) fn of(view: &ContainerView, layout: &Layout) -> Option<Subject> {
        let runs = view.row.state.is_running() && !view.row.state.is_restarting() && view.pid > 0;
        let place = view.row.run.place.as_ref().filter(|_| runs)?;
        Some(Subject { cgroup: place.cgroup(layout).ok()?, pid: view.pid, init: view.init.clone() })
    }

    /// Reads it now; `None` when it has ended.
    pub(super) fn read(&self, system: &System, _on: &Blocking) -> Option<Sample> {
        let (stats, links) = (self.cgroup.stats(), links_of(self.pid));
        // The number is another process's when the container has ended: then its figures are not to be shown.
        let init = self.init.as_ref();
        let same = init.is_none_or(|init| sys::process::number(init.as_fd()).is_ok_and(|number| number == self.pid));
        same.then(|| Sample { time: now(), version: self.cgroup.version(), stats, system: *system, links })
    }
}

/// Counters of the links of a process's network namespace. The host's are not its own.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
pub(crate) fn links_of(pid: i32) -> BTreeMap<String, NetworkStats> {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let own = namespace(&pid.to_string());
    if own.is_none() || own == namespace("self") {
        return BTreeMap::new();
    }
    links(&proc_file(&format!("/proc/{pid}/net/dev")))
}

/// One reading of a container that runs.
pub(super) struct Sample {
    time: Timestamp,
    version: Version,
    stats: Stats,
    system: System,
    links: BTreeMap<String, NetworkStats>,
}

/// A sample; `None` where the container did not run.
pub(super) type Reading = Option<Arc<Sample>>;

/// The processors of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct System {
    /// Nanoseconds that all of them together have been up.
    time: u64,
    online: u32,
}

impl System {
    /// Reads them now; zeroes where `/proc/stat` cannot be read.
    pub(super) fn read(_on: &Blocking) -> System {
        System::parse(&proc_file("/proc/stat"))
    }

    /// `cpu  user nice system idle …` and a line for each processor, at the file's beginning.
    fn parse(text: &str) -> System {
        let mut system = System::default();
        for line in text.lines().map_while(|line| line.strip_prefix("cpu")) {
            if let Some(fields) = line.strip_prefix(' ') {
                let ticks = fields.split_whitespace().take(CPU_FIELDS).filter_map(|field| field.parse::<u64>().ok());
                system.time = ticks.fold(0, u64::saturating_add).saturating_mul(NANOS_PER_TICK);
            } else {
                system.online += 1;
            }
        }
        system
    }
}

/// The beginning of a file of `/proc`; nothing where it cannot be read.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
fn proc_file(path: &str) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(PROC_FILE).read_to_string(&mut text));
    read.map_or_else(|_| String::new(), |_| text)
}

/// `/proc/net/dev` (proc(5)): two lines of titles, then `name: ` with eight figures of what came and eight of what went.
fn links(text: &str) -> BTreeMap<String, NetworkStats> {
    let link = |line: &str| {
        let (name, figures) = line.split_once(':')?;
        let figures: Vec<u64> = figures.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] =
            figures[..]
        else {
            return None;
        };
        let (rx, tx) = ((rx_bytes, rx_packets), (tx_bytes, tx_packets));
        let stats = NetworkStats {
            rx_bytes: rx.0,
            rx_packets: rx.1,
            rx_errors,
            rx_dropped,
            tx_bytes: tx.0,
            tx_packets: tx.1,
            tx_errors,
            tx_dropped,
        };
        Some((name.trim().to_owned(), stats))
    };
    text.lines().skip(2).filter_map(link).filter(|(name, _)| name != LOOPBACK).take(LINKS).collect()
}

/// The wire form of a reading; without one, only who it is. `memory`: the machine's, in bytes.
pub(super) fn response(
    view: &ContainerView,
    sample: Option<&Sample>,
    before: Option<&Sample>,
    memory: u64,
) -> api::StatsResponse {
    let time = |sample: Option<&Sample>| sample.map_or(Timestamp::ZERO, |sample| sample.time).rfc3339_nano();
    let named = api::StatsResponse {
        id: view.row.id.as_str().to_owned(),
        name: format!("/{}", view.row.name),
        os_type: "linux".to_owned(),
        read: time(sample),
        preread: time(before),
        precpu_stats: before.map(cpu).unwrap_or_default(),
        ..api::StatsResponse::default()
    };
    let Some(sample) = sample else { return named };
    let pids = &sample.stats.pids;
    api::StatsResponse {
        cpu_stats: cpu(sample),
        memory_stats: memory_stats(sample, memory),
        networks: sample.links.clone(),
        pids_stats: PidsStats { current: pids.current, limit: pids.limit },
        blkio_stats: blkio(sample),
        ..named
    }
}

fn cpu(sample: &Sample) -> CpuStats {
    let used = &sample.stats.cpu;
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: used.total,
            percpu_usage: used.per_cpu.clone(),
            usage_in_kernelmode: used.system,
            usage_in_usermode: used.user,
        },
        system_cpu_usage: sample.system.time,
        online_cpus: sample.system.online,
        throttling_data: ThrottlingData {
            periods: used.periods,
            throttled_periods: used.throttled_periods,
            throttled_time: used.throttled_time,
        },
    }
}

fn memory_stats(sample: &Sample, machine: u64) -> MemoryStats {
    let used = &sample.stats.memory;
    let (names, max_usage) = match sample.version {
        Version::V1 => (&MEMORY_V1[..], used.max_usage),
        Version::V2 => (&MEMORY_V2[..], 0),
    };
    MemoryStats {
        usage: used.usage,
        max_usage,
        stats: names.iter().map(|name| (*name, used.stat.get(*name).copied().unwrap_or(0))).collect(),
        failcnt: used.fail_count,
        limit: used.limit.min(machine),
    }
}

/// Version 2 has bytes alone, and no list where nothing was transferred.
fn blkio(sample: &Sample) -> BlkioStats {
    let entry = |entry: &BlkioEntry| BlkioStatEntry {
        major: entry.major,
        minor: entry.minor,
        op: entry.op.clone(),
        value: entry.value,
    };
    let list = |entries: &[BlkioEntry]| entries.iter().map(entry).collect::<Vec<_>>();
    let bytes = list(&sample.stats.io_bytes);
    match sample.version {
        Version::V1 => BlkioStats {
            io_service_bytes_recursive: Some(bytes),
            io_serviced_recursive: Some(list(&sample.stats.io_operations)),
            io_queue_recursive: Some(Vec::new()),
            io_service_time_recursive: Some(Vec::new()),
            io_wait_time_recursive: Some(Vec::new()),
            io_merged_recursive: Some(Vec::new()),
            io_time_recursive: Some(Vec::new()),
            sectors_recursive: Some(Vec::new()),
        },
        Version::V2 => BlkioStats {
            io_service_bytes_recursive: Some(bytes).filter(|bytes| !bytes.is_empty()),
            ..BlkioStats::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use model::lifecycle::State;
    use sys::cgroup::{Cpu, Memory, Pids};

    use super::*;

    #[test]
    fn processors_are_added_up() {
        let text =
            "cpu  1 2 3 4 5 6 7 100 200 300\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 5\ncpu9 1\n";
        assert_eq!(System::parse(text), System { time: 280_000_000, online: 2 });
        assert_eq!(System::parse(""), System::default());
        assert_eq!(System::parse("cpu  18446744073709551615 1\n").time, u64::MAX);
    }

    #[test]
    fn links_without_the_loopback() {
        let text = "Inter-|   Receive   | Transmit\n face |bytes |bytes\n    lo: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n\
                      eth0:     796       2    3    4    0     0          0         1      518      7    5    6    0     0       0          0\n\
                    bad: 1 2\n";
        let stats = NetworkStats {
            rx_bytes: 796,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 518,
            tx_packets: 7,
            tx_errors: 5,
            tx_dropped: 6,
        };
        assert_eq!(links(text), [("eth0".to_owned(), stats)].into());
        let many: String = (0..2 * LINKS).map(|n| format!("x{n}:{}\n", " 1".repeat(16))).collect();
        assert_eq!(links(&many).len(), LINKS);
    }

    fn sample(version: Version) -> Sample {
        let entry = BlkioEntry { major: 8, minor: 0, op: "Read".to_owned(), value: 4096 };
        let stats = Stats {
            cpu: Cpu { total: 5, user: 3, system: 2, ..Cpu::default() },
            memory: Memory {
                usage: 10,
                max_usage: 20,
                limit: u64::MAX,
                stat: [("cache".to_owned(), 1), ("anon".to_owned(), 2), ("other".to_owned(), 3)].into(),
                ..Memory::default()
            },
            pids: Pids { current: 1, limit: 0 },
            io_bytes: vec![entry],
            io_operations: Vec::new(),
        };
        let (system, links) = (System { time: 7, online: 2 }, BTreeMap::new());
        Sample { time: Timestamp::from_unix_seconds(1), version, stats, system, links }
    }

    fn view(state: State) -> ContainerView {
        let row = crate::container::row::sample(1, state);
        let (exec_ids, removal_error) = (Vec::new(), None);
        ContainerView { row, pid: 0, init: None, exec_ids, exits: 0, removed: false, removal_error }
    }

    #[test]
    fn both_versions_of_cgroups_in_the_references_form() {
        let view = view(State::Running { pid: 1 });
        let shown = |version| {
            let sample = sample(version);
            serde_json::to_value(response(&view, Some(&sample), None, 1000)).expect("plain data")
        };
        let (v1, v2) = (shown(Version::V1), shown(Version::V2));
        assert_eq!(v1["name"], format!("/{}", view.row.name));
        assert_eq!((&v1["read"], &v1["preread"]), (&"1970-01-01T00:00:01Z".into(), &"0001-01-01T00:00:00Z".into()));
        assert_eq!((&v1["memory_stats"]["limit"], &v1["memory_stats"]["max_usage"]), (&1000.into(), &20.into()));
        assert_eq!(
            (&v1["memory_stats"]["stats"]["cache"], &v1["memory_stats"]["stats"]["total_rss"]),
            (&1.into(), &0.into())
        );
        assert!(v1["memory_stats"]["stats"]["anon"].is_null() && v1["memory_stats"]["stats"]["other"].is_null());
        assert_eq!(v1["blkio_stats"]["io_serviced_recursive"], serde_json::json!([]));
        assert_eq!(v1["pids_stats"], serde_json::json!({"current": 1}));
        assert!(v1.get("networks").is_none());
        assert!(v2["memory_stats"].get("max_usage").is_none());
        assert_eq!(v2["memory_stats"]["stats"]["anon"], 2);
        assert_eq!(v2["blkio_stats"]["io_service_bytes_recursive"][0]["value"], 4096);
        assert!(v2["blkio_stats"]["io_serviced_recursive"].is_null());
    }

    #[test]
    fn a_container_that_does_not_run_is_named() {
        let view = view(State::Exited);
        let shown = serde_json::to_value(response(&view, None, None, 1000)).expect("plain data");
        assert_eq!((&shown["id"], &shown["os_type"]), (&view.row.id.as_str().into(), &"linux".into()));
        assert_eq!((&shown["memory_stats"], &shown["pids_stats"]), (&serde_json::json!({}), &serde_json::json!({})));
        assert!(shown["blkio_stats"]["io_service_bytes_recursive"].is_null());
    }
}
