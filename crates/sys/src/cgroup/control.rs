//! Acting on all processes of a cgroup: kill, freeze, list.
//!
//! The unified hierarchy is preferred where it is mounted: its kill is atomic against forks, and a process frozen there
//! can still be killed. Every wait is bounded.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Cgroup, Dir};
use crate::process;

/// How long processes may take to die or to freeze.
const PATIENCE: Duration = Duration::from_secs(10);
/// First pause between two looks; doubles up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(20);
/// Rounds of listing and signalling against processes that fork.
const ROUNDS: usize = 100;
/// Processes that are held at once.
const HELD: usize = 256;
/// Without `cgroup.kill`: after this time what has been forked meanwhile is killed, too.
const AGAIN: Duration = Duration::from_millis(100);

const SIGKILL: i32 = 9;

/// Something that takes as long as the processes of a cgroup make it take. It is done by looking at it from time to time: a
/// caller who has others to look after does so in his own loop, and everybody else with [`Step::finish`].
#[derive(Debug)]
pub struct Step {
    cgroup: Cgroup,
    what: What,
    deadline: Instant,
    pause: Duration,
}

#[derive(Debug)]
enum What {
    /// Every process is to be gone (zombies count as gone). Without `cgroup.kill`: when they were signalled last.
    Empty(Option<Instant>),
    /// The cgroup is to be gone; its processes are.
    Remove,
    /// As `Empty`, then as `Remove`.
    EmptyAndRemove(Option<Instant>),
    Freeze,
}

impl Step {
    fn new(cgroup: &Cgroup, what: What) -> Step {
        Step { cgroup: cgroup.clone(), what, deadline: Instant::now() + PATIENCE, pause: SHORTEST }
    }

    /// Whether it is done; never sleeps. `TimedOut` after ten seconds.
    pub fn look(&mut self) -> io::Result<bool> {
        let done = match &mut self.what {
            What::Empty(last) => self.cgroup.is_emptied(last)?,
            What::EmptyAndRemove(last) => {
                if self.cgroup.is_emptied(last)? {
                    self.what = What::Remove;
                    (self.deadline, self.pause) = (Instant::now() + PATIENCE, SHORTEST);
                }
                return Ok(false);
            }
            What::Remove => self.cgroup.is_removed()?,
            What::Freeze => self.cgroup.is_still()?,
        };
        if !done && Instant::now() > self.deadline {
            if matches!(self.what, What::Freeze) {
                let _ = self.cgroup.thaw();
            }
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        Ok(done)
    }

    /// How long to wait before the next look.
    pub fn pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST);
        pause
    }

    /// Looks until it is done.
    pub fn finish(mut self) -> io::Result<()> {
        while !self.look()? {
            sleep(self.pause());
        }
        Ok(())
    }
}

impl Cgroup {
    /// Kills every process in the cgroup and below, and waits until they are gone (zombies count as gone).
    pub fn kill_all(&self) -> io::Result<()> {
        Step::new(self, What::Empty(None)).finish()
    }

