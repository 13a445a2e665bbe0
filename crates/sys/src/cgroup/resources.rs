//! Limits: from numbers as Docker gives them to the control files of either version.
//!
//! *What to write* is pure (`plan_v1`, `plan_v2`), *writing* is [`Cgroup::apply`]. A limit whose controller this machine
//! does not have is an error that names it: a limit is never silently absent.

use std::collections::BTreeMap;
use std::io;

use super::{Cgroup, Dir, Version};

/// Limits of one cgroup. `None` and empty mean "leave as it is".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes; -1 = unlimited.
    pub memory: Option<i64>,
    /// Soft limit in bytes.
    pub memory_reservation: Option<i64>,
    /// Memory plus swap in bytes; -1 = unlimited.
    pub memory_swap: Option<i64>,
    pub kernel_memory_tcp: Option<i64>,
    /// 0–100; v1 only.
    pub swappiness: Option<u64>,
    /// v1 only.
    pub oom_kill_disable: Option<bool>,
    /// 2–262144, 1024 being normal.
    pub cpu_shares: Option<u64>,
    /// Microseconds per period; ≤ 0 = unlimited.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    pub cpu_burst: Option<u64>,
    pub cpu_rt_runtime: Option<i64>,
    pub cpu_rt_period: Option<u64>,
    pub cpu_idle: Option<i64>,
    /// `0-2,4`.
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// ≤ 0 = unlimited.
    pub pids: Option<i64>,
    /// 10–1000.
    pub blkio_weight: Option<u16>,
    pub blkio_weight_device: Vec<BlockDevice>,
    /// Bytes or operations per second.
    pub blkio_read_bps: Vec<BlockDevice>,
    pub blkio_write_bps: Vec<BlockDevice>,
    pub blkio_read_iops: Vec<BlockDevice>,
    pub blkio_write_iops: Vec<BlockDevice>,
    /// Page size (`2MB`) and bytes.
    pub hugepages: Vec<(String, u64)>,
    /// v2 files, verbatim.
    pub unified: BTreeMap<String, String>,
}

/// A number for one block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    pub major: u64,
    pub minor: u64,
    pub value: u64,
}

/// One write to a control file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    controller: &'static str,
    file: String,
    value: String,
}

fn step(controller: &'static str, file: impl Into<String>, value: impl ToString) -> Step {
    Step { controller, file: file.into(), value: value.to_string() }
}

/// The kernel's default period of the CPU quota, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

impl Cgroup {
    /// Sets the limits. Stops at the first that the kernel refuses.
    pub fn apply(&self, resources: &Resources) -> io::Result<()> {
        match self.version {
            Version::V1 => self.apply_v1(resources),
            Version::V2 => {
                let dir = self.unified().ok_or_else(|| missing("unified"))?;
                plan_v2(resources)?.iter().try_for_each(|s| {
                    write_v2(dir, s).map_err(|e| if not_found(&e) { missing(s.controller) } else { refused(s, &e) })
                })
            }
        }
    }

    fn apply_v1(&self, resources: &Resources) -> io::Result<()> {
        let mut plan = plan_v1(resources)?;
        if self.swap_first(resources) {
            // A limit above the present sum of memory and swap is refused: raise the sum first.
            plan.sort_by_key(|s| s.file != "memory.memsw.limit_in_bytes");
        }
        for s in &plan {
            let dir = self.controller(s.controller).ok_or_else(|| missing(s.controller))?;
            match dir.write(&s.file, &s.value) {
                // Kernels without swap accounting, or without the BFQ scheduler's name of the weight.
                Err(e) if e.kind() == io::ErrorKind::NotFound && s.file.contains("memsw") && s.value == "-1" => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound && s.file == "blkio.weight" => {
                    dir.write("blkio.bfq.weight", &s.value).map_err(|e| refused(s, &e))?;
                }
                other => other.map_err(|e| refused(s, &e))?,
            }
        }
        Ok(())
    }

