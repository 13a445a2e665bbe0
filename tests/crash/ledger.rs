//! What one client may count on: the load that it makes, and the check of what stands after a crash.
//!
//! A request that was answered has one possible outcome; one that the crash cut off has two. Whatever else is found is a
//! broken promise.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::command::{PATIENCE, eventually};
use testkit::{Connection, Daemon, process};

use crate::calls;

/// Containers that one client keeps at most.
const MOST: usize = 5;

/// A small generator of numbers; the seed is told when a test fails.
pub struct Dice(u64);

impl Dice {
    /// From a seed that is not 0.
    pub fn new(seed: u64) -> Dice {
        Dice(seed | 1)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % n
    }
}

/// Requests that were answered, to all clients of a test.
#[derive(Default)]
pub struct Answered(AtomicU64);

impl Answered {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// All so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits for a moment of this round, random up to `longest` milliseconds from now, in every other round from when
    /// `least` more are answered: what is done in all rounds does not depend on the machine. False if they are not.
    #[must_use]
    pub fn random_moment(&self, round: u64, least: u64, dice: &mut Dice, longest: u64) -> bool {
        let wanted = self.count() + if round.is_multiple_of(2) { least } else { 0 };
        let worked = eventually(PATIENCE, || self.count() >= wanted);
        std::thread::sleep(Duration::from_millis(dice.below(longest)));
        worked
    }
}

/// Where a container may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct May {
    gone: bool,
    resting: bool,
    running: bool,
}

const GONE: May = May { gone: true, resting: false, running: false };
const RESTING: May = May { gone: false, resting: true, running: false };
const RUNNING: May = May { gone: false, resting: false, running: true };

impl May {
    fn or(self, other: May) -> May {
        May {
            gone: self.gone || other.gone,
            resting: self.resting || other.resting,
            running: self.running || other.running,
        }
    }
}

#[derive(Debug)]
struct Entry {
    name: String,
    /// It goes by itself after its run.
    auto_remove: bool,
    may: May,
    /// The crash cut off what would have ended its run: that may come yet.
    ending: bool,
    /// Pid and start time of its run, once known.
    run: Option<(u64, String)>,
}

/// One client's containers.
pub struct Ledger<'a> {
    client: u64,
    dice: Dice,
    made: u64,
    entries: Vec<Entry>,
    answered: &'a Answered,
}

/// The daemon is gone.
struct Cut;

