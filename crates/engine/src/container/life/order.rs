//! Who is started behind whom when a daemon, or the machine, starts: what `gantryd order` shows, and the waits.
//!
//! A container needs those whose namespaces, volumes and names it takes, and those that Compose's labels name, in the state
//! that they say. It waits for them for a bounded time, while the API serves, and is then started all the same; whoever cannot
//! come into that state any more is not waited for.

use std::collections::BTreeMap;
use std::time::Duration;

use model::health::Status;
use model::lifecycle::State;
use model::mount;
use model::order::{Condition, Cycle, Need, Order, compose_services};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::container::definition::{Definition, links};
use crate::container::registry::command::Command;
use crate::container::row::ContainerRow;
use crate::container::{Containers, Handle};

/// How long a container waits for those that it needs, unless its label or the configuration says otherwise.
pub const START_WAIT: Duration = Duration::from_secs(5);

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const DEPENDS_ON: &str = "com.docker.compose.depends_on";
const ONE_OFF: &str = "com.docker.compose.oneoff";

/// One container in the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// 64 hex digits.
    pub id: String,
    /// Without the slash.
    pub name: String,
    /// Those of one step are started beside each other; the first is 1.
    pub step: usize,
    /// The restart policy's name.
    pub policy: String,
    /// Whom it waits for.
    pub needs: Vec<Needed>,
}

/// A dependency with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needed {
    /// The other's name.
    pub name: String,
    #[serde(flatten)]
    pub need: Need,
}

/// All containers, and what led in a circle: ids, and names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// By step, then by name.
    pub containers: Vec<Ordered>,
    /// Names.
    pub cycles: Vec<Cycle>,
}

/// The order as it would be now.
pub fn show(containers: &Containers) -> Shown {
    let (order, names) = order(containers);
    let name = |id: &str| names.get(id).cloned().unwrap_or_else(|| id.to_owned());
    let mut shown = Shown::default();
    for (index, step) in order.steps().into_iter().enumerate() {
        let mut step: Vec<Ordered> = step
            .into_iter()
            .filter_map(|id| {
                let row = containers.view_of(id)?;
                let needs = order.needs(id).iter().map(|need| Needed { name: name(&need.on), need: need.clone() });
                Some(Ordered {
                    id: id.to_owned(),
                    name: name(id),
                    step: index + 1,
                    policy: row.row.host_config.restart_policy.name.clone(),
                    needs: needs.collect(),
                })
            })
            .collect();
        step.sort_by(|a, b| a.name.cmp(&b.name));
        shown.containers.append(&mut step);
    }
    shown.cycles = order.cycles().iter().map(|cycle| Cycle(cycle.0.iter().map(|id| name(id)).collect())).collect();
    shown
}

/// Who needs whom, and their names.
fn order(containers: &Containers) -> (Order, BTreeMap<String, String>) {
    let views: Vec<_> = containers.all().iter().map(Handle::view).collect();
    let mut services: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for view in &views {
        if let (Some(project), Some(service)) = (label(&view.row, PROJECT), label(&view.row, SERVICE))
            && label(&view.row, ONE_OFF).is_none_or(|value| !value.eq_ignore_ascii_case("true"))
        {
            services.entry((project, service)).or_default().push(view.row.id.as_str());
        }
    }
    let needs = views.iter().map(|view| {
        let mut needs = own_needs(containers, &view.row);
        let project = label(&view.row, PROJECT).unwrap_or_default();
        for (service, condition) in compose_services(label(&view.row, DEPENDS_ON).unwrap_or_default()) {
            let on = services.get(&(project, service)).into_iter().flatten();
            needs.extend(on.map(|id| Need { on: (*id).to_owned(), condition, origin: "compose".into() }));
        }
        (view.row.id.as_str().to_owned(), needs)
    });
    let order = Order::new(needs.collect());
    let names = views.iter().map(|view| (view.row.id.as_str().to_owned(), view.row.name.clone())).collect();
    (order, names)
}

fn label<'a>(row: &'a Definition, name: &str) -> Option<&'a str> {
    row.config.labels.as_ref()?.get(name).map(String::as_str)
}

/// What the host configuration takes of others; whoever is not there is the start's concern.
fn own_needs(containers: &Containers, row: &Definition) -> Vec<Need> {
    let host = &row.host_config;
    let modes = [("network", &host.network_mode), ("ipc", &host.ipc_mode), ("pid", &host.pid_mode)];
    let modes =
        modes.into_iter().filter_map(|(origin, mode)| Some((origin, mode.strip_prefix("container:")?.to_owned())));
    let volumes = host.volumes_from.iter().flatten();
    let volumes = volumes.filter_map(|from| Some(("volumes-from", mount::parse_volumes_from(from).ok()?.0)));
    let links = host.links.iter().flatten().filter_map(|link| Some(("link", links::parse(link).ok()?.name)));
    let all = modes.chain(volumes.map(|(origin, name)| (origin, name.to_string()))).chain(links);
    let found = all.filter_map(|(origin, name)| {
        let on = containers.find(&name).ok()?.id.as_str().to_owned();
        Some(Need { on, condition: Condition::Started, origin: origin.to_owned() })
    });
    found.collect()
}

