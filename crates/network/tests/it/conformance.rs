//! What every `NetworkDriver` promises.

use model::id::{ContainerId, NetworkId};
use network::driver::{BridgeDriver, HostDriver, NetworkDriver, NullDriver};
use network::ipam::DefaultIpam;
use network::row::NetworkRow;
use network::{EndpointSpec, NetworkConfig};

use crate::world::*;

fn row(driver: &dyn NetworkDriver) -> NetworkRow {
    NetworkRow {
        id: NetworkId::from_bytes(sys::random::bytes32()),
        name: "test".to_owned(),
        driver: driver.name().to_owned(),
        created: 0,
        subnet: None,
        address: None,
        gateway: None,
        range: None,
        mac: None,
        options: Default::default(),
    }
}

fn spec(network: &NetworkRow, name: &str) -> EndpointSpec {
    EndpointSpec {
        container: ContainerId::from_bytes(sys::random::bytes32()),
        name: name.to_owned(),
        network: network.id.clone(),
        mac: None,
        address: None,
        ports: vec![publish(8081, 80)],
    }
}

fn conformance(factory: impl Fn() -> Box<dyn NetworkDriver>) {
    let driver = factory();
    let mut network = row(driver.as_ref());
    driver.open(&mut network).expect("open");
    driver.reconcile(&[]).expect("reconcile without endpoints");

    let first = driver.connect(&network, &spec(&network, "first")).expect("connect");
    assert_eq!(first.endpoint.network, network.id);
    assert_eq!(first.sockets.len(), first.endpoint.ports.len());
    let text = serde_json::to_string(&first.endpoint).expect("an endpoint is stored");
    assert_eq!(serde_json::from_str::<network::Endpoint>(&text).expect("and read"), first.endpoint);

    // A second container gets an identity of its own, or a clean refusal (the port is taken).
    match driver.connect(&network, &spec(&network, "second")) {
        Ok(second) => {
            assert_ne!(second.endpoint.id, first.endpoint.id);
            driver.release(&network, &second.endpoint).expect("release");
        }
        Err(error) => assert!(error.message().ends_with("port is already allocated"), "{error}"),
    }
    let mut unpublished = spec(&network, "third");
    unpublished.ports.clear();
    let third = driver.connect(&network, &unpublished).expect("connect");
    assert!(third.endpoint.address.is_none() || third.endpoint.address != first.endpoint.address);

    // Another daemon takes over what lives.
    let next = factory();
    let before = network.clone();
    next.open(&mut network).expect("open again");
    assert_eq!(network, before, "opening again changes nothing");
    next.reconcile(std::slice::from_ref(&first.endpoint)).expect("reconcile");
    next.release(&network, &first.endpoint).expect("release");
    next.release(&network, &first.endpoint).expect("release again");
    drop((first, third));
    let again = next.connect(&network, &spec(&network, "again")).expect("the port is free");
    next.release(&network, &again.endpoint).expect("release");
    drop(again);
    next.close(&network).expect("close");
    next.close(&network).expect("close again");
    eventually("no link is left", || host_links().is_empty());
}

#[test]
fn null() {
    in_namespace(|| conformance(|| Box::new(NullDriver::new(Default::default()))));
}

#[test]
fn host() {
    in_namespace(|| conformance(|| Box::new(HostDriver)));
}

#[test]
fn bridge() {
    in_namespace(|| {
        conformance(|| {
            let config = NetworkConfig::default();
            let ipam = Box::new(DefaultIpam::new(config.pools()));
            Box::new(BridgeDriver::new(config, ipam, Default::default(), network::Enabled::No).expect("driver"))
        });
    });
}
