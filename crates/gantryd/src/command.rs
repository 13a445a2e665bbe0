//! Commands beside the daemon: `gantryd images why IMAGE` and its like.
//!
//! - A line is a command's when it begins with a command's first word. Every other line starts the daemon, and so does
//!   every line of a program that is called `dockerd`.
//! - Behind the words stand operands, the command's own switches, and the daemon's flags: `--exec-root`,
//!   `--config-file` and the others say which daemon is meant, read exactly as the daemon reads them.
//! - A command that fails says why on standard error and ends with a status of its own, mostly 1.

mod call;
mod check;
mod images;
mod order;
mod ports;
mod reach;
mod secret;
mod upgrade;
mod volume;

use std::process::ExitCode;

use model::{Error, Result};

use crate::config::{self, Env};
use call::Call;

/// One command.
struct Command {
    /// What it is called by.
    words: &'static [&'static str],
    /// How its operands are called; those in brackets may be left out.
    operands: &'static [&'static str],
    /// Its own switches, with their dashes.
    switches: &'static [&'static str],
    /// What it does, for the list of commands.
    doc: &'static str,
    run: fn(&Call) -> Result<ExitCode>,
    /// The status when it could not be done.
    failed: u8,
}

/// Every command.
const COMMANDS: &[Command] = &[
    Command {
        words: &["check"],
        operands: &[],
        switches: &["--repair", "--json"],
        doc: "Verify the store against the disk: 0 clean, 1 faults, 2 could not",
        run: check::check,
        failed: 2,
    },
    Command {
        words: &["images", "why"],
        operands: &["IMAGE"],
        switches: &["--json"],
        doc: "Say why an image or content of images is kept",
        run: images::why,
        failed: 1,
    },
    Command {
        words: &["order"],
        operands: &[],
        switches: &["--json"],
        doc: "Say who is started behind whom when the daemon starts",
        run: |call| order::order(&call.config.paths.exec_root, call.has("--json")),
        failed: 1,
    },
    Command {
        words: &["ports", "add"],
        operands: &["CONTAINER", "PORT"],
        switches: &[],
        doc: "Publish one more port of a container, also while it runs",
        run: |call| ports::add(&call.config.paths.exec_root, &call.operands),
        failed: 1,
    },
    Command {
        words: &["ports", "rm"],
        operands: &["CONTAINER", "PORT"],
        switches: &[],
        doc: "Publish a port of a container no longer",
        run: |call| ports::remove(&call.config.paths.exec_root, &call.operands),
        failed: 1,
    },
    Command {
        words: &["reach"],
        operands: &["[CONTAINER]"],
        switches: &["--json"],
        doc: "Say who can reach which container, and why",
        run: |call| reach::reach(&call.config.paths.exec_root, &call.operands, &call.switches),
        failed: 1,
    },
    Command {
        words: &["upgrade"],
        operands: &["[EXECUTABLE]"],
        switches: &[],
        doc: "Have the running daemon go on as this executable or another",
        run: |call| upgrade::upgrade(&call.config.paths.exec_root, &call.operands),
        failed: 1,
    },
    Command {
        words: &["formats"],
        operands: &[],
        switches: &[],
        doc: "Print the versions of what this executable reads and writes",
        run: |_| upgrade::formats(),
        failed: 1,
    },
    Command {
        words: &["secret", "create"],
        operands: &["NAME"],
        switches: &[],
        doc: "Keep the standard input as a secret, encrypted",
        run: |call| secret::create(call.asked(), "secret"),
        failed: 1,
    },
    Command {
        words: &["secret", "ls"],
        operands: &[],
        switches: &[],
        doc: "List secrets",
        run: |call| secret::list(call.asked(), "secret"),
        failed: 1,
    },
    Command {
        words: &["secret", "rm"],
        operands: &["SECRET"],
        switches: &[],
        doc: "Remove a secret that no container asks for",
        run: |call| secret::remove(call.asked(), "secret"),
        failed: 1,
    },
    Command {
        words: &["config", "create"],
        operands: &["NAME"],
        switches: &[],
        doc: "Keep the standard input as a config, encrypted",
        run: |call| secret::create(call.asked(), "config"),
        failed: 1,
    },
    Command {
        words: &["config", "ls"],
        operands: &[],
        switches: &[],
        doc: "List configs",
        run: |call| secret::list(call.asked(), "config"),
        failed: 1,
    },
    Command {
        words: &["config", "rm"],
        operands: &["CONFIG"],
        switches: &[],
        doc: "Remove a config that no container asks for",
        run: |call| secret::remove(call.asked(), "config"),
        failed: 1,
    },
    Command {
        words: &["volume", "snapshot", "rm"],
        operands: &["SNAPSHOT"],
        switches: &[],
        doc: "Remove a snapshot",
        run: |call| volume::remove_snapshot(call.asked()),
        failed: 1,
    },
    Command {
        words: &["volume", "snapshot", "ls"],
        operands: &["[VOLUME]"],
        switches: &["--json"],
        doc: "List snapshots, with the bytes that they hold",
        run: |call| volume::list_snapshots(call.asked()),
        failed: 1,
    },
    Command {
        words: &["volume", "snapshot"],
        operands: &["VOLUME", "SNAPSHOT"],
        switches: &["--freeze"],
        doc: "Take a snapshot of a volume; --freeze: its containers stand still for the moment",
        run: |call| volume::take_snapshot(call.asked()),
        failed: 1,
    },
    Command {
        words: &["volume", "clone"],
        operands: &["SNAPSHOT", "VOLUME"],
        switches: &[],
        doc: "Make a volume that holds what a snapshot does",
        run: |call| volume::clone(call.asked()),
        failed: 1,
    },
    Command {
        words: &["volume", "export"],
        operands: &["VOLUME"],
        switches: &["--snapshot"],
        doc: "Write a volume, or a snapshot, to the standard output as a tar in zstd",
        run: |call| volume::export(call.asked()),
        failed: 1,
    },
    Command {
        words: &["volume", "import"],
        operands: &["VOLUME"],
        switches: &[],
        doc: "Make a volume of a tar, compressed or not, from the standard input",
        run: |call| volume::import(call.asked()),
        failed: 1,
    },
];

