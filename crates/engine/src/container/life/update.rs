//! `POST /containers/{id}/update`: other limits, at once where the container runs, and another restart policy.
//!
//! The kernel takes the new limits first, then the row: what is answered holds now and after a restart. Limits that the
//! kernel or the store refuses are put back.

use api::HostConfig;
use model::{Error, Result};
use sys::cgroup::{Cgroup, Resources};

use super::actor::{Actor, Done};
use super::{place, runtime_spec};
use crate::container::Containers;
use crate::container::definition::Definition;
use crate::container::registry::command::{Command, Reply, answer};
use crate::container::registry::draft;
use crate::container::validate;
use crate::host::Host;
use crate::settings::ContainerDefaults;

/// A container's limits in the kernel have changed, or could not be.
pub struct Updated {
    /// The configuration with the change.
    config: HostConfig,
    /// What the kernel had before.
    old: InForce,
    outcome: Result<()>,
    reply: Reply,
}

/// Limits of a control group.
struct InForce {
    cgroup: Cgroup,
    limits: Resources,
}

/// Changes limits and restart policy; what the kernel cannot do is left out and in the warnings.
///
/// Errors: `InvalidParameter`, `NotFound`; `Conflict` with what the container has; `System` where the kernel refuses.
pub async fn update(
    containers: &Containers,
    host: &Host,
    defaults: &ContainerDefaults,
    name: &str,
    change: api::UpdateConfig,
) -> Result<api::UpdateResponse> {
    let host = validate::host(host, defaults);
    let mut change = HostConfig::from(change);
    let warnings = validate::update(&mut change, &host)?;
    let change = Box::new(change);
    containers.find(name)?.ask(|reply| Command::Update { change, reply }).await?;
    Ok(api::UpdateResponse { warnings: Some(warnings).filter(|warnings| !warnings.is_empty()) })
}

/// Where the container runs, its control group changes first.
pub(super) async fn begin(actor: &mut Actor, change: HostConfig, reply: Reply) {
    match prepare(actor, &change) {
        Err(error) => answer(reply, Err(cannot(actor, error))),
        Ok((config, None)) => {
            let recorded = record(actor, config).await;
            answer(reply, recorded);
        }
        Ok((config, Some((new, old)))) => {
            let (threads, cgroup) = (actor.engine.containers.threads.ends.clone(), old.cgroup.clone());
            actor.jobs.spawn(async move {
                let outcome = threads.run(move |_| Ok(cgroup.apply(&new)?)).await;
                Done::Updated(Box::new(Updated { config, old, outcome, reply }))
            });
        }
    }
}

/// The configuration with the change; of a container that runs its new limits and those that they replace.
fn prepare(actor: &Actor, change: &HostConfig) -> Result<(HostConfig, Option<(Resources, InForce)>)> {
    let (row, host) = (&actor.row, &actor.engine.host);
    if row.state.is_removing() || row.state.is_dead() {
        return Err(Error::system("container is marked for removal and cannot be \"update\""));
    }
    let mut config = row.host_config.clone();
    check(change, &config)?;
    merge(change, &mut config);
    if row.state.pid().is_none() {
        return Ok((config, None));
    }
    let cgroup = place::cgroup_of(host, &actor.engine.settings(), row)?;
    let (new, old) = (runtime_spec::limits(&config)?, runtime_spec::limits(&row.host_config)?);
    let limits = lifted(old, &new, host);
    Ok((config, Some((new, InForce { cgroup, limits }))))
}

/// The kernel has answered: record, show, tell, answer.
pub(super) async fn updated(actor: &mut Actor, updated: Updated) {
    let Updated { config, old, outcome, reply } = updated;
    let ended = actor.row.state.pid().is_none();
    let outcome = match outcome {
        Err(error) if !ended => Err(cannot(actor, error)),
        _ => record(actor, config).await,
    };
    if outcome.is_err() && !ended {
        let threads = &actor.engine.containers.threads.ends;
        if let Err(error) = threads.run(move |_| Ok(old.cgroup.apply(&old.limits)?)).await {
            tracing::warn!(container = actor.row.id.short(), %error, "limits could not be put back");
        }
    }
    answer(reply, outcome);
}

/// The definition has this configuration from now on.
async fn record(actor: &mut Actor, config: HostConfig) -> Result<()> {
    let drafts = |row: &Definition| vec![draft(row, "update", [])];
    let told = match actor.redefine_telling(|definition| definition.host_config = config, drafts).await {
        Ok(told) => told,
        Err(error) => return Err(cannot(actor, error)),
    };
    actor.publish();
    told.publish();
    Ok(())
}