/// Lets every container do what its policy says at a daemon's start: those that are due wait for whom they need.
pub async fn begin(containers: &Containers, wait: Duration) {
    let (order, names) = order(containers);
    for cycle in order.cycles() {
        let named = Cycle(cycle.0.iter().map(|id| names.get(id).unwrap_or(id).clone()).collect());
        tracing::warn!(%named, "these containers need each other: of that nothing is waited for");
    }
    for handle in containers.all() {
        let view = handle.view();
        let needs = if view.row.state.is_restarting() { order.needs(handle.id.as_str()) } else { &[] };
        let needs: Vec<(Handle, Condition)> =
            needs.iter().filter_map(|need| Some((containers.find(&need.on).ok()?, need.condition))).collect();
        if needs.is_empty() {
            drop(handle.send(Command::Booted).await);
            continue;
        }
        let deadline = Instant::now() + view.row.own_labels.start_wait.map_or(wait, Duration::from_nanos);
        tokio::spawn(async move {
            for (other, condition) in needs {
                if let Err(why) = met(&other, condition, deadline).await {
                    let (container, needed) = (handle.id.short(), other.view().row.name.clone());
                    tracing::warn!(container, needed, condition = condition.word(), why, "started all the same");
                }
            }
            // A container that is gone needs nothing.
            drop(handle.send(Command::Booted).await);
        });
    }
}

/// Waits until the other is in the state; the error tells why it is not.
async fn met(other: &Handle, condition: Condition, deadline: Instant) -> Result<(), String> {
    let mut views = other.watch();
    loop {
        let verdict = look(&views.borrow_and_update().row, condition);
        match verdict {
            Verdict::Met => return Ok(()),
            Verdict::Never(why) => return Err(why),
            Verdict::NotYet => {}
        }
        match timeout_at(deadline, views.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err("it is removed".into()),
            Err(_) => return Err("it took too long".into()),
        }
    }
}

/// Whether a container is in the state that another needs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Met,
    NotYet,
    Never(String),
}

fn look(row: &ContainerRow, condition: Condition) -> Verdict {
    let is_on_its_way = matches!(row.state, State::Restarting | State::Starting { .. });
    let runs = row.state.pid().is_some();
    match condition {
        Condition::Started if runs => Verdict::Met,
        Condition::Healthy if runs => match row.run.health.as_deref().map(|health| health.status) {
            None | Some(Status::Healthy) => Verdict::Met,
            Some(Status::Starting | Status::Unhealthy) => Verdict::NotYet,
        },
        Condition::Completed if row.state == State::Exited && row.run.was_started && !row.run.start_failed => {
            match row.run.exit_code {
                0 => Verdict::Met,
                code => Verdict::Never(format!("it ended with exit code {code}")),
            }
        }
        Condition::Completed if runs => Verdict::NotYet,
        _ if is_on_its_way => Verdict::NotYet,
        _ => Verdict::Never("it does not run".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::container::row::sample;

    #[test]
    fn states_meet_conditions_or_never_will() {
        let running = State::Running { pid: 1 };
        let verdict = |state: State, condition: Condition, status: Option<Status>, code: i32| {
            let mut row = sample(1, state);
            row.run.was_started = true;
            row.run.exit_code = code;
            row.run.health = status.map(|status| Arc::new(model::health::Health { status, ..Default::default() }));
            match look(&row, condition) {
                Verdict::Met => "met",
                Verdict::NotYet => "not yet",
                Verdict::Never(_) => "never",
            }
        };
        use Condition::*;
        for (state, condition, status, code, wanted) in [
            (running, Started, None, 0, "met"),
            (State::Paused { pid: 1 }, Started, None, 0, "met"),
            (State::Restarting, Started, None, 0, "not yet"),
            (State::Starting { first: false }, Started, None, 0, "not yet"),
            (State::Exited, Started, None, 0, "never"),
            (State::Created, Healthy, None, 0, "never"),
            (running, Healthy, None, 0, "met"),
            (running, Healthy, Some(Status::Starting), 0, "not yet"),
            (running, Healthy, Some(Status::Unhealthy), 0, "not yet"),
            (running, Healthy, Some(Status::Healthy), 0, "met"),
            (State::Restarting, Healthy, Some(Status::Healthy), 0, "not yet"),
            (running, Completed, None, 0, "not yet"),
            (State::Exited, Completed, None, 0, "met"),
            (State::Exited, Completed, None, 3, "never"),
            (State::Restarting, Completed, None, 3, "not yet"),
            (State::Created, Completed, None, 0, "never"),
        ] {
            assert_eq!(verdict(state, condition, status, code), wanted, "{state:?} {condition:?} {status:?} {code}");
        }
    }
}
