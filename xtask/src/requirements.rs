//! Requirements as data: `docs/requirements.csv` names, for each thing that the engine must do, the tests that prove it.
//!
//! Columns: id, requirement, names of tests separated by spaces (none: unproven). `cargo xtask test` fails when a named
//! test did not pass; `cargo xtask coverage` prints what is unproven and fails when a named test does not exist.

use std::collections::BTreeSet;
use std::path::Path;

use crate::shell;

const FILE: &str = "docs/requirements.csv";

/// One row.
#[derive(Debug, PartialEq, Eq)]
struct Requirement {
    id: String,
    text: String,
    tests: Vec<String>,
}

/// One fault per named test that is not among `passed`.
pub fn unmet(passed: &BTreeSet<String>) -> Result<(), String> {
    let missing = |row: &Requirement| {
        let names = row.tests.iter().filter(|test| !passed.contains(*test));
        names.map(|test| format!("{}: {test} did not pass", row.id)).collect::<Vec<_>>()
    };
    let faults: Vec<String> = rows()?.iter().flat_map(missing).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join(", ")) }
}

/// Prints what is unproven; an error names tests that do not exist.
pub fn run() -> Result<(), String> {
    let rows = rows()?;
    let unproven: Vec<&Requirement> = rows.iter().filter(|row| row.tests.is_empty()).collect();
    println!("\nrequirements without a test:");
    unproven.iter().for_each(|row| println!("  {} {}", row.id, row.text));
    println!("{} of {} requirements are proven by a test", rows.len() - unproven.len(), rows.len());
    let known = listed()?;
    let unknown: Vec<&str> =
        rows.iter().flat_map(|row| &row.tests).map(String::as_str).filter(|test| !known.contains(*test)).collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(format!("{FILE} names tests that do not exist: {}", unknown.join(", ")))
    }
}

/// The names of all tests of the workspace.
fn listed() -> Result<BTreeSet<String>, String> {
    let text = shell::output(&mut shell::cargo(&["test", "--quiet", "--workspace", "--", "--list"]))?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(String::from).collect())
}

fn rows() -> Result<Vec<Requirement>, String> {
    let path = shell::root().join(Path::new(FILE));
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    text.lines().skip(1).map(|line| row(line).ok_or_else(|| format!("{FILE}: not three fields: {line}"))).collect()
}

fn row(line: &str) -> Option<Requirement> {
    let [id, text, tests] = <[String; 3]>::try_from(fields(line)).ok()?;
    Some(Requirement { id, text, tests: tests.split_whitespace().map(String::from).collect() })
}

/// The fields of a line of comma-separated values (RFC 4180, no line breaks inside a field).
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("one field at least");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => field.push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let read = row(r#"S1,"a ""b"", c",x::y z::t"#).expect("three fields");
        let tests = vec!["x::y".to_string(), "z::t".to_string()];
        assert_eq!(read, Requirement { id: "S1".into(), text: r#"a "b", c"#.into(), tests });
        assert_eq!(row("S2,text,").expect("three fields").tests, Vec::<String>::new());
        assert_eq!(row("S3,text"), None);
    }
}