fn cannot(actor: &Actor, error: Error) -> Error {
    error.prefix(format!("Cannot update container {}", actor.row.id.as_str()))
}

/// Refuses what does not fit to the limits that there are.
fn check(change: &HostConfig, config: &HostConfig) -> Result<()> {
    let refuse = |text: &str| Err(Error::conflict(text));
    let clash = |new: &str, old: &str| {
        refuse(&format!("Conflicting options: {new} cannot be updated as {old} has already been set"))
    };
    if change.nano_cpus > 0 && config.cpu_period > 0 {
        return clash("Nano CPUs", "CPU Period");
    }
    if change.nano_cpus > 0 && config.cpu_quota > 0 {
        return clash("Nano CPUs", "CPU Quota");
    }
    if change.cpu_period > 0 && config.nano_cpus > 0 {
        return clash("CPU Period", "NanoCPUs");
    }
    if change.cpu_quota > 0 && config.nano_cpus > 0 {
        return clash("CPU Quota", "NanoCPUs");
    }
    if change.memory != 0 && change.memory_swap == 0 && change.memory > config.memory_swap {
        return refuse(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        );
    }
    if config.auto_remove && !matches!(change.restart_policy.name.as_str(), "" | "no") {
        return refuse("Restart policy cannot be updated because AutoRemove is enabled for the container");
    }
    Ok(())
}

/// Changes the limits and the restart policy that are named.
fn merge(change: &HostConfig, config: &mut HostConfig) {
    fn take<T: Clone + Default + PartialEq>(new: &T, old: &mut T) {
        if *new != T::default() {
            *old = new.clone();
        }
    }
    take(&change.cpu_shares, &mut config.cpu_shares);
    take(&change.memory, &mut config.memory);
    take(&change.nano_cpus, &mut config.nano_cpus);
    take(&change.blkio_weight, &mut config.blkio_weight);
    take(&change.blkio_weight_device, &mut config.blkio_weight_device);
    take(&change.blkio_device_read_bps, &mut config.blkio_device_read_bps);
    take(&change.blkio_device_write_bps, &mut config.blkio_device_write_bps);
    take(&change.blkio_device_read_iops, &mut config.blkio_device_read_iops);
    take(&change.blkio_device_write_iops, &mut config.blkio_device_write_iops);
    take(&change.cpu_period, &mut config.cpu_period);
    take(&change.cpu_quota, &mut config.cpu_quota);
    take(&change.cpu_realtime_period, &mut config.cpu_realtime_period);
    take(&change.cpu_realtime_runtime, &mut config.cpu_realtime_runtime);
    take(&change.cpuset_cpus, &mut config.cpuset_cpus);
    take(&change.cpuset_mems, &mut config.cpuset_mems);
    take(&change.memory_reservation, &mut config.memory_reservation);
    take(&change.memory_swap, &mut config.memory_swap);
    take(&change.pids_limit, &mut config.pids_limit);
    if !change.restart_policy.name.is_empty() {
        config.restart_policy = change.restart_policy.clone();
    }
}

/// Limits to be put back, where those that only the others have are lifted. Weights stay: there is none that means nothing.
fn lifted(limits: Resources, others: &Resources, host: &Host) -> Resources {
    /// What the kernel begins with: cgroup-v1/cpuacct and sched-bwc of its documents.
    const SHARES: u64 = 1024;
    const PERIOD: u64 = 100_000;
    fn or<T: Clone>(limit: Option<T>, other: Option<&T>, lifted: T) -> Option<T> {
        limit.or_else(|| other.map(|_| lifted))
    }
    let or_all = |list: String, other: &str, all: &str| match list.is_empty() && !other.is_empty() {
        true => all.to_owned(),
        false => list,
    };
    Resources {
        memory: or(limits.memory, others.memory.as_ref(), -1),
        memory_reservation: or(limits.memory_reservation, others.memory_reservation.as_ref(), -1),
        memory_swap: or(limits.memory_swap, others.memory_swap.as_ref(), -1),
        cpu_shares: or(limits.cpu_shares, others.cpu_shares.as_ref(), SHARES),
        cpu_quota: or(limits.cpu_quota, others.cpu_quota.as_ref(), -1),
        cpu_period: or(limits.cpu_period, others.cpu_period.as_ref(), PERIOD),
        pids: or(limits.pids, others.pids.as_ref(), -1),
        cpuset_cpus: or_all(limits.cpuset_cpus, &others.cpuset_cpus, &host.cpus),
        cpuset_mems: or_all(limits.cpuset_mems, &others.cpuset_mems, &host.memory_nodes),
        ..limits
    }
}
