//! Address management: pools (subnets) and the addresses in them.
//!
//! An `Ipam` keeps its books in memory; the caller fills them again after a restart by requesting the pools and
//! addresses that are in use. Calls of the built-in ones never block on the kernel; those of others may.

mod default;
mod null;

use std::net::IpAddr;

use ipnet::IpNet;
use model::Result;

use crate::family::Family;

pub use default::DefaultIpam;
pub use null::NullIpam;

/// A subnet to reserve.
#[derive(Clone, Debug)]
pub struct PoolRequest {
    pub family: Family,
    /// `None` = the first predefined pool of the family that overlaps neither a reserved one nor `avoid`.
    pub subnet: Option<IpNet>,
    /// Networks that the host already reaches; only automatic choice avoids them.
    pub avoid: Vec<IpNet>,
}

/// An address to take.
#[derive(Clone, Copy, Debug)]
pub struct AddressRequest {
    /// The reserved subnet.
    pub subnet: IpNet,
    /// Automatic choice is from this part only.
    pub range: Option<IpNet>,
    /// `None` = the next free one.
    pub wanted: Option<IpAddr>,
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
/// Life cycle: `request_pool`, then addresses of that pool, then `release_pool`. What was released may be given again,
/// but not before every other free address of the pool had its turn.
pub trait Ipam: Send + Sync {
    /// The name in a network's IPAM settings.
    fn name(&self) -> &'static str;

    /// Reserves a subnet. Overlap with a reserved one is `Forbidden`. `None` = this driver has no addresses.
    fn request_pool(&self, request: &PoolRequest) -> Result<Option<IpNet>>;

    /// Forgets a subnet and its addresses; unknown ones are ignored.
    fn release_pool(&self, subnet: IpNet) -> Result<()>;

    /// Takes the wanted address, or the next free one after the last given.
    fn request_address(&self, request: &AddressRequest) -> Result<IpAddr>;

    /// Frees an address; unknown ones are ignored.
    fn release_address(&self, subnet: IpNet, address: IpAddr) -> Result<()>;

    /// How far a reserved subnet is used; `None` = unknown.
    fn usage(&self, subnet: IpNet, range: Option<IpNet>) -> Option<Usage>;

    /// How many addresses are taken, over all pools.
    fn taken(&self) -> usize;
}
