//! What every `NetworkDriver` promises.

use std::collections::BTreeMap;

use model::id::{ContainerId, EndpointId, NetworkId};
use network::driver::{BridgeDriver, HostDriver, Join, NetworkDriver, NullDriver, Place};
use network::endpoint::{Assigned, Joined};
use network::row::{IpamRow, NetworkRow, PoolRow, Progress, Traits};
use network::sandbox::{Namespace, Sandbox};
use network::{Endpoint, MacAddress, NetworkConfig};
use sys::netlink::{Socket, link, namespace};

use crate::world::*;

fn row(driver: &dyn NetworkDriver, subnet: &str) -> NetworkRow {
    let subnet: ipnet::IpNet = subnet.parse().expect("a world");
    let gateway = subnet.hosts().next();
    NetworkRow {
        id: NetworkId::from_bytes(sys::random::bytes32()),
        name: "test".to_owned(),
        driver: driver.name().to_owned(),
        created: 0,
        progress: Progress::Making,
        traits: Traits { ipv4: true, ..Traits::default() },
        labels: Default::default(),
        options: Default::default(),
        ipam: IpamRow { pools: vec![PoolRow { gateway, ..PoolRow::new(subnet) }], ..IpamRow::default() },
        mac: None,
    }
}

/// Joins a container to the network with this last byte of an address.
fn join_at(
    driver: &dyn NetworkDriver,
    network: &NetworkRow,
    (container, sandbox): (&ContainerId, &Sandbox),
    (link, last): (&str, usize),
    port: Option<u16>,
) -> model::Result<Joined> {
    let pool = &network.ipam.pools[0];
    let address = pool.subnet.hosts().nth(last - 1).expect("an address");
    let place = Place {
        id: EndpointId::from_bytes(sys::random::bytes32()),
        mac: MacAddress::random(),
        wanted_mac: None,
        link_is_given: false,
        exits: &[],
        options: &BTreeMap::new(),
        addresses: vec![Assigned { address, prefix_len: pool.subnet.prefix_len(), gateway: pool.gateway }],
        link_local: &[],
        link: link.to_owned(),
        gateways: pool.gateway.into_iter().filter(|_| link == "eth0").collect(),
        priority: 0,
        egress: None,
        dns_names: &["c".to_owned()],
    };
    let ports: Vec<_> = port.map(|port| publish(port, 80)).into_iter().collect();
    driver.join(&Join { network, sandbox, container, name: "c", endpoint: &place, ports: &ports })
}

fn sandbox() -> (ContainerId, Sandbox) {
    let namespace = Namespace::empty(namespace::create().expect("namespace"));
    (ContainerId::from_bytes(sys::random::bytes32()), Sandbox::Own(namespace))
}

fn links_inside(sandbox: &Sandbox) -> Vec<String> {
    let fd = sandbox.namespace().expect("a namespace").fd();
    let links = namespace::enter(fd, || Ok(link::list(&mut Socket::route()?)?)).expect("links");
    links.into_iter().map(|link| link.name).filter(|name| name.starts_with("eth")).collect()
}

fn stored(endpoint: &Endpoint) {
    let text = serde_json::to_string(endpoint).expect("an endpoint is stored");
    assert_eq!(serde_json::from_str::<Endpoint>(&text).expect("and read"), *endpoint);
}

fn conformance(factory: impl Fn() -> Box<dyn NetworkDriver>) {
    let driver = factory();
    let mut network = row(driver.as_ref(), "10.71.0.0/24");
    driver.check(&network).expect("check");
    driver.open(&mut network).expect("open");
    network.progress = Progress::Whole;
    driver.reconcile(&[]).expect("reconcile without endpoints");

    let (one, box_one) = sandbox();
    let first = join_at(&*driver, &network, (&one, &box_one), ("eth0", 2), Some(8081)).expect("join");
    assert_eq!(first.endpoint.network, network.id);
    // One socket may serve both families.
    assert_eq!(first.ports.loose.is_empty(), first.endpoint.ports.is_empty());
    stored(&first.endpoint);
    let has_links = first.endpoint.host_link.is_some();

    // A second container gets an identity of its own, or a clean refusal (the port is taken).
    let (two, box_two) = sandbox();
    match join_at(&*driver, &network, (&two, &box_two), ("eth0", 3), Some(8081)) {
        Ok(second) => {
            assert_ne!(second.endpoint.id, first.endpoint.id);
            driver.leave(&network, &second.endpoint, None).expect("leave");
        }
        Err(error) => {
            assert!(error.message().ends_with("port is already allocated"), "{error}");
            assert!(links_inside(&box_two).is_empty(), "a refusal leaves nothing");
        }
    }
    let third = join_at(&*driver, &network, (&two, &box_two), ("eth0", 4), None).expect("join");

    // A network comes while others are used, and goes; a sandbox has several endpoints.
    if has_links {
        let mut late = row(driver.as_ref(), "10.72.0.0/24");
        driver.open(&mut late).expect("a second network");
        late.progress = Progress::Whole;
        let plugged = join_at(&*driver, &late, (&one, &box_one), ("eth1", 2), None).expect("hot plug");
        assert_eq!(links_inside(&box_one), ["eth0", "eth1"]);
        let fd = box_one.namespace().map(Namespace::fd);
        driver.leave(&late, &plugged.endpoint, fd).expect("leave while it runs");
        driver.leave(&late, &plugged.endpoint, fd).expect("leave again");
        assert_eq!(links_inside(&box_one), ["eth0"]);
        driver.close(&late).expect("close");
    }

    // Another daemon takes over what lives.
    let next = factory();
    let before = network.clone();
    next.open(&mut network).expect("open again");
    assert_eq!(network, before, "opening again changes nothing");
    next.reconcile(std::slice::from_ref(&first.endpoint)).expect("reconcile");
    next.leave(&network, &first.endpoint, None).expect("leave");
    next.leave(&network, &first.endpoint, None).expect("leave again");
    drop((first, third, box_one, box_two));
    let (again, box_again) = sandbox();
    let again = join_at(&*next, &network, (&again, &box_again), ("eth0", 2), Some(8081)).expect("the port is free");
    next.leave(&network, &again.endpoint, None).expect("leave");
    drop((again, box_again));
    next.close(&network).expect("close");
    next.close(&network).expect("close again");
    eventually("no link is left", || host_links().is_empty());
}

#[test]
fn null() {
    in_namespace(|| conformance(|| Box::new(NullDriver)));
}

#[test]
fn host() {
    in_namespace(|| conformance(|| Box::new(HostDriver)));
}

#[test]
fn bridge() {
    in_namespace(|| {
        let dir = tempfile::tempdir().expect("directory");
        let store = store::Store::open(&dir.path().join("db")).expect("store");
        conformance(|| Box::new(BridgeDriver::new(NetworkConfig::default(), &store, &[]).expect("driver")));
    });
}
