//! The built-in address management: predefined pools, of which the lowest free address is given, as the reference does.
//! A freed one is soon another's; peers that still know the former owner learn of it by announcements.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use model::lock::{Mutex, MutexGuard};
use model::{Error, Kind, Result};

use super::{AddressRequest, Granted, Ipam, Pool, PoolRequest, Usage, Wanted};
use crate::config::AddressPool;
use crate::family::{self, Family};

/// Clients compare these texts.
const OVERLAP: &str = "Pool overlaps with other one on this address space";
const NO_LENGTH: &str = "invalid address pool";
const NO_POOL: &str = "all predefined address pools have been fully subnetted";
const NO_ADDRESS: &str = "no available addresses on this pool";
const TAKEN: &str = "Address already in use";
const OUT_OF_RANGE: &str = "requested address is out of range";

/// See the module.
#[derive(Debug)]
pub struct DefaultIpam {
    predefined: Vec<AddressPool>,
    pools: Mutex<BTreeMap<IpNet, Books>>,
}

#[derive(Debug, Default)]
struct Books {
    /// The ranges of the networks that have the subnet; `None` = all of it.
    holders: Vec<Option<IpNet>>,
    /// As numbers.
    taken: BTreeSet<u128>,
}

impl DefaultIpam {
    /// `predefined`: where automatic subnets come from, in order.
    pub fn new(predefined: Vec<AddressPool>) -> DefaultIpam {
        DefaultIpam { predefined, pools: Mutex::default() }
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<IpNet, Books>> {
        // Every change is a single insertion or removal: a panic elsewhere leaves the books right.
        self.pools.lock()
    }
}

/// The first predefined network of the family, of `length` where one is given, that is free of `taken`.
fn choose(predefined: &[AddressPool], family: Family, length: Option<u8>, taken: &[IpNet]) -> Result<IpNet> {
    let of_family = predefined.iter().filter(|pool| family::of_net(pool.base) == family);
    let fitting: Vec<_> = match length {
        None => of_family.copied().collect(),
        Some(size) if size > family.bits() => Vec::new(),
        Some(size) => {
            of_family.filter(|pool| pool.base.prefix_len() <= size).map(|pool| AddressPool { size, ..*pool }).collect()
        }
    };
    if fitting.is_empty() && length.is_some() {
        return Err(Error::invalid(NO_LENGTH));
    }
    let mut free = fitting.iter().filter_map(|pool| first_free(pool, family, taken));
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

/// Whether an address is the network's own, or the broadcast address.
fn is_nobodys(subnet: IpNet, address: IpAddr) -> bool {
    let (first, last) = hosts(subnet);
    !(first..=last).contains(&family::number(address))
}

/// The numbers of a range that may be given.
fn choices(subnet: IpNet, range: Option<IpNet>) -> (u128, u128) {
    let (first, last) = hosts(subnet);
    let (range_first, range_last) = family::bounds(range.unwrap_or(subnet));
    (first.max(range_first), last.min(range_last))
}

impl Ipam for DefaultIpam {
    fn name(&self) -> &str {
        "default"
    }

    fn request_pool(&self, request: &PoolRequest) -> Result<Option<Granted>> {
        let mut pools = self.pools();
        let length = match request.wanted {
            Wanted::Net(subnet) => {
                hold(&mut pools, subnet.trunc(), request.range)?;
                return Ok(Some(Granted { id: None, subnet: subnet.trunc(), gateway: None }));
            }
            Wanted::Any => None,
            Wanted::Length(length) => Some(length),
        };
        let taken: Vec<_> = pools.keys().chain(&request.avoid.near).copied().collect();
        let all: Vec<_> = taken.iter().chain(&request.avoid.far).copied().collect();
        let subnet = choose(&self.predefined, request.family, length, &all)
            .or_else(|_| choose(&self.predefined, request.family, length, &taken))?;
        hold(&mut pools, subnet, request.range)?;
        Ok(Some(Granted { id: None, subnet, gateway: None }))
    }

    fn release_pool(&self, pool: &Pool<'_>) -> Result<()> {
        let mut pools = self.pools();
        let Some(books) = pools.get_mut(&pool.subnet) else { return Ok(()) };
        if let Some(own) = books.holders.iter().position(|holder| *holder == pool.range) {
            books.holders.remove(own);
        }
        if books.holders.is_empty() {
            pools.remove(&pool.subnet);
        }
        Ok(())
    }

    fn request_address(&self, request: &AddressRequest<'_>) -> Result<IpNet> {
        let mut pools = self.pools();
        let Pool { subnet, range, .. } = request.pool;
        let books = pools.get_mut(&subnet).ok_or_else(|| Error::system(format!("no address pool {subnet}")))?;
        let address = match request.wanted {
            Some(address) if !subnet.contains(&address) => Err(Error::invalid(OUT_OF_RANGE)),
            Some(address) if is_nobodys(subnet, address) => Err(Error::forbidden(TAKEN)),
            Some(address) if books.taken.insert(family::number(address)) => Ok(address),
            Some(_) => Err(Error::forbidden(TAKEN)),
            None => books.next(subnet, range).ok_or_else(|| Error::new(Kind::Unavailable, NO_ADDRESS)),
        };
        Ok(IpNet::new_assert(address?, subnet.prefix_len()))
    }

    fn release_address(&self, pool: &Pool<'_>, address: IpAddr) -> Result<()> {
        if let Some(books) = self.pools().get_mut(&pool.subnet) {
            books.taken.remove(&family::number(address));
        }
        Ok(())
    }

    fn usage(&self, pool: &Pool<'_>) -> Option<Usage> {
        let (pools, Pool { subnet, range, .. }) = (self.pools(), *pool);
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
        self.pools().values().map(|books| books.taken.len()).sum()
    }
}

/// Enters a holder of a subnet. Networks with different ranges share one; two with the same range do not, nor do subnets
/// overlap otherwise.
fn hold(pools: &mut BTreeMap<IpNet, Books>, subnet: IpNet, range: Option<IpNet>) -> Result<()> {
    if let Some(books) = pools.get_mut(&subnet) {
        if range.is_none() || books.holders.contains(&range) {
            return Err(Error::forbidden(OVERLAP));
        }
        books.holders.push(range);
        return Ok(());
    }
    if pools.keys().any(|other| family::overlap(subnet, *other)) {
        return Err(Error::forbidden(OVERLAP));
    }
    pools.insert(subnet, Books { holders: vec![range], ..Books::default() });
    Ok(())
}

impl Books {
    /// The lowest free address.
    fn next(&mut self, subnet: IpNet, range: Option<IpNet>) -> Option<IpAddr> {
        let (first, last) = choices(subnet, range);
        let free = self.first_free(first, last)?;
        self.taken.insert(free);
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
