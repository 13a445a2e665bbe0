//! Pools and addresses: the order in which they are given, and what holds of any sequence of calls.

use proptest::prelude::*;

use super::*;
use crate::config::NetworkConfig;
use crate::ipam::{Purpose, Surroundings};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ipam() -> DefaultIpam {
    DefaultIpam::new(NetworkConfig::default().pools())
}

fn request(family: Family, subnet: Option<&str>) -> PoolRequest {
    PoolRequest::new(family, subnet.map_or(Wanted::Any, |subnet| Wanted::Net(net(subnet))))
}

fn ask(ipam: &DefaultIpam, request: &PoolRequest) -> Result<IpNet> {
    ipam.request_pool(request).map(|granted| granted.unwrap().subnet)
}

fn near(near: Vec<IpNet>) -> Surroundings {
    Surroundings { near, far: Vec::new() }
}

fn pool(ipam: &DefaultIpam, subnet: &str) -> IpNet {
    ask(ipam, &request(family::of_net(net(subnet)), Some(subnet))).unwrap()
}

fn of(subnet: IpNet, range: Option<IpNet>) -> Pool<'static> {
    Pool { id: None, subnet, range }
}

fn link(subnet: IpNet, range: Option<IpNet>, wanted: Option<IpAddr>) -> AddressRequest<'static> {
    AddressRequest { pool: of(subnet, range), wanted, purpose: Purpose::Auxiliary }
}

fn take(ipam: &DefaultIpam, subnet: IpNet) -> String {
    take_of(ipam, subnet, None)
}

fn take_of(ipam: &DefaultIpam, subnet: IpNet, range: Option<IpNet>) -> String {
    let taken = ipam.request_address(&link(subnet, range, None));
    taken.map_or_else(|e| e.message().to_owned(), |a| a.addr().to_string())
}

fn want(ipam: &DefaultIpam, subnet: IpNet, address: &str) -> Result<IpAddr> {
    ipam.request_address(&link(subnet, None, Some(address.parse().unwrap()))).map(|net| net.addr())
}

