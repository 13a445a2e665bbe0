//! The two programs of a gate: one sees what comes from the far end of a link, the other what goes there.
//!
//! Both see whole Ethernet frames. Registers: r6 the context, r8 the protocol in the IP header.

use std::net::IpAddr;

use super::assemble::{Assembler, CONTEXT, FRAME, Label, Registers};
use crate::bpf::{
    Insn, JUMP_GREATER, JUMP_GREATER_REGISTER, JUMP_LESS, LOAD_BYTE, LOAD_DOUBLE, LOAD_HALF, LOAD_WORD, MAP_LOOKUP,
    SHIFT_RIGHT, STORE_BYTE, STORE_DOUBLE, STORE_HALF, STORE_REGISTER_BYTE, STORE_REGISTER_DOUBLE, STORE_REGISTER_HALF,
    STORE_REGISTER_WORD, STORE_WORD, SUBTRACT_REGISTER,
};

/// `TC_ACT_UNSPEC`: the next filter decides, without one the frame passes.
const PASS: i32 = -1;
/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

// Helpers (`enum bpf_func_id`).
const MAP_UPDATE: i32 = 2;
const TIME: i32 = 5;
const RING_OUTPUT: i32 = 130;

// Offsets in `struct __sk_buff`.
const PROTOCOL: i16 = 16;
const VLAN_PRESENT: i16 = 20;

// Places on the stack. An LPM key: length in bits, then what the names' and the told map have as key: family, protocol
// (0 in keys), port, address.
const KEY: i16 = -24;
const NAME_KEY: i16 = -20;
const KEY_PROTOCOL: i16 = -19;
const KEY_PORT: i16 = -18;
const KEY_ADDRESS: i16 = -16;
/// The header of IP, 20 or 40 bytes.
const HEADER: i16 = -64;
/// Source and destination port.
const PORTS: i16 = -72;
const SCRATCH: i16 = -80;
/// A key of the flows: protocol, family, the other's port, the own port, two bytes of zero, four that are not used with
/// IPv6 (of IPv4 the address and twelve of zero), the other's address.
const FLOW: i16 = -104;
const FLOW_ADDRESS: i16 = -96;

const ETHERNET: i32 = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP: [u8; 2] = [0x08, 0x06];
/// A header of IPv4 without options; options may lead a packet elsewhere than to its destination.
const PLAIN_IPV4: i32 = 0x45;
const ICMP: i32 = 1;
const TCP: i32 = 6;
const ICMP6: i32 = 58;
/// Protocols whose header begins with a source and a destination port.
const WITH_PORTS: [i32; 5] = [TCP, 17, 33, 132, 136];
/// Bits of a whole key of the LPM map without its length.
const WHOLE: i32 = 160;

/// The time as flows and reports are stamped: nanoseconds by 2^30, about a second.
const STAMP_SHIFT: i32 = 30;
/// For how long an answer may follow what has come, with protocols other than TCP.
const ANSWER: i32 = 168;
/// For how long a destination that was reported is not reported again.
const REPORT_AGAIN: i32 = 56;

/// The addresses at the far end.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    pub mac: [u8; 6],
    /// With the prefix length of their subnet.
    pub addresses: &'a [(IpAddr, u8)],
}

/// Numbers of the maps' descriptors.
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    pub nets: i32,
    pub names: i32,
    pub flows: i32,
    pub told: i32,
    pub ring: i32,
}

/// Bytes of a record.
pub const REPORT: usize = 20;
/// Where checks end.
#[derive(Clone, Copy)]
struct Ends {
    pass: Label,
    drop: Label,
    /// Dropped, and told of.
    denied: Label,
}

/// Where what goes to the far end is noted, and where it passes.
#[derive(Clone, Copy)]
struct Noting {
    note: Label,
    pass: Label,
}

/// Where packets without a source address are looked at, and what they may turn out to be.
#[derive(Clone, Copy)]
struct Silent {
    at: Label,
    options: Label,
    neighbour: Label,
}

/// A message of ICMP, by the protocol and its type.
#[derive(Clone, Copy)]
struct Echo {
    icmp: i32,
    kind: i32,
}

/// Two bytes as they are loaded from memory.
fn half(bytes: [u8; 2]) -> i32 {
    i32::from(u16::from_ne_bytes(bytes))
}

