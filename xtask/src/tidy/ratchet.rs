//! Measures that may only get better: of sizes here, of structure in `measures`.
//!
//! `xtask/ratchet.txt` has one line per measure, `name = worst allowed`. Every measure is printed. A worse figure fails
//! and names the offenders; a better one is kept with `cargo xtask tidy --update`. Figures are of the whole repository,
//! so that a file may move without touching the ratchet. The shares (90 % of the files and functions are shorter than
//! the guides) are fixed. Generated tables are data: a file named `*_table.rs` does not count.

use std::path::Path;

use super::measures;
use super::sources::Source;

const FILE: &str = "xtask/ratchet.txt";
const FILE_LINES: usize = 800;
const FILE_LINES_GUIDE: usize = 400;
const FUNCTION_LINES: usize = 70;
const FUNCTION_LINES_GUIDE: usize = 30;
/// One tenth, in per mille.
const SHARE: usize = 100;

/// Offenders that a fault names.
const SHOWN: usize = 12;

/// What to do with better figures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Leave the file alone.
    Check,
    /// Write them.
    Update,
    /// Leave the file alone and name everything that counts.
    List,
}

/// One measure and who is over it.
pub struct Measure {
    /// What is measured, as the ratchet names it.
    pub name: &'static str,
    /// The figure; lower is better.
    pub value: usize,
    /// What makes it so high, the worst first.
    pub offenders: Vec<String>,
    /// A fixed bound that the ratchet does not hold.
    pub fixed: Option<usize>,
}

/// A function's place and length.
struct Function {
    place: String,
    lines: usize,
}

/// Compares what stands with the ratchet.
pub fn check(root: &Path, sources: &[Source], mode: Mode) -> Result<Vec<String>, String> {
    let allowed = read(&root.join(FILE));
    let mut measures = sizes(sources);
    measures.extend(measures::measure(sources)?);
    let mut faults = Vec::new();
    for m in &measures {
        let kept = allowed.iter().find(|(name, _)| name == m.name).map_or(0, |(_, value)| *value);
        let worst = m.fixed.unwrap_or(kept);
        println!("  {:<58} {:>5} of {worst:>4}", m.name, m.value);
        if m.value > worst {
            let shown = m.offenders.iter().take(SHOWN).map(|o| format!("\n    {o}")).collect::<String>();
            faults.push(format!("{}: {} where {worst} is allowed (`--list` names all):{shown}", m.name, m.value));
        }
        if mode == Mode::List {
            m.offenders.iter().for_each(|offender| println!("    {offender}"));
        }
    }
    if mode == Mode::Update {
        let lowest = |m: &Measure| allowed.iter().find(|(n, _)| n == m.name).map_or(m.value, |(_, v)| m.value.min(*v));
        let lines: Vec<String> =
            measures.iter().filter(|m| m.fixed.is_none()).map(|m| format!("{} = {}\n", m.name, lowest(m))).collect();
        std::fs::write(root.join(FILE), lines.concat()).map_err(|e| format!("{FILE}: {e}"))?;
    }
    Ok(faults)
}

fn read(path: &Path) -> Vec<(String, usize)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let pair = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((name.trim().to_string(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn sizes(sources: &[Source]) -> Vec<Measure> {
    let counted: Vec<&Source> = sources.iter().filter(|s| !s.path.to_string_lossy().ends_with("_table.rs")).collect();
    let functions: Vec<Function> = counted.iter().flat_map(|source| functions(source)).collect();
    let long_files: Vec<String> = counted
        .iter()
        .filter(|source| source.lines.len() > FILE_LINES)
        .map(|source| format!("{} ({})", source.path.display(), source.lines.len()))
        .collect();
    let long_functions: Vec<String> =
        functions.iter().filter(|f| f.lines > FUNCTION_LINES).map(|f| format!("{} ({})", f.place, f.lines)).collect();
    let over = |count: usize, all: usize| (count * 1000).div_ceil(all.max(1));
    let files_over = counted.iter().filter(|source| source.lines.len() > FILE_LINES_GUIDE).count();
    let functions_over = functions.iter().filter(|f| f.lines > FUNCTION_LINES_GUIDE).count();
    let ratchet = |name, offenders: Vec<String>| Measure { name, value: offenders.len(), offenders, fixed: None };
    let share = |name, value| Measure { name, value, offenders: vec![], fixed: Some(SHARE) };
    vec![
        ratchet("files over 800 lines", long_files),
        ratchet("functions over 70 lines", long_functions),
        share("files over 400 lines, per mille", over(files_over, counted.len())),
        share("functions over 30 lines, per mille", over(functions_over, functions.len())),
    ]
}

/// Functions of a formatted file: from the line with `fn` to the closing brace in the same column.
fn functions(source: &Source) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, line) in source.lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let close = format!("{indent}}}");
        let length = match source.lines[at..].iter().position(|l| {
            *l == close || (l.ends_with(';') && l.starts_with(indent) && !l[indent.len()..].starts_with(' '))
        }) {
            _ if line.ends_with('}') || line.ends_with(';') => 1,
            Some(end) => end + 1,
            None => 1,
        };
        found.push(Function { place: format!("{}:{} {name}", source.path.display(), at + 1), lines: length });
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let text = line.trim_start();
    if text.starts_with("//") {
        return None;
    }
    let (before, after) = text.split_once("fn ")?;
    let qualifiers = before.split_whitespace().all(|w| {
        matches!(w, "pub" | "const" | "async" | "unsafe")
            || w.starts_with("pub(")
            || w.starts_with("extern")
            || w.starts_with('"')
    });
    let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (qualifiers && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured() {
        let text = "impl X {\n    pub fn a(&self) {\n        if x {\n        }\n    }\n    fn b();\n    fn c() {}\n}\nasync fn d(\n    x: u8,\n) {\n    y\n}\n// fn no() {\n";
        let source = Source { path: "x.rs".into(), lines: text.lines().map(String::from).collect() };
        let lengths: Vec<usize> = functions(&source).iter().map(|f| f.lines).collect();
        assert_eq!(lengths, [4, 1, 1, 5]);
    }
}
