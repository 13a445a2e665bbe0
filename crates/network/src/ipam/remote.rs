//! Address management by a plugin: `IpamDriver.*`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use model::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

use super::{AddressRequest, Granted, Ipam, Pool, PoolRequest, Purpose, Usage, Wanted};
use crate::driver::option;
use crate::family::{self, Family};
use crate::plugins::{Answer, Asked};

/// What a plugin says that it implements.
pub const KIND: &str = "IpamDriver";
/// How often a plugin is asked for another pool when it has given one that the host reaches already.
const MAX_POOLS: usize = 64;
/// Bytes of what a plugin calls a pool.
const MAX_ID: usize = 4096;
/// Says what an address is for.
const ADDRESS_TYPE: &str = "RequestAddressType";
/// The gateway of a pool, where the plugin has set one aside; and what an address of a gateway is for.
const GATEWAY: &str = "com.docker.network.gateway";

/// See the module.
pub struct RemoteIpam {
    plugin: Asked,
    capabilities: Capabilities,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Capabilities {
    error: String,
    #[serde(rename = "RequiresMACAddress")]
    requires_mac_address: bool,
    requires_request_replay: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Spaces {
    error: String,
    local_default_address_space: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PoolCall<'a> {
    address_space: &'a str,
    pool: String,
    sub_pool: String,
    options: Option<&'a BTreeMap<String, String>>,
    v6: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PoolAnswer {
    #[serde(rename = "Error")]
    error: String,
    #[serde(rename = "PoolID")]
    id: String,
    #[serde(rename = "Pool")]
    pool: String,
    #[serde(rename = "Data")]
    data: Option<BTreeMap<String, String>>,
}

#[derive(Serialize)]
struct ReleaseCall<'a> {
    #[serde(rename = "PoolID")]
    id: &'a str,
}

#[derive(Serialize)]
struct AddressCall<'a> {
    #[serde(rename = "PoolID")]
    id: &'a str,
    #[serde(rename = "Address")]
    address: String,
    #[serde(rename = "Options")]
    options: Option<BTreeMap<&'a str, String>>,
}

#[derive(Serialize)]
struct AddressRelease<'a> {
    #[serde(rename = "PoolID")]
    id: &'a str,
    #[serde(rename = "Address")]
    address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AddressAnswer {
    error: String,
    address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Bare {
    error: String,
}

macro_rules! answers {
    ($($answer:ty),*) => {
        $(impl Answer for $answer {
            fn refusal(&self) -> &str {
                &self.error
            }
        })*
    };
}
answers!(Capabilities, Spaces, PoolAnswer, AddressAnswer, Bare);

/// Arguments of a method that has none.
#[derive(Serialize)]
struct Nothing {}

impl RemoteIpam {
    /// Asks the plugin what it needs; it need not tell.
    pub fn new(plugin: Asked) -> RemoteIpam {
        let capabilities = plugin.ask("GetCapabilities", &Nothing {}).unwrap_or_else(|error| {
            tracing::info!(%error, plugin = plugin.name(), "an address plugin tells no capabilities");
            Capabilities::default()
        });
        RemoteIpam { plugin, capabilities }
    }

    /// Whether the pools and addresses in use are requested again when the daemon has started.
    pub fn forgets(&self) -> bool {
        self.capabilities.requires_request_replay
    }

    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::system(format!("IPAM plugin {:?}: {what}", self.plugin.name()))
    }

    fn request(&self, call: &PoolCall<'_>) -> Result<Granted> {
        let answer: PoolAnswer = self.plugin.ask("RequestPool", call)?;
        let subnet: IpNet =
            answer.pool.parse().map_err(|_| self.wrong(format_args!("{:?} is no subnet", answer.pool)))?;
        if answer.id.len() > MAX_ID {
            return Err(self.wrong(format_args!("a pool's ID of more than {MAX_ID} bytes")));
        }
        let granted = Granted { id: Some(answer.id), subnet: subnet.trunc(), gateway: None };
        let gateway = answer.data.unwrap_or_default().remove(GATEWAY).map(|text| {
            let parsed: Result<IpNet, _> = text.parse();
            parsed.map(|net| net.addr()).map_err(|_| {
                let why = format!("invalid CIDR address: {text}");
                Error::invalid(format!("failed to parse gateway address ({text}) returned by ipam driver: {why}"))
            })
        });
        match gateway.transpose() {
            Ok(gateway) if (family::of_net(granted.subnet) == Family::Ipv6) == call.v6 => {
                Ok(Granted { gateway, ..granted })
            }
            Ok(_) => {
                self.drop_pool(&granted);
                Err(self.wrong(format_args!("{subnet} is not of the family that was asked for")))
            }
            Err(error) => {
                self.drop_pool(&granted);
                Err(error)
            }
        }
    }

    fn drop_pool(&self, granted: &Granted) {
        let pool = Pool { id: granted.id.as_deref(), subnet: granted.subnet, range: None };
        if let Err(error) = self.release_pool(&pool) {
            tracing::warn!(%error, subnet = %granted.subnet, "a pool of a plugin cannot be given back");
        }
    }
}

impl Ipam for RemoteIpam {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    fn request_pool(&self, request: &PoolRequest) -> Result<Option<Granted>> {
        let spaces: Spaces = self
            .plugin
            .ask("GetDefaultAddressSpaces", &Nothing {})
            .map_err(|error| error.prefix("failed to get default address space").with_kind(Kind::NotFound))?;
        let pool = match request.wanted {
            Wanted::Any => String::new(),
            Wanted::Length(length) => format!("{}/{length}", request.family.address(0)),
            Wanted::Net(net) => net.trunc().to_string(),
        };
        let call = PoolCall {
            address_space: &spaces.local_default_address_space,
            pool,
            sub_pool: request.range.map(|range| range.to_string()).unwrap_or_default(),
            options: Some(&request.options).filter(|options| !options.is_empty()),
            v6: request.family == Family::Ipv6,
        };
        // Held until one fits, so that none comes twice.
        let mut reached = Vec::new();
        let granted = loop {
            match self.request(&call) {
                Ok(granted) => {
                    let everything = granted.subnet.prefix_len() == 0;
                    let chosen = request.wanted != Wanted::Any || everything;
                    let hides = request.avoid.near.iter().any(|other| family::overlap(*other, granted.subnet));
                    if chosen || !hides || reached.contains(&granted) {
                        break Ok(granted);
                    }
                    reached.push(granted);
                    if reached.len() >= MAX_POOLS {
                        break Err(self.wrong(format_args!("{MAX_POOLS} pools that the host reaches already")));
                    }
                }
                Err(error) => break Err(error),
            }
        };
        let kept = granted.as_ref().ok();
        reached.iter().filter(|pool| Some(*pool) != kept).for_each(|pool| self.drop_pool(pool));
        granted.map(Some)
    }

