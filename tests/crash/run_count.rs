//! `on-failure:5` is six runs in all, however often the daemon dies meanwhile: what was begun is counted, durably.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::command::{PATIENCE, eventually};
use testkit::power::Choices;
use testkit::{Daemon, soak};

use crate::calls;
use crate::with_busybox;

/// Containers that fail beside each other.
const CONTAINERS: usize = 4;
/// What the policy allows, with the run that a client asked for.
const RUNS: usize = 6;
/// Longest time between two crashes: the pauses between the runs begin with 100 ms.
const LONGEST: Duration = Duration::from_millis(500);
/// How long the daemon is killed again and again; the runs and their pauses take 3 s without.
const TROUBLE: Duration = Duration::from_secs(6);

fn runs(file: &Path) -> usize {
    std::fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

/// Starts the containers; where each notes its runs.
fn start(d: &Daemon, round: usize) -> Vec<(String, PathBuf)> {
    let one = |n: usize| {
        let name = format!("r{round}n{n}");
        let dir = d.path(&name);
        std::fs::create_dir(&dir).unwrap();
        let host = json!({
            "Binds": [format!("{}:/v", dir.display())],
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": RUNS - 1},
        });
        // Some fail at once, some after a moment.
        let script = format!("echo run >> /v/runs; sleep 0.{}; exit 7", n * 4);
        calls::run(d, &name, &calls::with_host(calls::script(&script), host));
        (name, dir.join("runs"))
    };
    (0..CONTAINERS).map(one).collect()
}

fn round(d: &mut Daemon, round: usize) {
    let mut choices = Choices::new(round as u64 + 1);
    let started = start(d, round);
    let begin = Instant::now();
    while begin.elapsed() < TROUBLE {
        std::thread::sleep(Duration::from_millis(choices.below(LONGEST.as_millis() as u64)));
        d.crash();
        for (name, file) in &started {
            let count = calls::inspect(d, name)["RestartCount"].as_u64().unwrap();
            assert!(runs(file) <= RUNS && count < RUNS as u64, "round {round}: {name}: {} runs, {count}", runs(file));
        }
    }
    for (name, file) in &started {
        assert!(eventually(PATIENCE, || calls::state(d, name).0 == "exited"), "{name}: {:?}", calls::state(d, name));
        // Every run is one that the policy wants: none is lost but such as were ended before they came to their first line.
        let (runs, count) = (runs(file), calls::inspect(d, name)["RestartCount"].as_u64().unwrap());
        assert!((1..=RUNS).contains(&runs) && count == RUNS as u64 - 1, "round {round}: {name}: {runs} runs, {count}");
    }
    // Nor does a later daemon grant more, while a start by hand begins anew.
    d.crash();
    for (name, file) in &started {
        assert_eq!(calls::state(d, name).0, "exited", "{name}");
        assert!(runs(file) <= RUNS, "{name}");
    }
    let (name, _) = &started[0];
    for verb in ["start", "restart"] {
        let _ = d.http("POST", &format!("/containers/{name}/{verb}"), "").expect(204);
        assert!(calls::inspect(d, name)["RestartCount"].as_u64().unwrap() < RUNS as u64 - 1, "{verb} counts anew");
    }
    d.remove_containers();
}

#[test]
fn a_daemon_that_dies_grants_no_further_runs() {
    let mut d = with_busybox();
    for n in 0..soak::rounds(2, 50) {
        round(&mut d, n);
    }
    d.finish();
}
