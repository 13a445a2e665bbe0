//! The texts of `--help`, `--version` and of a command line with surplus words.

use super::options::{TABLE, printed};
use super::{Config, Effect, Program};

const SHORT: &str = "A self-sufficient runtime for containers.";
/// Column in which the descriptions begin, unless a flag is longer.
const DOC_COLUMN: usize = 42;

/// `--version`: started as `dockerd` it says what scripts look for.
#[must_use]
pub fn version(program: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let build = option_env!("GANTRY_BUILD").unwrap_or("dev");
    if program == "dockerd" {
        format!("Docker version {version}-gantry, build {build}")
    } else {
        format!("Gantry version {version}, build {build}")
    }
}

/// A command line with words that are no options.
#[must_use]
pub fn no_arguments(program: &str) -> String {
    format!("\"{program}\" accepts no argument(s).\nSee '{program} --help'.\n\nUsage:  {program} [OPTIONS]\n\n{SHORT}")
}

/// `--help`
#[must_use]
pub fn help(program: Program<'_>) -> String {
    let Program { name, commands } = program;
    let mut text = format!("Usage:\t{name} [OPTIONS]\n\n{SHORT}\n\nOptions:\n");
    let defaults = Config::default();
    for row in TABLE.iter().filter(|row| !row.flag.is_empty() && !row.doc.is_empty()) {
        let short = row.short.map_or("    ".into(), |s| format!("-{s}, "));
        let word = if row.slot.is_switch(row.flag) { "" } else { row.slot.type_word() };
        let head = format!("  {short}--{} {word}", row.flag);
        let value = printed(row, &defaults);
        let default = match value.as_str() {
            "" | "false" | "0" | "[]" | "map[]" | "<nil>" => String::new(),
            value if word == "string" => format!(" (default \"{value}\")"),
            value => format!(" (default {value})"),
        };
        let note = match row.effect {
            Effect::Harmless(_) => " [no effect yet]",
            Effect::Refused { .. } => " [refused]",
            Effect::Never => " [ignored]",
            Effect::Now | Effect::Silent => "",
        };
        text.push_str(&format!("{head:<DOC_COLUMN$} {}{default}{note}\n", row.doc));
    }
    if !commands.is_empty() {
        text.push_str(&format!("\n{commands}\n"));
    }
    text.trim_end().to_string()
}