fn v4(own: &Own<'_>) -> Vec<[u8; 4]> {
    own.addresses
        .iter()
        .filter_map(|(address, _)| match address {
            IpAddr::V4(address) => Some(address.octets()),
            IpAddr::V6(_) => None,
        })
        .collect()
}

fn v6(own: &Own<'_>) -> Vec<([u8; 16], u8)> {
    own.addresses
        .iter()
        .filter_map(|(address, length)| match address {
            IpAddr::V6(address) => Some((address.octets(), *length)),
            IpAddr::V4(_) => None,
        })
        .collect()
}

/// Loads the address that begins at `at` four bytes at a time and jumps where it begins with `length` bits of `prefix`.
fn if_begins(a: &mut Assembler, at: i16, (prefix, length): (&[u8; 16], u8), to: Label) {
    let next = a.label();
    for word in 0..4u8 {
        let bits = length.saturating_sub(32 * word).min(32);
        if bits == 0 {
            break;
        }
        let mask = u32::MAX << (32 - u32::from(bits));
        let index = usize::from(4 * word);
        let value = u32::from_be_bytes([prefix[index], prefix[index + 1], prefix[index + 2], prefix[index + 3]]) & mask;
        a.put(LOAD_WORD, Registers(2, FRAME), at + i16::from(4 * word), 0);
        if bits < 32 {
            a.mask(2, i32::from_ne_bytes(mask.to_be_bytes()));
        }
        a.if_word_not(2, value.to_be_bytes(), next);
    }
    a.jump(to);
    a.bind(next);
}

/// Jumps where the address at `at` is one of the own ones of IPv6.
fn if_own_v6(a: &mut Assembler, own: &Own<'_>, at: i16, to: Label) {
    for (address, _) in v6(own) {
        if_begins(a, at, (&address, 128), to);
    }
}

/// Jumps where the first ten bits at `at` are those of link-local addresses.
fn if_link_local(a: &mut Assembler, at: i16, to: Label) {
    a.put(LOAD_HALF, Registers(2, FRAME), at, 0);
    a.mask(2, half([0xff, 0xc0]));
    a.if_is(2, half([0xfe, 0x80]), to);
}

fn look_up(a: &mut Assembler, map: i32, key: i16) {
    a.map(1, map);
    a.address(2, key);
    a.call(MAP_LOOKUP);
}

/// The time in r0, as flows and reports are stamped.
fn stamp(a: &mut Assembler) {
    a.call(TIME);
    a.put(SHIFT_RIGHT, Registers(0, 0), 0, STAMP_SHIFT);
}

/// What comes from the far end. `maps`: where destinations are checked, too.
pub fn outward(own: &Own<'_>, maps: Option<Maps>) -> Vec<Insn> {
    let mut a = Assembler::default();
    let ends = Ends { pass: a.label(), drop: a.label(), denied: a.label() };
    a.copy(CONTEXT, 1);
    a.put(LOAD_WORD, Registers(2, CONTEXT), VLAN_PRESENT, 0);
    a.if_not(2, 0, ends.drop);
    check_mac(&mut a, 6, own, ends.drop);
    let (arp, ipv4, ipv6) = (a.label(), a.label(), a.label());
    a.put(LOAD_WORD, Registers(7, CONTEXT), PROTOCOL, 0);
    if !v4(own).is_empty() {
        a.if_is(7, half(ARP), arp);
        a.if_is(7, half(IPV4), ipv4);
    }
    if !v6(own).is_empty() {
        a.if_is(7, half(IPV6), ipv6);
    }
    a.jump(ends.drop);
    if !v4(own).is_empty() {
        a.bind(arp);
        outward_arp(&mut a, own, ends);
        a.bind(ipv4);
        outward_v4(&mut a, own, maps, ends);
    }
    if !v6(own).is_empty() {
        a.bind(ipv6);
        outward_v6(&mut a, own, maps, ends);
    }
    if let Some(maps) = maps {
        a.bind(ends.denied);
        report(&mut a, maps, ends);
    }
    a.bind(ends.drop);
    a.leave(DROP);
    a.bind(ends.pass);
    a.leave(PASS);
    a.finish()
}

