//! Measures of structure: import circles, fan-in, methods of a type, parameters, public items.
//!
//! Each is one figure for the whole repository, so that files may move; code for tests does not count.

use std::collections::{BTreeMap, BTreeSet};

use super::circles;
use super::items::{self, Declared};
use super::modules::{self, Crate};
use super::ratchet::Measure;
use super::sources::Source;

/// Parameters that a function may have, `self` included (`clippy.toml` has the same bound).
const PARAMETERS: usize = 5;
/// Packages whose code is no part of the product.
const DEVELOPMENT: [&str; 5] = ["crates/cases", "crates/properties", "crates/testkit", "tests", "xtask"];

/// A crate with what its files declare, in the order of the files.
struct Read {
    own: Crate,
    declared: Vec<Declared>,
}

/// Every figure.
pub fn measure(sources: &[Source]) -> Result<Vec<Measure>, String> {
    let crates: Vec<Read> = modules::crates(sources)?
        .into_iter()
        .map(|own| Read { declared: own.files.iter().map(|f| items::declared(&f.syntax.items)).collect(), own })
        .collect();
    let mut all = Vec::from(imports(&crates));
    all.push(methods(&crates));
    all.push(takers(&crates));
    all.push(tuples(&crates));
    let product: Vec<&Read> = crates.iter().filter(|c| !DEVELOPMENT.contains(&c.own.place.as_str())).collect();
    all.extend(uncalled(&product, &crates, sources));
    all.extend(undocumented(&product));
    Ok(all)
}

fn ratchet(name: &'static str, value: usize, offenders: Vec<String>) -> Measure {
    Measure { name, value, offenders, fixed: None }
}

/// Circles between folders, and the file that most others need.
fn imports(crates: &[Read]) -> [Measure; 3] {
    let mut circles = Vec::new();
    let mut across = Vec::new();
    let mut fan_in = Vec::new();
    for Read { own, .. } in crates {
        let edges = own.edges();
        for circle in circles::circles(&edges) {
            let folders: BTreeSet<String> = circle.iter().map(|at| own.files[*at].folder(&own.files)).collect();
            let entry = (circle.len(), show(own, &circle, &edges));
            if folders.len() > 1 {
                across.push(entry.clone());
            }
            circles.push(entry);
        }
        for (at, file) in own.files.iter().enumerate() {
            let count = edges.iter().filter(|to| to.contains(&at)).count();
            fan_in.push((count, format!("{} ({count})", file.path)));
        }
    }
    [
        total("files in import circles", circles),
        total("files in import circles across folders", across),
        worst("files of a crate that import one of its files", fan_in),
    ]
}

/// Each file of a circle, with the files of the circle that it imports.
fn show(own: &Crate, circle: &[usize], edges: &[BTreeSet<usize>]) -> String {
    let name = |at: &usize| own.files[*at].path.trim_start_matches(own.place.as_str()).trim_start_matches("/src/");
    let line = |at: &usize| {
        let inside: Vec<&str> = edges[*at].iter().filter(|to| circle.contains(to)).map(name).collect();
        format!("\n      {} imports {}", name(at), inside.join(" "))
    };
    format!("{} {} files:{}", own.place, circle.len(), circle.iter().map(line).collect::<String>())
}

fn total(name: &'static str, entries: Vec<(usize, String)>) -> Measure {
    ratchet(name, entries.iter().map(|(count, _)| count).sum(), entries.into_iter().map(|(_, shown)| shown).collect())
}

/// The highest count and the three that are nearest to it.
fn worst(name: &'static str, mut entries: Vec<(usize, String)>) -> Measure {
    entries.sort_by(|a, b| b.cmp(a));
    let value = entries.first().map_or(0, |(count, _)| *count);
    ratchet(name, value, entries.into_iter().take(3).map(|(_, shown)| shown).collect())
}

fn methods(crates: &[Read]) -> Measure {
    let mut entries = Vec::new();
    for Read { own, declared } in crates {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, count) in declared.iter().flat_map(|d| &d.methods) {
            *counts.entry(name).or_default() += count;
        }
        entries.extend(counts.into_iter().map(|(name, count)| (count, format!("{} {name} ({count})", own.place))));
    }
    worst("methods of a type", entries)
}

