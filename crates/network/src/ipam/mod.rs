//! Address management: pools (subnets) and the addresses in them.
//!
//! An `Ipam` keeps its books in memory; the caller fills them again after a restart by requesting the pools and
//! addresses that are in use. Calls never block on the kernel.

mod default;
mod null;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use model::Result;

pub use default::DefaultIpam;
pub use null::NullIpam;

/// A subnet to reserve.
#[derive(Clone, Debug, Default)]
pub struct PoolRequest {
    /// `None` = the first predefined pool that overlaps neither a reserved one nor `avoid`.
    pub subnet: Option<Ipv4Net>,
    /// Addresses are chosen from this part only.
    pub range: Option<Ipv4Net>,
    /// Networks that the host already reaches; only automatic choice avoids them.
    pub avoid: Vec<Ipv4Net>,
}

/// Keeps subnets apart and addresses unique.
///
/// Life cycle: `request_pool`, then addresses of that pool, then `release_pool`. What was released may be given again,
/// but not before every other free address of the pool had its turn.
pub trait Ipam: Send + Sync {
    /// The name in a network's IPAM settings.
    fn name(&self) -> &'static str;

    /// Reserves a subnet. Overlap with a reserved one is `Forbidden`. `None` = this driver has no addresses.
    fn request_pool(&self, request: &PoolRequest) -> Result<Option<Ipv4Net>>;

    /// Forgets a subnet and its addresses; unknown ones are ignored.
    fn release_pool(&self, subnet: Ipv4Net);

    /// Takes the wanted address, or the next free one after the last given.
    fn request_address(&self, subnet: Ipv4Net, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr>;

    /// Frees an address; unknown ones are ignored.
    fn release_address(&self, subnet: Ipv4Net, address: Ipv4Addr);

    /// How many addresses are taken, over all pools.
    fn taken(&self) -> usize;
}