/// The hardware address at this offset of the frame is the own one.
fn check_mac(a: &mut Assembler, offset: i32, own: &Own<'_>, otherwise: Label) {
    let [m0, m1, m2, m3, m4, m5] = own.mac;
    a.load_bytes(offset, (SCRATCH, 6), otherwise);
    a.put(LOAD_WORD, Registers(2, FRAME), SCRATCH, 0);
    a.if_word_not(2, [m0, m1, m2, m3], otherwise);
    a.put(LOAD_HALF, Registers(2, FRAME), SCRATCH + 4, 0);
    a.if_not(2, half([m4, m5]), otherwise);
}

/// The sender that an ARP message names is the own one, or it asks whether its address is free (RFC 5227).
fn outward_arp(a: &mut Assembler, own: &Own<'_>, ends: Ends) {
    check_mac(a, ETHERNET + 8, own, ends.drop);
    a.load_bytes(ETHERNET + 14, (SCRATCH, 4), ends.drop);
    a.put(LOAD_WORD, Registers(2, FRAME), SCRATCH, 0);
    for address in v4(own).into_iter().chain([[0; 4]]) {
        a.if_word_is(2, address, ends.pass);
    }
    a.jump(ends.drop);
}

fn outward_v4(a: &mut Assembler, own: &Own<'_>, maps: Option<Maps>, ends: Ends) {
    let is_own = a.label();
    a.load_bytes(ETHERNET, (HEADER, 20), ends.drop);
    a.put(LOAD_BYTE, Registers(2, FRAME), HEADER, 0);
    a.if_not(2, PLAIN_IPV4, ends.drop);
    a.put(LOAD_WORD, Registers(2, FRAME), HEADER + 12, 0);
    for address in v4(own) {
        a.if_word_is(2, address, is_own);
    }
    a.jump(ends.drop);
    a.bind(is_own);
    let Some(maps) = maps else { return a.jump(ends.pass) };
    // Whom groups and the link as a whole reach is not told of.
    a.put(LOAD_BYTE, Registers(2, FRAME), HEADER + 16, 0);
    a.branch(JUMP_GREATER, Registers(2, 0), 223, ends.drop);
    begin_key(a, 4);
    a.put(LOAD_WORD, Registers(2, FRAME), HEADER + 16, 0);
    a.put(STORE_REGISTER_WORD, Registers(FRAME, 2), KEY_ADDRESS, 0);
    a.put(LOAD_BYTE, Registers(8, FRAME), HEADER + 9, 0);
    let fragment = a.label();
    a.put(LOAD_HALF, Registers(2, FRAME), HEADER + 6, 0);
    a.mask(2, half([0x1f, 0xff]));
    a.if_not(2, 0, fragment);
    check_destination(a, maps, ETHERNET + 20, Echo { icmp: ICMP, kind: 0 }, ends);
    // A part without ports, behind the first.
    a.bind(fragment);
    check_sets(a, maps, ends.pass);
    a.jump(ends.denied);
}

fn outward_v6(a: &mut Assembler, own: &Own<'_>, maps: Option<Maps>, ends: Ends) {
    let (source, destination) = (HEADER + 8, HEADER + 24);
    let (is_own, is_silent, neighbour, options, rest) = (a.label(), a.label(), a.label(), a.label(), a.label());
    a.load_bytes(ETHERNET, (HEADER, 40), ends.drop);
    a.put(LOAD_BYTE, Registers(8, FRAME), HEADER + 6, 0);
    if_own_v6(a, own, source, is_own);
    if_link_local(a, source, is_own);
    if_begins(a, source, (&[0; 16], 128), is_silent);
    a.jump(ends.drop);
    outward_silent(a, Silent { at: is_silent, options, neighbour }, ends);
    a.bind(is_own);
    a.if_is(8, 0, options);
    // A header that leads elsewhere, and one that hides what follows.
    a.if_is(8, 43, ends.drop);
    a.if_is(8, 60, ends.drop);
    a.if_not(8, ICMP6, rest);
    a.load_bytes(ETHERNET + 40, (SCRATCH, 1), ends.drop);
    a.put(LOAD_BYTE, Registers(2, FRAME), SCRATCH, 0);
    // Advertisements of a router, and redirects.
    a.if_is(2, 134, ends.drop);
    a.if_is(2, 137, ends.drop);
    a.if_is(2, 133, neighbour);
    a.if_is(2, 135, neighbour);
    a.if_not(2, 136, rest);
    a.load_bytes(ETHERNET + 48, (FLOW, 16), ends.drop);
    if_own_v6(a, own, FLOW, neighbour);
    if_link_local(a, FLOW, neighbour);
    a.jump(ends.drop);
    // What finds neighbours does not leave the link.
    a.bind(neighbour);
    a.put(LOAD_HALF, Registers(2, FRAME), destination, 0);
    a.if_is(2, half([0xff, 0x02]), ends.pass);
    if_link_local(a, destination, ends.pass);
    for (address, length) in v6(own) {
        if_begins(a, destination, (&address, length), ends.pass);
    }
    a.jump(ends.drop);
    a.bind(options);
    outward_report(a, ends);
    a.bind(rest);
    let Some(maps) = maps else { return a.jump(ends.pass) };
    a.put(LOAD_BYTE, Registers(2, FRAME), destination, 0);
    a.if_is(2, 0xff, ends.drop);
    begin_key(a, 6);
    for part in [0, 8] {
        a.put(LOAD_DOUBLE, Registers(2, FRAME), destination + part, 0);
        a.put(STORE_REGISTER_DOUBLE, Registers(FRAME, 2), KEY_ADDRESS + part, 0);
    }
    check_destination(a, maps, ETHERNET + 40, Echo { icmp: ICMP6, kind: 129 }, ends);
}

