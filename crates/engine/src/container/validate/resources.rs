//! Limits: refused where they make no sense, discarded with a warning where the kernel cannot keep them.

use model::{Error, Result, cpuset};

use super::host::Host;

/// Less is not enough to start anything.
const LEAST_MEMORY: i64 = 6 << 20;
/// Nano-processors of one processor.
const WHOLE_CPU: i64 = 1_000_000_000;

/// All limits of a container to be made.
pub(super) fn check(host_config: &mut api::HostConfig, host: &Host, warnings: &mut Vec<String>) -> Result<()> {
    if host_config.memory == 0 && host_config.memory_swap > 0 {
        return Err(Error::invalid("You should always set the Memory limit when using Memoryswap limit, see usage"));
    }
    check_changed(host_config, host, warnings)
}

/// Limits that may be some of a container's only.
pub(super) fn check_changed(limits: &mut api::HostConfig, host: &Host, warnings: &mut Vec<String>) -> Result<()> {
    check_ulimits(limits.ulimits.as_deref().unwrap_or_default())?;
    check_memory(limits, host, warnings)?;
    check_reservation(limits, host, warnings)?;
    check_processes(limits, host, warnings);
    check_cpu(limits, host, warnings)?;
    check_cpuset(limits, host, warnings)?;
    check_block_io(limits, host, warnings)
}

/// What the scheduler takes at all; refused before anything else.
pub(super) fn check_scheduler(host_config: &api::HostConfig, host: &Host) -> Result<()> {
    let (period, runtime) = (host_config.cpu_realtime_period, host_config.cpu_realtime_runtime);
    if (period != 0 || runtime != 0) && !host.abilities.cpu_realtime {
        return Err(Error::invalid("kernel does not support CPU real-time scheduler"));
    }
    if period != 0 && runtime != 0 && runtime > period {
        return Err(Error::invalid("cpu real-time runtime cannot be higher than cpu real-time period"));
    }
    let shares = host_config.cpu_shares;
    if host.abilities.cpu_shares && shares < 0 {
        return Err(Error::invalid(format!("invalid CPU shares ({shares}): value must be a positive integer")));
    }
    Ok(())
}

/// Below 0 there is only -1, unlimited; another number would be a limit beyond all that there is.
fn check_ulimits(ulimits: &[api::Ulimit]) -> Result<()> {
    match ulimits.iter().find(|ulimit| ulimit.soft < -1 || ulimit.hard < -1) {
        None => Ok(()),
        Some(api::Ulimit { name, soft, hard }) => {
            Err(Error::invalid(format!("invalid ulimit {name}={soft}:{hard}: a limit is -1 (unlimited) or a number")))
        }
    }
}

fn check_memory(limits: &mut api::HostConfig, host: &Host, warnings: &mut Vec<String>) -> Result<()> {
    if limits.memory_swappiness == Some(-1) {
        limits.memory_swappiness = None;
    }
    if limits.memory != 0 && limits.memory < LEAST_MEMORY {
        return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
    }
    if limits.memory > 0 && !host.abilities.memory {
        warnings.push(discarded("memory limit capabilities", "Limitation discarded."));
        (limits.memory, limits.memory_swap) = (0, -1);
    }
    if limits.memory > 0 && limits.memory_swap != -1 && !host.abilities.swap {
        warnings.push(discarded("swap limit capabilities", "Memory limited without swap."));
        limits.memory_swap = -1;
    }
    if limits.memory > 0 && limits.memory_swap > 0 && limits.memory_swap < limits.memory {
        return Err(Error::invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if limits.memory_swappiness.is_some() && !host.abilities.swappiness {
        warnings.push(discarded("memory swappiness capabilities", "Memory swappiness discarded."));
        limits.memory_swappiness = None;
    }
    match limits.memory_swappiness {
        Some(value) if !(0..=100).contains(&value) => {
            Err(Error::invalid(format!("Invalid value: {value}, valid memory swappiness range is 0-100")))
        }
        _ => Ok(()),
    }
}

fn check_reservation(limits: &mut api::HostConfig, host: &Host, warnings: &mut Vec<String>) -> Result<()> {
    if limits.memory_reservation > 0 && !host.abilities.memory {
        warnings.push(discarded("memory soft limit capabilities", "Limitation discarded."));
        limits.memory_reservation = 0;
    }
    if limits.memory_reservation > 0 && limits.memory_reservation < LEAST_MEMORY {
        return Err(Error::invalid("Minimum memory reservation allowed is 6MB"));
    }
    if limits.memory > 0 && limits.memory < limits.memory_reservation {
        return Err(Error::invalid("Minimum memory limit can not be less than memory reservation limit, see usage"));
    }
    if limits.oom_kill_disable.is_some() && !host.abilities.oom_kill_disable {
        if limits.oom_kill_disable == Some(true) {
            warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".into());
        }
        limits.oom_kill_disable = None;
    }
    if limits.oom_kill_disable == Some(true) && limits.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, \
             this can result in the system running out of resources."
                .into(),
        );
    }
    Ok(())
}

