//! `cargo xtask tidy`: the repository checks its own law.
//!
//! - Hard rules (layers, heads of files, `forbid(unsafe_code)`, names, licences, duplicates, paths, citations,
//!   folders in order) fail at once.
//! - Measures of size and of structure are a ratchet: `xtask/ratchet.txt` holds the worst that is allowed; `--update`
//!   writes what stands now, and only ever in the direction of better.

mod circles;
mod folders;
mod items;
mod measures;
mod modules;
mod packages;
mod ratchet;
mod references;
mod sources;
mod tokens;

use crate::shell;

/// Checks everything; `--update` tightens the ratchet, `--list` names what each measure counts.
pub fn run(words: &[String]) -> Result<(), String> {
    let root = shell::root();
    let mut faults = packages::check(&root)?;
    let sources = sources::read(&root)?;
    faults.extend(sources::check(&root, &sources));
    faults.extend(references::check(&root)?);
    faults.extend(folders::check(&sources)?);
    let mode = match words.first().map(String::as_str) {
        Some("--update") => ratchet::Mode::Update,
        Some("--list") => ratchet::Mode::List,
        _ => ratchet::Mode::Check,
    };
    faults.extend(ratchet::check(&root, &sources, mode)?);
    if faults.is_empty() {
        println!("tidy: {} files in order", sources.len());
        return Ok(());
    }
    Err(format!("tidy: {} faults\n  {}", faults.len(), faults.join("\n  ")))
}
