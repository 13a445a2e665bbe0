//! Rules about packages: layers, licences, duplicate versions, reasons for dependencies.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde_json::Value;

use crate::shell;

/// Licences that may be in the product. Everything else needs a written decision.
const LICENCES: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    // zlib's terms and, as in BSD-3-Clause, no use of the author's name.
    "bzip2-1.0.6",
];
/// Packages of which two versions are known and tolerated, with the reason.
const DUPLICATES: &str = "xtask/duplicates.txt";

/// Everything wrong with packages.
pub fn check(root: &Path) -> Result<Vec<String>, String> {
    let args = ["metadata", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"];
    let text = shell::output(&mut shell::cargo(&args))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let packages = packages(&metadata);
    let mut faults = layers(&packages);
    faults.extend(packages.iter().filter_map(licence_fault));
    faults.extend(duplicates(root, &packages));
    faults.extend(reasons(root));
    faults.extend(unused(root, &packages));
    Ok(faults)
}

/// A package of the dependency graph.
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    licence: &'a str,
    own: bool,
    layer: Option<u64>,
    dev: bool,
    /// Its directory below the root.
    place: &'a str,
    /// Name and kind (`normal`, `dev`, `build`) of dependencies.
    dependencies: Vec<(&'a str, &'a str)>,
}

fn packages(metadata: &Value) -> Vec<Package<'_>> {
    let top = metadata["workspace_root"].as_str().unwrap_or_default();
    let array = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let resolved: HashSet<String> =
        array(&metadata["resolve"]["nodes"]).iter().filter_map(|n| n["id"].as_str().map(String::from)).collect();
    let own: HashSet<String> =
        array(&metadata["workspace_members"]).iter().filter_map(|v| v.as_str().map(String::from)).collect();
    let all = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter()
        .filter(|p| p["id"].as_str().is_some_and(|id| resolved.contains(id)))
        .map(|p| Package {
            name: p["name"].as_str().unwrap_or_default(),
            version: p["version"].as_str().unwrap_or_default(),
            licence: p["license"].as_str().unwrap_or_default(),
            own: p["id"].as_str().is_some_and(|id| own.contains(id)),
            layer: p["metadata"]["gantry"]["layer"].as_u64(),
            dev: p["metadata"]["gantry"]["dev"].as_bool().unwrap_or(false),
            place: p["manifest_path"]
                .as_str()
                .and_then(|m| m.strip_prefix(top)?.trim_start_matches('/').strip_suffix("/Cargo.toml"))
                .unwrap_or_default(),
            dependencies: p["dependencies"].as_array().map(|list| list.iter().map(edge).collect()).unwrap_or_default(),
        })
        .collect()
}

fn edge(dependency: &Value) -> (&str, &str) {
    (dependency["name"].as_str().unwrap_or_default(), dependency["kind"].as_str().unwrap_or("normal"))
}

/// A crate depends only on crates of a lower layer; development crates only serve tests.
fn layers(packages: &[Package<'_>]) -> Vec<String> {
    let own: HashMap<&str, &Package<'_>> = packages.iter().filter(|p| p.own).map(|p| (p.name, p)).collect();
    let mut faults = Vec::new();
    for package in own.values() {
        let Some(layer) = package.layer else {
            faults.push(format!("{}: no layer in [package.metadata.gantry]", package.name));
            continue;
        };
        for (name, kind) in &package.dependencies {
            let Some(lower) = own.get(name) else { continue };
            if lower.dev && !package.dev && *kind != "dev" {
                faults.push(format!("{}: depends on the development crate {name}", package.name));
            }
            let rule = !package.dev && *kind != "dev";
            if rule && lower.layer.is_none_or(|l| l >= layer) {
                faults.push(format!(
                    "{} (layer {layer}) depends on {name} (layer {}): only lower layers are allowed",
                    package.name,
                    lower.layer.map_or("none".into(), |l| l.to_string())
                ));
            }
        }
    }
    faults.sort();
    faults
}

fn licence_fault(package: &Package<'_>) -> Option<String> {
    if permitted(package.licence) {
        return None;
    }
    Some(format!("{} {}: licence {:?} is not among those allowed", package.name, package.version, package.licence))
}

/// One alternative of an `OR`, all parts of an `AND`.
fn permitted(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let all = |group: &str| {
        let group = group.trim().trim_start_matches('(').trim_end_matches(')');
        group.split(" AND ").all(|part| LICENCES.contains(&part.trim()))
    };
    let any = |group: &str| {
        let inner = group.trim().trim_start_matches('(').trim_end_matches(')');
        inner.split(" OR ").any(all)
    };
    // `(A OR B) AND C`: every parenthesised or plain part on its own.
    if expression.contains(") AND ") || expression.contains(" AND (") {
        return expression.split(" AND ").all(any);
    }
    any(&expression)
}

fn duplicates(root: &Path, packages: &[Package<'_>]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(package.name).or_default().push(package.version);
    }
    versions.retain(|_, list| list.len() > 1);
    let text = std::fs::read_to_string(root.join(DUPLICATES)).unwrap_or_default();
    let allowed: HashSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(':'))
        .filter(|(_, reason)| !reason.trim().is_empty())
        .map(|(name, _)| name.trim())
        .collect();
    let mut faults: Vec<String> = versions
        .iter()
        .filter(|(name, _)| !allowed.contains(*name))
        .map(|(name, list)| {
            format!("{name} occurs as {}: align them or give the reason in {DUPLICATES}", list.join(" and "))
        })
        .collect();
    let stale = allowed.iter().filter(|name| !versions.contains_key(*name));
    faults.extend(stale.map(|name| format!("{DUPLICATES}: {name} is no duplicate any more")));
    faults
}

