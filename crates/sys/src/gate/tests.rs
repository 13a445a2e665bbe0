//! Frames through the programs, by `BPF_PROG_TEST_RUN`. Needs root.

use std::os::fd::OwnedFd;

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const OWN: &str = "10.1.0.2";
const OWN6: &str = "fd00:1::2";

/// The head of `union bpf_attr` for BPF_PROG_TEST_RUN.
#[repr(C)]
struct RunAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// Both programs and their maps, hung on nothing.
struct Bench {
    outward: OwnedFd,
    inward: OwnedFd,
    gate: Gate,
    _maps: [OwnedFd; 3],
}

fn own_addresses() -> [(IpAddr, u8); 2] {
    [(OWN.parse().unwrap(), 16), (OWN6.parse().unwrap(), 64)]
}

fn bench(nets: &[Net]) -> Bench {
    let addresses = own_addresses();
    let own = Own { mac: MAC, addresses: &addresses };
    let Made { outward, inward, _maps: [names, ring, nets, flows, told] } = make(&own, nets).unwrap();
    let gate = Gate { names, ring: Ring::open(ring, RING_SIZE as usize).unwrap() };
    Bench { outward, inward, gate, _maps: [nets, flows, told] }
}

/// The program's verdict about a frame.
fn run(program: &OwnedFd, frame: &[u8]) -> bool {
    let attr = RunAttr {
        prog_fd: program.as_raw_fd() as u32,
        retval: 7,
        data_size_in: frame.len() as u32,
        data_size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    bpf::bpf(10, &attr).unwrap();
    // The kernel has written behind the reference.
    match std::hint::black_box(&attr).retval {
        u32::MAX => true,
        2 => false,
        other => panic!("verdict {other}"),
    }
}

impl Bench {
    fn sends(&self, frame: &[u8]) -> bool {
        run(&self.outward, frame)
    }

    fn receives(&self, frame: &[u8]) {
        assert!(run(&self.inward, frame));
    }
}

/// What goes on behind the header of IP.
struct Segment {
    protocol: u8,
    bytes: Vec<u8>,
}

fn udp(from: u16, to: u16) -> Segment {
    let ports = [from.to_be_bytes(), to.to_be_bytes(), 12u16.to_be_bytes(), [0, 0]];
    Segment { protocol: 17, bytes: [&ports.concat()[..], b"data"].concat() }
}

fn tcp(from: u16, to: u16, flags: u8) -> Segment {
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
    bytes.resize(20, 0);
    (bytes[12], bytes[13]) = (0x50, flags);
    Segment { protocol: 6, bytes }
}

fn icmp(protocol: u8, kind: u8) -> Segment {
    Segment { protocol, bytes: vec![kind, 0, 0, 0, 0, 1, 0, 1] }
}

/// From one address to another, Ethernet addresses and all.
fn frame((from, to): (&str, &str), segment: Segment) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let length = segment.bytes.len() as u16;
    let is_outward = from == OWN.parse::<IpAddr>().unwrap() || from == OWN6.parse::<IpAddr>().unwrap();
    let (source, destination) = if is_outward || from.is_unspecified() { (MAC, OTHER_MAC) } else { (OTHER_MAC, MAC) };
    let mut frame = [destination, source].concat();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + length).to_be_bytes());
            frame.extend([0, 1, 0, 0, 64, segment.protocol, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([segment.protocol, 255]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => panic!("two families"),
    }
    frame.extend(segment.bytes);
    frame
}

fn net(text: &str, port: Option<u16>) -> Net {
    let (address, length) = text.split_once('/').unwrap();
    let (address, length) = (address.parse().unwrap(), length.parse().unwrap());
    Net { address, length, port, verdict: Verdict::Pass }
}

const SYN: u8 = 2;
const ACK: u8 = 0x10;

#[test]
fn destinations_are_those_of_the_rules() {
    let mut bench =
        bench(&[net("192.0.2.0/24", None), net("198.51.100.7/32", Some(443)), net("2001:db8::/32", Some(53))]);
    for (to, segment, passes) in [
        ("192.0.2.9", udp(1, 2), true),
        ("192.0.2.9", tcp(1, 2, SYN), true),
        ("192.0.2.9", icmp(1, 8), true),
        ("192.0.3.9", udp(1, 2), false),
        ("192.0.3.9", tcp(1, 2, SYN), false),
        ("192.0.3.9", tcp(1, 2, ACK), false),
        ("192.0.3.9", tcp(1, 2, SYN | ACK), false),
        ("192.0.3.9", tcp(1, 2, 4), false),
        ("192.0.3.9", icmp(1, 8), false),
        ("192.0.3.9", icmp(1, 0), false),
        ("192.0.3.9", Segment { protocol: 47, bytes: vec![0; 16] }, false),
        ("198.51.100.7", tcp(1, 443, SYN), true),
        ("198.51.100.7", udp(1, 443), true),
        ("198.51.100.7", tcp(1, 444, SYN), false),
        ("198.51.100.7", icmp(1, 8), false),
        ("198.51.100.8", tcp(1, 443, SYN), false),
        ("8.8.8.8", udp(5, 53), false),
        ("169.254.169.254", tcp(1, 80, SYN), false),
        ("255.255.255.255", udp(68, 67), false),
        ("10.1.0.1", tcp(1, 80, SYN), false),
        // Too short for its ports.
        ("198.51.100.7", Segment { protocol: 17, bytes: vec![0, 1] }, false),
    ] {
        let text = format!("{to} {} {:?}", segment.protocol, segment.bytes);
        assert_eq!(bench.sends(&frame((OWN, to), segment)), passes, "{text}");
    }
    for (to, segment, passes) in [
        ("2001:db8::1", udp(1, 53), true),
        ("2001:db8::1", udp(1, 54), false),
        ("2001:db9::1", udp(1, 53), false),
        ("2001:db8::1", icmp(58, 128), false),
        ("::ffff:192.0.2.9", udp(1, 2), false),
        ("ff02::1", udp(1, 5353), false),
        ("fe80::1", udp(1, 53), false),
        // A header that leads elsewhere.
        ("2001:db8::1", Segment { protocol: 43, bytes: vec![17, 0, 0, 0, 0, 0, 0, 0] }, false),
    ] {
        let text = format!("{to} {} {:?}", segment.protocol, segment.bytes);
        assert_eq!(bench.sends(&frame((OWN6, to), segment)), passes, "{text}");
    }
    let told: Vec<_> = std::iter::from_fn(|| bench.gate.next_dropped()).collect();
    let dropped = |protocol, to: &str, port| Dropped { protocol, address: to.parse().unwrap(), port };
    assert!(
        told.contains(&dropped(17, "8.8.8.8", 53)) && told.contains(&dropped(6, "169.254.169.254", 80)),
        "{told:?}"
    );
    assert!(told.contains(&dropped(1, "192.0.3.9", 0)) && told.contains(&dropped(17, "2001:db9::1", 53)), "{told:?}");
    assert!(told.iter().all(|one| !one.address.is_multicast() && one.address.to_string() != "255.255.255.255"));
    // Each once, whatever is sent.
    assert_eq!(told.iter().filter(|one| **one == dropped(6, "192.0.3.9", 2)).count(), 1);
    assert!(!bench.sends(&frame((OWN, "8.8.8.8"), udp(6, 53))));
    assert_eq!(bench.gate.next_dropped(), None);
}

#[test]
fn the_longest_network_decides() {
    let refused = Net { verdict: Verdict::Drop, ..net("10.0.0.1/32", None) };
    let bench = bench(&[net("10.0.0.0/8", None), refused, net("10.0.0.1/32", Some(53))]);
    assert!(bench.sends(&frame((OWN, "10.0.0.2"), udp(1, 1))));
    assert!(!bench.sends(&frame((OWN, "10.0.0.1"), udp(1, 1))));
    assert!(bench.sends(&frame((OWN, "10.0.0.1"), udp(1, 53))));
}

#[test]
fn addresses_of_names_are_allowed_for_their_time() {
    let bench = bench(&[]);
    let (to, to6) = ("203.0.113.5", "2001:db8::5");
    let first = || bench.sends(&frame((OWN, to), tcp(1, 443, SYN)));
    assert!(!first());
    bench.gate.allow(to.parse().unwrap(), Some(443), Duration::from_secs(600)).unwrap();
    bench.gate.allow(to6.parse().unwrap(), None, Duration::from_secs(600)).unwrap();
    assert!(first() && !bench.sends(&frame((OWN, to), tcp(1, 80, SYN))));
    assert!(bench.sends(&frame((OWN6, to6), icmp(58, 128))));
    bench.gate.allow(to.parse().unwrap(), Some(443), Duration::ZERO).unwrap();
    assert!(!first(), "its time is over");
    bench.gate.forget(to6.parse().unwrap(), None).unwrap();
    bench.gate.forget(to6.parse().unwrap(), None).unwrap();
    assert!(!bench.sends(&frame((OWN6, to6), icmp(58, 128))));
}

#[test]
fn connections_that_stand_outlive_their_rules() {
    let bench = bench(&[]);
    let to = "203.0.113.5";
    bench.receives(&frame((to, OWN), tcp(443, 5000, SYN | ACK)));
    assert!(bench.sends(&frame((OWN, to), tcp(5000, 443, ACK))));
    assert!(!bench.sends(&frame((OWN, to), tcp(5000, 443, SYN))), "a new one with the same ports");
    assert!(!bench.sends(&frame((OWN, to), tcp(5001, 443, ACK))) && !bench.sends(&frame((OWN, to), udp(5000, 443))));
}

#[test]
fn what_comes_is_answered() {
    let bench = bench(&[]);
    for (own, other, echo) in [(OWN, "203.0.113.9", (1, 8, 0)), (OWN6, "2001:db8::9", (58, 128, 129))] {
        bench.receives(&frame((other, own), tcp(40000, 80, SYN)));
        assert!(bench.sends(&frame((own, other), tcp(80, 40000, SYN | ACK))));
        assert!(!bench.sends(&frame((own, other), tcp(80, 40000, SYN))));
        bench.receives(&frame((other, own), udp(1000, 53)));
        assert!(bench.sends(&frame((own, other), udp(53, 1000))) && !bench.sends(&frame((own, other), udp(54, 1000))));
        let (protocol, request, answer) = echo;
        assert!(!bench.sends(&frame((own, other), icmp(protocol, answer))));
        bench.receives(&frame((other, own), icmp(protocol, request)));
        assert!(bench.sends(&frame((own, other), icmp(protocol, answer))));
        assert!(!bench.sends(&frame((own, other), icmp(protocol, request))));
    }
    // What was meant for another port of the bridge opens nothing.
    let mut flooded = frame(("203.0.113.10", OWN), udp(7, 7));
    flooded[..6].copy_from_slice(&OTHER_MAC);
    bench.receives(&flooded);
    assert!(!bench.sends(&frame((OWN, "203.0.113.10"), udp(7, 7))));
}

#[test]
fn other_addresses_do_not_pass() {
    let all = [net("0.0.0.0/0", None), net("::/0", None)];
    let open = bench(&all);
    let addresses = own_addresses();
    let own = Own { mac: MAC, addresses: &addresses };
    let addresses_only = bpf::load(PROG_TYPE_SCHED_CLS, 0, &program::outward(&own, None)).unwrap();
    for program in [&open.outward, &addresses_only] {
        let passes = |frame: &[u8]| run(program, frame);
        assert!(passes(&frame((OWN, "203.0.113.1"), udp(1, 1))) && passes(&frame((OWN6, "2001:db8::1"), udp(1, 1))));
        let with_mac = |mut frame: Vec<u8>| {
            frame[6..12].copy_from_slice(&MAC);
            frame
        };
        assert!(!passes(&with_mac(frame(("10.1.0.3", "203.0.113.1"), udp(1, 1)))));
        assert!(!passes(&with_mac(frame(("fd00:1::3", "2001:db8::1"), udp(1, 1)))));
        assert!(!passes(&with_mac(frame(("0.0.0.0", "255.255.255.255"), udp(68, 67)))));
        let mut other_mac = frame((OWN, "203.0.113.1"), udp(1, 1));
        other_mac[6..12].copy_from_slice(&OTHER_MAC);
        assert!(!passes(&other_mac));
        let mut with_options = frame((OWN, "203.0.113.1"), udp(1, 1));
        with_options[14] = 0x46;
        assert!(!passes(&with_options));
        for kind in [[0x81, 0x00], [0x88, 0xcc], [0x88, 0x64], [0x00, 0x10]] {
            let mut other_kind = frame((OWN, "203.0.113.1"), udp(1, 1));
            other_kind[12..14].copy_from_slice(&kind);
            assert!(!passes(&other_kind), "{kind:x?}");
        }
    }
}

#[test]
fn neighbours_are_found_and_not_deceived() {
    let bench = bench(&[]);
    let arp = |mac: [u8; 6], address: [u8; 4]| {
        let head = [&[0xff; 6][..], &MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        [&head[..], &mac, &address, &[0; 6], &[10, 1, 0, 1]].concat()
    };
    assert!(bench.sends(&arp(MAC, [10, 1, 0, 2])) && bench.sends(&arp(MAC, [0; 4])));
    assert!(!bench.sends(&arp(MAC, [10, 1, 0, 1])) && !bench.sends(&arp(OTHER_MAC, [10, 1, 0, 2])));
    let neighbour = |kind: u8, target: &str| {
        let target = target.parse::<Ipv6Addr>().unwrap().octets();
        Segment { protocol: 58, bytes: [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target].concat() }
    };
    let sends = |from: &str, to: &str, segment| {
        let mut frame = frame((from, to), segment);
        frame[6..12].copy_from_slice(&MAC);
        bench.sends(&frame)
    };
    assert!(sends(OWN6, "ff02::1:ff00:1", neighbour(135, "fd00:1::1")));
    assert!(sends(OWN6, "fd00:1::1", neighbour(135, "fd00:1::1")));
    assert!(sends("::", "ff02::1:ff00:2", neighbour(135, OWN6)));
    assert!(sends("fe80::2", "ff02::2", neighbour(133, "::")));
    assert!(sends(OWN6, "fe80::1", neighbour(136, OWN6)) && sends("fe80::2", "fe80::1", neighbour(136, "fe80::2")));
    // Its words for another's address, for a router, and by a way that leads out.
    assert!(!sends(OWN6, "ff02::1", neighbour(136, "fd00:1::1")));
    assert!(!sends("fe80::2", "ff02::1", neighbour(134, "::")) && !sends(OWN6, "fe80::1", neighbour(137, OWN6)));
    assert!(!sends(OWN6, "2001:db8::1", neighbour(136, OWN6)) && !sends(OWN6, "2001:db8::1", neighbour(135, OWN6)));
    assert!(!sends("::", "2001:db8::1", udp(1, 1)) && !sends("::", "2001:db8::1", neighbour(135, OWN6)));
    let report = |kind| Segment { protocol: 0, bytes: vec![58, 0, 5, 2, 0, 0, 1, 0, kind, 0, 0, 0] };
    assert!(sends("fe80::2", "ff02::16", report(143)) && !sends("fe80::2", "ff02::1", report(134)));
    assert!(!sends(OWN6, "2001:db8::1", report(143)));
}

#[test]
fn parts_pass_where_all_ports_do() {
    let bench = bench(&[net("192.0.2.0/24", None), net("198.51.100.0/24", Some(53))]);
    let part = |to: &str, offset: u16| {
        let mut frame = frame((OWN, to), udp(1, 53));
        frame[20..22].copy_from_slice(&offset.to_be_bytes());
        frame
    };
    assert!(bench.sends(&part("192.0.2.1", 0x2000)) && bench.sends(&part("192.0.2.1", 10)));
    assert!(bench.sends(&part("198.51.100.1", 0x2000)) && !bench.sends(&part("198.51.100.1", 10)));
}
