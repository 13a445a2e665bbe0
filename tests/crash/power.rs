//! The power goes at any moment: what was acknowledged before is there afterwards, works, and `gantryd check` finds nothing.
//!
//! A disk that forgets ([`testkit::power`]) keeps what was flushed and, of the rest, nothing, all, the first part or
//! pieces at random; on ext4 and on XFS.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use model::lock::Mutex;
use serde_json::json;
use testkit::command::{PATIENCE, eventually};
use testkit::images::{Tar, docker_archive};
use testkit::power::{Choices, FileSystem, Keep};
use testkit::{Connection, Daemon, Options, soak};

use crate::{calls, journal};

/// Clients that work while the power goes.
const CLIENTS: u64 = 3;
/// Things done before a cut at most.
const MOST: u64 = 24;

/// What was acknowledged while there was power.
#[derive(Debug)]
enum Kept {
    /// A container that was never started; with a volume of the image's content or none.
    Created(String),
    /// A container that restarts always.
    Running(String),
    /// A volume that nobody used.
    Volume(String),
    /// A volume with a file that its container has synced.
    Data(String),
    /// An image of the archive of this name.
    Image(String),
    /// A container that is gone.
    Removed(String),
    /// A volume that is gone.
    RemovedVolume(String),
}

/// What all clients did.
#[derive(Default)]
struct Ledger {
    kept: Mutex<Vec<Kept>>,
    done: AtomicU64,
    is_over: AtomicBool,
    only_makes: bool,
}

