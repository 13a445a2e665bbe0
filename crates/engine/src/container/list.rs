//! `GET /containers/json`: all containers that pass the filters, newest first, from published views.

use std::sync::Arc;

use model::filter::{Filters, invalid_value};
use model::time::Timestamp;
use model::{Kind, Result};

use super::Handle;
use super::inspect;
use super::row::ContainerRow;
use super::view::ContainerView;
use crate::Engine;

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

const KEYS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATUSES: &[&str] = &["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTH: &[&str] = &["none", "starting", "healthy", "unhealthy"];

/// Lists containers.
pub async fn list(engine: &Arc<Engine>, args: ListArgs) -> Result<Vec<api::ContainerSummary>> {
    let selection = Selection::new(engine, &args)?;
    let mut views: Vec<Arc<ContainerView>> = engine.containers.all().iter().map(Handle::view).collect();
    views.sort_by(|a, b| b.row.created.cmp(&a.row.created).then_with(|| a.row.id.cmp(&b.row.id)));
    views.retain(|view| selection.takes(engine, view));
    if args.limit > 0 {
        views.truncate(args.limit as usize);
    }
    let now = engine.now();
    let mut summaries = Vec::with_capacity(views.len());
    for view in views {
        let mut summary = summary(engine, &view, now);
        if args.size {
            match inspect::sizes(engine, &view.row).await {
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

/// The filters, checked and resolved.
struct Selection<'a> {
    filters: &'a Filters,
    only_running: bool,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    exited: Vec<i32>,
    ancestors: Vec<String>,
}

impl<'a> Selection<'a> {
    fn new(engine: &Engine, args: &'a ListArgs) -> Result<Selection<'a>> {
        let filters = &args.filters;
        filters.validate(KEYS)?;
        for (key, allowed) in [("status", STATUSES), ("health", HEALTH)] {
            if let Some(bad) = filters.get(key).find(|v| !allowed.contains(v)) {
                return Err(invalid_value(key, bad));
            }
        }
        let exited = filters.get("exited").map(|v| v.parse().map_err(|_| invalid_value("exited", v)));
        let created = |key: &str| -> Result<Option<Timestamp>> {
            filters.get(key).map(|name| Ok(engine.containers.find(name)?.view().row.created)).last().transpose()
        };
        filters.flag("is-task", false)?;
        let asks_for_all = ["status", "before", "since", "exited"].iter().any(|key| filters.contains(key));
        Ok(Selection {
            only_running: !args.all && args.limit <= 0 && !asks_for_all,
            before: created("before")?,
            since: created("since")?,
            exited: exited.collect::<Result<_>>()?,
            ancestors: filters.get("ancestor").flat_map(|name| engine.images.ids_of(name)).collect(),
            filters,
        })
    }

    fn takes(&self, engine: &Engine, view: &ContainerView) -> bool {
        let (row, filters) = (&view.row, self.filters);
        let labels = row.config.labels.clone().unwrap_or_default();
        let any = |key: &str, test: &dyn Fn(&str) -> bool| !filters.contains(key) || filters.get(key).any(test);
        let ended_with = |code: &i32| row.state.word() == "exited" && row.run.exit_code == *code;
        (!self.only_running || row.state.is_running())
            && self.before.is_none_or(|before| row.created < before)
            && self.since.is_none_or(|since| row.created > since)
            && (self.exited.is_empty() || self.exited.iter().any(ended_with))
            && any("status", &|word| word == row.state.word())
            && any("health", &|word| word == "none")
            && any("is-task", &|word| matches!(word, "false" | "0"))
            && any("id", &|id| row.id.as_str().starts_with(id))
            && (!filters.contains("name") || name_matches(filters, &row.name))
            && any("network", &|wanted| in_network(engine, row, wanted))
            && any("volume", &|wanted| row.mounts.iter().any(|m| m.name == wanted || m.destination == wanted))
            && any("publish", &|port| publishes(row, port))
            && any("expose", &|port| port_in(port, row.config.exposed_ports.keys().map(String::as_str)))
            && (!filters.contains("ancestor") || self.ancestors.iter().any(|id| id == row.image.id.as_str()))
            && filters.match_kv_list("label", &labels)
    }
}

/// Names match with and without their slash, by regular expression.
fn name_matches(filters: &Filters, name: &str) -> bool {
    filters.pattern_match("name", &format!("/{name}")) || filters.pattern_match("name", name)
}

fn in_network(engine: &Engine, row: &ContainerRow, wanted: &str) -> bool {
    let networks = inspect::networks(engine, &engine.settings(), row);
    networks.iter().any(|(name, endpoint)| name == wanted || endpoint.network_id.starts_with(wanted))
}

/// `80`, `80/tcp`, `8000-8010/udp` against `80/tcp` keys.
fn port_in<'a>(wanted: &str, mut ports: impl Iterator<Item = &'a str>) -> bool {
    let (range, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
        return false;
    };
    ports.any(|port| {
        let (number, own) = port.split_once('/').unwrap_or((port, "tcp"));
        own == protocol && number.parse::<u16>().is_ok_and(|n| (first..=last).contains(&n))
    })
}

/// `publish` means the container's port, as `expose` does.
fn publishes(row: &ContainerRow, wanted: &str) -> bool {
    let bindings = row.host_config.port_bindings.iter().flatten();
    port_in(wanted, bindings.map(|(port, _)| port.as_str()))
}

fn summary(engine: &Engine, view: &ContainerView, now: Timestamp) -> api::ContainerSummary {
    let row = &view.row;
    let mut networks = inspect::networks(engine, &engine.settings(), row);
    for endpoint in networks.values_mut() {
        endpoint.dns_names = None;
    }
    api::ContainerSummary {
        id: row.id.as_str().into(),
        names: vec![format!("/{}", row.name)],
        image: image_name(engine, row),
        image_id: row.image.id.as_str().into(),
        image_manifest_descriptor: inspect::manifest(row),
        command: command_text(&super::facts::command_line(&row.config)),
        created: row.created.unix_seconds(),
        ports: ports(row),
        labels: Some(row.config.labels.clone().unwrap_or_default()),
        state: row.state.word().into(),
        status: status_text(row, now),
        host_config: api::SummaryHostConfig {
            network_mode: row.host_config.network_mode.clone(),
            annotations: row.host_config.annotations.clone(),
        },
        network_settings: Some(api::NetworkSettingsSummary { networks: Some(networks) }),
        mounts: row.mounts.iter().map(inspect::mount_point).collect(),
        ..api::ContainerSummary::default()
    }
}

/// As given at create while that still names the image, else the image's id.
fn image_name(engine: &Engine, row: &ContainerRow) -> String {
    let given = &row.config.image;
    if engine.images.ids_of(given).iter().any(|id| id == row.image.id.as_str()) {
        return given.clone();
    }
    row.image.id.as_str().into()
}

fn ports(row: &ContainerRow) -> Vec<api::PortSummary> {
    let bound = row.endpoints.iter().flat_map(|e| &e.ports);
    let mut ports: Vec<api::PortSummary> = bound
        .map(|port| api::PortSummary {
            ip: port.host_ip.to_string(),
            private_port: port.container_port,
            public_port: port.host_port,
            kind: port.protocol.as_str().into(),
        })
        .collect();
    if row.state.pid().is_none() {
        return ports;
    }
    for exposed in row.config.exposed_ports.keys() {
        let (number, kind) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
        let private_port = number.parse().unwrap_or(0);
        if !ports.iter().any(|p| p.private_port == private_port && p.kind == kind) {
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
        "running" => format!("Up {}", since(run.started_at)),
        "removing" => "Removal In Progress".into(),
        "dead" => "Dead".into(),
        "created" => "Created".into(),
        _ => format!("Exited ({}) {} ago", run.exit_code, since(run.finished_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list entry of wire_facts: arguments with spaces are quoted.
    #[test]
    fn commands_are_quoted() {
        let words = ["sh", "-c", "echo out; exit 5"].map(String::from);
        assert_eq!(command_text(&words), "sh -c 'echo out; exit 5'");
        assert_eq!(command_text(&[]), "");
    }

    #[test]
    fn port_filters_know_ranges_and_protocols() {
        let ports = || ["80/tcp", "53/udp"].into_iter();
        assert!(port_in("80", ports()) && port_in("80/tcp", ports()) && port_in("50-60/udp", ports()));
        assert!(!port_in("53", ports()) && !port_in("x", ports()));
    }
}