/// Without an address: whether the one to come is free, and which groups it listens to.
fn outward_silent(a: &mut Assembler, places: Silent, ends: Ends) {
    let Silent { at, options, neighbour } = places;
    a.bind(at);
    a.if_is(8, 0, options);
    a.if_not(8, ICMP6, ends.drop);
    a.load_bytes(ETHERNET + 40, (SCRATCH, 1), ends.drop);
    a.put(LOAD_BYTE, Registers(2, FRAME), SCRATCH, 0);
    a.if_is(2, 133, neighbour);
    a.if_is(2, 135, neighbour);
    a.jump(ends.drop);
}

/// What a listener tells of its groups (RFC 3810), which has one header of options before it.
fn outward_report(a: &mut Assembler, ends: Ends) {
    a.load_bytes(ETHERNET + 40, (SCRATCH, 2), ends.drop);
    a.put(LOAD_HALF, Registers(2, FRAME), SCRATCH, 0);
    a.if_not(2, half([ICMP6 as u8, 0]), ends.drop);
    a.load_bytes(ETHERNET + 48, (SCRATCH, 1), ends.drop);
    a.put(LOAD_BYTE, Registers(2, FRAME), SCRATCH, 0);
    let report = a.label();
    for kind in [131, 132, 143] {
        a.if_is(2, kind, report);
    }
    a.jump(ends.drop);
    a.bind(report);
    a.put(LOAD_HALF, Registers(2, FRAME), HEADER + 24, 0);
    a.if_is(2, half([0xff, 0x02]), ends.pass);
    a.jump(ends.drop);
}

/// A key without port and address.
fn begin_key(a: &mut Assembler, family: i32) {
    for part in [0, 8, 16] {
        a.put(STORE_DOUBLE, Registers(FRAME, 0), KEY + part, 0);
    }
    a.put(STORE_WORD, Registers(FRAME, 0), KEY, WHOLE);
    a.put(STORE_BYTE, Registers(FRAME, 0), NAME_KEY, family);
}

/// Passes what the key finds in the rules, or among the addresses of names whose time is not over.
fn check_sets(a: &mut Assembler, maps: Maps, pass: Label) {
    let (names, missing) = (a.label(), a.label());
    look_up(a, maps.nets, KEY);
    a.if_is(0, 0, names);
    a.put(LOAD_WORD, Registers(2, 0), 0, 0);
    a.if_not(2, 0, pass);
    a.bind(names);
    look_up(a, maps.names, NAME_KEY);
    a.if_is(0, 0, missing);
    a.put(LOAD_DOUBLE, Registers(7, 0), 0, 0);
    a.call(TIME);
    a.branch(JUMP_GREATER_REGISTER, Registers(7, 0), 0, pass);
    a.bind(missing);
}