    /// Removes the cgroup and what the container has made below it. Without processes it is gone at once (`None`); otherwise
    /// they are killed first. Idempotent.
    pub fn begin_removal(&self) -> io::Result<Option<Step>> {
        for dir in &self.dirs {
            match rustix::fs::unlinkat(CWD, &dir.path, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::BUSY | Errno::NOTEMPTY) => return Ok(Some(Step::new(self, What::EmptyAndRemove(None)))),
                Err(e) => return Err(super::e_at(e.into(), &dir.path)),
            }
        }
        Ok(None)
    }

    /// As [`Cgroup::begin_removal`], to its end.
    pub fn remove(&self) -> io::Result<()> {
        self.begin_removal()?.map_or(Ok(()), Step::finish)
    }

    /// Sends a signal to every process in the cgroup and below, those included that are forked meanwhile (bounded).
    pub fn signal_all(&self, signal: i32) -> io::Result<()> {
        if signal == SIGKILL && self.kill_at_once()? {
            return Ok(());
        }
        let mut reached = HashSet::new();
        for _ in 0..ROUNDS {
            let new: Vec<i32> = self.processes()?.into_iter().filter(|number| !reached.contains(number)).collect();
            if new.is_empty() {
                break;
            }
            reached.extend(self.signal_listed(signal, &new)?);
        }
        Ok(())
    }

    /// `cgroup.kill`, which is atomic against forks; false: this kernel or hierarchy has none.
    fn kill_at_once(&self) -> io::Result<bool> {
        let Some(dir) = self.unified() else { return Ok(false) };
        match dir.write("cgroup.kill", "1") {
            Ok(()) => {
                self.thaw_v1();
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Kills, once or from time to time, what is not gone yet.
    fn is_emptied(&self, last: &mut Option<Instant>) -> io::Result<bool> {
        if last.is_none_or(|last| last.elapsed() >= AGAIN) {
            *last = Some(Instant::now());
            if !self.kill_at_once()? {
                // Frozen so that nothing forks away, thawed so that the signal works.
                if let Some(freezer) = self.controller("freezer") {
                    let _ = freezer.write("freezer.state", "FROZEN");
                }
                let killed = self.signal_all(SIGKILL);
                self.thaw_v1();
                killed?;
            }
        }
        Ok(self.processes()?.is_empty())
    }

    /// Signals those of these processes that are members, and returns their numbers. A number may go to another process
    /// before it is held: a process is signalled only if the cgroup names it afterwards.
    pub fn signal_listed(&self, signal: i32, numbers: &[i32]) -> io::Result<Vec<i32>> {
        let mut reached = Vec::with_capacity(numbers.len());
        for numbers in numbers.chunks(HELD) {
            let hold = |number: &i32| {
                let number = Pid::from_raw(*number)?;
                Some((number.as_raw_pid(), pidfd_open(number, PidfdFlags::empty()).ok()?))
            };
            let held: Vec<(i32, OwnedFd)> = numbers.iter().filter_map(hold).collect();
            let members: HashSet<i32> = self.processes()?.into_iter().collect();
            for (number, pidfd) in held.iter().filter(|(number, _)| members.contains(number)) {
                // One that has ended since is as wished.
                let _ = process::signal(pidfd, signal);
                reached.push(*number);
            }
        }
        Ok(reached)
    }

    fn is_removed(&self) -> io::Result<bool> {
        let mut all = true;
        for dir in &self.dirs {
            all &= is_tree_removed(&dir.path).map_err(|e| super::e_at(e, &dir.path))?;
        }
        Ok(all)
    }

    /// A process that the older freezer has stopped does not even die.
    pub fn thaw_v1(&self) {
        if let Some(freezer) = self.controller("freezer") {
            let _ = freezer.write("freezer.state", "THAWED");
        }
    }

    /// Processes of the cgroup and of those below it, in the caller's PID namespace.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let dir = self.controller("pids").or_else(|| self.controller("memory")).or_else(|| self.dirs.first());
        let mut pids = Vec::new();
        if let Some(dir) = dir {
            collect(&dir.path, &mut pids)?;
        }
        Ok(pids)
    }

    /// Stops all processes; returns when they stand still.
    pub fn freeze(&self) -> io::Result<()> {
        self.begin_freeze()?.finish()
    }

    /// Begins to stop all processes. They are let go on if they do not stand still in time.
    pub fn begin_freeze(&self) -> io::Result<Step> {
        match self.freezer_v2() {
            Some(dir) => dir.write("cgroup.freeze", "1")?,
            None => drop(self.controller("freezer").ok_or_else(no_freezer)?),
        }
        Ok(Step::new(self, What::Freeze))
    }

    fn is_still(&self) -> io::Result<bool> {
        if let Some(dir) = self.freezer_v2() {
            return Ok(dir.read("cgroup.events")?.lines().any(|line| line == "frozen 1"));
        }
        let dir = self.controller("freezer").ok_or_else(no_freezer)?;
        // Written again each time: a fork during the walk leaves the state at FREEZING.
        dir.write("freezer.state", "FROZEN")?;
        Ok(dir.read("freezer.state")?.trim() == "FROZEN")
    }

    /// Lets them go on, whoever has stopped them by whichever of the two freezers.
    pub fn thaw(&self) -> io::Result<()> {
        match self.freezer_v2() {
            Some(dir) => {
                self.thaw_v1();
                dir.write("cgroup.freeze", "0")
            }
            None => self.controller("freezer").ok_or_else(no_freezer)?.write("freezer.state", "THAWED"),
        }
    }

    /// Whether the cgroup is frozen, by either freezer.
    pub fn is_frozen(&self) -> bool {
        let v2 = || self.freezer_v2()?.read("cgroup.freeze").ok().map(|s| s.trim() == "1");
        let v1 = || self.controller("freezer")?.read("freezer.state").ok().map(|s| s.trim() != "THAWED");
        v2().unwrap_or(false) || v1().unwrap_or(false)
    }

    fn freezer_v2(&self) -> Option<&Dir> {
        self.unified().filter(|d| d.path.join("cgroup.freeze").exists())
    }
}

fn no_freezer() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the freezer cgroup controller is not available")
}

fn collect(dir: &Path, pids: &mut Vec<i32>) -> io::Result<()> {
    let text = match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => text,
        // Gone, or a v2 threaded cgroup (whose processes its domain lists).
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) => return Ok(()),
        Err(e) => return Err(e),
    };
    pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
    for child in children(dir)? {
        collect(&child, pids)?;
    }
    Ok(())
}

fn children(dir: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            out.push(entry.path());
        }
    }
    Ok(out)
}

/// Removes an empty cgroup with its children; false: the kernel reports `EBUSY` for a moment after the last exit.
fn is_tree_removed(dir: &Path) -> io::Result<bool> {
    match children(dir) {
        Ok(children) => {
            for child in children {
                if !is_tree_removed(&child)? {
                    return Ok(false);
                }
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(e),
    }
    match rustix::fs::unlinkat(CWD, dir, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
