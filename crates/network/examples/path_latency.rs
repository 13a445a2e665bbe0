//! Measures the network's part of a container's start and end, in a namespace of its own (needs root).
//!
//! `cargo run --release -p network --example path_latency [ROUNDS]`. Prints the median, the 90th and 99th percentile in
//! milliseconds: one container at a time, with and without a published port, then eight threads at once.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use model::id::ContainerId;
use network::{Connected, EndpointSpec, NetworkConfig, Networks, Protocol, PublishSpec, SandboxSpec};
use store::Store;
use sys::netlink::{Batch, Socket, link, namespace};

const THREADS: usize = 8;

fn main() {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(300);
    namespace::create_with(|_| {
        let mut batch = Batch::new();
        link::set_up(&mut batch, link::LOOPBACK);
        Socket::route()?.request(&mut batch)?;
        measure(rounds);
        Ok(())
    })
    .expect("a network namespace (root is needed)");
}

fn measure(rounds: usize) {
    let dir = std::env::temp_dir().join(format!("path-latency-{}", std::process::id()));
    let store = Store::open(&dir.join("db")).expect("store");
    let networks = Networks::open(NetworkConfig::default(), &store).expect("networks");
    networks.reconcile(&[]).expect("reconcile");
    let empty: Vec<_> = (0..rounds).map(|_| time(|| drop(namespace::create().expect("namespace")))).collect();
    print("an empty namespace, made and dropped", empty);
    one_by_one(&networks, "", &[], rounds);
    let port = PublishSpec { container_port: 80, protocol: Protocol::Tcp, host_ip: None, host_ports: None };
    one_by_one(&networks, ", one port", &[port], rounds);
    first_answer(&networks, rounds);
    all_at_once(&networks, rounds);
    let _ = std::fs::remove_dir_all(dir);
}

fn connect(networks: &Networks, ports: &[PublishSpec]) -> Connected {
    let spec = SandboxSpec {
        container: ContainerId::from_bytes(sys::random::bytes32()),
        name: "c".to_owned(),
        endpoints: vec![EndpointSpec::new(networks.look_up("bridge").expect("bridge").id.clone())],
        ports: ports.to_vec(),
    };
    networks.connect(&spec).expect("connect")
}

/// Connects, lives for 10 ms, ends: as short containers do.
fn one_by_one(networks: &Networks, what: &str, ports: &[PublishSpec], rounds: usize) {
    let (mut connects, mut releases) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut made = None;
        connects.push(time(|| made = Some(connect(networks, ports))));
        std::thread::sleep(Duration::from_millis(10));
        let container = made.take().expect("connected").endpoints[0].container.clone();
        releases.push(time(|| networks.release(&container).expect("release")));
    }
    print(&format!("connect{what}"), connects);
    print(&format!("release{what}"), releases);
}

/// From the end of `connect` to the first byte from the host, in short containers one after the other.
fn first_answer(networks: &Networks, rounds: usize) {
    let listener = TcpListener::bind("0.0.0.0:7000").expect("listener");
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let host = SocketAddr::from((Ipv4Addr::new(172, 17, 0, 1), 7000));
    let mut times = Vec::new();
    for _ in 0..rounds {
        let made = connect(networks, &[]);
        let netns = made.netns.as_ref().expect("namespace");
        times.push(time(|| {
            namespace::enter(netns.as_fd(), || TcpStream::connect(host)?.read(&mut [0])).expect("an answer");
        }));
        networks.release(&made.endpoints[0].container).expect("release");
        drop(made);
        std::thread::sleep(Duration::from_millis(50));
    }
    print("first answer from the host", times);
}

fn all_at_once(networks: &Networks, rounds: usize) {
    let here = namespace::current().expect("namespace");
    let start = Instant::now();
    let worker = || {
        namespace::enter(here.as_fd(), || {
            let round = |_| {
                let mut container = None;
                let took = time(|| container = Some(connect(networks, &[]).endpoints[0].container.clone()));
                networks.release(&container.expect("connected")).expect("release");
                took
            };
            Ok((0..rounds / THREADS).map(round).collect::<Vec<_>>())
        })
        .expect("worker")
    };
    let times: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().flat_map(|t| t.join().expect("worker")).collect()
    });
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    print(&format!("connect, {THREADS} at once ({rate:.0} connect + release per second)"), times);
}

fn time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

fn print(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(f64::NAN);
    println!("{what}: p50 {:.2} p90 {:.2} p99 {:.2}", at(50), at(90), at(99));
}
