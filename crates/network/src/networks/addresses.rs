//! Subnets and addresses of networks: reserved, given, given back, and taken again by the next daemon.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use model::{Error, Kind, Result};

use crate::config::Enabled;
use crate::endpoint::{Assigned, Endpoint};
use crate::family::{self, Family};
use crate::ipam::{AddressRequest, Granted, Ipam, Pool, PoolRequest, Purpose, Surroundings, Wanted};
use crate::mac::MacAddress;
use crate::row::{NetworkRow, PoolRow};

/// A subnet to be reserved.
#[derive(Clone, Debug)]
pub struct NewPool {
    /// Of the subnet.
    pub family: Family,
    /// Which one.
    pub wanted: Wanted,
    /// Containers' addresses come from this part of it.
    pub range: Option<IpNet>,
    /// `None` = the first free address.
    pub gateway: Option<IpAddr>,
    /// Addresses that no container gets, by name.
    pub aux: BTreeMap<String, IpAddr>,
}

impl NewPool {
    /// A predefined subnet.
    pub fn any(family: Family) -> NewPool {
        NewPool { family, wanted: Wanted::Any, range: None, gateway: None, aux: BTreeMap::new() }
    }

    /// A subnet with nothing said about it.
    pub fn of(subnet: IpNet) -> NewPool {
        NewPool { wanted: Wanted::Net(subnet), ..NewPool::any(family::of_net(subnet)) }
    }

    fn request(&self) -> PoolRequest {
        let range = match self.wanted {
            Wanted::Net(subnet) => within(self.range, subnet),
            _ => self.range,
        };
        PoolRequest { range, ..PoolRequest::new(self.family, self.wanted) }
    }

    /// As a network that only holds settings keeps it.
    pub(super) fn unreserved(self) -> Option<PoolRow> {
        let NewPool { family: _, wanted, range, gateway, aux } = self;
        let Wanted::Net(subnet) = wanted else { return None };
        Some(PoolRow { range, gateway, aux, given: true, ..PoolRow::new(subnet) })
    }
}

/// What an endpoint asks for.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    /// At most one of a family.
    pub wanted: &'a [IpAddr],
    /// Whether an address of IPv6 is asked for.
    pub ipv6: Enabled,
    /// Of its link.
    pub mac: MacAddress,
    /// Addresses that endpoints of the network have.
    pub in_use: &'a [IpAddr],
}

/// One address of each family that the network has and that is asked for; all or none.
pub(super) fn take(ipam: &dyn Ipam, row: &NetworkRow, ask: Ask<'_>) -> Result<Vec<Assigned>> {
    let mut taken = Vec::new();
    let is_asked = |family: &Family| row.has(*family) && (*family == Family::Ipv4 || ask.ipv6.yes());
    for family in Family::BOTH.into_iter().filter(is_asked) {
        let assigned = take_one(ipam, row, family, ask);
        taken.push(assigned.inspect_err(|_| give_addresses_back(ipam, row, &taken))?);
    }
    Ok(taken)
}

/// The wanted address of a family, or the next of the first subnet that has one.
fn take_one(ipam: &dyn Ipam, row: &NetworkRow, family: Family, ask: Ask<'_>) -> Result<Assigned> {
    let wanted = ask.wanted.iter().copied().find(|address| family::of(*address) == family);
    for pool in row.pools(family) {
        if wanted.is_some_and(|address| !pool.subnet.contains(&address)) {
            continue;
        }
        let request = AddressRequest { pool: pool.reserved(), wanted, purpose: Purpose::Link(ask.mac) };
        let given = match ipam.request_address(&request) {
            Err(error) if error.kind() == Kind::Unavailable && wanted.is_none() => continue,
            given => given?,
        };
        if ask.in_use.contains(&given.addr()) {
            // A plugin has given it to another one before: it stays theirs.
            return Err(Error::forbidden("Address already in use"));
        }
        let gateway = pool.gateway.filter(|_| !row.traits.internal);
        return Ok(Assigned { address: given.addr(), prefix_len: given.prefix_len(), gateway });
    }
    Err(match wanted {
        Some(address) => {
            Error::invalid(format!("invalid address {address}: It does not belong to any of this network's subnets"))
        }
        None => Error::system(format!(
            "no available {} addresses on this network's address pools: {} ({})",
            family.word(),
            row.name,
            row.id
        )),
    })
}

pub(super) fn give_addresses_back(ipam: &dyn Ipam, row: &NetworkRow, addresses: &[Assigned]) {
    for assigned in addresses {
        let Some(pool) = row.pool_of(assigned.address) else { continue };
        if let Err(error) = ipam.release_address(&pool.reserved(), assigned.address) {
            tracing::warn!(%error, address = %assigned.address, "an address cannot be given back");
        }
    }
}

/// Takes the addresses of a live endpoint again.
pub(super) fn take_again(row: &NetworkRow, ipam: &dyn Ipam, endpoint: &Endpoint) {
    let purpose = endpoint.mac.map_or(Purpose::Auxiliary, Purpose::Link);
    for assigned in &endpoint.addresses {
        let Some(pool) = row.pool_of(assigned.address) else { continue };
        let request = AddressRequest { pool: pool.reserved(), wanted: Some(assigned.address), purpose };
        if let Err(error) = ipam.request_address(&request) {
            tracing::warn!(%error, container = %endpoint.container, "a live container's address is not free");
        }
    }
}

