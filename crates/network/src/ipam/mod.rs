//! Address management: pools (subnets) and the addresses in them.
//!
//! The built-in drivers keep their books in memory; the caller fills them again after a restart by requesting the pools
//! and addresses that are in use. Their calls never block on the kernel; those of a plugin wait for its answer.

mod default;
mod null;
mod remote;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use model::Result;

use crate::family::Family;
use crate::mac::MacAddress;

pub use default::DefaultIpam;
pub use null::NullIpam;
pub use remote::{KIND as ADDRESS_PLUGIN, RemoteIpam};

/// Which subnet is to be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The first predefined one that overlaps neither a reserved one nor a network that the host reaches.
    Any,
    /// The same, of this prefix length.
    Length(u8),
    /// This one.
    Net(IpNet),
}

/// Networks that the host reaches already: automatic subnets must not hide them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Those of its own links, and its name servers.
    pub near: Vec<IpNet>,
    /// Those that it reaches through a gateway: they are gone around as long as something else is free, for a route may be
    /// much wider than what is behind it (a VPN's 0.0.0.0/1).
    pub far: Vec<IpNet>,
}

/// A subnet to reserve.
#[derive(Clone, Debug)]
pub struct PoolRequest {
    pub family: Family,
    pub wanted: Wanted,
    /// Automatic choice of addresses is from this part only. Networks with different parts of one subnet share it.
    pub range: Option<IpNet>,
    /// Only automatic choice avoids them.
    pub avoid: Surroundings,
    /// Of the network, for plugins.
    pub options: BTreeMap<String, String>,
}

impl PoolRequest {
    /// One with nothing said about it.
    pub fn new(family: Family, wanted: Wanted) -> PoolRequest {
        PoolRequest { family, wanted, range: None, avoid: Surroundings::default(), options: BTreeMap::new() }
    }
}

/// A subnet that was reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// What a plugin calls it.
    pub id: Option<String>,
    pub subnet: IpNet,
    /// The address that a plugin has set aside for the gateway.
    pub gateway: Option<IpAddr>,
}

/// A reserved subnet.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    pub id: Option<&'a str>,
    pub subnet: IpNet,
    pub range: Option<IpNet>,
}

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Gateway,
    /// Nobody gets it.
    Auxiliary,
    /// A link with this hardware address.
    Link(MacAddress),
}

/// An address to take.
#[derive(Clone, Copy, Debug)]
pub struct AddressRequest<'a> {
    pub pool: Pool<'a>,
    /// `None` = the next free one of the range.
    pub wanted: Option<IpAddr>,
    pub purpose: Purpose,
}

/// How far a pool is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Addresses that are taken, those that nobody may have included.
    pub taken: u64,
    /// Addresses of the range that may still be given.
    pub available: u64,
}

/// Keeps subnets apart and addresses unique.
///
/// Life cycle: `request_pool`, then addresses of that pool, then `release_pool`. What the built-in driver released may be
/// given again, but not before every other free address of the pool had its turn.
pub trait Ipam: Send + Sync {
    /// The name in a network's IPAM settings.
    fn name(&self) -> &str;

    /// Reserves a subnet. Overlap with a reserved one is `Forbidden`. `None` = this driver has no addresses.
    fn request_pool(&self, request: &PoolRequest) -> Result<Option<Granted>>;

    /// Forgets a subnet; its addresses are free when no other network shares it. Unknown ones are ignored.
    fn release_pool(&self, pool: &Pool<'_>) -> Result<()>;

    /// Takes the wanted address, or the next free one after the last given; with the length of its prefix. An exhausted
    /// range is `Unavailable`.
    fn request_address(&self, request: &AddressRequest<'_>) -> Result<IpNet>;

    /// Frees an address; unknown ones are ignored.
    fn release_address(&self, pool: &Pool<'_>, address: IpAddr) -> Result<()>;

    /// How far a reserved subnet is used; `None` = unknown.
    fn usage(&self, pool: &Pool<'_>) -> Option<Usage>;

    /// How many addresses are taken, over all pools.
    fn taken(&self) -> usize;
}