/// Runs the command that the line is, if it is one.
pub fn run(program: &str, arguments: &[String]) -> Option<ExitCode> {
    let first = arguments.first().filter(|_| program != "dockerd")?;
    let meant = COMMANDS.iter().find(|command| command.words[0] == first)?;
    let env: Env = std::env::vars().collect();
    Some(called(program, arguments, &env).unwrap_or_else(|error| {
        eprintln!("{program}: {error}");
        ExitCode::from(meant.failed)
    }))
}

fn called(program: &str, arguments: &[String], env: &Env) -> Result<ExitCode> {
    let Some(command) = COMMANDS.iter().find(|command| starts_with(arguments, command.words)) else {
        return Err(Error::invalid(format!("no such command\n\n{}", list(program))));
    };
    let call = read(command, &arguments[command.words.len()..], env)
        .map_err(|why| Error::invalid(format!("{why}\n\nUsage:\t{} [DAEMON OPTIONS]", usage(program, command))))?;
    match call {
        Some(call) => (command.run)(&call),
        None => {
            println!("Usage:\t{} [DAEMON OPTIONS]\n\n{}", usage(program, command), command.doc);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn starts_with(arguments: &[String], words: &[&str]) -> bool {
    arguments.len() >= words.len() && arguments.iter().zip(words).all(|(argument, word)| argument == word)
}

/// The call; `None` when only help was asked for.
fn read(command: &Command, rest: &[String], env: &Env) -> Result<Option<Call>, String> {
    let is_switch = |argument: &&String| command.switches.contains(&argument.as_str());
    let (switches, rest): (Vec<_>, Vec<_>) = rest.iter().partition(is_switch);
    let rest: Vec<String> = rest.into_iter().cloned().collect();
    let Some((config, operands)) = config::load::locate(&rest, env)? else { return Ok(None) };
    let needed = command.operands.iter().filter(|operand| !operand.starts_with('[')).count();
    if operands.len() < needed || operands.len() > command.operands.len() {
        return Err(format!("{} operands were given, {} are needed", operands.len(), needed));
    }
    Ok(Some(Call { config, operands, switches: switches.into_iter().cloned().collect() }))
}

/// How a command is called, without the daemon's options.
fn usage(program: &str, command: &Command) -> String {
    let switches = command.switches.iter().map(|switch| format!("[{switch}]"));
    let words = command.words.iter().map(ToString::to_string).chain(switches);
    let words: Vec<_> = words.chain(command.operands.iter().map(ToString::to_string)).collect();
    format!("{program} {}", words.join(" "))
}

/// All commands with what they do, for people.
pub fn list(program: &str) -> String {
    let usages: Vec<_> = COMMANDS.iter().map(|command| (usage(program, command), command.doc)).collect();
    let width = usages.iter().map(|(usage, _)| usage.len()).max().unwrap_or(0);
    let lines: Vec<_> = usages.iter().map(|(usage, doc)| format!("  {usage:<width$}  {doc}")).collect();
    format!("Commands (they take the daemon's options too, to find it):\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: Command = Command {
        words: &["a", "b"],
        operands: &["X"],
        switches: &["--deep"],
        doc: "",
        run: |_| Ok(ExitCode::SUCCESS),
        failed: 1,
    };

    fn read_words(words: &str) -> Result<Option<Call>, String> {
        let words: Vec<_> = words.split_whitespace().map(String::from).collect();
        read(&PROBE, &words, &Env::new())
    }

    #[test]
    fn operands_switches_and_the_daemons_flags() {
        let call = read_words("x --deep --exec-root /e --config-file=").unwrap().unwrap();
        assert_eq!((call.operands, call.switches), (vec!["x".to_owned()], vec!["--deep".to_owned()]));
        assert_eq!(call.config.paths.exec_root, std::path::Path::new("/e"));
        assert!(read_words("--help --config-file=").unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let text = |words| read_words(words).err().expect("refused");
        assert_eq!(text("--config-file="), "0 operands were given, 1 are needed");
        assert_eq!(text("x --nope"), "unknown flag: --nope");
        assert!(text("x --config-file=/nonexistent").contains("no such file"));
    }

    #[test]
    fn other_lines_are_the_daemons() {
        let line = |words: &str| words.split_whitespace().map(String::from).collect::<Vec<_>>();
        assert!(run("gantryd", &line("--debug images why x")).is_none());
        assert!(run("gantryd", &line("word")).is_none() && run("gantryd", &[]).is_none());
        assert!(run("dockerd", &line("images why x")).is_none());
    }
}