impl Ledger<'_> {
    /// Of the client with this number.
    pub fn new(client: u64, seed: u64, answered: &Answered) -> Ledger<'_> {
        let dice = Dice::new(seed.wrapping_add(client.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        Ledger { client, dice, made: 0, entries: Vec::new(), answered }
    }

    /// Works until the daemon dies.
    pub fn work(&mut self, socket: &std::path::Path) {
        let Ok(mut connection) = Connection::open(socket) else { return };
        while self.step(&mut connection).is_ok() {}
    }

    fn step(&mut self, c: &mut Connection) -> Result<(), Cut> {
        let count = self.entries.len() as u64;
        if count == 0 || (count < MOST as u64 && self.dice.below(3) == 0) {
            return self.create(c);
        }
        let at = self.dice.below(count) as usize;
        if self.entries[at].ending {
            return self.end(c, at, &[204, 304, 404]);
        }
        match (self.entries[at].may.running, self.dice.below(10)) {
            (false, 0..7) => self.start(c, at),
            (false, _) => self.remove(c, at),
            (true, 0..4) => self.stop(c, at),
            (true, 4..7) => self.exec(c, at),
            (true, _) => self.remove(c, at),
        }
    }

    /// Sends a request; any answer but the `good` ones is a failure of the test.
    fn ask(
        &mut self,
        c: &mut Connection,
        (method, path): (&str, &str),
        body: &Value,
        good: &[u16],
    ) -> Result<Value, Cut> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let answer = c.try_request(method, path, &text).map_err(|_| Cut)?;
        assert!(good.contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
        self.answered.add();
        Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    fn create(&mut self, c: &mut Connection) -> Result<(), Cut> {
        self.made += 1;
        let name = format!("load-{}-{}", self.client, self.made);
        let auto_remove = self.dice.below(6) == 0;
        let mut body = calls::script("exec sleep 100000");
        body["HostConfig"]["AutoRemove"] = json!(auto_remove);
        if self.dice.below(3) == 0 {
            body["HostConfig"]["NetworkMode"] = json!("bridge");
            body["ExposedPorts"] = json!({"80/tcp": {}});
            body["HostConfig"]["PublishAllPorts"] = json!(true);
        }
        let may = GONE.or(RESTING);
        self.entries.push(Entry { name: name.clone(), auto_remove, may, ending: false, run: None });
        let _ = self.ask(c, ("POST", &format!("/containers/create?name={name}")), &body, &[201])?;
        self.entries.last_mut().unwrap().may = RESTING;
        Ok(())
    }

    fn start(&mut self, c: &mut Connection, at: usize) -> Result<(), Cut> {
        let name = self.entries[at].name.clone();
        self.entries[at].may = RESTING.or(RUNNING);
        self.entries[at].run = None;
        let _ = self.ask(c, ("POST", &format!("/containers/{name}/start")), &Value::Null, &[204])?;
        self.entries[at].may = RUNNING;
        let found = self.ask(c, ("GET", &format!("/containers/{name}/json")), &Value::Null, &[200])?;
        self.entries[at].run = Some(run_in(&found));
        Ok(())
    }

    fn stop(&mut self, c: &mut Connection, at: usize) -> Result<(), Cut> {
        let restarts = self.dice.below(2) == 1 && !self.entries[at].auto_remove;
        if !restarts {
            return self.end(c, at, &[204]);
        }
        let entry = &mut self.entries[at];
        // Cut in the middle it may also rest.
        (entry.may, entry.ending, entry.run) = (RUNNING.or(RESTING), true, None);
        let path = format!("/containers/{}/restart?t=0", entry.name);
        let _ = self.ask(c, ("POST", &path), &Value::Null, &[204])?;
        (self.entries[at].may, self.entries[at].ending) = (RUNNING, false);
        Ok(())
    }

    /// Ends a run.
    fn end(&mut self, c: &mut Connection, at: usize, good: &[u16]) -> Result<(), Cut> {
        let entry = &mut self.entries[at];
        let over = entry.over();
        (entry.may, entry.ending) = (RUNNING.or(over), true);
        let path = format!("/containers/{}/stop?t=0", entry.name);
        let _ = self.ask(c, ("POST", &path), &Value::Null, good)?;
        (self.entries[at].may, self.entries[at].ending) = (over, false);
        if over == GONE {
            self.await_gone(c, at)?;
        }
        Ok(())
    }

    /// A container that removes itself is gone soon after its end.
    fn await_gone(&mut self, c: &mut Connection, at: usize) -> Result<(), Cut> {
        let path = format!("/containers/{}/json", self.entries[at].name);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let answer = c.try_request("GET", &path, "").map_err(|_| Cut)?;
            if answer.status == 404 {
                self.entries.remove(at);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{path} does not go");
    }

    fn exec(&mut self, c: &mut Connection, at: usize) -> Result<(), Cut> {
        let name = self.entries[at].name.clone();
        let words = if self.dice.below(2) == 0 { json!(["true"]) } else { json!(["sleep", "100000"]) };
        let made = self.ask(c, ("POST", &format!("/containers/{name}/exec")), &json!({"Cmd": words}), &[201])?;
        let id = made["Id"].as_str().unwrap_or_default().to_string();
        self.ask(c, ("POST", &format!("/exec/{id}/start")), &json!({"Detach": true}), &[200]).map(drop)
    }

    fn remove(&mut self, c: &mut Connection, at: usize) -> Result<(), Cut> {
        let entry = &mut self.entries[at];
        // Killed for its removal, it may be found in between.
        entry.may = if entry.may.running { RUNNING.or(RESTING).or(GONE) } else { entry.may.or(GONE) };
        entry.ending = entry.may.running;
        let path = format!("/containers/{}?force=1", entry.name);
        let _ = self.ask(c, ("DELETE", &path), &Value::Null, &[204])?;
        (self.entries[at].may, self.entries[at].ending) = (GONE, false);
        // Kept until the next crash: it must not come back.
        let gone = self.entries.remove(at);
        let found = c.try_request("GET", &format!("/containers/{}/json", gone.name), "").map_err(|_| {
            self.entries.push(gone);
            Cut
        })?;
        assert_eq!(found.status, 404, "removed, and still there");
        Ok(())
    }

    /// Compares with what the new daemon has, and goes on from there.
    pub fn verify(&mut self, d: &Daemon, list: &[Value]) {
        for entry in &mut self.entries {
            let wanted = format!("/{}", entry.name);
            let found = list.iter().find(|c| c["Names"][0] == wanted.as_str());
            entry.verify(d, found);
        }
        self.entries.retain(|entry| entry.may != GONE);
    }

    /// Whether the container is one of this client's.
    pub fn knows(&self, name: &str) -> bool {
        name.starts_with(&format!("load-{}-", self.client)) && self.entries.iter().any(|e| e.name == name)
    }
}

impl Entry {
    /// Where it is when its run is over.
    fn over(&self) -> May {
        if self.auto_remove { GONE } else { RESTING }
    }

    fn verify(&mut self, d: &Daemon, found: Option<&Value>) {
        let Some(found) = found else {
            assert!(self.may.gone, "{self:?} is gone");
            self.may = GONE;
            return;
        };
        match found["State"].as_str().unwrap_or_default() {
            // What was asked for before the crash takes effect at any moment from now on, or never.
            "running" if self.ending => self.may = RUNNING.or(self.over()),
            "running" => {
                assert!(self.may.running, "{self:?} runs");
                let now = run_in(&calls::inspect(d, &self.name));
                assert!(process::alive(now.0 as u32), "{self:?} is said to run as {now:?}");
                if let Some(run) = &self.run {
                    assert_eq!(*run, now, "{} was disturbed", self.name);
                }
                (self.may, self.run) = (RUNNING, Some(now));
            }
            "exited" | "removing" if self.auto_remove && self.may.gone => {
                let path = format!("/containers/{}/json", self.name);
                let gone = eventually(PATIENCE, || d.http("GET", &path, "").status == 404);
                assert!(gone, "{self:?} does not go");
                self.may = GONE;
            }
            // A remove call that was cut off before its commit leaves a container that never ran.
            "created" | "exited" => {
                assert!(self.may.resting, "{self:?} does not run: {found}");
                (self.may, self.ending, self.run) = (RESTING, false, None);
            }
            other => panic!("{self:?} is {other}"),
        }
    }
}

fn run_in(inspect: &Value) -> (u64, String) {
    let state = &inspect["State"];
    (state["Pid"].as_u64().unwrap_or(0), state["StartedAt"].as_str().unwrap_or_default().to_string())
}
