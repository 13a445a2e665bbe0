//! What a target can be built with: arguments, secrets, agents.

use std::collections::BTreeSet;

use super::capture::Capture;
use super::job::{Entry, Outline};
use super::plan::Plan;

/// What the target and everything it needs ask for, in the order of the file.
pub(super) fn of(plan: &Plan<'_>, target: usize) -> Outline {
    let mut outline = Outline::default();
    let stage = &plan.stages[target].stage;
    outline.name.clone_from(&stage.name);
    outline.description.clone_from(&stage.description);
    let mut seen = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    for at in in_order(plan, target) {
        let capture = &plan.stages[at].outline;
        for name in with_sources(capture) {
            if let Some(known) = capture.all.get(name)
                && seen[0].insert(name.clone())
            {
                outline.arguments.push(Entry {
                    name: name.clone(),
                    value: known.value.clone(),
                    description: known.description.clone(),
                    required: false,
                    lines: known.lines,
                });
            }
        }
        for (list, known, at) in
            [(&mut outline.secrets, &capture.secrets, 1), (&mut outline.agents, &capture.agents, 2)]
        {
            for (name, (required, lines)) in known {
                if seen[at].insert(name.clone()) {
                    let (name, required, lines) = (name.clone(), *required, *lines);
                    list.push(Entry { name, required, lines, ..Entry::default() });
                }
            }
        }
    }
    for list in [&mut outline.arguments, &mut outline.secrets, &mut outline.agents] {
        list.sort_by_key(|entry| entry.lines.first);
    }
    outline
}

/// The target, what it is based on, then what each takes files from.
fn in_order(plan: &Plan<'_>, target: usize) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    let mut open = vec![target];
    while let Some(at) = open.pop() {
        if seen.insert(at) {
            order.push(at);
            let state = &plan.stages[at];
            open.extend(state.needs.iter().rev().map(|(source, _)| *source));
            open.extend(state.on);
        }
    }
    order
}

/// Arguments that are used, and those that their values are made from.
fn with_sources(capture: &Capture) -> BTreeSet<&String> {
    let mut used = BTreeSet::new();
    let mut open: Vec<&String> = capture.used.iter().collect();
    while let Some(name) = open.pop() {
        if used.insert(name)
            && let Some(known) = capture.all.get(name)
        {
            open.extend(&known.uses);
        }
    }
    used
}
