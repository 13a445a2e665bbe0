//! The specification's resources in the words of `sys::cgroup`. Pure.

use sys::cgroup::{BlockDevice, DeviceKind, DeviceRule, Resources};

use crate::oci;

/// Limits other than devices.
pub(super) fn convert(r: &oci::Resources) -> Resources {
    let memory = r.memory.clone().unwrap_or_default();
    let cpu = r.cpu.clone().unwrap_or_default();
    let io = r.block_io.clone().unwrap_or_default();
    let rates = |list: &[oci::ThrottleDevice]| -> Vec<BlockDevice> {
        list.iter().map(|d| BlockDevice { major: d.major as u64, minor: d.minor as u64, value: d.rate }).collect()
    };
    Resources {
        memory: memory.limit.filter(|v| *v != 0),
        memory_reservation: memory.reservation.filter(|v| *v != 0),
        memory_swap: memory.swap.filter(|v| *v != 0),
        kernel_memory_tcp: memory.kernel_tcp.filter(|v| *v != 0),
        swappiness: memory.swappiness,
        oom_kill_disable: memory.disable_oom_killer,
        cpu_shares: cpu.shares.filter(|v| *v != 0),
        cpu_quota: cpu.quota.filter(|v| *v != 0),
        cpu_period: cpu.period.filter(|v| *v != 0),
        cpu_burst: cpu.burst,
        cpu_rt_runtime: cpu.realtime_runtime.filter(|v| *v != 0),
        cpu_rt_period: cpu.realtime_period.filter(|v| *v != 0),
        cpu_idle: cpu.idle,
        cpuset_cpus: cpu.cpus,
        cpuset_mems: cpu.mems,
        pids: r.pids.as_ref().map(|p| p.limit).filter(|v| *v != 0),
        blkio_weight: io.weight.filter(|v| *v != 0),
        blkio_weight_device: io
            .weight_device
            .iter()
            .filter_map(|d| {
                Some(BlockDevice { major: d.major as u64, minor: d.minor as u64, value: u64::from(d.weight?) })
            })
            .collect(),
        blkio_read_bps: rates(&io.throttle_read_bps_device),
        blkio_write_bps: rates(&io.throttle_write_bps_device),
        blkio_read_iops: rates(&io.throttle_read_iops_device),
        blkio_write_iops: rates(&io.throttle_write_iops_device),
        hugepages: r.hugepage_limits.iter().map(|h| (h.page_size.clone(), h.limit)).collect(),
        unified: r.unified.clone(),
    }
}

/// The device list: the specification's rules and those that every runtime adds, without repetitions.
pub(super) fn device_rules(rules: &[oci::DeviceRule]) -> Vec<DeviceRule> {
    let mut out: Vec<DeviceRule> = rules.iter().map(rule).collect();
    let all_allowed = matches!(out.as_slice(), [.., DeviceRule { allow: true, kind: DeviceKind::All, .. }]);
    if out.is_empty() || all_allowed {
        return out;
    }
    for (kind, major, minor, access) in OWN {
        let own = DeviceRule { allow: true, kind, major, minor, access: access.to_owned() };
        if !out.contains(&own) {
            out.push(own);
        }
    }
    out
}

/// Making nodes is harmless; the rest are the nodes of `devices` and terminals (as runc).
const OWN: [(DeviceKind, Option<u32>, Option<u32>, &str); 10] = [
    (DeviceKind::Char, None, None, "m"),
    (DeviceKind::Block, None, None, "m"),
    (DeviceKind::Char, Some(1), Some(3), "rwm"),
    (DeviceKind::Char, Some(1), Some(8), "rwm"),
    (DeviceKind::Char, Some(1), Some(7), "rwm"),
    (DeviceKind::Char, Some(5), Some(0), "rwm"),
    (DeviceKind::Char, Some(1), Some(5), "rwm"),
    (DeviceKind::Char, Some(1), Some(9), "rwm"),
    (DeviceKind::Char, Some(136), None, "rwm"),
    (DeviceKind::Char, Some(5), Some(2), "rwm"),
];

fn rule(rule: &oci::DeviceRule) -> DeviceRule {
    let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    let kind = match rule.kind.as_deref() {
        Some("c" | "u") => DeviceKind::Char,
        Some("b") => DeviceKind::Block,
        _ => DeviceKind::All,
    };
    let access = if rule.access.is_empty() { "rwm".to_owned() } else { rule.access.clone() };
    DeviceRule { allow: rule.allow, kind, major: number(rule.major), minor: number(rule.minor), access }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_rules_are_added_once() {
        let deny = oci::DeviceRule { allow: false, access: "rwm".into(), ..Default::default() };
        let null = oci::DeviceRule {
            allow: true,
            kind: Some("c".into()),
            major: Some(1),
            minor: Some(3),
            access: "rwm".into(),
        };
        assert_eq!(device_rules(&[deny, null]).len(), 1 + OWN.len());
    }

    #[test]
    fn everything_allowed_stays_so() {
        let allow = oci::DeviceRule { allow: true, access: "rwm".into(), ..Default::default() };
        assert_eq!(device_rules(&[allow]).len(), 1);
        assert!(device_rules(&[]).is_empty());
    }

    #[test]
    fn zero_means_unset() {
        let r =
            oci::Resources { memory: Some(oci::Memory { limit: Some(0), ..Default::default() }), ..Default::default() };
        assert_eq!(convert(&r), Resources::default());
    }
}
