//! The documents of the protocol of network plugins.

use std::collections::BTreeMap;

use model::id::{EndpointId, NetworkId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::option;
use crate::endpoint::PublishSpec;
use crate::family::Family;
use crate::plugins::Answer;
use crate::row::{NetworkRow, PoolRow};

/// Arguments of a method that has none.
#[derive(Serialize)]
pub struct Nothing {}

/// An answer that says nothing but no.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Bare {
    err: String,
}

/// `GetCapabilities`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Capabilities {
    err: String,
    pub scope: String,
    pub connectivity_scope: String,
    pub gw_alloc_checker: bool,
}

/// `GwAllocCheck`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GatewayCall {
    pub options: Value,
}

/// Its answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct GatewayAnswer {
    #[serde(rename = "Err")]
    err: String,
    #[serde(rename = "SkipIPv4")]
    pub skip_ipv4: bool,
    #[serde(rename = "SkipIPv6")]
    pub skip_ipv6: bool,
}

/// `CreateNetwork`.
#[derive(Serialize)]
pub struct NetworkCall<'a> {
    #[serde(rename = "NetworkID")]
    network: &'a str,
    #[serde(rename = "Options")]
    options: Value,
    #[serde(rename = "IPv4Data")]
    ipv4: Vec<Value>,
    #[serde(rename = "IPv6Data")]
    ipv6: Vec<Value>,
}

/// An endpoint of a network.
#[derive(Serialize)]
pub struct PlaceCall<'a> {
    #[serde(rename = "NetworkID")]
    network: &'a str,
    #[serde(rename = "EndpointID")]
    endpoint: &'a str,
}

/// `CreateEndpoint`.
#[derive(Serialize)]
pub struct EndpointCall<'a> {
    #[serde(rename = "NetworkID")]
    pub network: &'a str,
    #[serde(rename = "EndpointID")]
    pub endpoint: &'a str,
    #[serde(rename = "Interface")]
    pub interface: Interface,
    #[serde(rename = "Options")]
    pub options: Value,
}

/// A link; what is empty is not said.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    #[serde(rename = "Address")]
    pub address: String,
    #[serde(rename = "AddressIPv6")]
    pub address_ipv6: String,
    #[serde(rename = "MacAddress")]
    pub mac_address: String,
}

/// Its answer.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointAnswer {
    err: String,
    pub interface: Option<Interface>,
}

/// `Join`.
#[derive(Serialize)]
pub struct JoinCall<'a> {
    #[serde(flatten)]
    pub place: PlaceCall<'a>,
    #[serde(rename = "SandboxKey")]
    pub sandbox_key: String,
    #[serde(rename = "Options")]
    pub options: Value,
}

/// `ProgramExternalConnectivity`.
#[derive(Serialize)]
pub struct ConnectivityCall<'a> {
    #[serde(flatten)]
    pub place: PlaceCall<'a>,
    #[serde(rename = "Options")]
    pub options: Value,
}

/// What a link is called: on the host, and in the container by a name or by a prefix and a number.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Names {
    pub src_name: String,
    pub dst_name: String,
    pub dst_prefix: String,
}

/// A route of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StaticRoute {
    pub destination: String,
    pub route_type: i64,
    pub next_hop: String,
}

/// The answer to `Join`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinAnswer {
    err: String,
    pub interface_name: Option<Names>,
    pub gateway: String,
    #[serde(rename = "GatewayIPv6")]
    pub gateway_ipv6: String,
    pub static_routes: Option<Vec<StaticRoute>>,
}

macro_rules! answers {
    ($($answer:ty),*) => {
        $(impl Answer for $answer {
            fn refusal(&self) -> &str {
                &self.err
            }
        })*
    };
}
answers!(Bare, Capabilities, GatewayAnswer, EndpointAnswer, JoinAnswer);

impl<'a> NetworkCall<'a> {
    /// Of this network.
    pub fn of(network: &'a NetworkRow) -> NetworkCall<'a> {
        let (ipv4, ipv6) = (pools(network.pools(Family::Ipv4)), pools(network.pools(Family::Ipv6)));
        NetworkCall { network: network.id.as_str(), options: network_options(network), ipv4, ipv6 }
    }
}

impl<'a> PlaceCall<'a> {
    /// Of this endpoint.
    pub fn of(network: &'a NetworkId, endpoint: &'a EndpointId) -> PlaceCall<'a> {
        PlaceCall { network: network.as_str(), endpoint: endpoint.as_str() }
    }
}

/// What the user gave, below a name of its own, beside the network's switches.
pub fn network_options(network: &NetworkRow) -> Value {
    let mut options = Map::new();
    options.insert(option::GENERIC.to_owned(), json!(network.options));
    options.insert(option::ENABLE_IPV4.to_owned(), network.traits.ipv4.into());
    options.insert(option::ENABLE_IPV6.to_owned(), network.traits.ipv6.into());
    if network.traits.internal {
        options.insert(option::INTERNAL.to_owned(), true.into());
    }
    options.into()
}

fn pools<'a>(pools: impl Iterator<Item = &'a PoolRow>) -> Vec<Value> {
    let data = |pool: &PoolRow| {
        let within = |address: &std::net::IpAddr| format!("{address}/{}", pool.subnet.prefix_len());
        let mut data = Map::new();
        data.insert("AddressSpace".to_owned(), "LocalDefault".into());
        data.insert("Pool".to_owned(), pool.subnet.to_string().into());
        if let Some(gateway) = &pool.gateway {
            data.insert("Gateway".to_owned(), within(gateway).into());
        }
        if !pool.aux.is_empty() {
            let aux: BTreeMap<_, _> = pool.aux.iter().map(|(name, address)| (name, within(address))).collect();
            data.insert("AuxAddresses".to_owned(), json!(aux));
        }
        Value::from(data)
    };
    pools.map(data).collect()
}

fn exposed(ports: &[PublishSpec]) -> Value {
    let port = |port: &PublishSpec| json!({ "Proto": port.protocol.number(), "Port": port.container_port });
    ports.iter().map(port).collect::<Vec<_>>().into()
}

fn bindings(ports: &[PublishSpec]) -> Value {
    let binding = |port: &PublishSpec| {
        let (first, last) = port.host_ports.unwrap_or_default();
        json!({
            "Proto": port.protocol.number(), "IP": "", "Port": port.container_port,
            "HostIP": port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(), "HostPort": first, "HostPortEnd": last,
        })
    };
    ports.iter().map(binding).collect::<Vec<_>>().into()
}

/// What a plugin is told of an endpoint: the user's options for it, and the ports.
pub fn endpoint_options(options: &BTreeMap<String, String>, published: &[PublishSpec]) -> Value {
    let mut all: Map<String, Value> = options.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    all.extend(ports(published));
    all.into()
}

/// What a plugin is told of a container.
pub fn sandbox_options(published: &[PublishSpec]) -> Value {
    ports(published).into_iter().collect::<Map<_, _>>().into()
}

fn ports(published: &[PublishSpec]) -> [(String, Value); 2] {
    let (exposed, bindings) = (exposed(published), bindings(published));
    [(option::EXPOSED_PORTS.to_owned(), exposed), (option::PORT_MAP.to_owned(), bindings)]
}
