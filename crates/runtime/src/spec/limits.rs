//! Limits of the container's cgroup and of its processes.

use model::{Error, Result};

use super::input::{BlockIo, CpuLimits, Resources, Ulimit};
use crate::oci;

/// CFS period that `--cpus` is expressed in, microseconds.
const NANO_CPUS_PERIOD: u64 = 100_000;
const NANO: i64 = 1_000_000_000;
/// `RLIM_INFINITY` of setrlimit(2).
const INFINITY: u64 = u64::MAX;

/// The cgroup limits alone, without device rules; for `update`.
pub fn resources(limits: &Resources) -> Result<oci::Resources> {
    Ok(oci::Resources {
        devices: Vec::new(),
        memory: memory(limits),
        cpu: cpu(&limits.cpu)?,
        // Values that mean "no limit" reach the runtime as -1, which lifts an earlier limit.
        pids: limits.pids_limit.map(|n| oci::Pids { limit: if n <= 0 { -1 } else { n } }),
        block_io: block_io(&limits.block_io),
        hugepage_limits: Vec::new(),
        unified: limits.unified.clone(),
    })
}

fn memory(limits: &Resources) -> Option<oci::Memory> {
    let positive = |value: i64| (value > 0).then_some(value);
    let memory = oci::Memory {
        limit: positive(limits.memory),
        reservation: positive(limits.memory_reservation),
        swap: Some(limits.memory_swap).filter(|s| *s > 0 || *s == -1),
        swappiness: limits.memory_swappiness.and_then(|s| u64::try_from(s).ok()),
        disable_oom_killer: limits.oom_kill_disable,
        ..oci::Memory::default()
    };
    (memory != oci::Memory::default()).then_some(memory)
}

fn cpu(limits: &CpuLimits) -> Result<Option<oci::Cpu>> {
    let set = |value: i64| (value != 0).then_some(value);
    let unsigned = |what: &str, value: i64| {
        set(value)
            .map(|v| {
                u64::try_from(v)
                    .map_err(|_| Error::invalid(format!("invalid {what} ({v}): value must be a positive integer")))
            })
            .transpose()
    };
    let mut cpu = oci::Cpu {
        shares: unsigned("CPU shares", limits.shares)?,
        period: unsigned("CPU period", limits.period)?,
        quota: set(limits.quota),
        realtime_period: unsigned("CPU realtime period", limits.realtime_period)?,
        realtime_runtime: set(limits.realtime_runtime),
        cpus: limits.cpus.clone(),
        mems: limits.mems.clone(),
        ..oci::Cpu::default()
    };
    if limits.nano_cpus > 0 {
        let quota = i128::from(limits.nano_cpus) * i128::from(NANO_CPUS_PERIOD) / i128::from(NANO);
        cpu.period.get_or_insert(NANO_CPUS_PERIOD);
        cpu.quota.get_or_insert(i64::try_from(quota).unwrap_or(i64::MAX));
    }
    Ok((cpu != oci::Cpu::default()).then_some(cpu))
}

fn block_io(limits: &BlockIo) -> Option<oci::BlockIo> {
    let io = oci::BlockIo {
        weight: (limits.weight != 0).then_some(limits.weight),
        weight_device: limits.weight_device.clone(),
        throttle_read_bps_device: limits.read_bps.clone(),
        throttle_write_bps_device: limits.write_bps.clone(),
        throttle_read_iops_device: limits.read_iops.clone(),
        throttle_write_iops_device: limits.write_iops.clone(),
    };
    (io != oci::BlockIo::default()).then_some(io)
}

/// -1 becomes the kernel's "infinity". Nothing else is below 0: create refuses it.
pub(super) fn rlimits(ulimits: &[Ulimit]) -> Vec<oci::Rlimit> {
    ulimits
        .iter()
        .map(|u| oci::Rlimit {
            kind: format!("RLIMIT_{}", u.name.to_uppercase()),
            hard: u64::try_from(u.hard).unwrap_or(INFINITY),
            soft: u64::try_from(u.soft).unwrap_or(INFINITY),
        })
        .collect()
}

/// `c 1:3 rwm`: type, numbers (`*` = all), access.
pub(super) fn device_rule(text: &str) -> Result<oci::DeviceRule> {
    let invalid = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let mut fields = text.split(' ');
    let (Some(kind), Some(numbers), Some(access), None) = (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(invalid());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let letters = (1..=3).contains(&access.len()) && access.bytes().all(|b| b"rwm".contains(&b));
    if !matches!(kind, "a" | "b" | "c") || !letters {
        return Err(invalid());
    }
    let number = |what: &str, digits: &str| match digits {
        "*" => Ok(-1),
        // The kernel's device numbers have 32 bits; a larger one must not end as "all".
        d if !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()) => d
            .parse::<u32>()
            .map(i64::from)
            .map_err(|_| Error::invalid(format!("invalid {what} value in device cgroup rule format: '{text}'"))),
        _ => Err(invalid()),
    };
    Ok(oci::DeviceRule {
        allow: true,
        kind: Some(kind.to_owned()),
        major: Some(number("major", major)?),
        minor: Some(number("minor", minor)?),
        access: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_rules() {
        let rule = device_rule("c *:7 rm").unwrap();
        assert_eq!((rule.major, rule.minor, rule.access.as_str()), (Some(-1), Some(7), "rm"));
        for bad in ["", "c 1:1  rwm", " c 1:1 rwm", "c 1:1 rwm ", "z 1:1 rwm", "c 11 rwm", "c a:a rwm", "c 1:1 x"] {
            let text = device_rule(bad).unwrap_err().to_string();
            assert_eq!(text, format!("invalid device cgroup rule format: '{bad}'"));
        }
        for big in ["4294967296", "9223372036854775807", "99999999999999999999"] {
            let text = |rule: String| device_rule(&rule).unwrap_err().to_string();
            assert!(text(format!("c {big}:1 r")).starts_with("invalid major value"), "{big}");
            assert!(text(format!("c 1:{big} r")).starts_with("invalid minor value"), "{big}");
        }
        assert_eq!(device_rule("c 4294967295:0 r").unwrap().major, Some(4_294_967_295));
    }

    #[test]
    fn limits_that_are_not_set() {
        assert_eq!(resources(&Resources::default()).unwrap(), oci::Resources::default());
        let swappiness = Resources { memory_swappiness: Some(-1), pids_limit: Some(0), ..Resources::default() };
        let none = resources(&swappiness).unwrap();
        assert_eq!((none.memory, none.pids), (None, Some(oci::Pids { limit: -1 })));
    }

    #[test]
    fn cpus_become_a_quota() {
        let limits = CpuLimits { nano_cpus: 1_500_000_000, ..CpuLimits::default() };
        let cpu = cpu(&limits).unwrap().unwrap();
        assert_eq!((cpu.period, cpu.quota), (Some(100_000), Some(150_000)));
        let error = super::cpu(&CpuLimits { shares: -1, ..CpuLimits::default() }).unwrap_err();
        assert_eq!(error.message(), "invalid CPU shares (-1): value must be a positive integer");
    }
}