/// Functions of a crate that take one of its types. Handlers of requests do not count: each takes the request and the
/// daemon's state by its signature.
fn takers(crates: &[Read]) -> Measure {
    let mut entries = Vec::new();
    for Read { own, declared } in crates.iter().filter(|c| c.own.place != "crates/server") {
        let types: BTreeSet<&String> = declared.iter().flat_map(|d| &d.types).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for word in declared.iter().flat_map(|d| &d.functions).flat_map(|f| &f.types).filter(|w| types.contains(w)) {
            *counts.entry(word).or_default() += 1;
        }
        entries.extend(counts.into_iter().map(|(name, count)| (count, format!("{} {name} ({count})", own.place))));
    }
    worst("functions of a crate that take one of its types", entries)
}

/// Functions that keep to the bound on parameters only because a tuple counts as one.
fn tuples(crates: &[Read]) -> Measure {
    let files = crates.iter().flat_map(|c| c.own.files.iter().zip(&c.declared));
    let offenders: Vec<String> = files
        .flat_map(|(file, declared)| declared.functions.iter().map(move |f| (file, f)))
        .filter(|(_, f)| f.count <= PARAMETERS && f.flat > PARAMETERS)
        .map(|(file, f)| format!("{} {} ({})", file.path, f.name, f.flat))
        .collect();
    ratchet("functions that hide parameters in tuples", offenders.len(), offenders)
}

/// Public items that nothing names, and those that only tests name.
fn uncalled(product: &[&Read], crates: &[Read], sources: &[Source]) -> [Measure; 2] {
    let mut declaring: BTreeMap<&str, usize> = BTreeMap::new();
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for word in product.iter().flat_map(|c| &c.declared).flat_map(|d| &d.declaring) {
        *declaring.entry(word).or_default() += 1;
    }
    for (word, count) in product.iter().flat_map(|c| &c.own.files).flat_map(|f| &f.named.identifiers) {
        *named.entry(word).or_default() += count;
    }
    let tests = words_of_tests(product, crates, sources);
    let mut nowhere = Vec::new();
    let mut tested = Vec::new();
    for Read { own, declared } in product {
        for (file, public) in own.files.iter().zip(declared).flat_map(|(f, d)| d.public.iter().map(move |p| (f, p))) {
            let name = public.name.as_str();
            if public.part || named.get(name) > declaring.get(name) {
                continue;
            }
            let shown = format!("{} {}", file.path, public.shown);
            if tests.contains(name) { tested.push(shown) } else { nowhere.push(shown) }
        }
    }
    [
        ratchet("public items that nothing uses", nowhere.len(), nowhere),
        ratchet("public items that only tests use", tested.len(), tested),
    ]
}

/// Every word of tests: of test modules, test programs and packages of development.
fn words_of_tests(product: &[&Read], crates: &[Read], sources: &[Source]) -> BTreeSet<String> {
    let files: BTreeSet<&str> = product.iter().flat_map(|c| &c.own.files).map(|f| f.path.as_str()).collect();
    let inner = crates.iter().flat_map(|c| &c.own.files).flat_map(|f| f.named.in_tests.keys().cloned());
    let others = sources.iter().filter(|s| !files.contains(s.path.display().to_string().as_str()));
    let texts = others.flat_map(|s| &s.lines).flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
    inner.chain(texts.map(String::from)).collect()
}

/// Public items without a doc comment, per mille of all.
fn undocumented(product: &[&Read]) -> [Measure; 2] {
    let share = |name, part: bool| {
        let files = product.iter().flat_map(|c| c.own.files.iter().zip(&c.declared));
        let all: Vec<(String, bool)> = files
            .flat_map(|(f, d)| d.public.iter().map(move |p| (f, p)))
            .filter(|(_, p)| p.part == part)
            .map(|(f, p)| (format!("{} {}", f.path, p.shown), p.documented))
            .collect();
        let without: Vec<String> = all.iter().filter(|(_, documented)| !documented).map(|(s, _)| s.clone()).collect();
        ratchet(name, (without.len() * 1000).div_ceil(all.len().max(1)), without)
    };
    [
        share("public items without documentation, per mille", false),
        share("public fields and variants without documentation, per mille", true),
    ]
}
