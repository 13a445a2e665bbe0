//! Pools and addresses: the order in which they are given, and what holds of any sequence of calls.

use proptest::prelude::*;

use super::*;
use crate::config::NetworkConfig;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ipam() -> DefaultIpam {
    DefaultIpam::new(NetworkConfig::default().pools())
}

fn request(family: Family, subnet: Option<&str>) -> PoolRequest {
    PoolRequest { family, subnet: subnet.map(net), avoid: Vec::new() }
}

fn pool(ipam: &DefaultIpam, subnet: &str) -> IpNet {
    ipam.request_pool(&request(family::of_net(net(subnet)), Some(subnet))).unwrap().unwrap()
}

fn take(ipam: &DefaultIpam, subnet: IpNet) -> String {
    take_of(ipam, subnet, None)
}

fn take_of(ipam: &DefaultIpam, subnet: IpNet, range: Option<IpNet>) -> String {
    let taken = ipam.request_address(&AddressRequest { subnet, range, wanted: None });
    taken.map_or_else(|e| e.message().to_owned(), |a| a.to_string())
}

fn want(ipam: &DefaultIpam, subnet: IpNet, address: &str) -> Result<IpAddr> {
    ipam.request_address(&AddressRequest { subnet, range: None, wanted: Some(address.parse().unwrap()) })
}

#[test]
fn pools_are_chosen_in_order_and_avoid_the_host() {
    let ipam = ipam();
    let auto = |avoid: &[&str]| {
        let avoid = avoid.iter().map(|a| net(a)).collect();
        let pool = ipam.request_pool(&PoolRequest { avoid, ..request(Family::Ipv4, None) });
        pool.unwrap().unwrap().to_string()
    };
    assert_eq!(auto(&[]), "172.17.0.0/16");
    assert_eq!(auto(&["172.18.5.0/24", "172.16.0.0/13"]), "172.24.0.0/16");
    assert_eq!(auto(&[]), "172.18.0.0/16");
    assert_eq!(auto(&["172.0.0.0/8"]), "192.168.0.0/20");
    assert_eq!(auto(&["172.0.0.0/8"]), "192.168.16.0/20");
}

#[test]
fn built_in_pools_shrink_before_they_run_out() {
    let ipam = ipam();
    let mut given: Vec<IpNet> = Vec::new();
    while let Ok(Some(next)) = ipam.request_pool(&request(Family::Ipv4, None)) {
        assert!(given.iter().all(|other| !family::overlap(*other, next)), "{next}");
        given.push(next);
    }
    assert!(given.len() > 200, "{}", given.len());
    assert!(given[..15].iter().all(|net| net.prefix_len() == 16));
    // Where the host has nearly everything, what is left is used.
    let crowded = self::ipam();
    let avoid = vec![net("172.16.0.0/12"), net("192.168.0.0/17"), net("192.168.192.0/18"), net("192.168.128.0/19")];
    let left = crowded.request_pool(&PoolRequest { avoid, ..request(Family::Ipv4, None) }).unwrap().unwrap();
    assert!(net("192.168.160.0/19").contains(&left), "{left}");
}

#[test]
fn pools_run_out_and_overlap() {
    let ipam = DefaultIpam::new(vec![AddressPool { base: net("10.0.0.0/30"), size: 31 }]);
    let any = request(Family::Ipv4, None);
    assert!(ipam.request_pool(&any).is_ok() && ipam.request_pool(&any).is_ok());
    assert_eq!(ipam.request_pool(&any).unwrap_err().message(), NO_POOL);
    assert_eq!(ipam.request_pool(&request(Family::Ipv6, None)).unwrap_err().message(), NO_POOL);
    let wide = request(Family::Ipv4, Some("10.0.0.0/8"));
    assert_eq!(ipam.request_pool(&wide).unwrap_err().kind(), Kind::Forbidden);
    ipam.release_pool(net("10.0.0.0/31")).unwrap();
    ipam.release_pool(net("10.0.0.2/31")).unwrap();
    assert!(ipam.request_pool(&wide).is_ok());
}

#[test]
fn a_pool_of_ipv6_is_searched_by_what_is_taken() {
    let ipam = DefaultIpam::new(vec![AddressPool { base: net("fd00::/16"), size: 120 }]);
    let avoid = vec![net("fd00::/17"), net("fd00:8000::/64")];
    let chosen = ipam.request_pool(&PoolRequest { avoid, ..request(Family::Ipv6, None) }).unwrap().unwrap();
    assert_eq!(chosen, net("fd00:8000:0:1::/120"));
    let everything = PoolRequest { avoid: vec![net("fd00::/8")], ..request(Family::Ipv6, None) };
    assert_eq!(ipam.request_pool(&everything).unwrap_err().message(), NO_POOL);
}

