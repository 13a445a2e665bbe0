//! What one client may count on: the load that it makes, and the check of what stands after a crash.
//!
//! A request that was answered has one possible outcome; one that the crash cut off has two. Whatever else is found is a
//! broken promise.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::command::eventually;
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
    /// Pid and start time of its run, once known.
    run: Option<(u64, String)>,
}

/// One client's containers.
pub struct Ledger {
    client: u64,
    dice: Dice,
    made: u64,
    entries: Vec<Entry>,
    /// Requests that were answered.
    pub answered: u64,
}

/// The daemon is gone.
struct Cut;

impl Ledger {
    /// Of the client with this number.
    pub fn new(client: u64, seed: u64) -> Ledger {
        let dice = Dice::new(seed.wrapping_add(client.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        Ledger { client, dice, made: 0, entries: Vec::new(), answered: 0 }
    }

    /// Works until the daemon dies.
    pub fn work(&mut self, socket: &std::path::Path) {
        let Ok(mut connection) = Connection::open(socket) else { return };
        connection.patience(Duration::from_secs(30));
        while self.step(&mut connection).is_ok() {}
    }

    fn step(&mut self, c: &mut Connection) -> Result<(), Cut> {
        let count = self.entries.len() as u64;
        if count == 0 || (count < MOST as u64 && self.dice.below(3) == 0) {
            return self.create(c);
        }
        let at = self.dice.below(count) as usize;
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
        self.answered += 1;
        Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    fn create(&mut self, c: &mut Connection) -> Result<(), Cut> {
        self.made += 1;
        let name = format!("load-{}-{}", self.client, self.made);
        let auto_remove = self.dice.below(6) == 0;
        let mut body = calls::script("exec sleep 1000");
        body["HostConfig"]["AutoRemove"] = json!(auto_remove);
        if self.dice.below(3) == 0 {
            body["HostConfig"]["NetworkMode"] = json!("bridge");
            body["ExposedPorts"] = json!({"80/tcp": {}});
            body["HostConfig"]["PublishAllPorts"] = json!(true);
        }
        self.entries.push(Entry { name: name.clone(), auto_remove, may: GONE.or(RESTING), run: None });
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
        let name = self.entries[at].name.clone();
        let over = if self.entries[at].auto_remove { GONE } else { RESTING };
        self.entries[at].may = RUNNING.or(over);
        let path = match self.dice.below(2) {
            0 => format!("/containers/{name}/stop?t=0"),
            _ => format!("/containers/{name}/restart?t=0"),
        };
        if path.contains("restart") && !self.entries[at].auto_remove {
            // Cut in the middle it may also rest.
            self.entries[at].run = None;
            let _ = self.ask(c, ("POST", &path), &Value::Null, &[204])?;
            self.entries[at].may = RUNNING;
            return Ok(());
        }
        let _ = self.ask(c, ("POST", &format!("/containers/{name}/stop?t=0")), &Value::Null, &[204])?;
        self.entries[at].may = over;
        if over == GONE {
            self.await_gone(c, at)?;
        }
        Ok(())
    }

    /// A container that removes itself is gone soon after its end.
    fn await_gone(&mut self, c: &mut Connection, at: usize) -> Result<(), Cut> {
        let path = format!("/containers/{}/json", self.entries[at].name);
        for _ in 0..500 {
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
        let words = if self.dice.below(2) == 0 { json!(["true"]) } else { json!(["sleep", "1000"]) };
        let made = self.ask(c, ("POST", &format!("/containers/{name}/exec")), &json!({"Cmd": words}), &[201])?;
        let id = made["Id"].as_str().unwrap_or_default().to_string();
        self.ask(c, ("POST", &format!("/exec/{id}/start")), &json!({"Detach": true}), &[200]).map(drop)
    }

    fn remove(&mut self, c: &mut Connection, at: usize) -> Result<(), Cut> {
        let entry = &mut self.entries[at];
        // Killed for its removal, it may be found in between.
        entry.may = if entry.may.running { RUNNING.or(RESTING).or(GONE) } else { entry.may.or(GONE) };
        let path = format!("/containers/{}?force=1", entry.name);
        let _ = self.ask(c, ("DELETE", &path), &Value::Null, &[204])?;
        self.entries[at].may = GONE;
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
        self.entries.retain(|entry| !entry.may.gone);
    }

    /// Whether the container is one of this client's.
    pub fn knows(&self, name: &str) -> bool {
        name.starts_with(&format!("load-{}-", self.client)) && self.entries.iter().any(|e| e.name == name)
    }
}

impl Entry {
    fn verify(&mut self, d: &Daemon, found: Option<&Value>) {
        let Some(found) = found else {
            assert!(self.may.gone, "{self:?} is gone");
            self.may = GONE;
            return;
        };
        match found["State"].as_str().unwrap_or_default() {
            "running" => {
                assert!(self.may.running, "{self:?} runs");
                let now = run_in(&calls::inspect(d, &self.name));
                // What was asked for before the crash may take effect at this moment.
                if now.0 == 0 && self.may.resting {
                    (self.may, self.run) = (RESTING, None);
                    return;
                }
                assert!(process::alive(now.0 as u32), "{self:?} is said to run as {now:?}");
                if let Some(run) = &self.run {
                    assert_eq!(*run, now, "{} was disturbed", self.name);
                }
                (self.may, self.run) = (RUNNING, Some(now));
            }
            "created" | "exited" | "removing" if self.auto_remove && self.may.gone => {
                let gone = eventually(Duration::from_secs(5), || {
                    d.http("GET", &format!("/containers/{}/json", self.name), "").status == 404
                });
                // A remove call that was cut off before its commit leaves a container that never ran.
                assert!(gone || self.may.resting, "{self:?} does not go");
                self.may = if gone { GONE } else { RESTING };
            }
            "created" | "exited" => {
                assert!(self.may.resting, "{self:?} does not run: {found}");
                (self.may, self.run) = (RESTING, None);
            }
            other => panic!("{self:?} is {other}"),
        }
    }
}

fn run_in(inspect: &Value) -> (u64, String) {
    let state = &inspect["State"];
    (state["Pid"].as_u64().unwrap_or(0), state["StartedAt"].as_str().unwrap_or_default().to_string())
}
