//! What `ps` would print, for hosts that have none: read from /proc (proc(5)).
//!
//! The arguments that clients send are known: `-ef`, `-elf`, `aux` (with `f` too, without drawing the tree), lists of
//! columns (`-o`, `-eo`, joined to the list or not) and their combinations with `-w`. Others are refused, with 500 as a
//! `ps` that fails is.

use std::collections::HashMap;
use std::fs;

use blocking::{Blocking, Class};
use model::{Error, Result};

use super::table::Room;
use crate::container::read::cmdline::Budget;

/// One column: its title and how it is read off a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    title: &'static str,
    field: Field,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    UserName,
    UserId,
    GroupId,
    Pid,
    ParentPid,
    ProcessGroup,
    Session,
    CpuWhole,
    CpuPercent,
    MemoryPercent,
    VirtualKib,
    ResidentKib,
    Terminal,
    State,
    StateLong,
    Start,
    Time,
    TimeShort,
    Elapsed,
    Nice,
    Priority,
    Flags,
    Pages,
    /// What other machines have and Linux does not tell.
    Unknown,
    Threads,
    Command,
    Name,
}

/// `(keyword, title, field)` as in ps(1), standard format specifiers.
const KEYWORDS: &[(&str, &str, Field)] = &[
    ("user", "USER", Field::UserName),
    ("euser", "EUSER", Field::UserName),
    ("uname", "USER", Field::UserName),
    ("uid", "UID", Field::UserId),
    ("euid", "EUID", Field::UserId),
    ("gid", "GID", Field::GroupId),
    ("pid", "PID", Field::Pid),
    ("ppid", "PPID", Field::ParentPid),
    ("pgid", "PGID", Field::ProcessGroup),
    ("pgrp", "PGRP", Field::ProcessGroup),
    ("sid", "SID", Field::Session),
    ("sess", "SESS", Field::Session),
    ("c", "C", Field::CpuWhole),
    ("pcpu", "%CPU", Field::CpuPercent),
    ("%cpu", "%CPU", Field::CpuPercent),
    ("pmem", "%MEM", Field::MemoryPercent),
    ("%mem", "%MEM", Field::MemoryPercent),
    ("vsz", "VSZ", Field::VirtualKib),
    ("vsize", "VSZ", Field::VirtualKib),
    ("rss", "RSS", Field::ResidentKib),
    ("rsz", "RSZ", Field::ResidentKib),
    ("tty", "TT", Field::Terminal),
    ("tt", "TT", Field::Terminal),
    ("s", "S", Field::State),
    ("state", "S", Field::State),
    ("stat", "STAT", Field::StateLong),
    ("stime", "STIME", Field::Start),
    ("start", "START", Field::Start),
    ("time", "TIME", Field::Time),
    ("cputime", "TIME", Field::Time),
    ("etime", "ELAPSED", Field::Elapsed),
    ("ni", "NI", Field::Nice),
    ("nice", "NI", Field::Nice),
    ("pri", "PRI", Field::Priority),
    ("f", "F", Field::Flags),
    ("sz", "SZ", Field::Pages),
    ("nlwp", "NLWP", Field::Threads),
    ("thcount", "THCNT", Field::Threads),
    ("args", "COMMAND", Field::Command),
    ("cmd", "CMD", Field::Command),
    ("command", "COMMAND", Field::Command),
    ("comm", "COMMAND", Field::Name),
    ("ucmd", "CMD", Field::Name),
];

const FULL: &[Column] = &[
    Column { title: "UID", field: Field::UserName },
    Column { title: "PID", field: Field::Pid },
    Column { title: "PPID", field: Field::ParentPid },
    Column { title: "C", field: Field::CpuWhole },
    Column { title: "STIME", field: Field::Start },
    Column { title: "TTY", field: Field::Terminal },
    Column { title: "TIME", field: Field::Time },
    Column { title: "CMD", field: Field::Command },
];

/// `-lf`; a long format without the option `f` is refused.
const LONG: &[Column] = &[
    Column { title: "F", field: Field::Flags },
    Column { title: "S", field: Field::State },
    Column { title: "UID", field: Field::UserName },
    Column { title: "PID", field: Field::Pid },
    Column { title: "PPID", field: Field::ParentPid },
    Column { title: "C", field: Field::CpuWhole },
    Column { title: "PRI", field: Field::Priority },
    Column { title: "NI", field: Field::Nice },
    Column { title: "ADDR", field: Field::Unknown },
    Column { title: "SZ", field: Field::Pages },
    Column { title: "WCHAN", field: Field::Unknown },
    Column { title: "STIME", field: Field::Start },
    Column { title: "TTY", field: Field::Terminal },
    Column { title: "TIME", field: Field::Time },
    Column { title: "CMD", field: Field::Command },
];

