//! `kill -9` of the daemon at random moments, under load and while it starts.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use testkit::command::{PATIENCE, eventually};
use testkit::{Daemon, places, process, soak};

use crate::calls::{self, COUNTER};
use crate::ledger::{Answered, Dice, Ledger};
use crate::with_busybox;

/// In `cargo xtask test` and in `cargo xtask soak`.
const ROUNDS: (usize, usize) = (50, 500);
const CLIENTS: u64 = 4;
/// Longest time that the daemon lives on in one round, in milliseconds.
const LONGEST_LIFE: u64 = 400;

#[test]
fn fifty_times_under_load() {
    let mut d = with_busybox();
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    eprintln!("seed {seed}");
    let steady = Steady::start(&d);
    let mut dice = Dice::new(seed);
    let answered = Answered::default();
    let mut ledgers: Vec<Ledger<'_>> = (0..CLIENTS).map(|client| Ledger::new(client, seed, &answered)).collect();
    let rounds = soak::rounds(ROUNDS.0, ROUNDS.1) as u64;
    for round in 0..rounds {
        let socket = d.socket();
        let worked = std::thread::scope(|scope| {
            for ledger in &mut ledgers {
                let socket = &socket;
                scope.spawn(move || ledger.work(socket));
            }
            let worked = answered.random_moment(round, 2 * CLIENTS, &mut dice, LONGEST_LIFE);
            d.kill9();
            worked
        });
        assert!(worked, "round {round}: only {} requests were answered", answered.count());
        if round % 5 == 4 {
            killed_while_starting(&d, &steady.command, dice.below(60));
        }
        d.again();
        let list = d.http("GET", "/containers/json?all=1", "").expect(200).json();
        let list = list.as_array().unwrap();
        ledgers.iter_mut().for_each(|ledger| ledger.verify(&d, list));
        for name in list.iter().filter_map(|c| c["Names"][0].as_str()?.strip_prefix('/')) {
            let known = Steady::NAMES.contains(&name) || ledgers.iter().any(|ledger| ledger.knows(name));
            let gone = || d.http("GET", &format!("/containers/{name}/json"), "").status == 404;
            assert!(known || gone(), "round {round}: nobody asked for {name}");
        }
        steady.verify(&d);
    }
    assert!(answered.count() >= rounds * CLIENTS);
    steady.finish(&d);
    d.finish();
}

/// Containers that run from the beginning to the end.
struct Steady {
    runs: Vec<(u32, String)>,
    /// The daemon's command line.
    command: Vec<String>,
    bind: tempfile::TempDir,
}

impl Steady {
    const NAMES: [&str; 4] = ["quiet", "bridged", "frozen", "filing"];

    fn start(d: &Daemon) -> Steady {
        let bind = tempfile::tempdir().unwrap();
        calls::run(d, "quiet", &calls::script(COUNTER));
        let mut bridged = calls::script(COUNTER);
        bridged["HostConfig"] = json!({"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostPort": "18080"}]}});
        calls::run(d, "bridged", &bridged);
        calls::run(d, "frozen", &calls::script("sleep 100000"));
        let script = "i=0; while true; do i=$((i+1)); echo line $i >> /out/file; sleep 0.02; done";
        let binds = json!({"Binds": [format!("{}:/out", bind.path().display())]});
        calls::run(d, "filing", &calls::with_host(calls::script(script), binds));
        let runs = Self::NAMES.map(|name| calls::run_of(d, name)).to_vec();
        let _ = d.http("POST", "/containers/frozen/pause", "").expect(204);
        Steady { runs, command: command_of(d), bind }
    }

    fn verify(&self, d: &Daemon) {
        for (name, (pid, started)) in Self::NAMES.iter().zip(&self.runs) {
            let state = &calls::inspect(d, name)["State"];
            let found = (state["Pid"].as_u64(), state["StartedAt"].as_str(), state["Running"].as_bool());
            assert_eq!(found, (Some(u64::from(*pid)), Some(started.as_str()), Some(true)), "{name}: {state}");
            assert_eq!(state["Paused"], *name == "frozen", "{name}: {state}");
            assert!(process::alive(*pid), "{name}");
        }
    }

    fn finish(&self, d: &Daemon) {
        let _ = d.http("POST", "/containers/frozen/unpause", "").expect(204);
        let file = || std::fs::read_to_string(self.bind.path().join("file")).unwrap();
        let counted = || [calls::log(d, "quiet"), calls::log(d, "bridged"), file()].map(|text| text.lines().count());
        assert!(eventually(PATIENCE, || counted().iter().all(|lines| *lines > 200)), "{:?}", counted());
        for name in ["quiet", "bridged", "filing"] {
            let _ = d.http("POST", &format!("/containers/{name}/stop?t=0"), "").expect(204);
        }
        for name in ["quiet", "bridged"] {
            assert!(calls::unbroken(&calls::log(d, name)) > 200);
        }
        assert!(calls::unbroken(&file()) > 200);
    }
}

/// The command line of a running daemon.
pub fn command_of(d: &Daemon) -> Vec<String> {
    let command = std::fs::read(format!("/proc/{}/cmdline", d.pid())).unwrap();
    let words = command.split(|b| *b == 0).filter(|w| !w.is_empty());
    words.map(|w| String::from_utf8_lossy(w).into_owned()).collect()
}

/// One more daemon that does not live to answer.
pub fn killed_while_starting(d: &Daemon, command: &[String], millis: u64) {
    let mut child = d
        .namespaces()
        .command(places::gantryd())
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(millis));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn everything_goes_on_after_a_crash() {
    let mut d = with_busybox();
    calls::run(&d, "one", &calls::script("trap 'exit 3' TERM; echo ready; while true; do sleep 0.1; done"));
    assert!(eventually(PATIENCE, || calls::log(&d, "one") == "ready\n"));
    let waiting = calls::aside(&d, "POST", "/containers/one/wait");
    let following = calls::aside(&d, "GET", "/containers/one/logs?stdout=1&follow=1");
    std::thread::sleep(Duration::from_millis(200));
    d.kill9();
    // Clients of the dead daemon are told by the end of their connections.
    let _ = waiting.join().unwrap().unwrap_err();
    let _ = following.join().unwrap().unwrap_err();
    d.again();
    let exec = d.http("POST", "/containers/one/exec", r#"{"Cmd":["sh","-c","exit 4"]}"#).expect(201).json();
    let id = exec["Id"].as_str().unwrap();
    let _ = d.http("POST", &format!("/exec/{id}/start"), r#"{"Detach":true}"#).expect(200);
    let ended = eventually(PATIENCE, || {
        let found: Value = d.http("GET", &format!("/exec/{id}/json"), "").expect(200).json();
        found["ExitCode"] == 4
    });
    assert!(ended, "the exec's end is not told");
    let waiting = calls::aside(&d, "POST", "/containers/one/wait");
    std::thread::sleep(Duration::from_millis(200));
    let _ = d.http("POST", "/containers/one/stop?t=100", "").expect(204);
    let (_, body) = waiting.join().unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&body).trim(), r#"{"StatusCode":3}"#);
    calls::start(&d, "one");
    d.finish();
}
