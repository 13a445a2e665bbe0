//! `gantry-intruder`: a program in a container that lies in wait for whatever comes into its PID namespace.
//!
//! `watch SIGN SECRET`: looks at each new process, as often as it can while that lives, for ways to the host: a root, a working
//! directory or a descriptor that leads to the directory SIGN of the host, a descriptor that is no stream, a program that can
//! be written to, and SECRET in the memory, arguments or environment. Every way found is a line, `LEAK WAY PID`.
//! `stop`, `kill`: sends each new process SIGSTOP, again and again, or SIGKILL.
//! Every new process is a line, `seen PID`. Needs a PID namespace in which nobody else makes processes.

#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use rustix::process::{Pid, Signal, kill_process};

/// How far ahead of the last number the next is looked for.
const AHEAD: u32 = 4;
/// Descriptors looked at.
const DESCRIPTORS: u32 = 24;
/// Bytes of one mapping that are searched.
const MAX_MAPPING: u64 = 8 << 20;
/// More than the depth of any directory.
const UP: &str = "../../../../../../../../../../../../";

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |n: usize| words.get(n).map_or("", String::as_str);
    let proc = openat(CWD, "/proc", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("/proc");
    // The first number not taken yet.
    let mut next = std::process::id() + 1;
    println!("ready");
    loop {
        let there = |pid: &u32| statat(&proc, pid.to_string(), AtFlags::empty()).is_ok();
        let Some(pid) = (next..next + AHEAD).find(there) else {
            // Those that came and went unseen are not waited for.
            next = next.max(last_number().unwrap_or(next));
            continue;
        };
        next = pid + 1;
        if word(0) == "watch" {
            Watch { pid, sign: word(1).trim_start_matches('/'), secret: word(2) }.run(&proc);
        } else {
            let signal = if word(0) == "stop" { Signal::STOP } else { Signal::KILL };
            let _ = kill_process(number(pid), signal);
        }
        println!("seen {pid}");
        if word(0) == "stop" {
            persist(pid, Signal::STOP, &proc);
        }
    }
}

/// The last number given in this PID namespace (proc(5), loadavg).
fn last_number() -> Option<u32> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().last()?.parse().ok()
}

fn number(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).expect("a pid")
}

/// Sends it again until the process or its successor is there.
fn persist(pid: u32, signal: Signal, proc: &OwnedFd) {
    while kill_process(number(pid), signal).is_ok() && statat(proc, (pid + 1).to_string(), AtFlags::empty()).is_err() {}
}

struct Watch<'a> {
    pid: u32,
    sign: &'a str,
    secret: &'a str,
}

impl Watch<'_> {
    fn run(&self, proc: &OwnedFd) {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let Ok(dir) = openat(proc, self.pid.to_string(), flags, Mode::empty()) else { return };
        while statat(&dir, "stat", AtFlags::empty()).is_ok() && self.look(dir.as_fd()).is_some() {}
    }

    /// One look; `None` when it has become a program of the container's or is gone.
    fn look(&self, dir: BorrowedFd<'_>) -> Option<()> {
        for way in ["root", "cwd"] {
            if let Ok(fd) = openat(dir, way, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
                self.try_directory(way, fd.as_fd());
            }
        }
        if let Ok(fds) = openat(dir, "fd", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
            (0..DESCRIPTORS).for_each(|n| self.try_descriptor(fds.as_fd(), n));
        }
        let write = OFlags::WRONLY | OFlags::CLOEXEC;
        if openat(dir, "exe", write, Mode::empty()).is_ok() {
            self.found("exe");
        }
        for way in ["environ", "cmdline"] {
            if read(dir, way).is_some_and(|text| contains(&text, self.secret)) {
                self.found(way);
            }
        }
        self.search_memory(dir);
        let name = read(dir, "comm")?;
        (name.starts_with(b"gantry") || name.starts_with(b"exe") || name.len() <= 3).then_some(())
    }

    fn try_directory(&self, way: &str, fd: BorrowedFd<'_>) {
        for path in [self.sign.to_owned(), format!("{UP}{}", self.sign)] {
            if statat(fd, &path, AtFlags::empty()).is_ok() {
                self.found(&format!("{way}:{path}"));
                let name = format!("{path}/intruder-{}", self.pid);
                let _ = openat(fd, name, OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644));
            }
        }
    }

    fn try_descriptor(&self, fds: BorrowedFd<'_>, n: u32) {
        let name = n.to_string();
        let Ok(target) = readlinkat(fds, &name, Vec::new()) else { return };
        let target = target.to_string_lossy().into_owned();
        // A context of a procfs of the watcher's own namespace is as good as any that it opens itself.
        let own = ["pipe:", "/dev/null", "/dev/pts/", "/dev/console", "anon_inode:[fscontext]"];
        let stream = own.iter().any(|s| target.starts_with(s));
        if !stream {
            self.found(&format!("fd:{target}"));
        }
        let Ok(fd) = openat(fds, &name, OFlags::PATH, Mode::empty()) else { return };
        if fstat(&fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()) {
            self.try_directory("fd", fd.as_fd());
        }
    }

    fn search_memory(&self, dir: BorrowedFd<'_>) {
        let (Some(maps), Ok(memory)) =
            (read(dir, "maps"), openat(dir, "mem", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))
        else {
            return;
        };
        let memory = File::from(memory);
        for line in String::from_utf8_lossy(&maps).lines().filter(|line| line.contains(" rw")) {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let Some((from, to)) = range else { continue };
            let bounds = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16));
            let (Ok(from), Ok(to)) = bounds else { continue };
            let mut bytes = vec![0; usize::try_from((to - from).min(MAX_MAPPING)).unwrap_or(0)];
            let n = memory.read_at(&mut bytes, from).unwrap_or(0);
            if contains(&bytes[..n], self.secret) {
                self.found("mem");
            }
        }
    }

    fn found(&self, way: &str) {
        println!("LEAK {way} {}", self.pid);
    }
}

fn read(dir: BorrowedFd<'_>, name: &str) -> Option<Vec<u8>> {
    let file = openat(dir, Path::new(name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut File::from(file), &mut bytes).ok()?;
    Some(bytes)
}

fn contains(text: &[u8], secret: &str) -> bool {
    !secret.is_empty() && text.windows(secret.len()).any(|window| window == secret.as_bytes())
}
