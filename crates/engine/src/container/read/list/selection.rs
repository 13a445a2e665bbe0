//! Which containers a list shows: the filters, checked once and then asked per container. Pure.
//!
//! The place of a container in the list is its creation time, then its id; `before` and `since` name such a place.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use model::filter::{Patterns, invalid_value};
use model::port::PortRange;
use model::time::Timestamp;
use model::{Error, Result};

use super::ListArgs;
use crate::container::definition::Definition;
use crate::container::row::ContainerRow;

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

/// A container's place in the list: newest first.
pub type Place = (Reverse<Timestamp>, String);

/// The place of a container.
pub fn place(row: &Definition) -> Place {
    (Reverse(row.created), row.id.as_str().to_owned())
}

/// What has to be looked up to ask one container.
pub struct Candidate<'a> {
    /// The container.
    pub row: &'a ContainerRow,
    /// Its ports as the list shows them.
    pub ports: &'a [api::PortSummary],
    /// Its networks as the list shows them.
    pub networks: &'a BTreeMap<String, api::EndpointSettings>,
}

/// Looks up what filters name.
pub struct Lookup<'a> {
    /// The place of a container by name or id.
    pub place: &'a (dyn Fn(&str) -> Result<Place> + Sync),
    /// The id that begins so, if there is one only.
    pub id: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// The ids of images that a name stands for.
    pub images: &'a (dyn Fn(&str) -> Vec<String> + Sync),
}

/// The filters, checked and looked up.
pub struct Selection<'a> {
    args: &'a ListArgs,
    only_running: bool,
    before: Option<Place>,
    since: Option<Place>,
    exited: Vec<i32>,
    names: Patterns,
    ids: Vec<String>,
    ancestors: Vec<String>,
    published: Vec<PortRange>,
    exposed: Vec<PortRange>,
}

impl<'a> Selection<'a> {
    /// Checks the filters.
    pub fn new(args: &'a ListArgs, lookup: &Lookup<'_>) -> Result<Selection<'a>> {
        let filters = &args.filters;
        filters.validate(KEYS)?;
        let exited = filters.get("exited").map(|code| {
            let why = |_| Error::invalid(format!("strconv.Atoi: parsing {code:?}: invalid syntax"));
            code.parse().map_err(why).map_err(|e| e.prefix(invalid_value("exited", code)))
        });
        let exited = exited.collect::<Result<_>>()?;
        for (key, noun, allowed) in [("status", "state", STATUSES), ("health", "health", HEALTH)] {
            if let Some(bad) = filters.get(key).find(|value| !allowed.contains(value)) {
                let why = format!("invalid value for {noun} ({bad}): must be one of {}", allowed.join(", "));
                return Err(Error::invalid(why).prefix(invalid_value(key, bad)));
            }
        }
        filters.flag("is-task", false)?;
        let place = |key: &str| filters.get(key).map(lookup.place).last().transpose();
        let ports = |key: &str| filters.get(key).map(|value| port_range(key, value)).collect::<Result<Vec<_>>>();
        let asks_for_status = filters.get("status").next().is_some();
        Ok(Selection {
            args,
            only_running: !args.all && args.limit <= 0 && !asks_for_status,
            before: place("before")?,
            since: place("since")?,
            exited,
            names: filters.patterns("name"),
            ids: filters.get("id").filter_map(lookup.id).collect(),
            ancestors: filters.get("ancestor").flat_map(lookup.images).collect(),
            published: ports("publish")?,
            exposed: ports("expose")?,
        })
    }

    /// Whether the list shows this container.
    pub fn takes(&self, candidate: &Candidate<'_>) -> bool {
        let (row, filters) = (candidate.row, &self.args.filters);
        let none = BTreeMap::new();
        let labels = row.config.labels.as_ref().unwrap_or(&none);
        (!self.only_running || row.state.is_running())
            && self.is_between(row)
            && (self.names.matches(&row.name) || self.names.matches(&format!("/{}", row.name)))
            && (!filters.contains("id") || self.ids.iter().any(|id| id == row.id.as_str()))
            && filters.match_kv_list("label", labels)
            && self.ended_as_asked(row)
            && filters.exact_match("status", row.state.word())
            && filters.exact_match("health", row.run.health.as_deref().map_or("none", |health| health.status.word()))
            // Containers of services do not exist here.
            && !filters.flag("is-task", false).unwrap_or(false)
            && (!filters.contains("volume") || filters.get("volume").any(|wanted| mounts(row, wanted)))
            && (!filters.contains("ancestor") || self.ancestors.iter().any(|id| id == row.image.id.as_str()))
            && (!filters.contains("network") || self.in_network(candidate.networks))
            && self.has_port(candidate.ports)
    }

    fn is_between(&self, row: &Definition) -> bool {
        if self.before.is_none() && self.since.is_none() {
            return true;
        }
        let own = place(row);
        self.before.as_ref().is_none_or(|before| own > *before) && self.since.as_ref().is_none_or(|since| own < *since)
    }

    fn ended_as_asked(&self, row: &ContainerRow) -> bool {
        let ended = !row.state.is_running() && !row.run.started_at.is_zero();
        self.exited.is_empty() || (ended && self.exited.contains(&row.run.exit_code))
    }

    fn in_network(&self, networks: &BTreeMap<String, api::EndpointSettings>) -> bool {
        let mut wanted = self.args.filters.get("network");
        wanted
            .any(|wanted| networks.contains_key(wanted) || networks.values().any(|n| n.network_id.starts_with(wanted)))
    }

    /// A port that is published, or one that is exposed, as asked for; one of both is enough.
    fn has_port(&self, ports: &[api::PortSummary]) -> bool {
        if self.published.is_empty() && self.exposed.is_empty() {
            return true;
        }
        let one_of = |ranges: &[PortRange], number: u16, protocol: &str| {
            ranges.iter().any(|range| range.protocol == protocol && (range.first..=range.last).contains(&number))
        };
        ports.iter().any(|port| {
            one_of(&self.published, port.public_port, &port.kind)
                || one_of(&self.exposed, port.private_port, &port.kind)
        })
    }
}