    /// Whether an update raises the memory limit beyond the sum in force.
    fn swap_first(&self, resources: &Resources) -> bool {
        let (Some(_), Some(swap)) = (resources.memory, resources.memory_swap) else { return false };
        let now = self.controller("memory").and_then(|d| d.read("memory.limit_in_bytes").ok());
        let now = now.and_then(|t| t.trim().parse::<i64>().ok()).unwrap_or(i64::MAX);
        swap == -1 || swap > now
    }
}

fn not_found(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Writes one file of a unified directory, or what stands in for a file that this kernel does not have.
fn write_v2(dir: &Dir, step: &Step) -> io::Result<()> {
    let mut written = dir.write(&step.file, &step.value);
    if written.as_ref().is_err_and(not_found) {
        // A parent that somebody made without handing its controllers down.
        dir.delegate_parents()?;
        written = dir.write(&step.file, &step.value);
    }
    match written {
        Err(e) if not_found(&e) => match substitute(step) {
            Substitute::Nothing => Ok(()),
            Substitute::Write(file, value) => dir.write(file, &value),
            Substitute::None => Err(e),
        },
        other => other,
    }
}

/// What to do where a file is absent.
#[derive(Debug, PartialEq, Eq)]
enum Substitute {
    /// The limit has no meaning there.
    Nothing,
    Write(&'static str, String),
    None,
}

/// As runc: without swap accounting there is no swap to limit; without the BFQ scheduler the general weight serves, whose
/// 1–10000 stand for 10–1000.
fn substitute(step: &Step) -> Substitute {
    match step.file.as_str() {
        "memory.swap.max" if matches!(step.value.as_str(), "0" | "max") => Substitute::Nothing,
        "io.bfq.weight" => {
            let (device, weight) = step.value.rsplit_once(' ').map_or(("", step.value.as_str()), |(d, w)| (d, w));
            let Ok(weight) = weight.parse::<u64>() else { return Substitute::None };
            let weight = 1 + weight.saturating_sub(10) * 9999 / 990;
            Substitute::Write("io.weight", format!("{device} {weight}").trim_start().to_owned())
        }
        _ => Substitute::None,
    }
}

fn missing(controller: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("the {controller} cgroup controller is not available"))
}

fn refused(step: &Step, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("failed to write {:?} to {:?}: {error}", step.value, step.file))
}

fn plan_v1(r: &Resources) -> io::Result<Vec<Step>> {
    check_shares(r.cpu_shares)?;
    let mut out = Vec::new();
    memory_v1(r, &mut out);
    let mut put = |controller, file: &str, value: Option<String>| {
        out.extend(value.map(|v| step(controller, file, v)));
    };
    put("cpu", "cpu.shares", r.cpu_shares.map(|v| v.to_string()));
    // A period below the quota in force is refused and the other way round; a new cgroup has no quota.
    put("cpu", "cpu.cfs_period_us", r.cpu_period.map(|v| v.to_string()));
    put("cpu", "cpu.cfs_quota_us", r.cpu_quota.map(|v| v.to_string()));
    put("cpu", "cpu.cfs_burst_us", r.cpu_burst.map(|v| v.to_string()));
    put("cpu", "cpu.rt_period_us", r.cpu_rt_period.map(|v| v.to_string()));
    put("cpu", "cpu.rt_runtime_us", r.cpu_rt_runtime.map(|v| v.to_string()));
    put("cpu", "cpu.idle", r.cpu_idle.map(|v| v.to_string()));
    put("cpuset", "cpuset.cpus", some(&r.cpuset_cpus));
    put("cpuset", "cpuset.mems", some(&r.cpuset_mems));
    put("pids", "pids.max", r.pids.map(|v| or_max(v, "max")));
    put("blkio", "blkio.weight", r.blkio_weight.map(|v| v.to_string()));
    let devices = [
        ("blkio.weight_device", &r.blkio_weight_device),
        ("blkio.throttle.read_bps_device", &r.blkio_read_bps),
        ("blkio.throttle.write_bps_device", &r.blkio_write_bps),
        ("blkio.throttle.read_iops_device", &r.blkio_read_iops),
        ("blkio.throttle.write_iops_device", &r.blkio_write_iops),
    ];
    for (file, list) in devices {
        out.extend(list.iter().map(|d| step("blkio", file, format!("{}:{} {}", d.major, d.minor, d.value))));
    }
    out.extend(r.hugepages.iter().map(|(size, v)| step("hugetlb", format!("hugetlb.{size}.limit_in_bytes"), v)));
    Ok(out)
}

