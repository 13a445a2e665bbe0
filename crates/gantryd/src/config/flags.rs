//! The command line, split into options the way POSIX-style flag parsers of the reference do it.
//!
//! - `--name=value`, `--name value`, `-l debug`, `-ldebug`, `-l=debug`, `-Dl debug`; `--` ends the options.
//! - A switch takes a value only as `--name=false`.
//! - Order is kept; the same option may come several times.

use super::options::{self, Row};
use super::{Config, go, parse};

/// One option on the command line.
#[derive(Clone)]
pub struct Given {
    /// Which option.
    pub row: &'static Row,
    /// Its text (`true` for a bare switch).
    pub text: String,
}

/// The command line, taken apart.
#[derive(Clone, Default)]
pub struct CommandLine {
    /// Options in order.
    pub given: Vec<Given>,
    /// What is neither an option nor an option's value.
    pub positional: Vec<String>,
}

impl CommandLine {
    /// True when the option occurs.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.given.iter().any(|g| g.row.flag == flag)
    }

    /// Value of a switch: its last occurrence.
    #[must_use]
    pub fn switch(&self, flag: &str) -> bool {
        self.last(flag).is_some_and(|text| go::parse_bool(text).unwrap_or(false))
    }

    /// Text of an option's last occurrence.
    #[must_use]
    pub fn last(&self, flag: &str) -> Option<&str> {
        self.given.iter().rev().find(|g| g.row.flag == flag).map(|g| g.text.as_str())
    }
}

/// Takes the arguments apart (without the program's name) and checks every value by writing it into a scratch configuration,
/// which is returned too: it holds defaults and flags.
pub fn scan(args: &[String]) -> Result<(CommandLine, Config), String> {
    let mut line = CommandLine::default();
    let mut scratch = Config::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            line.positional.extend(rest.by_ref().cloned());
        } else if let Some(long) = arg.strip_prefix("--") {
            let given = long_option(arg, long, &mut rest)?;
            apply(&given, &mut scratch)?;
            line.given.push(given);
        } else if arg.len() > 1 && arg.starts_with('-') {
            for given in short_options(&arg[1..], &mut rest)? {
                apply(&given, &mut scratch)?;
                line.given.push(given);
            }
        } else {
            line.positional.push(arg.clone());
        }
    }
    Ok((line, scratch))
}

fn long_option<'a>(arg: &str, long: &str, rest: &mut impl Iterator<Item = &'a String>) -> Result<Given, String> {
    let (name, value) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value.to_string())),
        None => (long, None),
    };
    if name.is_empty() || name.starts_with('-') {
        return Err(format!("bad flag syntax: {arg}"));
    }
    let row = options::by_flag(name).ok_or_else(|| format!("unknown flag: --{name}"))?;
    let text = match value {
        Some(text) => text,
        None if row.slot.is_switch(row.flag) => "true".into(),
        None => rest.next().cloned().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
    };
    Ok(Given { row, text })
}

fn short_options<'a>(cluster: &str, rest: &mut impl Iterator<Item = &'a String>) -> Result<Vec<Given>, String> {
    let mut found = Vec::new();
    for (at, short) in cluster.char_indices() {
        let row = options::by_short(short).ok_or_else(|| format!("unknown shorthand flag: '{short}' in -{cluster}"))?;
        let tail = &cluster[at + short.len_utf8()..];
        if let Some(text) = tail.strip_prefix('=') {
            found.push(Given { row, text: text.to_string() });
            break;
        }
        if row.slot.is_switch(row.flag) {
            found.push(Given { row, text: "true".into() });
            continue;
        }
        let text = match tail {
            "" => rest.next().cloned().ok_or_else(|| format!("flag needs an argument: '{short}' in -{cluster}"))?,
            tail => tail.to_string(),
        };
        found.push(Given { row, text });
        break;
    }
    Ok(found)
}

fn apply(given: &Given, scratch: &mut Config) -> Result<(), String> {
    let row = given.row;
    let result = match row.slot {
        parse::Slot::Command if row.slot.is_switch(row.flag) => go::parse_bool(&given.text).map(drop),
        ref slot => parse::set_from_flag(slot, scratch, &given.text),
    };
    result.map_err(|why| {
        let shown = row.short.map_or(String::new(), |s| format!("-{s}, "));
        format!("invalid argument {} for \"{shown}--{}\" flag: {why}", go::quote(&given.text), row.flag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan_words(words: &str) -> Result<(CommandLine, Config), String> {
        scan(&words.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn every_spelling_of_a_value() {
        for words in ["--log-level=debug", "--log-level debug", "-l debug", "-ldebug", "-l=debug", "-Dl debug"] {
            let (_, config) = scan_words(words).unwrap();
            assert_eq!(config.daemon_log.level, "debug", "{words}");
        }
    }

    #[test]
    fn switches_take_values_only_after_an_equals_sign() {
        assert!(!scan_words("--icc=false").unwrap().1.bridge.icc);
        let (line, config) = scan_words("--icc false").unwrap();
        assert!(config.bridge.icc);
        assert_eq!(line.positional, ["false"]);
    }

    #[test]
    fn lists_add_up() {
        let (_, config) =
            scan_words("-H unix:///a -H unix:///b --label a=1 --label b=2 --log-opt x=1 --log-opt y=2").unwrap();
        assert_eq!(config.listen.host_specs, ["unix:///a", "unix:///b"]);
        assert_eq!(config.engine.labels.len(), 2);
        assert_eq!(config.log.opts.len(), 2);
    }

    #[test]
    fn refusals_have_the_references_words() {
        let text = |w: &str| scan_words(w).err().expect("refused");
        assert_eq!(text("--nope"), "unknown flag: --nope");
        assert_eq!(text("-debug"), "unknown shorthand flag: 'd' in -debug");
        assert_eq!(text("--mtu"), "flag needs an argument: --mtu");
        assert_eq!(text("-l"), "flag needs an argument: 'l' in -l");
        assert_eq!(text("--=x"), "bad flag syntax: --=x");
        assert_eq!(
            text("--mtu x"),
            r#"invalid argument "x" for "--mtu" flag: strconv.ParseInt: parsing "x": invalid syntax"#
        );
        assert_eq!(
            text("-D=maybe"),
            r#"invalid argument "maybe" for "-D, --debug" flag: strconv.ParseBool: parsing "maybe": invalid syntax"#
        );
        assert_eq!(
            text("-H udp://x"),
            r#"invalid argument "udp://x" for "-H, --host" flag: invalid bind address (udp://x): unsupported proto 'udp'"#
        );
        assert_eq!(
            text("--add-runtime runc=/x"),
            r#"invalid argument "runc=/x" for "--add-runtime" flag: runtime name 'runc' is reserved"#
        );
        assert!(text("--dns 1.2").contains("IPv4 address too short"));
        assert!(text("--label com.docker.x=1").contains("reserved for internal use"));
        assert!(text("--registry-mirror x").contains("no scheme specified"));
        assert!(text("--default-shm-size 5q").contains("invalid suffix: 'q'"));
    }

    #[test]
    fn double_dash_ends_the_options() {
        let (line, _) = scan_words("-D -- --nope").unwrap();
        assert_eq!(line.positional, ["--nope"]);
    }
}