/// Passes what may be reached, and answers to what has come. `echo`: an answer to an echo request.
fn check_destination(a: &mut Assembler, maps: Maps, transport: i32, echo: Echo, ends: Ends) {
    let (has_ports, may_answer, has_none, restore) = (a.label(), a.label(), a.label(), a.label());
    for protocol in WITH_PORTS {
        a.if_is(8, protocol, has_ports);
    }
    a.jump(has_none);
    a.bind(has_ports);
    a.load_bytes(transport, (PORTS, 4), ends.drop);
    a.put(LOAD_HALF, Registers(2, FRAME), PORTS + 2, 0);
    a.put(STORE_REGISTER_HALF, Registers(FRAME, 2), KEY_PORT, 0);
    check_sets(a, maps, ends.pass);
    a.put(STORE_HALF, Registers(FRAME, 0), KEY_PORT, 0);
    check_sets(a, maps, ends.pass);
    a.if_not(8, TCP, may_answer);
    // SYN without ACK begins a connection.
    a.load_bytes(transport + 13, (SCRATCH, 1), ends.drop);
    a.put(LOAD_BYTE, Registers(2, FRAME), SCRATCH, 0);
    a.mask(2, 0x12);
    a.if_is(2, 0x02, restore);
    a.bind(may_answer);
    begin_flow(a, echo.icmp);
    a.put(LOAD_HALF, Registers(2, FRAME), PORTS, 0);
    a.put(STORE_REGISTER_HALF, Registers(FRAME, 2), FLOW + 4, 0);
    a.put(LOAD_HALF, Registers(2, FRAME), PORTS + 2, 0);
    a.put(STORE_REGISTER_HALF, Registers(FRAME, 2), FLOW + 2, 0);
    look_up(a, maps.flows, FLOW);
    a.if_is(0, 0, restore);
    a.if_is(8, TCP, ends.pass);
    check_age(a, ends.pass);
    a.bind(restore);
    a.put(LOAD_HALF, Registers(2, FRAME), PORTS + 2, 0);
    a.put(STORE_REGISTER_HALF, Registers(FRAME, 2), KEY_PORT, 0);
    a.jump(ends.denied);
    a.bind(has_none);
    check_sets(a, maps, ends.pass);
    a.if_not(8, echo.icmp, ends.denied);
    a.load_bytes(transport, (SCRATCH, 1), ends.drop);
    a.put(LOAD_BYTE, Registers(2, FRAME), SCRATCH, 0);
    a.if_not(2, echo.kind, ends.denied);
    begin_flow(a, echo.icmp);
    look_up(a, maps.flows, FLOW);
    a.if_is(0, 0, ends.denied);
    check_age(a, ends.pass);
    a.jump(ends.denied);
}

/// Passes where the stamp behind r0 is not too old.
fn check_age(a: &mut Assembler, pass: Label) {
    a.put(LOAD_DOUBLE, Registers(7, 0), 0, 0);
    stamp(a);
    a.put(SUBTRACT_REGISTER, Registers(0, 7), 0, 0);
    a.branch(JUMP_LESS, Registers(0, 0), ANSWER, pass);
}

/// A key of the flows with the key's address and without ports. The protocol of ICMP tells the family.
fn begin_flow(a: &mut Assembler, icmp: i32) {
    clear_flow(a, icmp);
    for part in [0, 8] {
        a.put(LOAD_DOUBLE, Registers(2, FRAME), KEY_ADDRESS + part, 0);
        a.put(STORE_REGISTER_DOUBLE, Registers(FRAME, 2), FLOW_ADDRESS + part, 0);
    }
}

fn clear_flow(a: &mut Assembler, icmp: i32) {
    for part in [0, 8, 16] {
        a.put(STORE_DOUBLE, Registers(FRAME, 0), FLOW + part, 0);
    }
    a.put(STORE_REGISTER_BYTE, Registers(FRAME, 8), FLOW, 0);
    a.put(STORE_BYTE, Registers(FRAME, 0), FLOW + 1, icmp);
}

/// Tells of the destination in the key, unless that was done a moment ago, and drops.
fn report(a: &mut Assembler, maps: Maps, ends: Ends) {
    let tell = a.label();
    a.put(STORE_REGISTER_BYTE, Registers(FRAME, 8), KEY_PROTOCOL, 0);
    stamp(a);
    a.copy(9, 0);
    look_up(a, maps.told, NAME_KEY);
    a.if_is(0, 0, tell);
    a.put(LOAD_DOUBLE, Registers(7, 0), 0, 0);
    a.copy(2, 9);
    a.put(SUBTRACT_REGISTER, Registers(2, 7), 0, 0);
    a.branch(JUMP_LESS, Registers(2, 0), REPORT_AGAIN, ends.drop);
    a.bind(tell);
    a.put(STORE_REGISTER_DOUBLE, Registers(FRAME, 9), SCRATCH, 0);
    a.map(1, maps.told);
    a.address(2, NAME_KEY);
    a.address(3, SCRATCH);
    a.set(4, 0);
    a.call(MAP_UPDATE);
    a.map(1, maps.ring);
    a.address(2, NAME_KEY);
    a.set(3, REPORT as i32);
    a.set(4, 0);
    a.call(RING_OUTPUT);
}

