//! The order in which containers are started: who needs whom, in which state, and what of it leads in a circle.
//!
//! A container that needs another is started behind it. A dependency that leads in a circle is one that nobody can keep: it is
//! named and left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// The state in which a container has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It runs.
    Started,
    /// It is healthy, or runs without a health check.
    Healthy,
    /// It has run and ended with exit code 0.
    Completed,
}

impl Condition {
    /// Compose's word; others are taken for the weakest, as Compose does with those that it does not know.
    pub fn of_compose(word: &str) -> Condition {
        match word {
            "service_healthy" => Condition::Healthy,
            "service_completed_successfully" => Condition::Completed,
            _ => Condition::Started,
        }
    }

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Condition::Started => "started",
            Condition::Healthy => "healthy",
            Condition::Completed => "completed successfully",
        }
    }
}

/// One dependency.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Need {
    /// Whom: an id.
    pub on: String,
    /// In which state.
    pub condition: Condition,
    /// What says so: `network`, `ipc`, `pid`, `volumes-from`, `link`, `compose`.
    pub origin: String,
}

/// A service that Compose's label names, with its condition. The label is a list of `service:condition:restart`, in which the
/// words behind the service may be missing.
pub fn compose_services(label: &str) -> Vec<(&str, Condition)> {
    let entries = label.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let service = |entry: &'_ str| {
        let mut words = entry.split(':');
        let name = words.next().unwrap_or_default().trim().len();
        (name, Condition::of_compose(words.next().unwrap_or_default().trim()))
    };
    let named = entries.map(|entry| {
        let (length, condition) = service(entry);
        (&entry[..length], condition)
    });
    named.filter(|(name, _)| !name.is_empty()).collect()
}

/// Who needs whom, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    needs: BTreeMap<String, Vec<Need>>,
    cycles: Vec<Cycle>,
}

/// Containers that need each other; the first comes once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cycle(pub Vec<String>);

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.0.first().map(String::as_str);
        let all: Vec<&str> = self.0.iter().map(String::as_str).chain(first).collect();
        f.write_str(&all.join(" -> "))
    }
}

impl Order {
    /// Puts needs in order; those that lead in a circle are taken out and named.
    pub fn new(mut needs: BTreeMap<String, Vec<Need>>) -> Order {
        for (id, needs) in &mut needs {
            needs.retain(|need| need.on != *id);
            needs.sort();
            needs.dedup();
        }
        let mut cycles = Vec::new();
        while let Some(cycle) = find_cycle(&needs) {
            for (index, id) in cycle.iter().enumerate() {
                let next = &cycle[(index + 1) % cycle.len()];
                if let Some(needs) = needs.get_mut(id) {
                    needs.retain(|need| need.on != *next);
                }
            }
            cycles.push(Cycle(cycle));
        }
        Order { needs, cycles }
    }

    /// What this one needs.
    pub fn needs(&self, id: &str) -> &[Need] {
        self.needs.get(id).map_or(&[], Vec::as_slice)
    }

    /// What led in a circle.
    pub fn cycles(&self) -> &[Cycle] {
        &self.cycles
    }

    /// Ids by steps: whoever is in a step needs nobody of it or of a later one.
    pub fn steps(&self) -> Vec<Vec<&str>> {
        let mut left: BTreeSet<&str> = self.needs.keys().map(String::as_str).collect();
        let mut steps = Vec::new();
        while !left.is_empty() {
            let is_free = |id: &&str| self.needs(id).iter().all(|need| !left.contains(need.on.as_str()));
            let step: Vec<&str> = left.iter().copied().filter(is_free).collect();
            if step.is_empty() {
                // Unreachable: no cycle is left.
                steps.push(left.into_iter().collect());
                return steps;
            }
            step.iter().for_each(|id| _ = left.remove(id));
            steps.push(step);
        }
        steps
    }
}

/// Where a walk has been.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    OnTheWay,
    Done,
}

