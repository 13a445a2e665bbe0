//! The built-in address management: predefined pools, sequential addresses.
//!
//! Addresses are given in order, each after the last one given, so that a freed address rests as long as possible:
//! peers may still have it in their neighbour caches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use model::{Error, Kind, Result};

use super::{AddressRequest, Ipam, PoolRequest, Usage};
use crate::config::AddressPool;
use crate::family::{self, Family};

/// Clients compare these texts.
const OVERLAP: &str = "Pool overlaps with other one on this address space";
const NO_POOL: &str = "all predefined address pools have been fully subnetted";
const NO_ADDRESS: &str = "no available addresses on this pool";
const TAKEN: &str = "Address already in use";
const OUT_OF_RANGE: &str = "requested address is out of range";

/// See the module.
#[derive(Debug)]
pub struct DefaultIpam {
    predefined: Vec<AddressPool>,
    pools: Mutex<BTreeMap<IpNet, Pool>>,
}

#[derive(Debug, Default)]
struct Pool {
    /// As numbers.
    taken: BTreeSet<u128>,
    /// The address given last, by range.
    last: BTreeMap<IpNet, u128>,
}

impl DefaultIpam {
    /// `predefined`: where automatic subnets come from, in order.
    pub fn new(predefined: Vec<AddressPool>) -> DefaultIpam {
        DefaultIpam { predefined, pools: Mutex::default() }
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<IpNet, Pool>> {
        // Every change is a single insertion or removal: a panic elsewhere leaves the books right.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first predefined network of the family that is free of `taken`.
fn choose(predefined: &[AddressPool], family: Family, taken: &[IpNet]) -> Result<IpNet> {
    let of_family = predefined.iter().filter(|pool| family::of_net(pool.base) == family);
    let mut free = of_family.filter_map(|pool| first_free(pool, family, taken));
    free.next().ok_or_else(|| Error::invalid(NO_POOL))
}

/// The first part of a pool that is free. Each step goes past a taken network, however small the parts are.
fn first_free(pool: &AddressPool, family: Family, taken: &[IpNet]) -> Option<IpNet> {
    let host_bits = u32::from(family.bits().checked_sub(pool.size)?);
    let (mut at, last) = family::bounds(pool.base);
    loop {
        let candidate = IpNet::new(family.address(at), pool.size).ok()?;
        let Some(other) = taken.iter().find(|other| family::overlap(candidate, **other)) else {
            return Some(candidate);
        };
        let end = family::bounds(candidate).1.max(family::bounds(*other).1);
        // Aligned, as both are.
        at = end.checked_add(1)?.next_multiple_of(1u128.checked_shl(host_bits)?);
        if at > last {
            return None;
        }
    }
}

/// First and last number that may be given: network and broadcast address are nobody's.
fn hosts(subnet: IpNet) -> (u128, u128) {
    let (first, last) = family::bounds(subnet);
    match family::of_net(subnet) {
        Family::Ipv4 if subnet.prefix_len() < 31 => (first + 1, last - 1),
        Family::Ipv6 if subnet.prefix_len() < 128 => (first + 1, last),
        _ => (first, last),
    }
}

/// The numbers of a range that may be given.
fn choices(subnet: IpNet, range: Option<IpNet>) -> (u128, u128) {
    let (first, last) = hosts(subnet);
    let (range_first, range_last) = family::bounds(range.unwrap_or(subnet));
    (first.max(range_first), last.min(range_last))
}

impl Ipam for DefaultIpam {
    fn name(&self) -> &'static str {
        "default"
    }

    fn request_pool(&self, request: &PoolRequest) -> Result<Option<IpNet>> {
        let mut pools = self.pools();
        let subnet = match request.subnet {
            Some(subnet) => subnet.trunc(),
            None => {
                let mut taken: Vec<_> = pools.keys().copied().collect();
                taken.extend(&request.avoid);
                choose(&self.predefined, request.family, &taken)?
            }
        };
        if pools.keys().any(|other| family::overlap(subnet, *other)) {
            return Err(Error::forbidden(OVERLAP));
        }
        pools.insert(subnet, Pool::default());
        Ok(Some(subnet))
    }

    fn release_pool(&self, subnet: IpNet) -> Result<()> {
        self.pools().remove(&subnet);
        Ok(())
    }

    fn request_address(&self, request: &AddressRequest) -> Result<IpAddr> {
        let mut pools = self.pools();
        let subnet = request.subnet;
        let pool = pools.get_mut(&subnet).ok_or_else(|| Error::system(format!("no address pool {subnet}")))?;
        match request.wanted {
            Some(address) if !subnet.contains(&address) => Err(Error::invalid(OUT_OF_RANGE)),
            Some(address) if pool.taken.insert(family::number(address)) => Ok(address),
            Some(_) => Err(Error::forbidden(TAKEN)),
            None => pool.next(subnet, request.range).ok_or_else(|| Error::new(Kind::Unavailable, NO_ADDRESS)),
        }
    }

    fn release_address(&self, subnet: IpNet, address: IpAddr) -> Result<()> {
        if let Some(pool) = self.pools().get_mut(&subnet) {
            pool.taken.remove(&family::number(address));
        }
        Ok(())
    }

    fn usage(&self, subnet: IpNet, range: Option<IpNet>) -> Option<Usage> {
        let pools = self.pools();
        let taken = &pools.get(&subnet)?.taken;
        let (first, last) = family::bounds(subnet);
        let (host_first, host_last) = hosts(subnet);
        let nobodys = [(first, first < host_first), (last, last > host_last)];
        let reserved: BTreeSet<u128> =
            nobodys.into_iter().filter(|(_, it_is)| *it_is).map(|(number, _)| number).collect();
        let all: BTreeSet<u128> = taken.union(&reserved).copied().collect();
        let (range_first, range_last) = family::bounds(range.unwrap_or(subnet));
        let within = all.range(range_first..=range_last).count() as u128;
        let available = (range_last - range_first).saturating_add(1).saturating_sub(within);
        Some(Usage { taken: all.len() as u64, available: u64::try_from(available).unwrap_or(u64::MAX) })
    }

    fn taken(&self) -> usize {
        self.pools().values().map(|pool| pool.taken.len()).sum()
    }
}

impl Pool {
    /// The next free address after the last, or after the start.
    fn next(&mut self, subnet: IpNet, range: Option<IpNet>) -> Option<IpAddr> {
        let (first, last) = choices(subnet, range);
        if first > last {
            return None;
        }
        let range = range.unwrap_or(subnet);
        let after = self.last.get(&range).map_or(first, |given| given.saturating_add(1)).max(first);
        let free = self.first_free(after, last).or_else(|| self.first_free(first, after.checked_sub(1)?.min(last)))?;
        self.taken.insert(free);
        self.last.insert(range, free);
        Some(family::of_net(subnet).address(free))
    }

    /// The first number from `first` to `last` that is not taken.
    fn first_free(&self, first: u128, last: u128) -> Option<u128> {
        if first > last {
            return None;
        }
        let mut free = first;
        for taken in self.taken.range(first..=last) {
            if *taken != free {
                break;
            }
            free = free.checked_add(1)?;
        }
        (free <= last).then_some(free)
    }
}

#[cfg(test)]
mod tests;
