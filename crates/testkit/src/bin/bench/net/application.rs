//! Four services on two networks brought up by Compose, without the client's own time: that is what a dry run takes.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use testkit::{command, places};

use super::{Scale, engines};
use crate::engine::{Engine, micros};
use crate::figures::{Figures, Samples};

const APPLICATION: &str = r#"name: bench
x-service: &service {image: probe, command: ["sleep", "100000"], stop_grace_period: 0s}
services:
  proxy: {<<: *service, ports: ["18080:80"], networks: [front], depends_on: [web]}
  web: {<<: *service, networks: [front, back], depends_on: [database, cache]}
  database: {<<: *service, networks: [back], volumes: ["data:/data"]}
  cache: {<<: *service, networks: [back]}
networks: {front: , back: {internal: true}}
volumes: {data: }
"#;

pub fn run(scale: Scale, own: &Engine, other: Option<&Engine>, figures: &mut Figures) {
    let dir = tempfile::Builder::new().prefix("gt-app").tempdir_in("/tmp").expect("a directory in /tmp");
    let file = dir.path().join("compose.yaml");
    std::fs::write(&file, APPLICATION).expect("a fresh directory can be filled");
    let engines = engines(own, other);
    let mut found = vec![(Vec::new(), Vec::new()); engines.len()];
    for _ in 0..scale.rounds {
        for ((up, client), (_, engine)) in found.iter_mut().zip(&engines) {
            client.push(compose(engine, &file, &["--dry-run", "up", "-d"]));
            up.push(compose(engine, &file, &["up", "-d"]));
            let _ = compose(engine, &file, &["down", "-v"]);
        }
    }
    let mut alone = Vec::new();
    for ((up, client), (name, _)) in found.into_iter().zip(&engines) {
        let (up, client) = (Samples::new(up), Samples::new(client));
        figures.time(&format!("{name}compose up, 4 services"), &up);
        figures.time(&format!("{name}compose, dry run"), &client);
        alone.push((up.percentile(50.0) - client.percentile(50.0)).max(1.0));
    }
    figures.at_most("compose up without the client", alone[0] / 1000.0, "ms", None);
    if let Some(reference) = alone.get(1) {
        figures.at_least("compose up without the client: times faster", reference / alone[0], Some(5.0));
    }
}

/// Microseconds of one run of the client.
fn compose(engine: &Engine, file: &Path, words: &[&str]) -> f64 {
    let mut client = Command::new(places::compose("compose-2"));
    client.arg("-f").arg(file).args(words).env("HOME", file.parent().unwrap_or(file));
    client.env("DOCKER_HOST", format!("unix://{}", engine.socket().display()));
    let begin = Instant::now();
    let _ = command::run(&mut client, b"").ok();
    micros(begin)
}