#[test]
fn a_freed_address_waits_until_all_others_had_their_turn() {
    let ipam = ipam();
    let small = pool(&ipam, "10.0.0.0/29");
    assert_eq!(want(&ipam, small, "10.0.0.1").unwrap().to_string(), "10.0.0.1");
    assert_eq!([take(&ipam, small), take(&ipam, small)], ["10.0.0.2", "10.0.0.3"]);
    ipam.release_address(small, "10.0.0.2".parse().unwrap()).unwrap();
    let rest: Vec<_> = (0..4).map(|_| take(&ipam, small)).collect();
    assert_eq!(rest, ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]);
    assert_eq!(take(&ipam, small), NO_ADDRESS);
    let again = want(&ipam, small, "10.0.0.1").unwrap_err();
    assert_eq!((again.kind(), again.message()), (Kind::Forbidden, TAKEN));
    assert_eq!(want(&ipam, small, "10.0.1.1").unwrap_err().message(), OUT_OF_RANGE);
}

#[test]
fn ranges_narrow_the_choice() {
    let ipam = ipam();
    let subnet = pool(&ipam, "10.1.0.0/16");
    let range = Some(net("10.1.255.252/30"));
    let given: Vec<_> = (0..3).map(|_| take_of(&ipam, subnet, range)).collect();
    assert_eq!(given, ["10.1.255.252", "10.1.255.253", "10.1.255.254"]);
    assert_eq!(take_of(&ipam, subnet, range), NO_ADDRESS);
    let single = pool(&ipam, "255.255.255.255/32");
    assert_eq!([take(&ipam, single), take(&ipam, single)], ["255.255.255.255", NO_ADDRESS]);
}

#[test]
fn addresses_of_ipv6() {
    let ipam = ipam();
    let subnet = pool(&ipam, "fd00:1::/64");
    assert_eq!([take(&ipam, subnet), take(&ipam, subnet)], ["fd00:1::1", "fd00:1::2"]);
    assert_eq!(ipam.usage(subnet, None).unwrap().taken, 3);
    let single = pool(&ipam, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128");
    assert_eq!(take(&ipam, single), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_eq!(take(&ipam, single), NO_ADDRESS);
}

#[test]
fn usage_counts_what_nobody_may_have() {
    let ipam = ipam();
    let subnet = pool(&ipam, "10.0.0.0/24");
    take(&ipam, subnet);
    assert_eq!(ipam.usage(subnet, None), Some(Usage { taken: 3, available: 253 }));
    assert_eq!(ipam.usage(subnet, Some(net("10.0.0.128/25"))), Some(Usage { taken: 3, available: 127 }));
    assert_eq!(ipam.usage(net("10.9.0.0/24"), None), None);
}

proptest! {
    /// Whatever is taken and given back: no address twice, none outside, none refused while one is free.
    #[test]
    fn addresses_are_unique_and_complete(
        length in prop_oneof![24u8..=32, Just(64u8)],
        narrow in 0u8..=4,
        steps in prop::collection::vec((any::<bool>(), any::<u16>()), 1..400),
    ) {
        let (subnet, bits) = if length == 64 { (net("fd00::/64"), 128) } else { (format!("10.0.0.0/{length}").parse().unwrap(), 32) };
        let range = IpNet::new(subnet.network(), (subnet.prefix_len() + narrow).min(bits)).unwrap();
        let ipam = DefaultIpam::new(Vec::new());
        ipam.request_pool(&PoolRequest { family: family::of_net(subnet), subnet: Some(subnet), avoid: Vec::new() }).unwrap();
        let (first, last) = choices(subnet, Some(range));
        let capacity = if first > last { 0 } else { last - first + 1 };
        let mut held: Vec<IpAddr> = Vec::new();
        for (give_back, which) in steps {
            if give_back && !held.is_empty() {
                let address = held.swap_remove(usize::from(which) % held.len());
                ipam.release_address(subnet, address).unwrap();
                continue;
            }
            match ipam.request_address(&AddressRequest { subnet, range: Some(range), wanted: None }) {
                Ok(address) => {
                    prop_assert!(range.contains(&address) && !held.contains(&address));
                    prop_assert!((first..=last).contains(&family::number(address)));
                    held.push(address);
                }
                Err(_) => prop_assert_eq!(held.len() as u128, capacity),
            }
            prop_assert_eq!(ipam.taken(), held.len());
        }
    }

    /// Automatic pools overlap nothing, and one is found as long as there is one.
    #[test]
    fn pools_never_overlap(size in 17u8..=21, avoid in prop::collection::vec((any::<u16>(), 16u8..=32), 0..20)) {
        let base = net("10.0.0.0/16");
        let avoid: Vec<IpNet> = avoid
            .into_iter()
            .map(|(low, length)| IpNet::new(Family::Ipv4.address(0x0a00_0000 | u128::from(low)), length).unwrap().trunc())
            .collect();
        let ipam = DefaultIpam::new(vec![AddressPool { base, size }]);
        let mut given: Vec<IpNet> = Vec::new();
        while let Ok(Some(next)) = ipam.request_pool(&PoolRequest { family: Family::Ipv4, subnet: None, avoid: avoid.clone() }) {
            prop_assert!(base.contains(&next) && next.prefix_len() == size);
            prop_assert!(avoid.iter().chain(&given).all(|other| !family::overlap(next, *other)));
            given.push(next);
        }
        let free = base.subnets(size).unwrap().filter(|part| avoid.iter().all(|other| !family::overlap(*part, *other)));
        prop_assert_eq!(free.count(), given.len());
    }
}
