//! `cargo xtask tidy`: the repository checks its own law.
//!
//! - Hard rules (layers, heads of files, `forbid(unsafe_code)`, names, licences, duplicates, paths, citations) fail
//!   at once.
//! - Sizes are a ratchet: `xtask/ratchet.txt` holds the worst that is allowed; `--update` writes what stands now, and
//!   only ever in the direction of better.

mod packages;
mod ratchet;
mod references;
mod sources;

use crate::shell;

/// Checks everything; `--update` tightens the ratchet.
pub fn run(words: &[String]) -> Result<(), String> {
    let root = shell::root();
    let mut faults = packages::check(&root)?;
    let sources = sources::read(&root)?;
    faults.extend(sources::check(&root, &sources));
    faults.extend(references::check(&root)?);
    let update = words.iter().any(|word| word == "--update");
    faults.extend(ratchet::check(&root, &sources, if update { ratchet::Mode::Update } else { ratchet::Mode::Check })?);
    if faults.is_empty() {
        println!("tidy: {} files in order", sources.len());
        return Ok(());
    }
    Err(format!("tidy: {} faults\n  {}", faults.len(), faults.join("\n  ")))
}
