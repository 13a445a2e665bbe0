//! A daemon's networks in a namespace of their own, containers that are only namespaces, and an outside host.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use model::id::ContainerId;
use network::plan;
use network::published;
use network::{BoundPort, Endpoint, EndpointSpec, NetworkConfig, Networks, Protocol, PublishSpec, SandboxSpec};
use store::Store;
use sys::netlink::address::{self, Address};
use sys::netlink::link::{self, Link, Veth};
use sys::netlink::{Batch, Route, Socket, namespace};
use sys::nft;

/// For what comes.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// For what does not.
const SILENCE: Duration = Duration::from_secs(2);
/// The daemon's address on the link to the outside host, and that host's own.
pub const UPLINK: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

pub struct World {
    pub networks: Networks,
    pub store: Store,
    _dir: tempfile::TempDir,
}

/// Runs `body` in a new namespace with `lo` up, in which forwarding is on already.
pub fn in_namespace(body: impl FnOnce() + Send) {
    namespace::create_with(|_| {
        let mut batch = Batch::new();
        link::set_up(&mut batch, link::LOOPBACK);
        Socket::route()?.request(&mut batch)?;
        namespace::set_sysctl("net/ipv4/ip_forward", "1")?;
        body();
        Ok(())
    })
    .expect("a network namespace (root is needed)");
}

/// Runs `body` with open networks without live endpoints.
pub fn world(config: NetworkConfig, body: impl FnOnce(&World) + Send) {
    in_namespace(|| body(&World::open(config)));
}

impl World {
    pub fn open(config: NetworkConfig) -> World {
        let world = World::open_only(config);
        world.networks.reconcile(&[]).expect("reconcile");
        world
    }

    /// With a store of an earlier daemon.
    pub fn with(config: NetworkConfig, store: Store) -> World {
        let networks = Networks::open(config, &store).expect("networks");
        networks.reconcile(&[]).expect("reconcile");
        World { networks, store, _dir: tempfile::tempdir().expect("temporary directory") }
    }

    /// Without word of what lives.
    pub fn open_only(config: NetworkConfig) -> World {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(&dir.path().join("db")).expect("store");
        let networks = Networks::open(config, &store).expect("networks");
        World { networks, store, _dir: dir }
    }

    pub fn spec(&self, name: &str, ports: Vec<PublishSpec>) -> SandboxSpec {
        self.spec_in("bridge", name, ports)
    }

    pub fn spec_in(&self, network: &str, name: &str, ports: Vec<PublishSpec>) -> SandboxSpec {
        spec_of(&self.networks, network, name, ports)
    }

    pub fn connect(&self, name: &str, ports: Vec<PublishSpec>) -> One {
        join(&self.networks, &self.spec(name, ports)).expect("connect")
    }
}

pub fn spec_of(networks: &Networks, network: &str, name: &str, ports: Vec<PublishSpec>) -> SandboxSpec {
    SandboxSpec {
        container: ContainerId::from_bytes(sys::random::bytes32()),
        name: name.to_owned(),
        endpoints: vec![EndpointSpec::new(networks.look_up(network).expect("network").id.clone())],
        ports,
    }
}

/// A container on one network.
#[derive(Debug)]
pub struct One {
    pub endpoint: Endpoint,
    pub netns: Option<OwnedFd>,
    pub sockets: Vec<(BoundPort, SocketAddr, OwnedFd)>,
}

pub fn join(networks: &Networks, spec: &SandboxSpec) -> model::Result<One> {
    let mut connected = networks.connect(spec)?;
    let endpoint = connected.endpoints.remove(0);
    Ok(One { endpoint, netns: connected.netns, sockets: connected.ports.loose })
}

/// `-p host:container` on all addresses.
pub fn publish(host: u16, container: u16) -> PublishSpec {
    let host_ports = Some((host, host));
    PublishSpec { container_port: container, protocol: Protocol::Tcp, host_ip: None, host_ports }
}

pub fn address_of(connected: &One) -> Ipv4Addr {
    match connected.endpoint.assigned(network::Family::Ipv4).expect("address").address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!("of the family that was asked for"),
    }
}

/// The gateway of the container's network.
pub fn gateway_of(connected: &One) -> Option<IpAddr> {
    connected.endpoint.assigned(network::Family::Ipv4).and_then(|own| own.gateway)
}

/// Runs `body` in a container's namespace.
pub fn inside<T: Send>(connected: &One, body: impl FnOnce() -> T + Send) -> T {
    enter(connected.netns.as_ref().expect("namespace"), body)
}

pub fn enter<T: Send>(netns: &OwnedFd, body: impl FnOnce() -> T + Send) -> T {
    namespace::enter(netns.as_fd(), || Ok(body())).expect("entering")
}

/// Whether one echo request is answered, from the calling thread's namespace.
pub fn ping(to: Ipv4Addr) -> bool {
    echo(to, TIMEOUT)
}

/// Whether one echo request is answered soon.
pub fn ping_once(to: Ipv4Addr) -> bool {
    echo(to, SILENCE)
}

/// Whether an echo request stays without an answer.
pub fn no_ping(to: Ipv4Addr) -> bool {
    !echo(to, SILENCE)
}

