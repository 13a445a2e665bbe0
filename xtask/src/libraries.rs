//! The client libraries that the wire tests drive: Python's in an environment of their own, node's beside it, both below
//! `target/tools`.
//!
//! Which ones, and in which version, stands beside their drivers in `tests/wire/clients`. A copy of that list lies with
//! what was installed by it, so that a changed list is noticed.

use std::path::Path;
use std::process::Command;

use crate::setup::{Program, install_missing, install_packages};
use crate::shell::{self, run};

const PROGRAMS: &[Program] = &[("node", "nodejs"), ("npm", "npm"), ("python3", "python3")];

/// Makes sure that all of them are there.
pub fn all() -> Result<(), String> {
    install_missing(PROGRAMS)?;
    unless_done("python", "requirements.txt", python)?;
    unless_done("node", "package.json", node)
}

/// Runs `make` in an empty directory below `target/tools` unless it has been done for this list.
fn unless_done(name: &str, list: &str, make: fn(&Path, &Path) -> Result<(), String>) -> Result<(), String> {
    let place = shell::root().join("target/tools").join(name);
    let list = shell::root().join("tests/wire/clients").join(list);
    let wanted = std::fs::read(&list).map_err(|e| format!("{}: {e}", list.display()))?;
    let stamp = place.join("made-by");
    if std::fs::read(&stamp).is_ok_and(|made_by| made_by == wanted) {
        return Ok(());
    }
    println!("installing what {} names", list.display());
    // What an interrupted attempt left is of no use.
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).map_err(|e| format!("{}: {e}", place.display()))?;
    make(&place, &list)?;
    std::fs::write(&stamp, wanted).map_err(|e| format!("{}: {e}", stamp.display()))
}

fn python(place: &Path, list: &Path) -> Result<(), String> {
    let environment = || run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(place));
    if environment().is_err() {
        // Debian keeps half of it in a package of its own.
        install_packages(&["python3-venv"])?;
        environment()?;
    }
    let mut pip = Command::new(place.join("bin/pip"));
    run(pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(list))
}

fn node(place: &Path, list: &Path) -> Result<(), String> {
    std::fs::copy(list, place.join("package.json")).map_err(|e| e.to_string())?;
    let words = ["install", "--silent", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"];
    run(Command::new("npm").args(words).current_dir(place))
}
