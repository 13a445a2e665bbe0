//! Random lives of a monitor, without root and without containers: a daemon that asks for anything at any time, leaves, and
//! comes again; clients that come, type and go.
//!
//! What must hold: each request is answered once, under its own number, to the connection that asked; an exec that has started
//! ends once, and a daemon that comes later is told of it; what clients typed is in the log, once; the end is told and recorded;
//! the monitor ends then, and has reaped its children. `GANTRY_SEED` repeats a life, `GANTRY_LIVES` says how many there are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::*;
use crate::client::Client;
use crate::proto::Packet;

/// Lives of one test.
const LIVES: u64 = 12;
/// What is done in one life.
const STEPS: u64 = 60;
/// Repeats what it reads until it is killed; the end of its input is none.
const ECHO: &str = "while :; do read line && echo \"got $line\" || sleep 0.01; done";

/// See the head of this file.
#[test]
fn random_lives_keep_the_rules() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let fixed = number("GANTRY_SEED");
    let first = fixed.unwrap_or_else(|| u64::from(std::process::id()) << 20);
    let count = if fixed.is_some() { 1 } else { number("GANTRY_LIVES").unwrap_or(LIVES) };
    for seed in first..first + count {
        println!("GANTRY_SEED={seed}");
        Life::begin(seed).live();
    }
}

/// Numbers that a seed decides (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

struct Life {
    random: Random,
    dir: tempfile::TempDir,
    run: Option<thread::JoinHandle<()>>,
    daemon: Client,
    seq: u32,
    /// Requests of this connection that are not answered, with the exec that they start.
    asked: BTreeMap<u32, Option<String>>,
    /// Execs that were asked for: what is known of each.
    execs: BTreeMap<String, Known>,
    /// Clients that are attached.
    clients: Vec<UnixStream>,
    /// Clients by the number of the request to attach them.
    attaching: BTreeMap<u32, UnixStream>,
    gone: Vec<UnixStream>,
    /// Lines that were typed.
    lines: BTreeSet<String>,
    ended: u32,
}

/// What a daemon knows of an exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Nothing: it was not answered, perhaps because the daemon left.
    Asked,
    Started(i32),
    Ended,
}

impl Life {
    fn begin(seed: u64) -> Life {
        let dir = tempfile::tempdir().unwrap();
        let (mut daemon, run) = monitor(dir.path());
        daemon.started(&StartSpec { open_stdin: true, ..spec(dir.path(), ECHO) }, &[]);
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (asked, execs, clients, attaching, gone, lines) = Default::default();
        Life {
            random,
            dir,
            run: Some(run),
            daemon: daemon.client,
            seq: 100,
            asked,
            execs,
            clients,
            attaching,
            gone,
            lines,
            ended: 0,
        }
    }

    fn live(mut self) {
        for _ in 0..STEPS {
            match self.random.below(12) {
                0 => self.leave_and_come_again(),
                1 | 2 => self.exec(),
                3 => self.attach(),
                4 | 5 => self.type_a_line(),
                6 => self.close(),
                7 => self.until(|life| life.asked.is_empty()),
                _ => self.ask(),
            }
            while self.take(false) {}
        }
        self.until(|life| life.asked.is_empty());
        let typed = self.lines.clone();
        let dir = self.dir.path().to_owned();
        self.until(|_| {
            let log = log_text(&dir);
            typed.iter().all(|line| log.matches(&format!("got {line}\n")).count() == 1)
        });
        self.end();
    }

    /// Anything that is answered at once.
    fn ask(&mut self) {
        let exec = match self.random.below(3) {
            0 => None,
            1 => Some("no such exec".to_owned()),
            _ => self.execs.keys().next_back().cloned(),
        };
        let request = match self.random.below(6) {
            0 => Request::Ping,
            1 => Request::Freeze { frozen: self.random.below(2) == 0, passing: false },
            2 => Request::Resize { exec, rows: 24, columns: 80 },
            3 => Request::Unpublish(Vec::new()),
            // The container itself ends at the end of the test only.
            4 => Request::Signal { signal: if exec.is_some() { SIGKILL } else { 0 }, exec, scope: Scope::Process },
            _ => Request::Attach(Attach::default()),
        };
        self.seq += 1;
        self.daemon.send(self.seq, &request, &[]).unwrap();
        self.asked.insert(self.seq, None);
    }

    fn exec(&mut self) {
        self.seq += 1;
        let id = format!("e{}", self.seq);
        let scripts = ["true", "exit 3", "echo out; echo err >&2", "sleep 0.02", "cat", "nonsense"];
        let script = scripts[self.random.below(scripts.len() as u64) as usize];
        let (ours, theirs) = pair();
        let attach = (self.random.below(2) == 0).then(|| all_streams(self.random.below(2) == 0, true));
        let exec =
            Exec { id: id.clone(), open_stdin: attach.as_ref().is_some_and(|attach| attach.stdin), attach, probe: 0 };
        let socket = exec.attach.is_some().then(|| theirs.as_fd());
        self.daemon.exec(self.seq, exec, &process(script), socket).unwrap();
        self.asked.insert(self.seq, Some(id.clone()));
        self.execs.insert(id, Known::Asked);
        // What it reads from ends with the client.
        drop(ours);
    }

