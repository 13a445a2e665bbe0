//! Bytes per second through a published port against the same path routed without NAT, from a neighbour; bytes per second
//! of processor time through the proxy, which serves the host's loopback address.

use std::process::Command;

use testkit::namespaces::Namespaces;
use testkit::{Daemon, command, places, process};

use super::{Scale, engines};
use crate::engine::{Client, Engine};
use crate::figures::{Figures, Samples};

/// Seconds of one stream.
const SECONDS: &str = "2";
/// Ports of the host.
const TCP: u16 = 15001;
const UDP: u16 = 15002;
/// Addresses of the link between the host and its neighbour.
const HOST: &str = "10.77.0.1";
const NEIGHBOUR: &str = "10.77.0.2";

/// From a neighbour: a published port, and a container's address on a network whose gateway mode is `routed`.
pub fn routed(scale: Scale, daemon: &Daemon, engine: &Engine, figures: &mut Figures) {
    let neighbour = neighbour(daemon);
    let mut client = engine.connect();
    let routed = r#"{"Name":"routed","Options":{"com.docker.network.bridge.gateway_mode_ipv4":"routed"}}"#;
    client.post("/networks/create", routed, 201);
    client.post("/networks/create", r#"{"Name":"nat"}"#, 201);
    let (nat, _) = server(&mut client, "nat", ("tcp-drain", "tcp"), TCP);
    let (direct, address) = server(&mut client, "routed", ("tcp-drain", "tcp"), 0);
    let send = |to: &str| {
        let mut sender = neighbour.command(places::program("gantry-probe"));
        let said = command::run(sender.args(["tcp-send", to, SECONDS]), b"").text();
        let (bytes, micros) = said.split_once(' ').expect("bytes and microseconds");
        number(bytes) / number(micros)
    };
    let (mut through, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        through.push(send(&format!("{HOST}:{TCP}")));
        beside.push(send(&format!("{address}:80")));
    }
    let (through, beside) = (Samples::new(through).percentile(50.0), Samples::new(beside).percentile(50.0));
    figures.at_least("TCP, published port, MB per second", through, None);
    figures.at_least("TCP, routed, MB per second", beside, None);
    figures.at_least("TCP, published / routed", through / beside, Some(0.9));
    [nat, direct].iter().for_each(|id| client.remove(id));
    ["nat", "routed"].iter().for_each(|name| client.delete(&format!("/networks/{name}")));
}

/// A host on a link of its own to the daemon's.
fn neighbour(daemon: &Daemon) -> Namespaces {
    let neighbour = Namespaces::new();
    let holder = daemon.namespaces().holder().to_string();
    let link = ["ip", "link", "add", "up0", "type", "veth", "peer", "name", "bench0", "netns", &holder];
    let steps = [
        (&neighbour, &link[..]),
        (&neighbour, &["ip", "address", "add", &format!("{NEIGHBOUR}/24"), "dev", "up0"]),
        (&neighbour, &["ip", "link", "set", "up0", "up"]),
        (daemon.namespaces(), &["ip", "address", "add", &format!("{HOST}/24"), "dev", "bench0"]),
        (daemon.namespaces(), &["ip", "link", "set", "bench0", "up"]),
        (&neighbour, &["ip", "route", "add", "default", "via", HOST]),
    ];
    for (namespaces, words) in steps {
        let _ = namespaces.run(words).ok();
    }
    neighbour
}

/// A container that serves port 80, published at `port`; its id and its address.
fn server(client: &mut Client, network: &str, (word, protocol): (&str, &str), port: u16) -> (String, String) {
    let body = format!(
        r#"{{"Image":"probe","Cmd":["{word}","80"],"ExposedPorts":{{"80/{protocol}":{{}}}},"HostConfig":{{
            "NetworkMode":"{network}","PortBindings":{{"80/{protocol}":[{{"HostIp":"0.0.0.0","HostPort":"{port}"}}]}}}}}}"#
    );
    let answer = client.post("/v1.41/containers/create", &body, 201);
    let id = answer["Id"].as_str().expect("an id").to_string();
    client.start(&id);
    let seen: serde_json::Value =
        serde_json::from_slice(&client.get(&format!("/v1.41/containers/{id}/json"))).expect("inspect answers JSON");
    let address = seen["NetworkSettings"]["Networks"][network]["IPAddress"].as_str().unwrap_or_default().to_string();
    (id, address)
}

/// From the host itself to its loopback address.
pub fn proxied(scale: Scale, own: &Engine, other: Option<&Engine>, figures: &mut Figures) {
    let engines = engines(own, other);
    for (what, protocol, server_word, client_word, port, budget) in
        [("TCP", "tcp", "tcp-drain", "tcp-send", TCP, 1.2), ("UDP", "udp", "udp-echo", "udp-flood", UDP, 2.0)]
    {
        let mut found = vec![Vec::new(); engines.len()];
        let mut servers = Vec::new();
        for (_, engine) in &engines {
            servers.push(server(&mut engine.connect(), "bridge", (server_word, protocol), port).0);
        }
        for _ in 0..scale.rounds {
            for (found, (_, engine)) in found.iter_mut().zip(&engines) {
                found.push(per_cpu_second(engine, client_word, port));
            }
        }
        for (id, (_, engine)) in servers.iter().zip(&engines) {
            engine.connect().remove(id);
        }
        let medians: Vec<f64> = found.into_iter().map(|found| Samples::new(found).percentile(50.0)).collect();
        for (median, (name, _)) in medians.iter().zip(&engines) {
            figures.at_least(&format!("{name}proxy, {what}, MB per CPU second"), *median, None);
        }
        if let Some(reference) = medians.get(1) {
            let name = format!("proxy, {what}, per CPU second / other");
            figures.at_least(&name, medians[0] / reference, Some(budget));
        }
    }
}

/// Megabytes per second of processor time that the engine's processes in its network namespace use meanwhile.
fn per_cpu_second(engine: &Engine, word: &str, port: u16) -> f64 {
    let pid = engine.pid();
    let namespace = process::namespace(pid, "net");
    let members: Vec<u32> =
        process::all().into_iter().filter(|pid| process::namespace(*pid, "net") == namespace).collect();
    let ticks = || -> u64 { members.iter().filter_map(|pid| process_ticks(*pid)).sum() };
    let before = ticks();
    let mut sender = Command::new(places::find("nsenter"));
    sender.args(["-t", &pid.to_string(), "-n", "--"]).arg(places::program("gantry-probe"));
    let said = command::run(sender.args([word, &format!("127.0.0.1:{port}"), SECONDS]), b"").text();
    let bytes = number(said.split(' ').next().unwrap_or_default());
    let used = (ticks() - before).max(1) as f64 / rustix::param::clock_ticks_per_second() as f64;
    bytes / 1e6 / used
}

/// Clock ticks that a process has used, in user and kernel mode (fields 14 and 15, proc_pid_stat(5)).
fn process_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut field = || fields.next()?.parse::<u64>().ok();
    Some(field()? + field()?)
}

fn number(text: &str) -> f64 {
    text.trim().parse().unwrap_or_else(|_| panic!("no number: {text}"))
}
