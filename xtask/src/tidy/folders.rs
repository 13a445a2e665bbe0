//! Folders whose files import those of lower folders only. Each such place lists its folders, the lowest first; a file that
//! lies in the place itself belongs to `.`. A `mod.rs` that only passes names on is not looked at.

use super::modules::{self, Crate};
use super::sources::Source;

/// A place, and its folders in order.
const ORDERS: [(&str, &[&str]); 1] = [(
    "crates/engine/src/container",
    &["definition", ".", "validate", "registry", "life", "read", "session", "archive", "create"],
)];

/// One fault per import of a higher folder, and per folder without a place in the order.
pub fn check(sources: &[Source]) -> Result<Vec<String>, String> {
    let crates = modules::crates(sources)?;
    Ok(ORDERS.iter().flat_map(|(place, order)| crates.iter().flat_map(|own| faults(own, place, order))).collect())
}

fn faults(own: &Crate, place: &str, order: &[&str]) -> Vec<String> {
    let paths: Vec<&str> = own.files.iter().map(|file| file.path.as_str()).collect();
    let imports = own.edges().into_iter().enumerate().flat_map(|(from, to)| to.into_iter().map(move |to| (from, to)));
    let imports: Vec<(&str, &str)> = imports.map(|(from, to)| (paths[from], paths[to])).collect();
    let homeless = paths.iter().filter_map(|path| folder(place, path)).filter(|folder| !order.contains(folder));
    let mut faults: Vec<String> =
        homeless.map(|folder| format!("{place}/{folder}: has no place in the order")).collect();
    faults.extend(upward(place, order, &imports));
    faults.sort();
    faults.dedup();
    faults
}

fn upward(place: &str, order: &[&str], imports: &[(&str, &str)]) -> Vec<String> {
    let rank = |path: &str| order.iter().position(|known| Some(*known) == folder(place, path));
    let rises = |(from, to): &&(&str, &str)| rank(from).zip(rank(to)).is_some_and(|(from, to)| from < to);
    imports.iter().filter(rises).map(|(from, to)| format!("{from}: imports {to} of a higher folder")).collect()
}

/// The folder of the place in which a file lies; `None`: elsewhere, or the place's own `mod.rs`.
fn folder<'p>(place: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(place)?.strip_prefix('/')?;
    match rest.split_once('/') {
        Some((folder, _)) => Some(folder),
        None if rest == "mod.rs" => None,
        None => Some("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_of_higher_folders_are_found() {
        let imports =
            [("p/a/x.rs", "p/b/y.rs"), ("p/b/y.rs", "p/a/x.rs"), ("p/r.rs", "p/b/y.rs"), ("p/mod.rs", "p/b/y.rs")];
        let found = upward("p", &["a", ".", "b"], &imports);
        assert_eq!(
            found,
            ["p/a/x.rs: imports p/b/y.rs of a higher folder", "p/r.rs: imports p/b/y.rs of a higher folder"]
        );
        assert!(upward("q", &["a", ".", "b"], &imports).is_empty());
    }
}