fn check_processes(limits: &mut api::HostConfig, host: &Host, warnings: &mut Vec<String>) {
    if host.abilities.pids {
        return;
    }
    if limits.pids_limit.take().is_some_and(|limit| limit > 0) {
        warnings.push(discarded("PIDs limit capabilities", "PIDs limit discarded."));
    }
}

fn check_cpu(limits: &mut api::HostConfig, host: &Host, warnings: &mut Vec<String>) -> Result<()> {
    const BOTH: &str = "cannot both be set";
    if limits.nano_cpus > 0 && limits.cpu_period > 0 {
        return Err(Error::invalid(format!("Conflicting options: Nano CPUs and CPU Period {BOTH}")));
    }
    if limits.nano_cpus > 0 && limits.cpu_quota > 0 {
        return Err(Error::invalid(format!("Conflicting options: Nano CPUs and CPU Quota {BOTH}")));
    }
    if limits.nano_cpus > 0 && !host.abilities.cpu_cfs {
        return Err(Error::invalid(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        ));
    }
    let count = host.processors;
    let most = WHOLE_CPU.saturating_mul(i64::try_from(count).unwrap_or(i64::MAX));
    if !(0..=most).contains(&limits.nano_cpus) {
        return Err(Error::invalid(format!(
            "range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )));
    }
    if limits.cpu_shares > 0 && !host.abilities.cpu_shares {
        warnings.push("Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.".into());
        limits.cpu_shares = 0;
    }
    if (limits.cpu_period != 0 || limits.cpu_quota != 0) && !host.abilities.cpu_cfs {
        warnings.push("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.".into());
        (limits.cpu_period, limits.cpu_quota) = (0, 0);
    }
    if limits.cpu_period != 0 && !(1_000..=1_000_000).contains(&limits.cpu_period) {
        return Err(Error::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if limits.cpu_quota > 0 && limits.cpu_quota < 1_000 {
        return Err(Error::invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    if limits.cpu_percent > 0 {
        warnings.push("linux does not support CPU percent. Percent discarded.".into());
        limits.cpu_percent = 0;
    }
    Ok(())
}

fn check_cpuset(limits: &mut api::HostConfig, host: &Host, warnings: &mut Vec<String>) -> Result<()> {
    if limits.cpuset_cpus.is_empty() && limits.cpuset_mems.is_empty() {
        return Ok(());
    }
    if !host.abilities.cpuset {
        warnings.push("Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.".into());
        limits.cpuset_cpus.clear();
        limits.cpuset_mems.clear();
    }
    let lists = [
        (&limits.cpuset_cpus, &host.cpus, "cpus", "CPUs"),
        (&limits.cpuset_mems, &host.memory_nodes, "mems", "memory nodes"),
    ];
    for (wanted, available, field, noun) in lists {
        let set = cpuset::parse(wanted).map_err(|e| e.prefix(format!("Invalid value {wanted} for cpuset {field}")))?;
        if !set.is_subset(&cpuset::parse(available).unwrap_or_default()) {
            return Err(Error::invalid(format!(
                "Requested {noun} are not available - requested {wanted}, available: {available}"
            )));
        }
    }
    Ok(())
}

fn check_block_io(limits: &mut api::HostConfig, host: &Host, warnings: &mut Vec<String>) -> Result<()> {
    if limits.blkio_weight > 0 && !host.abilities.blkio_weight {
        warnings.push(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".into(),
        );
        limits.blkio_weight = 0;
    }
    if limits.blkio_weight > 0 && !(10..=1000).contains(&limits.blkio_weight) {
        return Err(Error::invalid("Range of blkio weight is from 10 to 1000"));
    }
    if !host.abilities.blkio_weight && given(&limits.blkio_weight_device) {
        warnings.push(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. \
             Weight-device discarded."
                .into(),
        );
        limits.blkio_weight_device = Some(Vec::new());
    }
    if host.abilities.blkio {
        return Ok(());
    }
    let throttles = [
        (&mut limits.blkio_device_read_bps, "BPS Block I/O read", "Block I/O BPS read"),
        (&mut limits.blkio_device_write_bps, "BPS Block I/O write", "Block I/O BPS write"),
        (&mut limits.blkio_device_read_iops, "IOPS Block read", "Block I/O IOPS read"),
        (&mut limits.blkio_device_write_iops, "IOPS Block write", "Block I/O IOPS write"),
    ];
    for (list, what, name) in throttles {
        if given(list) {
            warnings.push(format!(
                "Your kernel does not support {what} limit or the cgroup is not mounted. {name} limit discarded."
            ));
            *list = Some(Vec::new());
        }
    }
    Ok(())
}

fn given<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

fn discarded(what: &str, consequence: &str) -> String {
    format!("Your kernel does not support {what} or the cgroup is not mounted. {consequence}")
}