/// One cycle, if there is any. Without recursion: chains are as long as users make them.
fn find_cycle(needs: &BTreeMap<String, Vec<Need>>) -> Option<Vec<String>> {
    let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
    for start in needs.keys() {
        let mut way: Vec<(&str, usize)> = vec![(start, 0)];
        if seen.contains_key(start.as_str()) {
            continue;
        }
        seen.insert(start, Seen::OnTheWay);
        while let Some((id, next)) = way.last_mut() {
            let need = needs.get(*id).and_then(|needs| needs.get(*next));
            let Some(need) = need else {
                seen.insert(id, Seen::Done);
                way.pop();
                continue;
            };
            *next += 1;
            match seen.get(need.on.as_str()) {
                Some(Seen::Done) => {}
                Some(Seen::OnTheWay) => {
                    let begin = way.iter().position(|(id, _)| *id == need.on)?;
                    return Some(way[begin..].iter().map(|(id, _)| (*id).to_owned()).collect());
                }
                None => {
                    seen.insert(&need.on, Seen::OnTheWay);
                    way.push((&need.on, 0));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(edges: &[(&str, &str)]) -> Order {
        let mut needs: BTreeMap<String, Vec<Need>> = BTreeMap::new();
        for (from, to) in edges {
            let need = Need { on: (*to).into(), condition: Condition::Started, origin: "link".into() };
            needs.entry((*to).into()).or_default();
            needs.entry((*from).into()).or_default().push(need);
        }
        Order::new(needs)
    }

    #[test]
    fn who_is_needed_comes_first() {
        let order = order(&[("web", "db"), ("web", "cache"), ("proxy", "web"), ("db", "disk")]);
        assert_eq!(order.steps(), [vec!["cache", "disk"], vec!["db"], vec!["web"], vec!["proxy"]]);
        assert!(order.cycles().is_empty());
        assert_eq!(order.needs("web").len(), 2);
        assert_eq!(order.needs("nobody"), []);
    }

    #[test]
    fn circles_are_named_and_left_out() {
        let order = order(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"), ("e", "e"), ("f", "g"), ("g", "f")]);
        let cycles: Vec<String> = order.cycles().iter().map(Cycle::to_string).collect();
        assert_eq!(cycles, ["a -> b -> c -> a", "f -> g -> f"]);
        assert_eq!(order.needs("d").len(), 1);
        assert_eq!(order.steps(), [vec!["a", "b", "c", "e", "f", "g"], vec!["d"]]);
    }

    #[test]
    fn a_long_chain_is_no_burden() {
        let names: Vec<String> = (0..20_000).map(|n| format!("{n:05}")).collect();
        let edges: Vec<(&str, &str)> = names.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
        assert!(order(&edges).cycles().is_empty());
    }

    #[test]
    fn composes_label_is_read() {
        use Condition::*;
        assert_eq!(compose_services(""), []);
        assert_eq!(
            compose_services("db:service_healthy:false,migrate:service_completed_successfully:true, cache ,x:y,:z"),
            [("db", Healthy), ("migrate", Completed), ("cache", Started), ("x", Started)]
        );
    }

    proptest! {
        /// Whatever is asked for: everybody is in one step, behind those that it still needs.
        #[test]
        fn every_order_is_one(edges in proptest::collection::vec((0_u8..12, 0_u8..12), 0..40)) {
            let names: Vec<String> = (0..12).map(|n| format!("c{n:02}")).collect();
            let edges: Vec<_> = edges.iter().map(|(a, b)| (names[usize::from(*a)].as_str(), names[usize::from(*b)].as_str())).collect();
            let order = order(&edges);
            let steps = order.steps();
            let place = |id: &str| steps.iter().position(|step| step.contains(&id));
            for id in edges.iter().flat_map(|(a, b)| [a, b]) {
                for need in order.needs(id) {
                    prop_assert!(place(&need.on) < place(id));
                }
            }
            let all: Vec<_> = steps.iter().flatten().collect();
            prop_assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len());
        }

        #[test]
        fn any_label_is_read(label in "[a-z:, ]{0,40}") {
            for (service, _) in compose_services(&label) {
                prop_assert!(!service.is_empty() && label.contains(service));
            }
        }
    }
}
