//! Answers of a sandbox's resolver per second, to one client in it that keeps a window of queries under way.

use std::process::Command;

use testkit::{command, places};

use super::Scale;
use crate::engine::{Client, Engine};
use crate::figures::{Figures, Samples};

/// Seconds of one flood.
const SECONDS: u32 = 2;
/// Answers per second of a resolver and its client on two processors.
const BUDGET: f64 = 50_000.0;

/// A name of the network, asked for without end.
pub fn run(scale: Scale, engine: &Engine, figures: &mut Figures) {
    let mut client = engine.connect();
    client.post("/networks/create", r#"{"Name":"names"}"#, 201);
    let id = sleeper(&mut client);
    let seen: serde_json::Value = serde_json::from_slice(&client.get(&format!("/containers/{id}/json"))).expect("JSON");
    let pid = seen["State"]["Pid"].to_string();
    let flood = || {
        let mut flood = Command::new(places::find("nsenter"));
        flood.args(["-t", &pid, "-n", "--"]).arg(places::program("gantry-probe"));
        let said = command::run(flood.args(["dns-flood", &id[..12], &SECONDS.to_string()]), b"").text();
        said.trim().parse::<f64>().expect("a number of answers") / f64::from(SECONDS)
    };
    let found = (0..scale.rounds).map(|_| flood()).collect();
    figures.at_least("DNS, answers per second", Samples::new(found).percentile(50.0), Some(BUDGET));
    client.remove(&id);
    client.delete("/networks/names");
}

/// A container on the network.
fn sleeper(client: &mut Client) -> String {
    let body = r#"{"Image":"probe","Cmd":["sleep","100000"],"HostConfig":{"NetworkMode":"names"}}"#;
    let answer = client.post("/containers/create", body, 201);
    let id = answer["Id"].as_str().expect("an id").to_owned();
    client.start(&id);
    id
}