const BSD: &[Column] = &[
    Column { title: "USER", field: Field::UserName },
    Column { title: "PID", field: Field::Pid },
    Column { title: "%CPU", field: Field::CpuPercent },
    Column { title: "%MEM", field: Field::MemoryPercent },
    Column { title: "VSZ", field: Field::VirtualKib },
    Column { title: "RSS", field: Field::ResidentKib },
    Column { title: "TTY", field: Field::Terminal },
    Column { title: "STAT", field: Field::StateLong },
    Column { title: "START", field: Field::Start },
    Column { title: "TIME", field: Field::TimeShort },
    Column { title: "COMMAND", field: Field::Command },
];

/// The processes that are still there, in the columns that the arguments name.
pub async fn list(threads: &Class, arguments: &str, pids: Vec<i32>) -> Result<api::TopResponse> {
    let columns = parse_arguments(arguments)?;
    let titles = columns.iter().map(|c| c.title.to_string()).collect();
    let read = threads.run(move |on| {
        let (machine, mut budget, mut room) = (Machine::read(on), Budget::default(), Room::new());
        let mut rows = Vec::new();
        for pid in pids {
            let Some(mut process) = Process::read(on, pid, &mut budget) else { continue };
            process.command.truncate(process.command.floor_char_boundary(room.line()));
            let row = process.row(&columns, &machine);
            room.spend(&row)?;
            rows.push(row);
        }
        Ok(rows)
    });
    let processes = read.await?;
    Ok(api::TopResponse { titles, processes })
}

fn parse_arguments(arguments: &str) -> Result<Vec<Column>> {
    let mut columns = Vec::new();
    let mut words = arguments.split_whitespace().peekable();
    if words.peek().is_none() {
        return Ok(FULL.to_vec());
    }
    while let Some(word) = words.next() {
        let flags = word.trim_start_matches('-');
        let is_full = word.starts_with('-') && flags.contains('f') && flags.chars().all(|c| "eAfFlw".contains(c));
        if let Some(list) = column_list(word) {
            columns.extend(parse_columns(if list.is_empty() { words.next().unwrap_or_default() } else { list })?);
        } else if flags.chars().all(|c| "auxfw".contains(c)) && flags.contains('u') {
            columns.extend_from_slice(BSD);
        } else if is_full {
            columns.extend_from_slice(if flags.contains('l') { LONG } else { FULL });
        } else if !flags.chars().all(|c| "eAaxwww".contains(c)) {
            return Err(Error::system(format!("ps: unsupported argument: {word}")));
        }
    }
    if columns.is_empty() {
        columns.extend_from_slice(FULL);
    }
    if !columns.iter().any(|c| c.field == Field::Pid) {
        return Err(Error::system("Couldn't find PID field in ps output"));
    }
    Ok(columns)
}

/// What follows the `o` of `-o`, `-eo`, `axo`; empty: the next word is the list.
fn column_list(word: &str) -> Option<&str> {
    let (flags, list) = word.strip_prefix('-').unwrap_or(word).split_once('o')?;
    flags.chars().all(|c| "eAaxfw".contains(c)).then_some(list)
}

fn parse_columns(list: &str) -> Result<Vec<Column>> {
    list.split(',')
        .filter(|word| !word.is_empty())
        .map(|word| {
            let keyword = word.split('=').next().unwrap_or(word);
            KEYWORDS
                .iter()
                .find(|(name, _, _)| *name == keyword)
                .map(|&(_, title, field)| Column { title, field })
                .ok_or_else(|| Error::system(format!("ps: unknown user-defined format specifier \"{keyword}\"")))
        })
        .collect()
}

/// What is the same for all processes: memory, clock ticks, users, the boot time.
struct Machine {
    memory_kib: u64,
    ticks: u64,
    uptime_ticks: u64,
    boot_seconds: u64,
    users: HashMap<u32, String>,
}