/// The kernel would take any number and make one of these of it.
fn check_shares(shares: Option<u64>) -> io::Result<()> {
    let text = match shares {
        Some(..2) => "the minimum allowed cpu-shares is 2",
        Some(262_145..) => "the maximum allowed cpu-shares is 262144",
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

fn memory_v1(r: &Resources, out: &mut Vec<Step>) {
    let mut put = |file: &str, value: Option<i64>| out.extend(value.map(|v| step("memory", file, v)));
    put("memory.limit_in_bytes", r.memory);
    // Unlimited memory makes no sense below a limited sum.
    let swap = if r.memory == Some(-1) && r.memory_swap.is_none_or(|s| s == 0) { Some(-1) } else { r.memory_swap };
    put("memory.memsw.limit_in_bytes", swap.filter(|s| *s != 0));
    put("memory.soft_limit_in_bytes", r.memory_reservation);
    put("memory.kmem.tcp.limit_in_bytes", r.kernel_memory_tcp);
    put("memory.swappiness", r.swappiness.and_then(|v| i64::try_from(v).ok()));
    put("memory.oom_control", r.oom_kill_disable.filter(|d| *d).map(i64::from));
}

fn plan_v2(r: &Resources) -> io::Result<Vec<Step>> {
    let mut out = Vec::new();
    if let Some(swap) = swap_v2(r.memory, r.memory_swap)? {
        out.push(step("memory", "memory.swap.max", swap));
    }
    out.extend(r.memory.filter(|m| *m != 0).map(|m| step("memory", "memory.max", or_max(m, "max"))));
    out.extend(r.memory_reservation.filter(|m| *m != 0).map(|m| step("memory", "memory.low", or_max(m, "max"))));
    if let Some(weight) = r.cpu_shares.and_then(weight_from_shares) {
        out.push(step("cpu", "cpu.weight", weight));
    }
    out.extend(r.cpu_idle.map(|v| step("cpu", "cpu.idle", v)));
    out.extend(r.cpu_burst.map(|v| step("cpu", "cpu.max.burst", v)));
    if r.cpu_quota.is_some() || r.cpu_period.is_some() {
        let quota = r.cpu_quota.filter(|q| *q > 0).map_or("max".to_owned(), |q| q.to_string());
        out.push(step(
            "cpu",
            "cpu.max",
            format!("{quota} {}", r.cpu_period.filter(|p| *p > 0).unwrap_or(DEFAULT_PERIOD)),
        ));
    }
    out.extend(some(&r.cpuset_cpus).map(|v| step("cpuset", "cpuset.cpus", v)));
    out.extend(some(&r.cpuset_mems).map(|v| step("cpuset", "cpuset.mems", v)));
    out.extend(r.pids.map(|v| step("pids", "pids.max", or_max(v, "max"))));
    io_v2(r, &mut out);
    out.extend(r.hugepages.iter().map(|(size, v)| step("hugetlb", format!("hugetlb.{size}.max"), v)));
    out.extend(r.unified.iter().map(|(file, value)| step("unified", file, value)));
    Ok(out)
}

fn io_v2(r: &Resources, out: &mut Vec<Step>) {
    out.extend(r.blkio_weight.filter(|w| *w > 0).map(|w| step("io", "io.bfq.weight", w)));
    let weights = r.blkio_weight_device.iter();
    out.extend(weights.map(|d| step("io", "io.bfq.weight", format!("{}:{} {}", d.major, d.minor, d.value))));
    let limits = [
        ("rbps", &r.blkio_read_bps),
        ("wbps", &r.blkio_write_bps),
        ("riops", &r.blkio_read_iops),
        ("wiops", &r.blkio_write_iops),
    ];
    for (name, list) in limits {
        out.extend(list.iter().map(|d| step("io", "io.max", format!("{}:{} {name}={}", d.major, d.minor, d.value))));
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn or_max(value: i64, max: &str) -> String {
    if value > 0 { value.to_string() } else { max.to_owned() }
}

/// v1 counts memory plus swap, v2 swap alone. `None` = write nothing.
fn swap_v2(memory: Option<i64>, swap: Option<i64>) -> io::Result<Option<String>> {
    let invalid = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    match (memory.unwrap_or(0), swap.unwrap_or(0)) {
        (-1, 0) | (_, -1) => Ok(Some("max".into())),
        (_, 0) => Ok(None),
        (0 | -1, _) => invalid("unable to set swap limit without memory limit"),
        (m, s) if m < 0 || s < m => invalid("memory+swap limit should be >= memory limit"),
        (m, s) => Ok(Some((s - m).to_string())),
    }
}

/// The curve on which 2, 1024 and 262144 shares are weights 1, 100 and 10000 (as runc ≥ 1.3).
fn weight_from_shares(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        shares => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            Some(10_f64.powf(exponent).ceil() as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(plan: &[Step]) -> Vec<String> {
        plan.iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    }

    fn sample() -> Resources {
        Resources {
            memory: Some(64 << 20),
            memory_swap: Some(128 << 20),
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            pids: Some(0),
            cpuset_cpus: "0".into(),
            blkio_read_bps: vec![BlockDevice { major: 8, minor: 0, value: 1024 }],
            ..Resources::default()
        }
    }

    #[test]
    fn v1_files() {
        let expected = [
            "memory.limit_in_bytes=67108864",
            "memory.memsw.limit_in_bytes=134217728",
            "cpu.shares=1024",
            "cpu.cfs_quota_us=50000",
            "cpuset.cpus=0",
            "pids.max=max",
            "blkio.throttle.read_bps_device=8:0 1024",
        ];
        assert_eq!(lines(&plan_v1(&sample()).unwrap()), expected);
        let unlimited = Resources { memory: Some(-1), ..Resources::default() };
        assert_eq!(
            lines(&plan_v1(&unlimited).unwrap()),
            ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"]
        );
    }

    #[test]
    fn v2_files() {
        let expected = [
            "memory.swap.max=67108864",
            "memory.max=67108864",
            "cpu.weight=100",
            "cpu.max=50000 100000",
            "cpuset.cpus=0",
            "pids.max=max",
            "io.max=8:0 rbps=1024",
        ];
        assert_eq!(lines(&plan_v2(&sample()).unwrap()), expected);
    }

    #[test]
    fn absent_files_have_substitutes() {
        let of = |file: &str, value: &str| substitute(&step("x", file, value));
        assert_eq!(of("io.bfq.weight", "10"), Substitute::Write("io.weight", "1".into()));
        assert_eq!(of("io.bfq.weight", "1000"), Substitute::Write("io.weight", "10000".into()));
        assert_eq!(of("io.bfq.weight", "8:0 300"), Substitute::Write("io.weight", "8:0 2930".into()));
        assert_eq!(of("memory.swap.max", "0"), Substitute::Nothing);
        assert_eq!(of("memory.swap.max", "4096"), Substitute::None);
        assert_eq!(of("memory.max", "max"), Substitute::None);
    }

    #[test]
    fn swap_arithmetic() {
        assert_eq!(swap_v2(Some(10), Some(10)).unwrap().as_deref(), Some("0"));
        assert_eq!(swap_v2(Some(10), Some(-1)).unwrap().as_deref(), Some("max"));
        assert_eq!(swap_v2(Some(10), None).unwrap(), None);
        assert!(swap_v2(None, Some(10)).is_err());
        assert!(swap_v2(Some(10), Some(5)).is_err());
    }

    #[test]
    fn shares_to_weight() {
        let table = [(0, None), (2, Some(1)), (1024, Some(100)), (262_144, Some(10_000)), (1 << 40, Some(10_000))];
        for (shares, weight) in table {
            assert_eq!(weight_from_shares(shares), weight, "{shares}");
        }
    }
}