/// As `ping`, of either family.
pub fn ping_any(to: IpAddr) -> bool {
    echo(to, TIMEOUT)
}

fn echo(to: impl Into<IpAddr>, patience: Duration) -> bool {
    let mut command = Command::new("busybox");
    command.args(["ping", "-c1", "-W", &patience.as_secs().to_string(), &to.into().to_string()]);
    command.output().expect("busybox").status.success()
}

/// A TCP server in `netns` that answers each connection with the peer's address as it sees it.
pub fn serve(netns: &OwnedFd, port: u16) {
    let listener = enter(netns, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("listen"));
    std::thread::spawn(move || answer_all(&listener));
}

pub fn answer_all(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let peer = stream.peer_addr().map(|p| p.ip().to_canonical().to_string()).unwrap_or_default();
        let _ = stream.write_all(peer.as_bytes());
    }
}

/// What `serve` says at an address, from the calling thread's namespace; `None` when there is no answer.
pub fn ask(ip: impl Into<IpAddr>, port: u16) -> Option<IpAddr> {
    ask_within(SocketAddr::new(ip.into(), port), TIMEOUT)
}

/// Whether nobody answers there.
pub fn no_answer(ip: impl Into<IpAddr>, port: u16) -> bool {
    ask_within(SocketAddr::new(ip.into(), port), SILENCE).is_none()
}

fn ask_within(address: SocketAddr, patience: Duration) -> Option<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.parse().ok()
}

/// Another host: a namespace whose only link leads to the calling thread's.
pub fn outside_host() -> OwnedFd {
    neighbour("uplink0", UPLINK, OUTSIDE)
}

/// A host beside this one: its address, and the name and address (of a /24) of the link to it here.
pub fn neighbour(far_name: &str, here_address: Ipv4Addr, its_address: Ipv4Addr) -> OwnedFd {
    let here = namespace::current().expect("namespace");
    let (netns, ()) = namespace::create_with(|_| {
        let mut batch = Batch::new();
        let (name, mac) = ("eth0", [2, 0, 0, 0, 9, 2]);
        link::create_veth(&mut batch, &Veth { name, mac, index: 2, mtu: 1500, far_name, far_namespace: here.as_fd() });
        address::add(&mut batch, &Address { link: 2, address: its_address.into(), prefix_len: 24 });
        Ok(Socket::route()?.request(&mut batch)?)
    })
    .expect("outside host");
    let mut socket = Socket::route().expect("socket");
    let uplink = link::find(&mut socket, far_name).expect("find").expect("our end");
    let mut batch = Batch::new();
    link::set_up(&mut batch, uplink.index);
    address::add(&mut batch, &Address { link: uplink.index, address: here_address.into(), prefix_len: 24 });
    socket.request(&mut batch).expect("our end");
    netns
}

/// Gives the outside host a route to the containers.
pub fn route_to_containers(outside: &OwnedFd) {
    route(outside, Ipv4Addr::new(172, 17, 0, 0), UPLINK);
}

/// Gives a neighbour a route to a /16.
pub fn route(neighbour: &OwnedFd, destination: Ipv4Addr, gateway: Ipv4Addr) {
    enter(neighbour, || {
        let mut batch = Batch::new();
        address::add_route(
            &mut batch,
            &Route { destination: destination.into(), prefix_len: 16, gateway: Some(gateway.into()), link: 0 },
        );
        Socket::route().expect("socket").request(&mut batch).expect("route");
    });
}

/// Our ends of pairs, in the calling thread's namespace.
pub fn host_links() -> Vec<Link> {
    let all = link::list(&mut Socket::route().expect("socket")).expect("links");
    all.into_iter().filter(|l| l.kind == "veth" && l.name.starts_with("veth")).collect()
}

/// Number of published ports in the rules.
pub fn elements() -> usize {
    let mut socket = Socket::netfilter().expect("socket");
    let count = |set| nft::elements(&mut socket, plan::TABLE_FAMILY, plan::TABLE, set).expect("elements").len();
    published::PORT_SETS.into_iter().map(count).sum()
}

/// Waits until `done`, which the kernel does in the background.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < limit, "{what} within a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs the `nft` program; its success.
pub fn nft(command: &str) -> bool {
    Command::new("nft").arg(command).output().expect("nft").status.success()
}

/// Runs the `ip` program.
pub fn ip(command: &str) {
    let out = Command::new("ip").args(command.split(' ')).output().expect("ip");
    assert!(out.status.success(), "ip {command}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The table as the `nft` program lists it, without counts.
pub fn listing() -> String {
    listing_now().expect("the table stands")
}

/// The same; `None` when there is no table.
pub fn listing_now() -> Option<String> {
    let out = Command::new("nft").args(["list", "table", "inet", plan::TABLE]).output().expect("nft");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    let zero = |line: &str| match line.find("counter packets ") {
        Some(at) => {
            let after = line[at..].split_whitespace().skip(5).collect::<Vec<_>>().join(" ");
            format!("{}counter packets 0 bytes 0 {after}", &line[..at])
        }
        None => line.to_owned(),
    };
    out.status.success().then(|| text.lines().map(|l| zero(l) + "\n").collect())
}
