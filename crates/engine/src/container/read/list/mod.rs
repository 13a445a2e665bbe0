//! `GET /containers/json`: all containers that pass the filters, newest first, from published views.

mod selection;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use events::now;
use image::Images;
use model::filter::Filters;
use model::time::Timestamp;
use model::{Kind, Result};
use network::Networks;

use self::selection::{Candidate, Lookup, Selection, place};
use crate::Engine;
use crate::container::Handle;
use crate::container::definition::Definition;
use crate::container::life::links;
use crate::container::read::inspect;
use crate::container::row::ContainerRow;
use crate::container::view::ContainerView;

/// The query of a list call.
#[derive(Clone, Debug, Default)]
pub struct ListArgs {
    /// Also those that do not run.
    pub all: bool,
    /// With sizes.
    pub size: bool,
    /// At most so many, newest first; 0 or less for all.
    pub limit: i64,
    /// Which ones.
    pub filters: Filters,
}

/// Lists containers.
pub async fn list(engine: &Arc<Engine>, args: ListArgs) -> Result<Vec<api::ContainerSummary>> {
    let find = |name: &str| Ok(place(&engine.containers.find(name)?.view().row));
    let id = |prefix: &str| engine.containers.with_prefix(prefix).ok().map(|handle| handle.id.as_str().to_owned());
    let lookup = Lookup { place: &find, id: &id, images: &|name| engine.images.ids_of(name) };
    let selection = Selection::new(&args, &lookup)?;
    let mut views: Vec<Arc<ContainerView>> = engine.containers.all().iter().map(Handle::view).collect();
    views.sort_by_cached_key(|view| place(&view.row));
    let now = now();
    let limit = usize::try_from(args.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let mut images = ImageNames { images: &engine.images, known: HashMap::new() };
    let mut chosen = Vec::new();
    let mut linked = links::names(&|name| engine.containers.view_of(name), &views);
    for view in &views {
        let (ports, networks) = (ports(&engine.networks, &view.row), networks(&engine.networks, &view.row));
        if selection.takes(&Candidate { row: &view.row, ports: &ports, networks: &networks }) {
            let mut summary = summary(&view.row, &mut images, ports, networks, now);
            summary.names.extend(linked.remove(view.row.id.as_str()).unwrap_or_default());
            chosen.push((&view.row, summary));
        }
        if chosen.len() == limit {
            break;
        }
    }
    let mut summaries = Vec::with_capacity(chosen.len());
    for (row, mut summary) in chosen {
        if args.size {
            match inspect::sizes(engine, &row.definition).await {
                Ok((writable, root)) => (summary.size_rw, summary.size_root_fs) = (writable, root),
                // Removed while the list was made.
                Err(error) if error.kind() == Kind::NotFound => continue,
                Err(error) => return Err(error),
            }
        }
        summaries.push(summary);
    }
    Ok(summaries)
}

/// The networks with what the list shows of them: where the container is, not what it asked for.
fn networks(networks: &Networks, row: &ContainerRow) -> BTreeMap<String, api::EndpointSettings> {
    let mut networks = inspect::networks(networks, row);
    for endpoint in networks.values_mut() {
        (endpoint.dns_names, endpoint.aliases, endpoint.links, endpoint.driver_opts) = (None, None, None, None);
        if let Some(ipam) = &mut endpoint.ipam_config {
            ipam.link_local_ips.clear();
        }
    }
    networks
}

fn summary(
    row: &ContainerRow,
    images: &mut ImageNames<'_>,
    ports: Vec<api::PortSummary>,
    networks: BTreeMap<String, api::EndpointSettings>,
    now: Timestamp,
) -> api::ContainerSummary {
    api::ContainerSummary {
        id: row.id.as_str().into(),
        names: vec![format!("/{}", row.name)],
        image: images.name(row),
        image_id: row.image.id.as_str().into(),
        image_manifest_descriptor: inspect::manifest(row),
        command: command_text(&crate::container::definition::command_line(&row.config)),
        created: row.created.unix_seconds(),
        ports,
        labels: Some(row.config.labels.clone().unwrap_or_default()),
        state: row.state.word().into(),
        status: status_text(row, now),
        host_config: api::SummaryHostConfig {
            network_mode: row.host_config.network_mode.clone(),
            annotations: row.host_config.annotations.clone(),
        },
        health: Some(health(row)),
        network_settings: Some(api::NetworkSettingsSummary { networks: Some(networks) }),
        mounts: row.mounts.iter().map(inspect::mount_point).collect(),
        ..api::ContainerSummary::default()
    }
}

fn health(row: &ContainerRow) -> api::HealthSummary {
    let health = row.run.health.as_deref();
    api::HealthSummary {
        status: health.map_or("none", |health| health.status.word()).into(),
        failing_streak: health.map_or(0, |health| i64::from(health.failing_streak)),
    }
}

/// The names of images as the list shows them; each is looked up once.
struct ImageNames<'a> {
    images: &'a Images,
    known: HashMap<String, Vec<String>>,
}

