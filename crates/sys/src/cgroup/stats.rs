//! What a cgroup has used, read from either version into one shape.
//!
//! Missing files mean a missing controller: those parts stay zero. Times are nanoseconds, sizes bytes.

use std::collections::BTreeMap;

use super::{Cgroup, Version};

/// One reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu: Cpu,
    pub memory: Memory,
    pub pids: Pids,
    /// Bytes transferred, per device and operation.
    pub io_bytes: Vec<BlkioEntry>,
    /// Operations.
    pub io_operations: Vec<BlkioEntry>,
}

/// Processor time, in nanoseconds, and throttling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    pub total: u64,
    pub user: u64,
    pub system: u64,
    /// v1 only.
    pub per_cpu: Vec<u64>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_time: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub usage: u64,
    /// Peak; 0 if unknown.
    pub max_usage: u64,
    /// `u64::MAX` = none.
    pub limit: u64,
    pub fail_count: u64,
    /// `memory.stat`.
    pub stat: BTreeMap<String, u64>,
}

/// Tasks: processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    pub current: u64,
    /// 0 = none.
    pub limit: u64,
}

/// `op`: `Read`, `Write`, … on v1; `read`, `write` on v2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlkioEntry {
    /// Major number of the device.
    pub major: u64,
    /// Minor number of the device.
    pub minor: u64,
    /// What was counted.
    pub op: String,
    pub value: u64,
}

/// v1 counts CPU time of user and system in ticks of 10 ms.
const NANOS_PER_TICK: u64 = 10_000_000;
const NANOS_PER_MICRO: u64 = 1_000;
/// v1 reports "no limit" as the largest multiple of a page.
const NO_LIMIT: u64 = 0x7fff_ffff_ffff_f000;

impl Cgroup {
    /// Reads everything there is.
    pub fn stats(&self) -> Stats {
        match self.version {
            Version::V1 => self.stats_v1(),
            Version::V2 => self.stats_v2(),
        }
    }

    fn text(&self, controller: &str, file: &str) -> String {
        self.dir_of(controller).and_then(|d| d.read(file).ok()).unwrap_or_default()
    }

    fn number(&self, controller: &str, file: &str) -> u64 {
        number(&self.text(controller, file))
    }

    fn stats_v1(&self) -> Stats {
        let ticks = pairs(&self.text("cpuacct", "cpuacct.stat"));
        let throttle = pairs(&self.text("cpu", "cpu.stat"));
        let get = |map: &BTreeMap<String, u64>, key: &str| map.get(key).copied().unwrap_or(0);
        let limit = self.number("memory", "memory.limit_in_bytes");
        Stats {
            cpu: Cpu {
                total: self.number("cpuacct", "cpuacct.usage"),
                user: get(&ticks, "user") * NANOS_PER_TICK,
                system: get(&ticks, "system") * NANOS_PER_TICK,
                per_cpu: self.text("cpuacct", "cpuacct.usage_percpu").split_whitespace().map(number).collect(),
                periods: get(&throttle, "nr_periods"),
                throttled_periods: get(&throttle, "nr_throttled"),
                throttled_time: get(&throttle, "throttled_time"),
            },
            memory: Memory {
                usage: self.number("memory", "memory.usage_in_bytes"),
                max_usage: self.number("memory", "memory.max_usage_in_bytes"),
                limit: if limit >= NO_LIMIT { u64::MAX } else { limit },
                fail_count: self.number("memory", "memory.failcnt"),
                stat: pairs(&self.text("memory", "memory.stat")),
            },
            pids: self.pids(),
            io_bytes: blkio(&self.text("blkio", "blkio.throttle.io_service_bytes_recursive"), || {
                self.text("blkio", "blkio.throttle.io_service_bytes")
            }),
            io_operations: blkio(&self.text("blkio", "blkio.throttle.io_serviced_recursive"), || {
                self.text("blkio", "blkio.throttle.io_serviced")
            }),
        }
    }

    fn stats_v2(&self) -> Stats {
        let cpu = pairs(&self.text("cpu", "cpu.stat"));
        let micros = |key: &str| cpu.get(key).copied().unwrap_or(0) * NANOS_PER_MICRO;
        let count = |key: &str| cpu.get(key).copied().unwrap_or(0);
        let events = pairs(&self.text("memory", "memory.events"));
        let io = self.text("io", "io.stat");
        Stats {
            cpu: Cpu {
                total: micros("usage_usec"),
                user: micros("user_usec"),
                system: micros("system_usec"),
                per_cpu: Vec::new(),
                periods: count("nr_periods"),
                throttled_periods: count("nr_throttled"),
                throttled_time: micros("throttled_usec"),
            },
            memory: Memory {
                usage: self.number("memory", "memory.current"),
                max_usage: self.number("memory", "memory.peak"),
                limit: match self.text("memory", "memory.max").trim() {
                    "max" => u64::MAX,
                    text => number(text),
                },
                fail_count: events.get("oom").copied().unwrap_or(0),
                stat: pairs(&self.text("memory", "memory.stat")),
            },
            pids: self.pids(),
            io_bytes: io_stat(&io, [("rbytes", "read"), ("wbytes", "write")]),
            io_operations: io_stat(&io, [("rios", "read"), ("wios", "write")]),
        }
    }

    fn pids(&self) -> Pids {
        Pids { current: self.number("pids", "pids.current"), limit: self.number("pids", "pids.max") }
    }
}

/// Not a number (`max`, empty) = 0.
fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// `name number` lines.
fn pairs(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// `8:0 Read 4096` lines; the plain file's if the recursive one has nothing.
fn blkio(recursive: &str, plain: impl FnOnce() -> String) -> Vec<BlkioEntry> {
    let parse = |text: &str| -> Vec<BlkioEntry> {
        let entry = |line: &str| {
            let mut words = line.split(' ');
            let (major, minor) = words.next()?.split_once(':')?;
            let (op, value) = (words.next()?, words.next()?);
            Some(BlkioEntry {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                op: op.to_owned(),
                value: value.parse().ok()?,
            })
        };
        text.lines().filter_map(entry).collect()
    };
    let out = parse(recursive);
    if out.is_empty() { parse(&plain()) } else { out }
}

/// `8:0 rbytes=1 wbytes=2 …` lines.
fn io_stat(text: &str, wanted: [(&str, &str); 2]) -> Vec<BlkioEntry> {
    let mut out = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some((major, minor)) = words.next().and_then(|d| d.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        let values: BTreeMap<&str, u64> =
            words.filter_map(|w| w.split_once('=')).map(|(name, value)| (name, number(value))).collect();
        for (key, op) in wanted {
            let Some(value) = values.get(key) else { continue };
            out.push(BlkioEntry { major, minor, op: op.to_owned(), value: *value });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_devices_of_both_versions() {
        let v1 = blkio("8:0 Read 4096\n8:0 Write 0\nTotal 4096\n", String::new);
        assert_eq!(v1.len(), 2);
        assert_eq!(v1[0], BlkioEntry { major: 8, minor: 0, op: "Read".into(), value: 4096 });
        let v2 = io_stat("8:0 rbytes=1 wbytes=2 rios=3 wios=4\n7:0 \n", [("rios", "read"), ("wios", "write")]);
        assert_eq!(v2.iter().map(|e| e.value).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn name_number_lines() {
        assert_eq!(pairs("a 1\nb x\nc 3\n").into_iter().collect::<Vec<_>>(), [("a".into(), 1), ("c".into(), 3)]);
    }
}
