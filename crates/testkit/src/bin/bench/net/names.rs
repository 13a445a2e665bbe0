//! Answers of a sandbox's resolver per second, to one client in it that keeps a window of queries under way; what a query costs
//! whose first server is dead.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dns::message::{self, kind};
use sys::netlink::namespace;
use testkit::{command, places};

use super::Scale;
use crate::engine::{Client, Engine, micros};
use crate::figures::{Figures, Samples};

/// Seconds of one flood.
const SECONDS: u32 = 2;
/// Answers per second of a resolver and its client on two processors.
const BUDGET: f64 = 50_000.0;

/// The network of the dead server: the host answers at one address of it, nobody at the other.
const NETWORK: &str = r#"{"Name":"dead","IPAM":{"Config":[{"Subnet":"10.123.0.0/24","Gateway":"10.123.0.1"}]}}"#;
const LIVE: &str = "10.123.0.1";
const DEAD: &str = "10.123.0.254";
/// Queries, each for another name.
const QUERIES: usize = 300;
/// Milliseconds of all but one in a hundred.
const DEAD_BUDGET: f64 = 100.0;
/// Longest wait of the server and of the client for a datagram.
const PATIENCE: Duration = Duration::from_secs(2);

/// A name of the network, asked for without end.
pub fn run(scale: Scale, engine: &Engine, figures: &mut Figures) {
    let mut client = engine.connect();
    client.post("/networks/create", r#"{"Name":"names"}"#, 201);
    let id = sleeper(&mut client, "names", "");
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

/// Names that the servers of a container are asked for, the first of which is dead.
pub fn dead_server(engine: &Engine, figures: &mut Figures) {
    let mut client = engine.connect();
    client.post("/networks/create", NETWORK, 201);
    let id = sleeper(&mut client, "dead", &format!(r#","Dns":["{DEAD}","{LIVE}"]"#));
    let seen: serde_json::Value = serde_json::from_slice(&client.get(&format!("/containers/{id}/json"))).expect("JSON");
    let server = socket_in(&engine.pid().to_string(), &format!("{LIVE}:53"));
    let asking = socket_in(&seen["State"]["Pid"].to_string(), "0.0.0.0:0");
    asking.connect("127.0.0.11:53").expect("an address of the sandbox");
    let done = AtomicBool::new(false);
    let took = std::thread::scope(|scope| {
        scope.spawn(|| serve(&server, &done));
        let took = (0..QUERIES).map(|n| ask(&asking, n)).collect();
        done.store(true, Ordering::Relaxed);
        took
    });
    figures.time_within("DNS, the first server is dead", &Samples::new(took), 99.0, DEAD_BUDGET);
    client.remove(&id);
    client.delete("/networks/dead");
}

/// A socket in the network namespace of a process.
fn socket_in(pid: &str, address: &str) -> UdpSocket {
    let path: PathBuf = ["/proc", pid, "ns/net"].iter().collect();
    let inside = namespace::open(&path).expect("the namespace of a process that runs");
    let socket = namespace::enter(inside.as_fd(), || UdpSocket::bind(address)).expect("a free address");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket
}

/// Answers every query with one address. That a name does not exist would be believed of a later server only after a while.
fn serve(server: &UdpSocket, done: &AtomicBool) {
    let mut buffer = [0; 512];
    while !done.load(Ordering::Relaxed) {
        let Ok((length, from)) = server.recv_from(&mut buffer) else { continue };
        let _: Result<usize, _> = server.send_to(&answer(&buffer[..length]), from);
    }
}

/// A query with QR and RA, a count of one answer, and the record of an address (RFC 1035, 4.1).
fn answer(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    if let [_, _, first, second, _, _, _, count, ..] = &mut answer[..] {
        (*first, *second, *count) = (*first | 0x80, 0x80, 1);
    }
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    answer
}

/// Microseconds until the answer.
fn ask(socket: &UdpSocket, number: usize) -> f64 {
    let query = message::query(number as u16, &format!("n{number}.example"), kind::A);
    let (begin, mut buffer) = (Instant::now(), [0; 512]);
    // One that does not come has taken all of the patience.
    let _ = socket.send(&query).and_then(|_| socket.recv(&mut buffer));
    micros(begin)
}

/// A container on a network; `more` goes into HostConfig (with a leading comma).
fn sleeper(client: &mut Client, network: &str, more: &str) -> String {
    let body =
        format!(r#"{{"Image":"probe","Cmd":["sleep","100000"],"HostConfig":{{"NetworkMode":"{network}"{more}}}}}"#);
    let answer = client.post("/containers/create", &body, 201);
    let id = answer["Id"].as_str().expect("an id").to_owned();
    client.start(&id);
    id
}