    fn release_pool(&self, pool: &Pool<'_>) -> Result<()> {
        let call = ReleaseCall { id: pool.id.unwrap_or_default() };
        self.plugin.ask::<Bare>("ReleasePool", &call).map(drop)
    }

    fn request_address(&self, request: &AddressRequest<'_>) -> Result<IpNet> {
        let mut options = BTreeMap::new();
        match request.purpose {
            Purpose::Gateway => drop(options.insert(ADDRESS_TYPE, GATEWAY.to_owned())),
            Purpose::Link(mac) if self.capabilities.requires_mac_address => {
                options.insert(option::ENDPOINT_MAC, mac.to_string());
            }
            Purpose::Link(_) | Purpose::Auxiliary => (),
        }
        let call = AddressCall {
            id: request.pool.id.unwrap_or_default(),
            address: request.wanted.map(|address| address.to_string()).unwrap_or_default(),
            options: Some(options).filter(|options| !options.is_empty()),
        };
        let answer: AddressAnswer = self.plugin.ask("RequestAddress", &call)?;
        if answer.address.is_empty() {
            return Err(Error::unavailable("no address returned"));
        }
        let parsed: Option<IpNet> = answer.address.parse().ok();
        let within = |net: &IpNet| request.pool.subnet.contains(&net.addr());
        let wanted = |net: &IpNet| request.wanted.is_none_or(|wanted| wanted == net.addr());
        parsed.filter(within).filter(wanted).ok_or_else(|| {
            self.wrong(format_args!("{:?} is not what was asked for of {}", answer.address, request.pool.subnet))
        })
    }

    fn release_address(&self, pool: &Pool<'_>, address: IpAddr) -> Result<()> {
        let call = AddressRelease { id: pool.id.unwrap_or_default(), address: address.to_string() };
        self.plugin.ask::<Bare>("ReleaseAddress", &call).map(drop)
    }

    /// A plugin does not tell.
    fn usage(&self, _: &Pool<'_>) -> Option<Usage> {
        None
    }

    fn taken(&self) -> usize {
        0
    }
}