impl Machine {
    #[expect(clippy::disallowed_methods, reason = "on a thread of the processes")]
    fn read(_on: &Blocking) -> Machine {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second();
        let uptime: f64 = text("/proc/uptime").split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0.0);
        let line_value = |all: &str, key: &str| {
            all.lines().find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let users = text("/etc/passwd")
            .lines()
            .filter_map(|l| {
                let mut fields = l.split(':');
                let name = fields.next()?;
                Some((fields.nth(1)?.parse().ok()?, name.to_string()))
            })
            .collect();
        Machine {
            memory_kib: line_value(&text("/proc/meminfo"), "MemTotal:").max(1),
            ticks,
            uptime_ticks: (uptime * ticks as f64) as u64,
            boot_seconds: line_value(&text("/proc/stat"), "btime"),
            users,
        }
    }
}

/// One process as /proc tells it; times in clock ticks.
struct Process {
    pid: i32,
    uid: u32,
    gid: u32,
    name: String,
    command: String,
    /// The fields of /proc/PID/stat behind the name; index 0 is field 3 (state).
    stat: Vec<String>,
}

impl Process {
    /// None when it ended meanwhile.
    #[expect(clippy::disallowed_methods, reason = "on a thread of the processes")]
    fn read(on: &Blocking, pid: i32, budget: &mut Budget) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let (open, close) = (stat.find('(')?, stat.rfind(')')?);
        let name = stat[open + 1..close].to_string();
        let id = |key: &str| -> Option<u32> {
            status.lines().find_map(|l| l.strip_prefix(key)?.split_whitespace().nth(1)?.parse().ok())
        };
        let command = budget.read(on, pid);
        let command = if command.is_empty() { format!("[{name}]") } else { command };
        let stat = stat[close + 1..].split_whitespace().map(str::to_string).collect();
        Some(Process { pid, uid: id("Uid:")?, gid: id("Gid:")?, name, command, stat })
    }

    /// Field `n` of /proc/PID/stat as proc(5) counts them.
    fn number(&self, n: usize) -> i64 {
        self.stat.get(n - 3).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    fn row(&self, columns: &[Column], machine: &Machine) -> Vec<String> {
        columns.iter().map(|c| self.cell(c.field, machine)).collect()
    }

    fn cell(&self, field: Field, machine: &Machine) -> String {
        let cpu_ticks = (self.number(14) + self.number(15)).max(0) as u64;
        let age_ticks = machine.uptime_ticks.saturating_sub(self.number(22).max(0) as u64).max(1);
        let cpu_tenths = cpu_ticks * 1000 / age_ticks;
        let resident_kib = self.number(24).max(0) as u64 * rustix::param::page_size() as u64 / 1024;
        match field {
            Field::UserName => machine.users.get(&self.uid).cloned().unwrap_or_else(|| self.uid.to_string()),
            Field::UserId => self.uid.to_string(),
            Field::GroupId => self.gid.to_string(),
            Field::Pid => self.pid.to_string(),
            Field::ParentPid => self.number(4).to_string(),
            Field::ProcessGroup => self.number(5).to_string(),
            Field::Session => self.number(6).to_string(),
            Field::CpuWhole => (cpu_tenths / 10).to_string(),
            Field::CpuPercent => format!("{}.{}", cpu_tenths / 10, cpu_tenths % 10),
            Field::MemoryPercent => {
                let tenths = resident_kib * 1000 / machine.memory_kib;
                format!("{}.{}", tenths / 10, tenths % 10)
            }
            Field::VirtualKib => (self.number(23) / 1024).to_string(),
            Field::ResidentKib => resident_kib.to_string(),
            Field::Terminal => terminal(self.number(7)),
            Field::State => self.stat.first().cloned().unwrap_or_default(),
            Field::StateLong => self.state_long(),
            Field::Start => self.started(machine),
            Field::Time => clock_time(cpu_ticks / machine.ticks, true),
            Field::TimeShort => clock_time(cpu_ticks / machine.ticks, false),
            Field::Elapsed => elapsed(age_ticks / machine.ticks),
            // As ps(1) shows what the scheduler calls 20.
            Field::Priority => (self.number(18) + 60).to_string(),
            // The two that ps(1) documents.
            Field::Flags => ((self.number(9) >> 6) & 7).to_string(),
            Field::Pages => (self.number(23) / rustix::param::page_size() as i64).to_string(),
            Field::Unknown => "-".into(),
            Field::Nice => self.number(19).to_string(),
            Field::Threads => self.number(20).to_string(),
            Field::Command => self.command.clone(),
            Field::Name => self.name.clone(),
        }
    }

    fn state_long(&self) -> String {
        let mut text = self.stat.first().cloned().unwrap_or_default();
        match self.number(19) {
            n if n < 0 => text.push('<'),
            n if n > 0 => text.push('N'),
            _ => {}
        }
        if self.number(6) == i64::from(self.pid) {
            text.push('s');
        }
        if self.number(20) > 1 {
            text.push('l');
        }
        if self.number(8) == self.number(5) && self.number(8) > 0 {
            text.push('+');
        }
        text
    }

    /// `HH:MM` within a day, else the date as `MonDD`.
    fn started(&self, machine: &Machine) -> String {
        let seconds = machine.boot_seconds + self.number(22).max(0) as u64 / machine.ticks;
        let age = machine.uptime_ticks.saturating_sub(self.number(22).max(0) as u64) / machine.ticks;
        if age < 24 * 3600 {
            return format!("{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60);
        }
        let text = model::time::Timestamp::from_unix_nanos(seconds as i64 * 1_000_000_000).rfc3339_nano();
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month: usize = text.get(5..7).and_then(|m| m.parse().ok()).unwrap_or(1);
        format!("{}{}", MONTHS[(month - 1).min(11)], text.get(8..10).unwrap_or("01"))
    }
}

/// `pts/N`, `ttyN` or `?` from the device number of proc(5) field 7.
fn terminal(device: i64) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        4 => format!("tty{minor}"),
        _ => "?".into(),
    }
}

