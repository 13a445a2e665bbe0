//! Rules about source files: heads, `forbid(unsafe_code)`, small `unsafe` blocks, names, no paths of one machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;

/// Words that say nothing and therefore name nothing.
const EMPTY_WORDS: [&str; 11] =
    ["util", "utils", "utility", "helper", "helpers", "common", "misc", "manager", "impl", "base", "stuff"];
/// The only crate with `unsafe`.
const UNSAFE_CRATE: &str = "crates/sys/";
/// Longest block of it, in lines.
const UNSAFE_LINES: usize = 10;

/// One Rust file.
pub struct Source {
    /// Path below the root.
    pub path: PathBuf,
    /// Its lines.
    pub lines: Vec<String>,
}

impl Source {
    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// True for the root file of a crate or a program. (Test programs are held by the workspace's lint.)
    fn is_crate_root(&self) -> bool {
        let text = self.shown();
        let program =
            text.split_once("/src/bin/").is_some_and(|(_, rest)| !rest.contains('/') || rest.ends_with("main.rs"));
        text.ends_with("src/lib.rs") || text.ends_with("src/main.rs") || program
    }
}

/// Files known to git or new, ignored ones left out.
pub fn listed(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let text = shell::output(&mut git)?;
    Ok(text.lines().map(PathBuf::from).filter(|path| root.join(path).is_file()).collect())
}

/// All Rust files.
pub fn read(root: &Path) -> Result<Vec<Source>, String> {
    let rust = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "rs");
    listed(root)?
        .into_iter()
        .filter(rust)
        .map(|path| {
            let text = std::fs::read_to_string(root.join(&path)).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok(Source { path, lines: text.lines().map(String::from).collect() })
        })
        .collect()
}

/// Everything wrong with them, and paths of this machine in any file.
pub fn check(root: &Path, sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        faults.extend(head(source));
        faults.extend(safety(source));
        faults.extend(names(source));
        faults.extend(blocking(source));
    }
    faults.extend(machine_paths(root));
    faults
}

fn head(source: &Source) -> Option<String> {
    let said = source.lines.iter().take_while(|line| line.starts_with("//!")).count();
    (said == 0).then(|| format!("{}: begins without a //! head", source.shown()))
}

fn safety(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let shown = source.shown();
    if !shown.starts_with(UNSAFE_CRATE) {
        if source.is_crate_root() && !source.lines.iter().any(|line| line == "#![forbid(unsafe_code)]") {
            faults.push(format!("{shown}: no #![forbid(unsafe_code)]"));
        }
        return faults;
    }
    for (at, line) in source.lines.iter().enumerate() {
        if !line.contains("unsafe {") || line.trim_start().starts_with("//") {
            continue;
        }
        let above = &source.lines[at.saturating_sub(4)..at];
        if !above.iter().chain([line]).any(|l| l.contains("SAFETY:")) {
            faults.push(format!("{shown}:{}: unsafe without a SAFETY note", at + 1));
        }
        let length = block_length(&source.lines[at..]);
        if length > UNSAFE_LINES + 2 {
            faults.push(format!("{shown}:{}: an unsafe block of {length} lines", at + 1));
        }
    }
    faults
}

/// Lines of the block that opens on the first line.
fn block_length(lines: &[String]) -> usize {
    let mut depth = 0_i64;
    for (count, line) in lines.iter().enumerate() {
        let text = if count == 0 { &line[line.find("unsafe {").unwrap_or(0)..] } else { line };
        for c in text.chars() {
            depth += i64::from(c == '{') - i64::from(c == '}');
            if depth == 0 && c == '}' {
                return count + 1;
            }
        }
    }
    lines.len()
}

/// What may say why a function that takes no `&Blocking` calls what blocks (`clippy.toml`).
const ELSEWHERE: [&str; 4] = [
    "before anybody is served",
    "on the main thread",
    "on the thread of the transfer",
    "the one place that takes threads",
];
/// Files of the kernel and of the exec root answer at once.
const IN_MEMORY: &str = "in memory";
const BAN: &str = "(clippy::disallowed_methods, reason = \"";

/// A function that is exempt from the ban on what blocks takes a `&Blocking`, unless its reason is one of the known ones; none is
/// `async` but before anybody is served.
fn blocking(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, line) in source.lines.iter().enumerate() {
        let Some((_, reason)) = line.split_once(BAN).filter(|_| line.trim_start().starts_with("#[expect")) else {
            continue;
        };
        let until_body =
            source.lines[at + 1..].iter().position(|line| line.ends_with('{')).map_or(0, |lines| lines + 1);
        let signature = source.lines[at + 1..at + 1 + until_body].join(" ");
        let is_known = reason.contains(IN_MEMORY) || ELSEWHERE.iter().any(|known| reason.starts_with(known));
        if !is_known && !signature.contains("&Blocking") {
            let place = format!("{}:{}", source.shown(), at + 1);
            faults.push(format!("{place}: calls what blocks and takes no &Blocking"));
        }
        if !is_known && signature.contains("async fn") {
            faults.push(format!("{}:{}: an async function calls what blocks", source.shown(), at + 1));
        }
    }
    faults
}