#[test]
fn pools_are_chosen_in_order_and_avoid_the_host() {
    let ipam = ipam();
    let auto = |avoid: &[&str]| {
        let avoid = near(avoid.iter().map(|a| net(a)).collect());
        let pool = ask(&ipam, &PoolRequest { avoid, ..request(Family::Ipv4, None) });
        pool.unwrap().to_string()
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
    while let Ok(next) = ask(&ipam, &request(Family::Ipv4, None)) {
        assert!(given.iter().all(|other| !family::overlap(*other, next)), "{next}");
        given.push(next);
    }
    assert!(given.len() > 1000, "{}", given.len());
    assert!(given[..15].iter().all(|net| net.prefix_len() == 16));
    // Where the host has nearly everything, what is left is used.
    let crowded = self::ipam();
    let avoid = vec![net("172.16.0.0/12"), net("192.168.0.0/17"), net("192.168.192.0/18"), net("192.168.128.0/19")];
    let left = ask(&crowded, &PoolRequest { avoid: near(avoid), ..request(Family::Ipv4, None) }).unwrap();
    assert!(net("192.168.160.0/19").contains(&left), "{left}");
}

/// A route through a gateway is gone around while something else is free.
#[test]
fn wide_routes_do_not_make_pools_run_out() {
    let ipam = ipam();
    let avoid = Surroundings { near: vec![net("172.17.0.0/16")], far: vec![net("172.0.0.0/8")] };
    let of = |avoid: &Surroundings| ask(&ipam, &PoolRequest { avoid: avoid.clone(), ..request(Family::Ipv4, None) });
    assert_eq!(of(&avoid).unwrap(), net("192.168.0.0/20"));
    let vpn = Surroundings { far: vec![net("0.0.0.0/1"), net("128.0.0.0/1")], ..avoid };
    assert_eq!(of(&vpn).unwrap(), net("172.18.0.0/16"));
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
    ipam.release_pool(&of(net("10.0.0.0/31"), None)).unwrap();
    ipam.release_pool(&of(net("10.0.0.2/31"), None)).unwrap();
    assert!(ipam.request_pool(&wide).is_ok());
}

#[test]
fn a_pool_of_ipv6_is_searched_by_what_is_taken() {
    let ipam = DefaultIpam::new(vec![AddressPool { base: net("fd00::/16"), size: 120 }]);
    let avoid = vec![net("fd00::/17"), net("fd00:8000::/64")];
    let chosen = ask(&ipam, &PoolRequest { avoid: near(avoid), ..request(Family::Ipv6, None) }).unwrap();
    assert_eq!(chosen, net("fd00:8000:0:1::/120"));
    let everything = PoolRequest { avoid: near(vec![net("fd00::/8")]), ..request(Family::Ipv6, None) };
    assert_eq!(ipam.request_pool(&everything).unwrap_err().message(), NO_POOL);
}

#[test]
fn the_lowest_free_address_is_given() {
    let ipam = ipam();
    let small = pool(&ipam, "10.0.0.0/29");
    assert_eq!(want(&ipam, small, "10.0.0.1").unwrap().to_string(), "10.0.0.1");
    assert_eq!([take(&ipam, small), take(&ipam, small)], ["10.0.0.2", "10.0.0.3"]);
    ipam.release_address(&of(small, None), "10.0.0.2".parse().unwrap()).unwrap();
    let rest: Vec<_> = (0..4).map(|_| take(&ipam, small)).collect();
    assert_eq!(rest, ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
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
    assert_eq!(ipam.usage(&of(subnet, None)).unwrap().taken, 3);
    let single = pool(&ipam, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128");
    assert_eq!(take(&ipam, single), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_eq!(take(&ipam, single), NO_ADDRESS);
}

#[test]
fn usage_counts_what_nobody_may_have() {
    let ipam = ipam();
    let subnet = pool(&ipam, "10.0.0.0/24");
    take(&ipam, subnet);
    assert_eq!(ipam.usage(&of(subnet, None)), Some(Usage { taken: 3, available: 253 }));
    assert_eq!(ipam.usage(&of(subnet, Some(net("10.0.0.128/25")))), Some(Usage { taken: 3, available: 127 }));
    assert_eq!(ipam.usage(&of(net("10.9.0.0/24"), None)), None);
}

#[test]
fn a_length_is_cut_from_the_predefined_pools() {
    let ipam = ipam();
    let of_length = |family, length| {
        let subnet = ask(&ipam, &PoolRequest::new(family, Wanted::Length(length)));
        subnet.map_or_else(|error| error.message().to_owned(), |subnet| subnet.to_string())
    };
    assert_eq!(of_length(Family::Ipv4, 24), "172.17.0.0/24");
    assert_eq!(of_length(Family::Ipv4, 16), "172.18.0.0/16");
    assert_eq!(of_length(Family::Ipv4, 24), "172.17.1.0/24");
    assert_eq!(of_length(Family::Ipv6, 80), "fd00::/80");
    assert_eq!([of_length(Family::Ipv4, 12), of_length(Family::Ipv4, 33), of_length(Family::Ipv6, 40)], [NO_LENGTH; 3]);
}

/// Networks of one subnet on several hosts (macvlan): each has its part, and the rest is known to be taken.
#[test]
fn networks_with_different_ranges_share_a_subnet() {
    let ipam = ipam();
    let subnet = net("10.5.0.0/24");
    let (low, high) = (Some(net("10.5.0.0/25")), Some(net("10.5.0.128/25")));
    let hold = |range| ask(&ipam, &PoolRequest { range, ..PoolRequest::new(Family::Ipv4, Wanted::Net(subnet)) });
    assert!(hold(low).is_ok() && hold(high).is_ok());
    for range in [low, high, None] {
        assert_eq!(hold(range).unwrap_err().message(), OVERLAP);
    }
    assert_eq!([take_of(&ipam, subnet, low), take_of(&ipam, subnet, high)], ["10.5.0.1", "10.5.0.128"]);
    assert_eq!(want(&ipam, subnet, "10.5.0.128").unwrap_err().message(), TAKEN);
    ipam.release_pool(&of(subnet, low)).unwrap();
    assert_eq!(
        want(&ipam, subnet, "10.5.0.1").unwrap_err().message(),
        TAKEN,
        "who gives a subnet back gives addresses back"
    );
    ipam.release_pool(&of(subnet, high)).unwrap();
    assert_eq!(ipam.taken(), 0);
    assert!(hold(None).is_ok());
}

#[test]
fn one_of_many_that_want_an_address_gets_it() {
    let ipam = ipam();
    let subnet = pool(&ipam, "10.0.0.0/24");
    let start = std::sync::Barrier::new(64);
    let won = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|threads| {
        for _ in 0..64 {
            threads.spawn(|| {
                start.wait();
                if want(&ipam, subnet, "10.0.0.9").is_ok() {
                    won.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!((won.into_inner(), ipam.taken()), (1, 1));
}

proptest! {
    /// Whatever is asked for and given back, by subnet, length or without: what is held never overlaps but for networks that
    /// share a subnet by different ranges, and what is given back can be had again.
    #[test]
    fn pools_that_are_held_never_overlap(steps in prop::collection::vec((0u8..4, any::<u16>(), 20u8..=28, any::<u16>()), 1..80)) {
        let ipam = DefaultIpam::new(vec![AddressPool { base: net("10.0.0.0/18"), size: 22 }]);
        let mut held: Vec<(IpNet, Option<IpNet>)> = Vec::new();
        for (how, place, length, which) in steps {
            let chosen = IpNet::new(Family::Ipv4.address(0x0a00_0000 | u128::from(place)), length).unwrap().trunc();
            let wanted = match how {
                0 => Wanted::Any,
                1 => Wanted::Length(length),
                _ => Wanted::Net(chosen),
            };
            if how == 3 && !held.is_empty() {
                let (subnet, range) = held.swap_remove(usize::from(which) % held.len());
                ipam.release_pool(&of(subnet, range)).unwrap();
                continue;
            }
            let range = (how == 2 && which % 2 == 0).then(|| IpNet::new(chosen.network(), 29).unwrap());
            match ask(&ipam, &PoolRequest { range, ..PoolRequest::new(Family::Ipv4, wanted) }) {
                Ok(subnet) => {
                    let shared = |(other, part): &(IpNet, Option<IpNet>)| *other == subnet && *part != range && range.is_some();
                    let clash = |held: &(IpNet, Option<IpNet>)| family::overlap(held.0, subnet) && !shared(held);
                    prop_assert!(!held.iter().any(clash), "{subnet} {range:?} beside {held:?}");
                    held.push((subnet, range));
                }
                Err(error) => prop_assert!([OVERLAP, NO_POOL, NO_LENGTH].contains(&error.message()), "{error}"),
            }
        }
        for (subnet, range) in held.drain(..) {
            ipam.release_pool(&of(subnet, range)).unwrap();
        }
        prop_assert_eq!(ask(&ipam, &request(Family::Ipv4, None)).unwrap(), net("10.0.0.0/22"));
    }

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
        ipam.request_pool(&PoolRequest::new(family::of_net(subnet), Wanted::Net(subnet))).unwrap();
        let (first, last) = choices(subnet, Some(range));
        let capacity = if first > last { 0 } else { last - first + 1 };
        let mut held: Vec<IpAddr> = Vec::new();
        for (give_back, which) in steps {
            if give_back && !held.is_empty() {
                let address = held.swap_remove(usize::from(which) % held.len());
                ipam.release_address(&of(subnet, None), address).unwrap();
                continue;
            }
            match ipam.request_address(&link(subnet, Some(range), None)).map(|net| net.addr()) {
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
        while let Ok(next) = ask(&ipam, &PoolRequest { avoid: near(avoid.clone()), ..request(Family::Ipv4, None) }) {
            prop_assert!(base.contains(&next) && next.prefix_len() == size);
            prop_assert!(avoid.iter().chain(&given).all(|other| !family::overlap(next, *other)));
            given.push(next);
        }
        let free = base.subnets(size).unwrap().filter(|part| avoid.iter().all(|other| !family::overlap(*part, *other)));
        prop_assert_eq!(free.count(), given.len());
    }
}