/// By the volume's name or the host's path, or by the path in the container.
fn mounts(row: &Definition, wanted: &str) -> bool {
    row.mounts.iter().any(|mount| {
        let source = if mount.name.is_empty() { &mount.source } else { &mount.name };
        source == wanted || mount.destination == wanted
    })
}

/// The reference answers 500 to a bad value here.
fn port_range(key: &str, value: &str) -> Result<PortRange> {
    if value.contains(':') {
        return Err(Error::system(format!("filter for '{key}' should not contain ':': {value}")));
    }
    PortRange::parse(value).map_err(|e| Error::system(format!("error while looking up for {key} {value}: {e}")))
}

#[cfg(test)]
mod tests {
    use model::digest::Digest;
    use model::filter::Filters;
    use model::id::ContainerId;
    use model::lifecycle::State;

    use super::*;
    use crate::container::row::sample as row;

    fn lookup<T>(ask: impl FnOnce(&Lookup<'_>) -> T) -> T {
        let place = |name: &str| match name {
            "web2" => Ok(place(&row(2, State::Exited))),
            other => Err(crate::container::no_such(other)),
        };
        let images = |name: &str| match name {
            "busybox" => vec![Digest::from_sha256(&[7; 32]).to_string()],
            _ => Vec::new(),
        };
        let id = |prefix: &str| {
            let mut ids = [1, 2, 3].map(|number| ContainerId::from_bytes([number; 32]).as_str().to_owned()).into_iter();
            ids.find(|id| !prefix.is_empty() && id.starts_with(prefix)).filter(|_| prefix != "0")
        };
        ask(&Lookup { place: &place, id: &id, images: &images })
    }

    /// Numbers of the chosen ones of three containers: 1 and 2 exited, 3 running with 80 published on 8080.
    fn chosen(args: &ListArgs) -> Vec<u8> {
        let rows = [row(1, State::Exited), row(2, State::Exited), row(3, State::Running { pid: 9 })];
        let ports =
            [api::PortSummary { private_port: 80, public_port: 8080, kind: "tcp".into(), ..Default::default() }];
        let endpoint = api::EndpointSettings { network_id: "abc".into(), ..Default::default() };
        let networks = BTreeMap::from([("bridge".to_string(), endpoint)]);
        let selection = lookup(|lookup| Selection::new(args, lookup)).expect("good filters");
        let takes = |row: &&ContainerRow| {
            let ports = if row.state.is_running() { &ports[..] } else { &[] };
            selection.takes(&Candidate { row, ports, networks: &networks })
        };
        rows.iter().filter(takes).map(|row| row.id.as_str().as_bytes()[1] - b'0').collect()
    }

    fn args(json: &str) -> ListArgs {
        ListArgs { all: true, filters: Filters::parse(json).expect("filters"), ..ListArgs::default() }
    }

    #[test]
    fn without_filters_only_running_containers_are_shown() {
        assert_eq!(chosen(&ListArgs::default()), [3]);
        assert_eq!(chosen(&ListArgs { all: true, ..ListArgs::default() }), [1, 2, 3]);
        assert_eq!(chosen(&ListArgs { limit: 1, ..ListArgs::default() }), [1, 2, 3]);
        assert_eq!(chosen(&ListArgs { all: false, ..args(r#"{"status":["exited"]}"#) }), [1, 2]);
        assert_eq!(chosen(&ListArgs { all: false, ..args(r#"{"exited":["5"]}"#) }), [0u8; 0]);
    }

    #[test]
    fn each_filter_chooses() {
        for (json, numbers) in [
            (r#"{"before":["web2"]}"#, &[1][..]),
            (r#"{"since":["web2"]}"#, &[3]),
            (r#"{"name":["^/web[12]$"]}"#, &[1, 2]),
            (r#"{"name":["web3","web1"]}"#, &[1, 3]),
            (r#"{"id":["0202"]}"#, &[2]),
            (r#"{"id":["0202","0101"]}"#, &[1, 2]),
            (r#"{"id":["0"]}"#, &[]),
            (r#"{"id":[""]}"#, &[]),
            (r#"{"exited":["5"]}"#, &[1, 2]),
            (r#"{"exited":["6"]}"#, &[]),
            (r#"{"label":["k=v"]}"#, &[1, 2, 3]),
            (r#"{"label":["k=w"]}"#, &[]),
            (r#"{"network":["bridge"]}"#, &[1, 2, 3]),
            (r#"{"network":["ab"]}"#, &[1, 2, 3]),
            (r#"{"network":["other"]}"#, &[]),
            (r#"{"publish":["8000-8100/tcp"]}"#, &[3]),
            (r#"{"publish":["80"]}"#, &[]),
            (r#"{"expose":["80"]}"#, &[3]),
            (r#"{"ancestor":["busybox"]}"#, &[1, 2, 3]),
            (r#"{"ancestor":["nosuch"]}"#, &[]),
            (r#"{"health":["none"]}"#, &[1, 2, 3]),
            (r#"{"health":["healthy"]}"#, &[]),
            (r#"{"is-task":["false"]}"#, &[1, 2, 3]),
            (r#"{"is-task":["true"]}"#, &[]),
            (r#"{"volume":["data"]}"#, &[]),
        ] {
            assert_eq!(chosen(&args(json)), numbers, "{json}");
        }
    }

    /// The texts of `bad filter key`, `bad filter value` and their like.
    #[test]
    fn bad_filters_are_refused_in_the_references_words() {
        for (json, message) in [
            (r#"{"zz":["1"]}"#, "invalid filter 'zz'"),
            (
                r#"{"status":["zz"]}"#,
                "invalid filter 'status=zz': invalid value for state (zz): must be one of created, running, paused, \
                 restarting, removing, exited, dead",
            ),
            (
                r#"{"health":["zz"]}"#,
                "invalid filter 'health=zz': invalid value for health (zz): must be one of none, starting, healthy, \
                 unhealthy",
            ),
            (r#"{"exited":["x"]}"#, "invalid filter 'exited=x': strconv.Atoi: parsing \"x\": invalid syntax"),
            (r#"{"is-task":["x"]}"#, "invalid filter 'is-task=[x]'"),
            (r#"{"before":["zzz"]}"#, "No such container: zzz"),
            (r#"{"publish":["1:2"]}"#, "filter for 'publish' should not contain ':': 1:2"),
            (r#"{"expose":["x"]}"#, "error while looking up for expose x: invalid start port 'x': invalid syntax"),
        ] {
            let error = lookup(|lookup| Selection::new(&args(json), lookup).err()).expect("is refused");
            assert_eq!(error.message(), message);
        }
    }
}