impl Ledger {
    /// Only if the disk has power still: it had when the answer was given.
    fn note(&self, d: &Daemon, kept: Kept) {
        if d.disk().is_powered() {
            self.kept.lock().push(kept);
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A request; whether it was answered with one of these. Without power nothing need be.
fn ask(d: &Daemon, method: &str, path: &str, body: &str, wanted: u16) -> Option<()> {
    let answer = Connection::open(&d.socket()).and_then(|mut c| c.try_request(method, path, body)).ok()?;
    let is_as_wanted = answer.status == wanted;
    assert!(is_as_wanted || !d.disk().is_powered(), "{method} {path}: {} {}", answer.status, answer.text());
    is_as_wanted.then_some(())
}

fn create(d: &Daemon, name: &str, script: &str, host: serde_json::Value) -> Option<()> {
    let body = calls::with_host(calls::script(script), host);
    ask(d, "POST", &format!("/containers/create?name={name}"), &body.to_string(), 201)
}

fn start(d: &Daemon, name: &str) -> Option<()> {
    ask(d, "POST", &format!("/containers/{name}/start"), "", 204)
}

/// Writes a file into a volume, syncs it, and ends with success.
fn write(d: &Daemon, name: &str) -> Option<()> {
    let script = format!("echo {name} | dd of=/v/file conv=fsync 2>/dev/null");
    create(d, name, &script, json!({"Binds": [format!("{name}:/v")]}))?;
    start(d, name)?;
    let answer = Connection::open(&d.socket())
        .and_then(|mut c| c.try_request("POST", &format!("/containers/{name}/wait"), ""))
        .ok()?;
    (answer.status == 200 && answer.json()["StatusCode"] == 0).then_some(())
}

fn archive(name: &str) -> Vec<u8> {
    // A layer of its own over a copy of the shell.
    let layer = Tar::new().file("own", 0o644, name.as_bytes()).bytes();
    docker_archive(&format!("{name}:latest"), &[testkit::images::busybox_tar(), layer], &json!({"Cmd": ["sh"]}))
}

fn load(d: &Daemon, name: &str) -> Option<()> {
    let archive = archive(name);
    let mut connection = Connection::open(&d.socket()).ok()?;
    let head = format!("POST /images/load?quiet=1 HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n", archive.len());
    connection.send(head.as_bytes()).and_then(|()| connection.send(&archive)).ok()?;
    let head = connection.head().ok()?;
    let body = connection.body(&head).ok()?;
    (head.status == 200 && !String::from_utf8_lossy(&body).contains("errorDetail")).then_some(())
}

/// One thing; `None` when the power went.
fn one(d: &Daemon, name: String, choice: u64) -> Option<Kept> {
    let id = format!("/containers/{name}");
    Some(match choice {
        0 | 1 => create(d, &name, "sleep 1000", json!({})).map(|()| Kept::Created(name))?,
        2 => create(d, &name, "sleep 1000", json!({"Binds": ["/etc"]})).map(|()| Kept::Created(name))?,
        3 => {
            create(d, &name, "sleep 1000", json!({"Binds": [format!("{name}:/etc")]})).map(|()| Kept::Created(name))?
        }
        4 | 5 => {
            create(d, &name, "sleep 1000", json!({"RestartPolicy": {"Name": "always"}}))?;
            start(d, &name).map(|()| Kept::Running(name))?
        }
        6 => {
            let body = json!({"Name": name}).to_string();
            ask(d, "POST", "/volumes/create", &body, 201).map(|()| Kept::Volume(name))?
        }
        7 | 8 => write(d, &name).map(|()| Kept::Data(name))?,
        9 => load(d, &name).map(|()| Kept::Image(name))?,
        10 => {
            create(d, &name, "true", json!({}))?;
            ask(d, "DELETE", &id, "", 204).map(|()| Kept::Removed(name))?
        }
        _ => {
            write(d, &name)?;
            ask(d, "DELETE", &id, "", 204)?;
            ask(d, "DELETE", &format!("/volumes/{name}"), "", 204).map(|()| Kept::RemovedVolume(name))?
        }
    })
}

/// Kinds of things that are done, and those of them that take no name away.
const KINDS: u64 = 12;
const MAKING: u64 = 9;

fn client(d: &Daemon, ledger: &Ledger, round: u64, number: u64) {
    let kinds = if ledger.only_makes { MAKING } else { KINDS };
    let mut choices = Choices::new(round * CLIENTS + number + 1);
    for n in 0_u64.. {
        if ledger.is_over.load(Ordering::Relaxed) {
            return;
        }
        if let Some(kept) = one(d, format!("r{round}c{number}n{n}"), choices.below(kinds)) {
            ledger.note(d, kept);
        }
    }
}

/// What the disk keeps in this round.
fn keep(choices: &mut Choices) -> Keep {
    match choices.below(5) {
        0 => Keep::Nothing,
        1 => Keep::All,
        2 => Keep::First(choices.below(1001)),
        _ => Keep::Random(choices.below(u64::MAX)),
    }
}

#[track_caller]
fn is_there(d: &Daemon, kept: &Kept) {
    let works = |name: &str| {
        let started = d.http("POST", &format!("/containers/{name}/start"), "");
        assert_eq!(started.status, 204, "{kept:?}: {}", started.text());
        calls::until(d, name, "running", 0);
    };
    match kept {
        Kept::Created(name) => works(name),
        Kept::Running(name) => {
            let runs = eventually(PATIENCE, || calls::state(d, name).0 == "running");
            assert!(runs, "{kept:?}: {:?}", calls::state(d, name));
        }
        Kept::Volume(name) => {
            let _ = d.http("GET", &format!("/volumes/{name}"), "").expect(200);
        }
        Kept::Data(name) => {
            let reader = format!("reader-{name}");
            let body = calls::with_host(calls::script("cat /v/file"), json!({"Binds": [format!("{name}:/v")]}));
            calls::run(d, &reader, &body);
            calls::until(d, &reader, "exited", 0);
            assert_eq!(calls::log(d, &reader), format!("{name}\n"), "{kept:?}");
            // It ran to its end before the power went, and can be started again.
            calls::start(d, name);
        }
        Kept::Image(name) => {
            let mut body = calls::script("cat /own");
            body["Image"] = json!(name);
            calls::run(d, name, &body);
            calls::until(d, name, "exited", 0);
            assert_eq!(calls::log(d, name), *name, "{kept:?}");
        }
        Kept::Removed(name) => {
            assert_eq!(d.http("GET", &format!("/containers/{name}/json"), "").status, 404, "{kept:?}");
        }
        Kept::RemovedVolume(name) => {
            assert_eq!(d.http("GET", &format!("/volumes/{name}"), "").status, 404, "{kept:?}");
        }
    }
}

/// Events of what was acknowledged are there as well, each once.
#[track_caller]
fn is_told(events: &[serde_json::Value], kept: &Kept) {
    let count = |kind: &str, action: &str, name: &str| {
        let is_it = |event: &&serde_json::Value| {
            event["Type"] == kind && event["Action"] == action && event["Actor"]["Attributes"]["name"] == name
        };
        events.iter().filter(is_it).count()
    };
    let told = |action: &str, name: &str| {
        let count = count("container", action, name);
        assert_eq!(count, 1, "{kept:?}: {action} is told {count} times: {events:#?}");
    };
    match kept {
        Kept::Created(name) => told("create", name),
        Kept::Running(name) => {
            told("create", name);
            // One more by the daemon after the cut.
            assert!(count("container", "start", name) >= 1, "{kept:?}: {events:#?}");
        }
        Kept::Data(name) => ["create", "start", "die"].iter().for_each(|action| told(action, name)),
        Kept::Removed(name) | Kept::RemovedVolume(name) => {
            ["create", "destroy"].iter().for_each(|action| told(action, name));
        }
        Kept::Volume(_) | Kept::Image(_) => {}
    }
}

/// Room for the next round.
fn clear(d: &Daemon, kept: &[Kept]) {
    d.remove_containers();
    let _ = d.http("POST", "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D", "").expect(200);
    for name in kept.iter().filter_map(|kept| if let Kept::Image(name) = kept { Some(name) } else { None }) {
        let _ = d.http("DELETE", &format!("/images/{name}"), "").expect(200);
    }
}

fn round(d: &mut Daemon, number: u64) {
    let mut choices = Choices::new(number + 1);
    let (keep, least) = (keep(&mut choices), 1 + choices.below(MOST));
    let only_makes = d.disk().kind() == FileSystem::Ext4WithoutJournal;
    let ledger = Ledger { only_makes, ..Ledger::default() };
    let daemon = &*d;
    let worked = std::thread::scope(|scope| {
        for client_number in 0..CLIENTS {
            let ledger = &ledger;
            scope.spawn(move || client(daemon, ledger, number, client_number));
        }
        let worked = eventually(PATIENCE, || ledger.done.load(Ordering::Relaxed) >= least);
        daemon.disk().cut(keep);
        ledger.is_over.store(true, Ordering::Relaxed);
        worked
    });
    assert!(worked, "round {number}: less than {least} things were done");
    let kept = ledger.kept.into_inner();
    d.cut_power(keep);
    if let Err(output) = d.boot() {
        panic!("round {number}, {keep:?}: the daemon does not start: {output:?}");
    }
    assert_eq!(d.faults(), [""; 0], "round {number}, {keep:?}: {kept:#?}");
    let events = journal::all(d);
    kept.iter().for_each(|kept| is_told(&events, kept));
    kept.iter().for_each(|kept| is_there(d, kept));
    clear(d, &kept);
}

fn rounds_on(kind: FileSystem, first: u64, rounds: usize) {
    let mut d = Options::new().forgetful(kind).start();
    d.busybox();
    for number in first..first + rounds as u64 {
        round(&mut d, number);
    }
    d.finish();
}

/// Rounds of one file system before it is made anew: what a power cut takes of its blocks is not given back.
const ROUNDS_OF_ONE: usize = 25;

#[test]
fn what_was_acknowledged_outlives_the_power() {
    let kinds = [FileSystem::Ext4, FileSystem::Xfs];
    for (n, kind) in kinds.into_iter().enumerate() {
        let (mut left, mut first) = (soak::rounds(10, 250), n as u64 * 1000);
        while left > 0 {
            let rounds = left.min(ROUNDS_OF_ONE);
            rounds_on(kind, first, rounds);
            (left, first) = (left - rounds, first + rounds as u64);
        }
    }
}

/// Without a journal the same holds of what is made. Of names that are taken away it cannot: an inode is used again before the
/// disk has lost its old name, and the check of the file system gives it to either.
#[test]
fn what_was_made_outlives_the_power_without_a_journal() {
    for n in 0..soak::rounds(5, 50) {
        rounds_on(FileSystem::Ext4WithoutJournal, 5000 + n as u64, 1);
    }
}