fn names(source: &Source) -> Vec<String> {
    let shown = source.shown();
    let mut faults = Vec::new();
    let parts = source.path.components().filter_map(|c| c.as_os_str().to_str());
    for part in parts {
        if let Some(word) = empty_word(part.trim_end_matches(".rs")) {
            faults.push(format!("{shown}: the word {word:?} in its name says nothing"));
        }
    }
    for (at, line) in source.lines.iter().enumerate() {
        // The name of a test is a sentence, and sentences may use any word.
        let test = at > 0 && source.lines[at - 1].trim().starts_with("#[test]");
        if test {
            continue;
        }
        if let Some(word) = declared_name(line).and_then(empty_word) {
            faults.push(format!("{shown}:{}: the word {word:?} in a name says nothing", at + 1));
        }
    }
    faults
}

/// The name that a line declares, if it declares a function, type or module.
fn declared_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().peekable();
    while words.peek().is_some_and(|word| {
        matches!(*word, "pub" | "const" | "async" | "unsafe" | "extern") || word.starts_with("pub(")
    }) {
        words.next();
    }
    matches!(words.next()?, "fn" | "struct" | "enum" | "trait" | "mod" | "type")
        .then(|| words.next())
        .flatten()
        .map(|name| name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
}

fn empty_word(name: &str) -> Option<&'static str> {
    let mut words: Vec<String> = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c == '-' || c.is_uppercase() {
            words.push(String::new());
        }
        if c != '_' && c != '-' {
            words.last_mut().expect("never empty").extend(c.to_lowercase());
        }
    }
    EMPTY_WORDS.into_iter().find(|empty| words.iter().any(|word| word == empty))
}

/// Directories that every machine has: a checkout directly below one says nothing about this machine.
const EVERYWHERE: [&str; 12] =
    ["/tmp", "/root", "/home", "/srv", "/var", "/opt", "/usr", "/run", "/mnt", "/etc", "/src", "/build"];

/// The place of this checkout must not be written anywhere in it.
fn machine_paths(root: &Path) -> Vec<String> {
    let mut forbidden = Vec::new();
    if let Some(parent) = root.parent().filter(|parent| parent.components().count() >= 2) {
        forbidden.push(root.display().to_string());
        let own = parent.display().to_string();
        if parent.components().count() == 2 && !EVERYWHERE.contains(&own.as_str()) {
            forbidden.push(format!("{own}/"));
        }
    }
    let mut faults = Vec::new();
    for path in listed(root).unwrap_or_default() {
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else { continue };
        for (at, line) in text.lines().enumerate() {
            if forbidden.iter().any(|place| names_place(line, place)) {
                faults.push(format!("{}:{}: names a path of this machine", path.display(), at + 1));
            }
        }
    }
    faults
}

/// True when `place` stands in the line as the beginning of an absolute path.
fn names_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '/' | '.' | '}' | '-' | '_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_into_words() {
        assert_eq!(empty_word("string_utils"), Some("utils"));
        assert_eq!(empty_word("NetworkManager"), Some("manager"));
        assert_eq!(empty_word("baseline"), None);
        assert_eq!(empty_word("uncommon"), None);
        assert_eq!(declared_name("    pub(crate) async fn helper(x: u8) {"), Some("helper"));
        assert_eq!(declared_name("    let helper = 1;"), None);
    }

    #[test]
    fn what_blocks_takes_the_proof() {
        let faults = |reason: &str, signature: &str| {
            let lines = [format!("    #[expect{BAN}{reason}\")]"), format!("    {signature} {{")].into();
            blocking(&Source { path: "x.rs".into(), lines }).len()
        };
        assert_eq!(faults("on a thread of the starts", "fn f(on: &Blocking)"), 0);
        assert_eq!(faults("on a thread of the starts", "fn f()"), 1);
        assert_eq!(faults("it is quick", "async fn f()"), 2);
        assert_eq!(faults("before anybody is served", "async fn f()"), 0);
        assert_eq!(faults("the exec root, which is in memory", "fn f()"), 0);
    }

    #[test]
    fn blocks_are_measured() {
        let lines: Vec<String> = ["let x = unsafe {", "  a({ 1 })", "};", "}"].map(String::from).into();
        assert_eq!(block_length(&lines), 3);
    }

    #[test]
    fn only_whole_paths_count() {
        assert!(names_place("see /srv/x for it", "/srv/"));
        assert!(!names_place("upper/srv/x", "/srv/"));
    }
}