/// Dependencies that no source file of their crate names, and entries of the workspace that no crate takes.
fn unused(root: &Path, packages: &[Package<'_>]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut taken: HashSet<&str> = HashSet::new();
    for package in packages.iter().filter(|p| p.own) {
        let text = all_sources(&root.join(package.place));
        for (name, _) in &package.dependencies {
            taken.insert(name);
            if !text.contains(&name.replace('-', "_")) {
                faults.push(format!("{}: the dependency {name} is named nowhere", package.name));
            }
        }
    }
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default();
    let section =
        manifest.split("[workspace.dependencies]").nth(1).and_then(|s| s.split("\n[").next()).unwrap_or_default();
    let names = section
        .lines()
        .filter(|l| !l.starts_with('#') && !l.contains("path = "))
        .filter_map(|l| l.split_once('='))
        .map(|(n, _)| n.trim());
    faults.extend(names.filter(|n| !taken.contains(n)).map(|n| format!("Cargo.toml: no crate takes {n}")));
    faults
}

/// All Rust text below a directory, nested packages not told apart.
fn all_sources(dir: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text.push_str(&all_sources(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap_or_default());
        }
    }
    text
}

/// Every group of dependencies of the workspace has its reason in the comment above it.
fn reasons(root: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default();
    let mut faults = Vec::new();
    let mut inside = false;
    let mut said = false;
    for line in text.lines() {
        let is_dependency = inside && line.contains('=') && !line.starts_with('#');
        if line.starts_with('[') {
            inside = line == "[workspace.dependencies]";
        } else if line.starts_with('#') {
            said = true;
        } else if is_dependency && !said {
            let name = line.split('=').next().unwrap_or_default().trim();
            faults.push(format!("Cargo.toml: no reason above `{name}`"));
        } else if !is_dependency {
            said = false;
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "Apache-2.0 AND ISC",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        ] {
            assert!(permitted(good), "{good}");
        }
        for bad in ["", "GPL-3.0", "MPL-2.0", "MIT AND GPL-2.0", "(MIT OR Apache-2.0) AND MPL-2.0"] {
            assert!(!permitted(bad), "{bad}");
        }
    }

    fn package<'a>(name: &'a str, layer: u64, dependencies: &[(&'a str, &'a str)]) -> Package<'a> {
        Package {
            name,
            version: "1",
            licence: "MIT",
            own: true,
            layer: Some(layer),
            dev: layer == 9,
            place: "",
            dependencies: dependencies.to_vec(),
        }
    }

    #[test]
    fn layers_point_downwards() {
        let low = || package("low", 1, &[]);
        assert!(layers(&[low(), package("high", 2, &[("low", "normal")])]).is_empty());
        assert_eq!(layers(&[low(), package("same", 1, &[("low", "normal")])]).len(), 1);
        assert_eq!(
            layers(&[package("kit", 9, &[("low", "normal")]), package("low", 1, &[("kit", "normal")])]).len(),
            2
        );
        assert!(layers(&[package("kit", 9, &[("low", "normal")]), package("low", 1, &[("kit", "dev")])]).is_empty());
    }
}