impl ImageNames<'_> {
    /// As given at create while that still names the image, else the image's id.
    fn name(&mut self, row: &Definition) -> String {
        let (given, id) = (&row.config.image, row.image.id.as_str());
        let ids = self.known.entry(given.clone()).or_insert_with(|| self.images.ids_of(given));
        if ids.iter().any(|known| known == id) { given.clone() } else { id.to_owned() }
    }
}

fn ports(known: &Networks, row: &ContainerRow) -> Vec<api::PortSummary> {
    let bound = row.endpoints.iter().flat_map(|e| e.ports.iter());
    let mut ports: Vec<api::PortSummary> = bound
        .map(|port| api::PortSummary {
            ip: port.host_ip.to_string(),
            private_port: port.container_port,
            public_port: port.host_port,
            kind: port.protocol.as_str().into(),
        })
        .collect();
    if row.state.pid().is_none() || !inspect::shows_exposed(known, row) {
        return ports;
    }
    let bound = row.endpoints.iter().flat_map(|e| e.ports.iter());
    let published: HashSet<_> = bound.map(|port| (port.container_port, port.protocol.as_str())).collect();
    for exposed in row.config.exposed_ports.keys() {
        let (number, kind) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
        let private_port = number.parse().unwrap_or(0);
        if !published.contains(&(private_port, kind)) {
            ports.push(api::PortSummary { private_port, kind: kind.into(), ..Default::default() });
        }
    }
    ports
}

/// `sh -c 'echo hi'`: words with spaces in quotes.
fn command_text(words: &[String]) -> String {
    let Some((program, arguments)) = words.split_first() else {
        return String::new();
    };
    let quote = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    let mut text = program.clone();
    for argument in arguments {
        text.push(' ');
        text.push_str(&quote(argument));
    }
    text
}

/// The human status (B-st-2).
fn status_text(row: &ContainerRow, now: Timestamp) -> String {
    let since = |then: Timestamp| {
        let nanos = now.nanos_since(then).max(0);
        model::duration::human(nanos)
    };
    let run = &row.run;
    match row.state.word() {
        "restarting" => format!("Restarting ({}) {} ago", run.exit_code, since(run.finished_at)),
        "paused" => format!("Up {} (Paused)", since(run.started_at)),
        "running" => match run.health.as_deref() {
            Some(health) => format!("Up {} ({})", since(run.started_at), health.status.text()),
            None => format!("Up {}", since(run.started_at)),
        },
        "removing" => "Removal In Progress".into(),
        "dead" => "Dead".into(),
        "created" => "Created".into(),
        _ => format!("Exited ({}) {} ago", run.exit_code, since(run.finished_at)),
    }
}

#[cfg(test)]
mod tests {
    use model::health::{Health, Status};
    use model::lifecycle::State;

    use super::*;

    /// The list entry of wire_facts: arguments with spaces are quoted.
    #[test]
    fn commands_are_quoted() {
        let words = ["sh", "-c", "echo out; exit 5"].map(String::from);
        assert_eq!(command_text(&words), "sh -c 'echo out; exit 5'");
        assert_eq!(command_text(&[]), "");
    }

    /// B-st-2
    #[test]
    fn states_have_words_for_people() {
        let text = |state: State| {
            let mut row = crate::container::row::sample(1, state);
            row.run.finished_at = Timestamp::from_unix_seconds(61);
            status_text(&row, Timestamp::from_unix_seconds(71))
        };
        for (state, words) in [
            (State::Created, "Created"),
            (State::Running { pid: 1 }, "Up About a minute"),
            (State::Stopping { pid: 1 }, "Up About a minute"),
            (State::Paused { pid: 1 }, "Up About a minute (Paused)"),
            (State::Restarting, "Restarting (5) 10 seconds ago"),
            (State::Exited, "Exited (5) 10 seconds ago"),
            (State::Removing, "Removal In Progress"),
            (State::Dead, "Dead"),
        ] {
            assert_eq!(text(state), words);
        }
        let mut row = crate::container::row::sample(1, State::Running { pid: 1 });
        for (status, words) in [
            (Status::Starting, "Up 10 seconds (health: starting)"),
            (Status::Healthy, "Up 10 seconds (healthy)"),
            (Status::Unhealthy, "Up 10 seconds (unhealthy)"),
        ] {
            row.run.health = Some(Health { status, ..Health::default() }.into());
            row.state = State::Running { pid: 1 };
            assert_eq!(status_text(&row, Timestamp::from_unix_seconds(11)), words);
            row.state = State::Paused { pid: 1 };
            assert_eq!(status_text(&row, Timestamp::from_unix_seconds(11)), "Up 10 seconds (Paused)");
        }
    }
}