    fn attach(&mut self) {
        let (ours, theirs) = pair();
        self.seq += 1;
        let attach = all_streams(true, self.random.below(2) == 0);
        self.daemon.send(self.seq, &Request::Attach(attach), &[theirs.as_fd()]).unwrap();
        self.asked.insert(self.seq, None);
        self.attaching.insert(self.seq, ours);
    }

    /// A client that says no more. It is closed at the end only: what comes behind its last read would take what it typed with it.
    fn close(&mut self) {
        if let Some(client) = self.clients.pop() {
            client.shutdown(std::net::Shutdown::Write).unwrap();
            self.gone.push(client);
        }
    }

    /// Of one client at a time: lines of two could come in pieces.
    fn type_a_line(&mut self) {
        self.until(|life| life.asked.is_empty());
        self.seq += 1;
        let line = format!("line{}", self.seq);
        if let Some(client) = self.clients.last_mut() {
            client.write_all(format!("{line}\n").as_bytes()).unwrap();
            self.lines.insert(line);
        }
    }

    fn leave_and_come_again(&mut self) {
        self.asked.clear();
        // The monitor may never have seen them.
        self.gone.extend(std::mem::take(&mut self.attaching).into_values());
        let (daemon, state) = Daemon::reconnect(self.dir.path());
        self.daemon = daemon.client;
        assert!(state.pid > 0 && state.exit.is_none(), "{state:?}");
        for (id, known) in &mut self.execs {
            let told = state.execs.iter().find(|exec| exec.id == *id);
            match (*known, told) {
                (Known::Started(pid), Some(exec)) => {
                    assert_eq!(exec.pid, pid, "{id}");
                    *known = if exec.exit.is_some() { Known::Ended } else { *known };
                }
                (Known::Started(_), None) => panic!("nothing is told of {id}: {state:?}"),
                (Known::Asked, Some(exec)) => {
                    *known = if exec.exit.is_some() { Known::Ended } else { Known::Started(exec.pid) };
                }
                (Known::Asked, None) | (Known::Ended, _) => {}
            }
        }
    }

    /// Takes one message, if one is there or is waited for.
    fn take(&mut self, wait: bool) -> bool {
        if wait {
            let patience = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            poll(&mut [PollFd::new(&self.daemon, PollFlags::IN)], Some(&patience)).unwrap();
        }
        match self.daemon.receive() {
            Ok(packet) => self.note(packet.expect("the monitor is gone")),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        true
    }

    fn note(&mut self, Packet { seq, body }: Packet<Event>) {
        match body {
            Event::Started { exec: Some(id), pid, .. } => {
                assert_eq!(self.asked.remove(&seq), Some(Some(id.clone())));
                assert_eq!(self.execs.insert(id, Known::Started(pid)), Some(Known::Asked));
            }
            Event::Failed { exec: Some(id), .. } => {
                assert_eq!(self.asked.remove(&seq), Some(Some(id.clone())));
                assert_eq!(self.execs.insert(id, Known::Ended), Some(Known::Asked));
            }
            Event::Done { refused } => {
                assert_eq!(self.asked.remove(&seq), Some(None), "{seq}");
                if let Some(client) = self.attaching.remove(&seq) {
                    assert_eq!(refused, None);
                    self.clients.push(client);
                }
            }
            Event::Exited { exec: Some(id), .. } => {
                let before = self.execs.insert(id.clone(), Known::Ended);
                // Asked: of a daemon that left before it was answered.
                assert!(matches!(before, Some(Known::Started(_) | Known::Asked)), "{id}: {before:?}");
                if let Some(Known::Started(pid)) = before {
                    let child = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
                    assert!(child.is_err(), "{id} has ended and is not reaped: {child:?}");
                }
            }
            Event::Exited { exec: None, exit } => {
                assert_eq!(exit.code, 137);
                self.ended += 1;
            }
            Event::Detached { .. } | Event::Died { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn until(&mut self, holds: impl Fn(&Life) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < LIMIT, "{:?} {:?}", self.asked, self.execs);
            self.take(true);
        }
    }

    fn end(mut self) {
        self.seq += 1;
        let kill = Request::Signal { exec: None, signal: SIGKILL, scope: Scope::Process };
        self.daemon.send(self.seq, &kill, &[]).unwrap();
        self.asked.insert(self.seq, None);
        self.until(|life| life.ended > 0);
        let started = |life: &Life| life.execs.values().any(|known| matches!(known, Known::Started(_)));
        self.until(|life| !started(life));
        assert_eq!(self.ended, 1);
        let record: crate::proto::Exit =
            serde_json::from_slice(&std::fs::read(self.dir.path().join("exit")).unwrap()).unwrap();
        assert_eq!((record.code, record.signal), (137, Some(SIGKILL)));
        self.clients.clear();
        self.daemon.send(0, &Request::Release, &[]).unwrap();
        self.run.take().unwrap().join().unwrap();
    }
}