/// Takes the subnets and the addresses of a stored network again.
pub(super) fn reserve_again(ipam: &dyn Ipam, row: &NetworkRow) -> Result<()> {
    for pool in &row.ipam.pools {
        let request = PoolRequest {
            range: pool.range,
            options: row.ipam.options.clone(),
            ..PoolRequest::new(pool.family(), Wanted::Net(pool.subnet))
        };
        ipam.request_pool(&request)?;
        let own = pool.gateway.iter().chain(&pool.device).map(|address| (address, Purpose::Gateway));
        for (wanted, purpose) in own.chain(pool.aux.values().map(|address| (address, Purpose::Auxiliary))) {
            // One address may have several names.
            drop(ipam.request_address(&AddressRequest { pool: pool.reserved(), wanted: Some(*wanted), purpose }));
        }
    }
    Ok(())
}

/// Where a network is made.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    /// Families in which its containers go through a gateway.
    pub through: &'a [Family],
    pub around: &'a Surroundings,
}

/// Reserves the subnets of a network that is made; those that stand reserved are in the row, also on failure.
pub(super) fn reserve_all(
    ipam: &dyn Ipam,
    row: &mut NetworkRow,
    pools: &[NewPool],
    Site { through, around }: Site<'_>,
) -> Result<()> {
    let traits = row.traits.clone();
    for family in Family::BOTH.into_iter().filter(|family| traits.has(*family)) {
        let mut given: Vec<_> = pools.iter().filter(|pool| pool.family == family).cloned().collect();
        if given.is_empty() {
            given.push(NewPool::any(family));
        }
        for pool in given {
            let request = PoolRequest { avoid: around.clone(), options: row.ipam.options.clone(), ..pool.request() };
            row.ipam.pools.extend(reserve(ipam, &request, &pool, through.contains(&family))?);
        }
    }
    Ok(())
}

/// Reserves a subnet with its gateway and auxiliary addresses; nothing stays reserved on failure.
fn reserve(ipam: &dyn Ipam, request: &PoolRequest, new: &NewPool, through: bool) -> Result<Option<PoolRow>> {
    let granted = ipam.request_pool(request).map_err(|error| match error.kind() {
        Kind::Forbidden => error.prefix("invalid pool request"),
        _ => error,
    })?;
    let Some(Granted { id, subnet, gateway }) = granted else { return Ok(None) };
    let given = matches!(new.wanted, Wanted::Net(_));
    let mut row = PoolRow { id, range: new.range, given, ..PoolRow::new(subnet) };
    let filled = fill(ipam, &mut row, new, gateway, through);
    if filled.is_err() {
        release(ipam, &row);
    }
    filled.map(|()| Some(row))
}

fn fill(ipam: &dyn Ipam, row: &mut PoolRow, new: &NewPool, set_aside: Option<IpAddr>, through: bool) -> Result<()> {
    let take = |row: &PoolRow, wanted, purpose| {
        let pool = Pool { id: row.id.as_deref(), subnet: row.subnet, range: row.range };
        ipam.request_address(&AddressRequest { pool, wanted, purpose }).map(|net| net.addr())
    };
    row.gateway = match (new.gateway, set_aside) {
        (None, Some(own)) => Some(own),
        (None, None) if !through => None,
        (wanted, _) => Some(take(row, wanted, Purpose::Gateway).map_err(|error| {
            let wanted = wanted.map(|address| address.to_string()).unwrap_or_default();
            error.prefix(format!("failed to allocate gateway ({wanted})")).with_kind(Kind::System)
        })?),
    };
    for (name, address) in &new.aux {
        if !row.subnet.contains(address) {
            let subnet = row.subnet;
            let text = format!("auxiliary address: ({name}:{address}) must belong to the master pool: {subnet}");
            return Err(Error::forbidden(text));
        }
        take(row, Some(*address), Purpose::Auxiliary).map_err(|error| {
            error.prefix(format!("failed to allocate secondary ip address ({name}:{address})")).with_kind(Kind::System)
        })?;
        row.aux.insert(name.clone(), *address);
    }
    Ok(())
}

pub(super) fn give_back(ipam: &dyn Ipam, pools: &[PoolRow]) {
    pools.iter().for_each(|pool| release(ipam, pool));
}

/// What cannot be given back stays reserved until the daemon's next start.
fn release(ipam: &dyn Ipam, row: &PoolRow) {
    let pool = row.reserved();
    let addresses = row.gateway.iter().chain(row.aux.values());
    let addresses = addresses.map(|address| ipam.release_address(&pool, *address));
    if let Err(error) = addresses.fold(Ok(()), Result::and).and(ipam.release_pool(&pool)) {
        tracing::warn!(%error, subnet = %row.subnet, "a subnet cannot be given back");
    }
}

/// A part of a subnet, as the reference takes one that is wider than its subnet.
fn within(range: Option<IpNet>, subnet: IpNet) -> Option<IpNet> {
    range.map(|range| if range.prefix_len() < subnet.prefix_len() { subnet } else { range.trunc() })
}
