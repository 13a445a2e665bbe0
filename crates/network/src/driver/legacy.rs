//! What `foreign` does, for hosts whose firewall is of the old kind (`ip_tables`): by the program `iptables-legacy`, and
//! only where such a table stands and is not as it should be.
//!
//! The kernel tells nobody of changes of these tables; they are looked at when the networks change and now and then.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use model::{Context, Error, Result};

use super::foreign::{CHAIN, MARK, USER_CHAIN};

/// A family's list of old tables, and its program.
const FAMILIES: [(&str, &str); 2] = [
    ("/proc/thread-self/net/ip_tables_names", "iptables-legacy"),
    ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"),
];
/// Seconds that a program waits for the lock of the tables.
const LOCK_WAIT: &str = "5";

/// Whether there are tables of the old kind in the calling thread's namespace.
pub fn stands() -> bool {
    FAMILIES.iter().any(|(list, _)| has_filter(list))
}

fn has_filter(list: &str) -> bool {
    std::fs::read_to_string(Path::new(list)).is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

/// Brings the jumps of both families in line, in the calling thread's namespace.
pub fn keep(bridges: &[String]) -> Result<()> {
    FAMILIES.iter().filter(|(list, _)| has_filter(list)).try_for_each(|(_, program)| keep_one(program, bridges))
}

fn keep_one(program: &str, bridges: &[String]) -> Result<()> {
    let listed = Command::new(program).args(["-w", LOCK_WAIT, "-S"]).stdin(Stdio::null()).output();
    let listed = listed.with_context(|| format!("running {program}"))?;
    let text = String::from_utf8_lossy(&listed.stdout);
    if !listed.status.success() {
        return Err(Error::system(format!("{program}: {}", String::from_utf8_lossy(&listed.stderr).trim())));
    }
    match change(&text, bridges) {
        None => Ok(()),
        Some(commands) => restore(program, &commands),
    }
}

fn restore(program: &str, commands: &str) -> Result<()> {
    let program = format!("{program}-restore");
    let mut child = Command::new(&program)
        .args(["-w", LOCK_WAIT, "--noflush"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {program}"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes()).with_context(|| format!("running {program}"))?;
    }
    let done = child.wait_with_output().with_context(|| format!("running {program}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(Error::system(format!("{program}: {}", String::from_utf8_lossy(&done.stderr).trim()))),
    }
}

/// Pure: from the table as `-S` lists it to the input of the restoring program; `None` = it is right.
fn change(listing: &str, bridges: &[String]) -> Option<String> {
    let forward: Vec<&str> = listing.lines().filter(|line| line.starts_with("-A FORWARD ")).collect();
    let has = |name: &str| listing.lines().any(|line| line == format!("-N {name}"));
    let own_jump = format!("-A FORWARD -m comment --comment {MARK} -j {CHAIN}");
    let own_user_jump = format!("-A FORWARD -m comment --comment {MARK} -j {USER_CHAIN}");
    let drops = listing.lines().any(|line| line == "-P FORWARD DROP");
    let others: Vec<&str> =
        forward.iter().copied().filter(|line| *line != own_jump && *line != own_user_jump).collect();
    let end = others.iter().position(|line| ends_packets(listing, line));
    let wants_jump = !bridges.is_empty() && (drops || end.is_some());
    let user_jumps = others.iter().any(|line| line.ends_with(&format!("-j {USER_CHAIN}")));
    let wants_user = !bridges.is_empty() && has(USER_CHAIN) && !user_jumps;
    let mut wanted: Vec<&str> = others;
    if wants_jump {
        wanted.insert(end.unwrap_or(wanted.len()), &own_jump);
    }
    if wants_user {
        wanted.insert(0, &own_user_jump);
    }
    let inner: Vec<String> = if wants_jump { bridges.iter().flat_map(|b| accept(b)).collect() } else { Vec::new() };
    let standing: Vec<&str> = listing.lines().filter(|line| line.starts_with(&format!("-A {CHAIN} "))).collect();
    if wanted == forward && standing == inner && has(CHAIN) == wants_jump {
        return None;
    }
    let mut text = "*filter\n".to_owned();
    let ours = forward.iter().filter(|line| **line == own_jump || **line == own_user_jump);
    ours.for_each(|line| text += &format!("{}\n", line.replacen("-A", "-D", 1)));
    if wants_jump {
        // A chain that is declared is emptied.
        text.insert_str("*filter\n".len(), &format!(":{CHAIN} - [0:0]\n"));
        inner.iter().for_each(|line| text += &format!("{line}\n"));
    }
    for (at, line) in wanted.iter().enumerate().filter(|(_, line)| **line == own_jump || **line == own_user_jump) {
        text += &format!("-I FORWARD {} {}\n", at + 1, line.trim_start_matches("-A FORWARD "));
    }
    if !wants_jump && has(CHAIN) {
        text += &format!("-F {CHAIN}\n-X {CHAIN}\n");
    }
    Some(text + "COMMIT\n")
}

/// A rule of FORWARD behind which no packet comes: it refuses all, or leads all to a chain that does.
fn ends_packets(listing: &str, line: &str) -> bool {
    let rest = line.trim_start_matches("-A FORWARD ");
    refuses_all(rest)
        || rest.strip_prefix("-j ").filter(|chain| *chain != USER_CHAIN).is_some_and(|chain| refuses(listing, chain))
}

/// Whether no packet leaves a chain.
fn refuses(listing: &str, chain: &str) -> bool {
    let rules = listing.lines().filter_map(|line| line.strip_prefix(&format!("-A {chain} ")));
    for rule in rules {
        if refuses_all(rule) {
            return true;
        }
        let target = rule.split_once("-j ").and_then(|(_, target)| target.split(' ').next());
        if !matches!(target, Some("LOG" | "NFLOG" | "DROP" | "REJECT")) {
            return false;
        }
    }
    false
}

/// A rule without a condition that drops or rejects.
fn refuses_all(rule: &str) -> bool {
    rule.starts_with("-j DROP") || rule.starts_with("-j REJECT")
}

fn accept(bridge: &str) -> [String; 2] {
    [format!("-A {CHAIN} -o {bridge} -j ACCEPT"), format!("-A {CHAIN} -i {bridge} -j ACCEPT")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridges() -> Vec<String> {
        vec!["docker0".to_owned()]
    }

    #[test]
    fn only_what_drops_gets_a_jump() {
        assert_eq!(change("-P FORWARD ACCEPT\n-A FORWARD -i eth0 -j DROP\n", &bridges()), None);
        let made = change("-P FORWARD DROP\n-A FORWARD -i eth9 -j DROP\n", &bridges()).unwrap();
        assert!(made.contains("-I FORWARD 2 -m comment --comment gantry -j GANTRY-FORWARD\n"), "{made}");
        let made =
            change("-P FORWARD ACCEPT\n-A FORWARD -i a -j ACCEPT\n-A FORWARD -j REJECT --reject-with x\n", &bridges());
        assert!(made.unwrap().contains("-I FORWARD 2 -m comment"));
    }

    #[test]
    fn a_chain_that_refuses_all_is_the_end() {
        let table = |inner: &str| format!("-P FORWARD DROP\n-N no\n-A FORWARD -j no\n-A FORWARD -j later\n{inner}");
        let place = |inner: &str| {
            let made = change(&table(inner), &bridges()).expect("a change");
            made.lines().find(|line| line.ends_with("GANTRY-FORWARD")).map(str::to_owned).unwrap_or_default()
        };
        for refusing in
            ["-A no -j REJECT --reject-with x\n", "-A no -m limit -j LOG\n-A no -i a -j DROP\n-A no -j DROP\n"]
        {
            assert!(place(refusing).starts_with("-I FORWARD 1 "), "{refusing}");
        }
        for open in
            ["", "-A no -i a -j DROP\n", "-A no -i a -j RETURN\n-A no -j DROP\n", "-A no -j yes\n-A no -j DROP\n"]
        {
            assert!(place(open).starts_with("-I FORWARD 3 "), "{open}");
        }
    }

    #[test]
    fn what_is_right_stays_and_what_is_not_needed_goes() {
        let right = "-P FORWARD DROP\n-N GANTRY-FORWARD\n-A FORWARD -m comment --comment gantry -j GANTRY-FORWARD\n\
                     -A GANTRY-FORWARD -o docker0 -j ACCEPT\n-A GANTRY-FORWARD -i docker0 -j ACCEPT\n";
        assert_eq!(change(right, &bridges()), None);
        let gone = change(right, &[]).unwrap();
        assert!(
            gone.contains("-D FORWARD -m comment --comment gantry -j GANTRY-FORWARD\n-F GANTRY-FORWARD\n-X"),
            "{gone}"
        );
        let behind = right.replacen("-A GANTRY", "-A FORWARD -i eth0 -j ACCEPT\n-A GANTRY", 1);
        assert!(change(&behind, &bridges()).unwrap().contains("-I FORWARD 2 "), "at the end again");
    }

    #[test]
    fn the_administrators_chain_is_passed_first() {
        let made = change("-P FORWARD ACCEPT\n-N DOCKER-USER\n", &bridges()).unwrap();
        assert!(made.contains("-I FORWARD 1 -m comment --comment gantry -j DOCKER-USER\n"), "{made}");
        assert_eq!(change("-P FORWARD ACCEPT\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n", &bridges()), None);
    }
}
