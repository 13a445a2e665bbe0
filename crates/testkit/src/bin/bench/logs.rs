//! Log throughput: writing against `cat` through a pipe into a file, reading back, the tail.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Instant;

use testkit::places;

use crate::Scale;
use crate::engine::{Client, Engine, Network, micros};
use crate::figures::{Figures, Samples};

/// Rounds of writing, in turn with `cat`: a single one depends on what the disk is about to write.
const ROUNDS: usize = 5;

/// Lets a container write lines of 100 bytes: its id, and the microseconds it took.
fn flood(scale: Scale, client: &mut Client, log: &str) -> (String, f64) {
    let bytes = scale.log_bytes.to_string();
    let id = client.create(&["flood", &bytes, "100"], Network::None, log);
    let begin = Instant::now();
    client.start(&id);
    client.wait(&id);
    (id, micros(begin))
}

/// A container writes lines of 100 bytes.
pub fn throughput(scale: Scale, engine: &Engine, figures: &mut Figures) {
    let mut client = engine.connect();
    let unlimited = r#","LogConfig":{"Type":"json-file","Config":{"max-size":"-1"}}"#;
    let (mut writing, mut rotating, mut through_pipe) = (Vec::new(), Vec::new(), Vec::new());
    let mut kept = None;
    for _ in 0..ROUNDS {
        let (id, took) = flood(scale, &mut client, unlimited);
        writing.push(took);
        if let Some(before) = kept.replace(id) {
            client.remove(&before);
        }
        through_pipe.push(through_cat(scale));
        let (id, took) = flood(scale, &mut client, "");
        rotating.push(took);
        client.remove(&id);
    }
    let id = kept.expect("there was a round");
    let p50 = |samples: Vec<f64>| Samples::new(samples).percentile(50.0);
    let (writing, reference) = (p50(writing), p50(through_pipe));
    figures.at_most("log written", writing / 1e6, "s", None);
    figures.ratio("log written / cat", writing / reference, Some(3.0));
    figures.ratio("log written with rotation / cat", p50(rotating) / reference, None);
    let begin = Instant::now();
    let body = client.get(&format!("/v1.41/containers/{id}/logs?stdout=1"));
    figures.at_most("log read back", micros(begin) / 1e6, "s", Some(1.16 * scale.log_bytes as f64 / 1e8));
    assert!(body.len() as u64 > scale.log_bytes, "the log is complete: {} bytes", body.len());
    let mut tail = Vec::new();
    for _ in 0..20 {
        let begin = Instant::now();
        client.get(&format!("/v1.41/containers/{id}/logs?stdout=1&tail=100"));
        tail.push(micros(begin));
    }
    figures.time_within("logs --tail 100", &Samples::new(tail), 50.0, 20.0);
    client.remove(&id);
}

/// The same bytes through a pipe and `cat` into a file, in microseconds.
fn through_cat(scale: Scale) -> f64 {
    let dir = tempfile::Builder::new().prefix("gt-cat").tempdir_in("/tmp").expect("a directory in /tmp");
    let out = File::create(dir.path().join("out")).expect("a file in a fresh directory");
    let begin = Instant::now();
    let mut flood = Command::new(places::program("gantry-probe"))
        .args(["flood", &scale.log_bytes.to_string(), "100"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test program starts");
    let pipe = flood.stdout.take().expect("stdout is piped");
    let status = Command::new("cat").stdin(pipe).stdout(out).status().expect("cat starts");
    assert!(status.success() && flood.wait().expect("the test program ends").success());
    micros(begin)
}
