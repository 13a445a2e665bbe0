//! The built-in address management: predefined pools, sequential addresses.
//!
//! Addresses are given in order, each after the last one given, so that a freed address rests as long as possible:
//! peers may still have it in their neighbour caches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use model::{Error, Result};

use super::{Ipam, PoolRequest};
use crate::config::AddressPool;

/// See the module.
#[derive(Debug)]
pub struct DefaultIpam {
    predefined: Vec<AddressPool>,
    pools: Mutex<BTreeMap<Ipv4Net, Pool>>,
}

#[derive(Debug)]
struct Pool {
    range: Ipv4Net,
    taken: BTreeSet<u32>,
    /// The address given last.
    last: Option<u32>,
}

impl DefaultIpam {
    pub fn new(predefined: Vec<AddressPool>) -> DefaultIpam {
        DefaultIpam { predefined, pools: Mutex::default() }
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<Ipv4Net, Pool>> {
        // Every change is a single insertion or removal: a panic elsewhere leaves the books right.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn overlaps(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// The first predefined network that is free of `taken`.
fn choose(predefined: &[AddressPool], taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    for pool in predefined {
        for candidate in pool.base.subnets(pool.size).into_iter().flatten() {
            if !taken.iter().any(|other| overlaps(candidate, *other)) {
                return Ok(candidate);
            }
        }
    }
    Err(Error::invalid("all predefined address pools have been fully subnetted"))
}

impl Ipam for DefaultIpam {
    fn name(&self) -> &'static str {
        "default"
    }

    fn request_pool(&self, request: &PoolRequest) -> Result<Option<Ipv4Net>> {
        let mut pools = self.pools();
        let subnet = match request.subnet {
            Some(subnet) => subnet.trunc(),
            None => {
                let mut taken: Vec<_> = pools.keys().copied().collect();
                taken.extend(&request.avoid);
                choose(&self.predefined, &taken)?
            }
        };
        if pools.keys().any(|other| overlaps(subnet, *other)) {
            return Err(Error::forbidden("Pool overlaps with other one on this address space"));
        }
        let range = request.range.map_or(subnet, |range| range.trunc());
        if !subnet.contains(&range) {
            return Err(Error::invalid(format!("the range {range} lies outside the subnet {subnet}")));
        }
        pools.insert(subnet, Pool { range, taken: BTreeSet::new(), last: None });
        Ok(Some(subnet))
    }

    fn release_pool(&self, subnet: Ipv4Net) {
        self.pools().remove(&subnet);
    }

    fn request_address(&self, subnet: Ipv4Net, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
        let mut pools = self.pools();
        let pool = pools.get_mut(&subnet).ok_or_else(|| Error::system(format!("no address pool {subnet}")))?;
        match wanted {
            Some(address) if !subnet.contains(&address) => {
                Err(Error::invalid(format!("address {address} is not in the subnet {subnet}")))
            }
            Some(address) if pool.taken.insert(address.into()) => Ok(address),
            Some(_) => Err(Error::forbidden("Address already in use")),
            None => pool.next(subnet).ok_or_else(|| Error::system("no available addresses on this pool")),
        }
    }

    fn release_address(&self, subnet: Ipv4Net, address: Ipv4Addr) {
        if let Some(pool) = self.pools().get_mut(&subnet) {
            pool.taken.remove(&address.into());
        }
    }

    fn taken(&self) -> usize {
        self.pools().values().map(|pool| pool.taken.len()).sum()
    }
}

impl Pool {
    /// The next free address after the last, or after the start; network and broadcast address are nobody's.
    fn next(&mut self, subnet: Ipv4Net) -> Option<Ipv4Addr> {
        let (mut first, mut last) = (u32::from(self.range.network()), u32::from(self.range.broadcast()));
        if subnet.prefix_len() < 31 {
            first = first.max(u32::from(subnet.network()) + 1);
            last = last.min(u32::from(subnet.broadcast()) - 1);
        }
        let after = self.last.map_or(first, |l| l.saturating_add(1)).clamp(first, last.saturating_add(1));
        let free = (after..=last).chain(first..after).find(|address| !self.taken.contains(address))?;
        self.taken.insert(free);
        self.last = Some(free);
        Some(free.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NetworkConfig;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn ipam() -> DefaultIpam {
        DefaultIpam::new(NetworkConfig::default().pools())
    }

    fn pool(ipam: &DefaultIpam, subnet: &str, range: Option<&str>) -> Ipv4Net {
        let request = PoolRequest { subnet: Some(net(subnet)), range: range.map(net), avoid: Vec::new() };
        ipam.request_pool(&request).unwrap().unwrap()
    }

    fn take(ipam: &DefaultIpam, subnet: Ipv4Net) -> String {
        ipam.request_address(subnet, None).map_or_else(|e| e.message().to_owned(), |a| a.to_string())
    }

    #[test]
    fn pools_are_chosen_in_order_and_avoid_the_host() {
        let ipam = ipam();
        let auto = |avoid: &[&str]| {
            let request = PoolRequest { avoid: avoid.iter().map(|a| net(a)).collect(), ..PoolRequest::default() };
            ipam.request_pool(&request).unwrap().unwrap().to_string()
        };
        assert_eq!(auto(&[]), "172.17.0.0/16");
        assert_eq!(auto(&["172.18.5.0/24", "172.16.0.0/13"]), "172.24.0.0/16");
        assert_eq!(auto(&[]), "172.18.0.0/16");
        assert_eq!(auto(&["172.0.0.0/8"]), "192.168.0.0/20");
        assert_eq!(auto(&["172.0.0.0/8"]), "192.168.16.0/20");
    }

    #[test]
    fn pools_run_out_and_overlap() {
        let ipam = DefaultIpam::new(vec![AddressPool { base: net("10.0.0.0/30"), size: 31 }]);
        let any = PoolRequest::default();
        assert!(ipam.request_pool(&any).is_ok() && ipam.request_pool(&any).is_ok());
        assert_eq!(
            ipam.request_pool(&any).unwrap_err().message(),
            "all predefined address pools have been fully subnetted"
        );
        let wide = PoolRequest { subnet: Some(net("10.0.0.0/8")), ..any };
        assert_eq!(ipam.request_pool(&wide).unwrap_err().kind(), model::Kind::Forbidden);
        ipam.release_pool(net("10.0.0.0/31"));
        ipam.release_pool(net("10.0.0.2/31"));
        assert!(ipam.request_pool(&wide).is_ok());
    }

    #[test]
    fn a_freed_address_waits_until_all_others_had_their_turn() {
        let ipam = ipam();
        let small = pool(&ipam, "10.0.0.0/29", None);
        assert_eq!(ipam.request_address(small, Some("10.0.0.1".parse().unwrap())).unwrap().to_string(), "10.0.0.1");
        assert_eq!([take(&ipam, small), take(&ipam, small)], ["10.0.0.2", "10.0.0.3"]);
        ipam.release_address(small, "10.0.0.2".parse().unwrap());
        let rest: Vec<_> = (0..4).map(|_| take(&ipam, small)).collect();
        assert_eq!(rest, ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]);
        assert_eq!(take(&ipam, small), "no available addresses on this pool");
        let again = ipam.request_address(small, Some("10.0.0.1".parse().unwrap())).unwrap_err();
        assert_eq!((again.kind(), again.message()), (model::Kind::Forbidden, "Address already in use"));
        assert!(ipam.request_address(small, Some("10.0.1.1".parse().unwrap())).is_err());
    }

    #[test]
    fn ranges_narrow_the_choice() {
        let ipam = ipam();
        let subnet = pool(&ipam, "10.1.0.0/16", Some("10.1.255.252/30"));
        let given: Vec<_> = (0..3).map(|_| take(&ipam, subnet)).collect();
        assert_eq!(given, ["10.1.255.252", "10.1.255.253", "10.1.255.254"]);
        assert_eq!(take(&ipam, subnet), "no available addresses on this pool");
        let single = pool(&ipam, "255.255.255.255/32", None);
        assert_eq!(take(&ipam, single), "255.255.255.255");
        assert_eq!(take(&ipam, single), "no available addresses on this pool");
    }
}