/// `HH:MM:SS`, or `M:SS` in the short form.
fn clock_time(seconds: u64, with_hours: bool) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if with_hours { format!("{hours:02}:{minutes:02}:{rest:02}") } else { format!("{}:{rest:02}", seconds / 60) }
}

/// `[[DD-]hh:]mm:ss`
fn elapsed(seconds: u64) -> String {
    let (days, hours, minutes, rest) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes:02}:{rest:02}"),
        (0, _) => format!("{hours:02}:{minutes:02}:{rest:02}"),
        _ => format!("{days}-{hours:02}:{minutes:02}:{rest:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(arguments: &str) -> Vec<&'static str> {
        parse_arguments(arguments).expect("valid ps arguments").iter().map(|c| c.title).collect()
    }

    #[test]
    fn the_usual_arguments_are_understood() {
        assert_eq!(titles("-ef").join(" "), "UID PID PPID C STIME TTY TIME CMD");
        assert_eq!(titles(""), titles("-ef"));
        assert_eq!(titles("aux").join(" "), "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
        assert_eq!(titles("auxf"), titles("aux"));
        assert_eq!(titles("-o pid,comm").join(" "), "PID COMMAND");
        assert_eq!(titles("-o pid,pgid,sid,cputime").join(" "), "PID PGID SID TIME");
        assert_eq!(titles("-eo pid,user,args").join(" "), "PID USER COMMAND");
        assert_eq!(titles("-eopid,user").join(" "), "PID USER");
        assert_eq!(titles("axo pid,etime").join(" "), "PID ELAPSED");
        assert_eq!(titles("-elf").join(" "), "F S UID PID PPID C PRI NI ADDR SZ WCHAN STIME TTY TIME CMD");
    }

    #[test]
    fn a_list_without_pid_and_unknown_arguments_are_refused() {
        let message = parse_arguments("-o comm").expect_err("no pid").message().to_string();
        assert_eq!(message, "Couldn't find PID field in ps output");
        assert!(parse_arguments("--forest").is_err());
    }

    #[test]
    fn times_since_the_start_look_as_in_ps() {
        let texts = [5, 65, 3600, 86399, 90061].map(elapsed);
        assert_eq!(texts, ["00:05", "01:05", "01:00:00", "23:59:59", "1-01:01:01"]);
    }

    #[test]
    fn this_process_is_read() {
        let me =
            Process::read(&Blocking::alone(), std::process::id() as i32, &mut Budget::default()).expect("own process");
        let row = me.row(&parse_arguments("-o pid,ppid,comm").expect("columns"), &Machine::read(&Blocking::alone()));
        assert_eq!(row[0], std::process::id().to_string());
        assert!(!row[2].is_empty());
    }
}