/// What goes to the far end: notes who may be answered.
pub fn inward(own: &Own<'_>, maps: Maps) -> Vec<Insn> {
    let mut a = Assembler::default();
    let (pass, note, ipv4, ipv6) = (a.label(), a.label(), a.label(), a.label());
    a.copy(CONTEXT, 1);
    check_mac(&mut a, 0, own, pass);
    a.put(LOAD_WORD, Registers(7, CONTEXT), PROTOCOL, 0);
    a.if_is(7, half(IPV4), ipv4);
    a.if_is(7, half(IPV6), ipv6);
    a.jump(pass);
    a.bind(ipv4);
    a.load_bytes(ETHERNET, (HEADER, 20), pass);
    a.put(LOAD_BYTE, Registers(2, FRAME), HEADER, 0);
    a.if_not(2, PLAIN_IPV4, pass);
    a.put(LOAD_HALF, Registers(2, FRAME), HEADER + 6, 0);
    a.mask(2, half([0x1f, 0xff]));
    a.if_not(2, 0, pass);
    a.put(LOAD_BYTE, Registers(8, FRAME), HEADER + 9, 0);
    clear_flow(&mut a, ICMP);
    a.put(LOAD_WORD, Registers(2, FRAME), HEADER + 12, 0);
    a.put(STORE_REGISTER_WORD, Registers(FRAME, 2), FLOW_ADDRESS, 0);
    sender(&mut a, ETHERNET + 20, Echo { icmp: ICMP, kind: 8 }, Noting { note, pass });
    a.bind(ipv6);
    a.load_bytes(ETHERNET, (HEADER, 40), pass);
    a.put(LOAD_BYTE, Registers(8, FRAME), HEADER + 6, 0);
    clear_flow(&mut a, ICMP6);
    for part in [0, 8] {
        a.put(LOAD_DOUBLE, Registers(2, FRAME), HEADER + 8 + part, 0);
        a.put(STORE_REGISTER_DOUBLE, Registers(FRAME, 2), FLOW_ADDRESS + part, 0);
    }
    sender(&mut a, ETHERNET + 40, Echo { icmp: ICMP6, kind: 128 }, Noting { note, pass });
    a.bind(note);
    stamp(&mut a);
    a.copy(9, 0);
    look_up(&mut a, maps.flows, FLOW);
    let new = a.label();
    a.if_is(0, 0, new);
    a.put(STORE_REGISTER_DOUBLE, Registers(0, 9), 0, 0);
    a.jump(pass);
    a.bind(new);
    a.put(STORE_REGISTER_DOUBLE, Registers(FRAME, 9), SCRATCH, 0);
    a.map(1, maps.flows);
    a.address(2, FLOW);
    a.address(3, SCRATCH);
    a.set(4, 0);
    a.call(MAP_UPDATE);
    a.bind(pass);
    a.leave(PASS);
    a.finish()
}

/// Completes a key of the flows by the sender's port; `echo`: an echo request.
fn sender(a: &mut Assembler, transport: i32, echo: Echo, ends: Noting) {
    let Noting { note, pass } = ends;
    let has_ports = a.label();
    for protocol in WITH_PORTS {
        a.if_is(8, protocol, has_ports);
    }
    a.if_not(8, echo.icmp, pass);
    a.load_bytes(transport, (SCRATCH, 1), pass);
    a.put(LOAD_BYTE, Registers(2, FRAME), SCRATCH, 0);
    a.if_is(2, echo.kind, note);
    a.jump(pass);
    a.bind(has_ports);
    a.load_bytes(transport, (PORTS, 4), pass);
    a.put(LOAD_HALF, Registers(2, FRAME), PORTS, 0);
    a.put(STORE_REGISTER_HALF, Registers(FRAME, 2), FLOW + 2, 0);
    a.put(LOAD_HALF, Registers(2, FRAME), PORTS + 2, 0);
    a.put(STORE_REGISTER_HALF, Registers(FRAME, 2), FLOW + 4, 0);
    a.jump(note);
}
