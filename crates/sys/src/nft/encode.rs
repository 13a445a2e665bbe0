//! From data to nf_tables messages: chains, sets, and rules as programs of the kernel's register machine.

use std::net::IpAddr;

use super::model::{
    Chain, Comparison, ConntrackState, Direction, Element, Family, Field, Hook, HookPoint, Policy, Prefix, Protocol,
    Rule, Set, Statement, VERDICT_TYPE, padded,
};
use super::uapi::{
    LIST_ELEMENT, bitwise, chain, compare, conntrack, data, element, expression, fib, immediate, lookup, meta, nat,
    payload, register, rule, set, verdict,
};
use crate::netlink::wire::Writer;

/// Head of an entry in a set's user data (libnftnl's `NFTNL_UDATA_SET_KEYBYTEORDER`): type and length.
const KEY_BYTE_ORDER: [u8; 2] = [0, 4];
const HOST_ORDER: u32 = 1;

pub(super) fn write_chain(w: &mut Writer<'_>, table: &str, made: &Chain) {
    w.string(chain::TABLE, table);
    w.string(chain::NAME, &made.name);
    if let Some(hook) = made.hook {
        write_hook(w, hook);
    }
}

fn write_hook(w: &mut Writer<'_>, hook: Hook) {
    let (number, priority, kind) = match hook.point {
        HookPoint::RawPrerouting => (libc::NF_INET_PRE_ROUTING, -300i32, "filter"),
        HookPoint::NatPrerouting => (libc::NF_INET_PRE_ROUTING, -100, "nat"),
        HookPoint::NatOutput => (libc::NF_INET_LOCAL_OUT, -100, "nat"),
        HookPoint::NatPostrouting => (libc::NF_INET_POST_ROUTING, 100, "nat"),
        HookPoint::FilterForward => (libc::NF_INET_FORWARD, 0, "filter"),
    };
    w.nested(chain::HOOK, |w| {
        w.be32(chain::HOOK_NUMBER, number as u32);
        w.be32(chain::HOOK_PRIORITY, priority as u32);
    });
    let policy = match hook.policy {
        Policy::Accept => verdict::ACCEPT,
        Policy::Drop => verdict::DROP,
    };
    w.be32(chain::POLICY, policy as u32);
    w.string(chain::TYPE, kind);
}

pub(super) fn write_set(w: &mut Writer<'_>, table: &str, made: &Set, id: u32) {
    w.string(set::TABLE, table);
    w.string(set::NAME, &made.name);
    let map = if made.data.is_empty() { 0 } else { set::FLAG_MAP };
    let ranges = if made.has_ranges() { set::FLAG_INTERVAL | set::FLAG_CONCATENATION } else { 0 };
    w.be32(set::FLAGS, map | ranges);
    w.be32(set::KEY_TYPE, concatenated_type(&made.key));
    w.be32(set::KEY_LENGTH, length(&made.key));
    if !made.data.is_empty() {
        match made.data[..] {
            [Field::Jump] => w.be32(set::DATA_TYPE, VERDICT_TYPE),
            _ => {
                w.be32(set::DATA_TYPE, concatenated_type(&made.data));
                w.be32(set::DATA_LENGTH, length(&made.data));
            }
        }
    }
    if made.key[..] == [Field::LinkName] {
        // For the listing of the `nft` program, which takes names for numbers of the other order otherwise.
        w.bytes(set::USERDATA, &[&KEY_BYTE_ORDER[..], &HOST_ORDER.to_ne_bytes()].concat());
    }
    if made.has_ranges() {
        w.nested(set::DESCRIPTION, |w| {
            w.nested(set::PARTS, |w| {
                for field in &made.key {
                    w.nested(LIST_ELEMENT, |w| w.be32(set::PART_LENGTH, field.length()));
                }
            });
        });
    }
    w.be32(set::ID, id);
}

/// Six bits per part, as the `nft` program numbers concatenations.
fn concatenated_type(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |number, field| number << 6 | field.type_number())
}

fn length(fields: &[Field]) -> u32 {
    match fields {
        [single] => single.length(),
        _ => fields.iter().map(|f| f.padded()).sum(),
    }
}

/// What elements are written with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// Keys alone.
    Without,
    Values,
    /// Each element's data names a chain.
    Jumps,
}

pub(super) fn write_elements(w: &mut Writer<'_>, table: &str, name: &str, elements: &[Element], with: Data) {
    w.string(element::TABLE, table);
    w.string(element::SET, name);
    w.nested(element::ELEMENTS, |w| {
        for item in elements {
            w.nested(LIST_ELEMENT, |w| {
                w.nested(element::KEY, |w| w.bytes(data::VALUE, &item.key));
                if !item.end.is_empty() {
                    w.nested(element::KEY_END, |w| w.bytes(data::VALUE, &item.end));
                }
                match with {
                    Data::Without => (),
                    Data::Values if item.data.is_empty() => (),
                    Data::Values => w.nested(element::DATA, |w| w.bytes(data::VALUE, &item.data)),
                    Data::Jumps => w.nested(element::DATA, |w| {
                        write_jump(w, verdict::JUMP, Some(&String::from_utf8_lossy(&item.data)));
                    }),
                }
            });
        }
    });
}

pub(super) fn write_rule(w: &mut Writer<'_>, (family, table): (Family, &str), chain_name: &str, made: &Rule) {
    w.string(rule::TABLE, table);
    w.string(rule::CHAIN, chain_name);
    w.nested(rule::EXPRESSIONS, |w| {
        for statement in &made.statements {
            write_statement(w, family, statement);
        }
    });
}

fn write_statement(w: &mut Writer<'_>, table: Family, statement: &Statement) {
    match statement {
        Statement::Is(protocol) => match_protocol(w, *protocol),
        Statement::Icmp(protocol) => match_icmp(w, *protocol),
        Statement::InputLink(comparison, name) => match_link(w, meta::INPUT_NAME, *comparison, name),
        Statement::OutputLink(comparison, name) => match_link(w, meta::OUTPUT_NAME, *comparison, name),
        Statement::LinkIn(direction, set) => {
            load_meta(w, link_key(*direction), register::FIRST);
            write_lookup(w, set, None);
        }
        Statement::JumpByLink(direction, map) => {
            load_meta(w, link_key(*direction), register::FIRST);
            write_lookup(w, map, Some(register::VERDICT));
        }
        Statement::In { key, set } => {
            load_key(w, table, key);
            write_lookup(w, set, None);
        }
        Statement::Source(comparison, prefix) => match_network(w, (table, Side::Source), *comparison, *prefix),
        Statement::Destination(comparison, prefix) => {
            match_network(w, (table, Side::Destination), *comparison, *prefix)
        }
        Statement::Mark { value, mask } => {
            load_meta(w, meta::MARK, register::FIRST);
            if *mask != u32::MAX {
                write_mask(w, &mask.to_ne_bytes());
            }
            write_compare(w, compare::EQUAL, &value.to_ne_bytes());
        }
        Statement::SourceIsLocal => match_local(w, fib::FLAG_SOURCE),
        Statement::DestinationIsLocal => match_local(w, fib::FLAG_DESTINATION),
        Statement::Connection(ConntrackState::EstablishedOrRelated) => {
            match_conntrack(w, conntrack::STATE, conntrack::STATE_ESTABLISHED | conntrack::STATE_RELATED);
        }
        Statement::Connection(ConntrackState::Invalid) => {
            match_conntrack(w, conntrack::STATE, conntrack::STATE_INVALID)
        }
        Statement::DestinationTranslated => match_conntrack(w, conntrack::STATUS, conntrack::STATUS_DESTINATION_NAT),
        Statement::Counter => write_expression(w, "counter", |_| ()),
        Statement::Accept => write_verdict(w, verdict::ACCEPT, None),
        Statement::Drop => write_verdict(w, verdict::DROP, None),
        Statement::Return => write_verdict(w, verdict::RETURN, None),
        Statement::Jump(target) => write_verdict(w, verdict::JUMP, Some(target)),
        Statement::Masquerade => write_expression(w, "masq", |_| ()),
        Statement::TranslateSource(address) => translate_source(w, *address),
        Statement::TranslateByMap { protocol, key, map } => translate_by_map(w, (table, *protocol), key, map),
    }
}

fn write_expression(w: &mut Writer<'_>, name: &str, body: impl FnOnce(&mut Writer<'_>)) {
    w.nested(LIST_ELEMENT, |w| {
        w.string(expression::NAME, name);
        w.nested(expression::DATA, body);
    });
}

fn load_meta(w: &mut Writer<'_>, key: u32, to: u32) {
    write_expression(w, "meta", |w| {
        w.be32(meta::DESTINATION, to);
        w.be32(meta::KEY, key);
    });
}

/// Loads `field` bytes at `offset` of the network (`payload::NETWORK`) or transport header.
fn load_payload(w: &mut Writer<'_>, base: u32, offset: u32, field: u32, to: u32) {
    write_expression(w, "payload", |w| {
        w.be32(payload::DESTINATION, to);
        w.be32(payload::BASE, base);
        w.be32(payload::OFFSET, offset);
        w.be32(payload::LENGTH, field);
    });
}

fn write_compare(w: &mut Writer<'_>, operation: u32, value: &[u8]) {
    write_expression(w, "cmp", |w| {
        w.be32(compare::SOURCE, register::FIRST);
        w.be32(compare::OPERATION, operation);
        w.nested(compare::DATA, |w| w.bytes(data::VALUE, value));
    });
}

fn write_mask(w: &mut Writer<'_>, mask: &[u8]) {
    write_expression(w, "bitwise", |w| {
        w.be32(bitwise::SOURCE, register::FIRST);
        w.be32(bitwise::DESTINATION, register::FIRST);
        w.be32(bitwise::LENGTH, mask.len() as u32);
        w.nested(bitwise::MASK, |w| w.bytes(data::VALUE, mask));
        w.nested(bitwise::XOR, |w| w.bytes(data::VALUE, &vec![0; mask.len()]));
    });
}

fn operation(comparison: Comparison) -> u32 {
    match comparison {
        Comparison::Is => compare::EQUAL,
        Comparison::IsNot => compare::NOT_EQUAL,
    }
}

fn match_link(w: &mut Writer<'_>, key: u32, comparison: Comparison, name: &str) {
    load_meta(w, key, register::FIRST);
    write_compare(w, operation(comparison), &padded(name));
}

fn link_key(direction: Direction) -> u32 {
    match direction {
        Direction::Input => meta::INPUT_NAME,
        Direction::Output => meta::OUTPUT_NAME,
    }
}

/// Looks the first register up; `to`: where a map's data goes.
fn write_lookup(w: &mut Writer<'_>, set: &str, to: Option<u32>) {
    write_expression(w, "lookup", |w| {
        w.string(lookup::SET, set);
        w.be32(lookup::SOURCE, register::FIRST);
        if let Some(to) = to {
            w.be32(lookup::DESTINATION, to);
        }
    });
}

fn match_protocol(w: &mut Writer<'_>, protocol: Protocol) {
    load_meta(w, meta::NETWORK_PROTOCOL, register::FIRST);
    write_compare(w, compare::EQUAL, &[family(protocol) as u8]);
}

/// Before a header is read that packets of the other family have not. A table of one family has no others.
fn narrow(w: &mut Writer<'_>, table: Family, protocol: Protocol) {
    if table == Family::Inet {
        match_protocol(w, protocol);
    }
}

fn match_icmp(w: &mut Writer<'_>, protocol: Protocol) {
    let number = match protocol {
        Protocol::Ipv4 => libc::IPPROTO_ICMP,
        Protocol::Ipv6 => libc::IPPROTO_ICMPV6,
    };
    load_meta(w, meta::PROTOCOL, register::FIRST);
    write_compare(w, compare::EQUAL, &[number as u8]);
}

fn family(protocol: Protocol) -> i32 {
    match protocol {
        Protocol::Ipv4 => libc::AF_INET,
        Protocol::Ipv6 => libc::AF_INET6,
    }
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn match_network(w: &mut Writer<'_>, (table, side): (Family, Side), comparison: Comparison, prefix: Prefix) {
    let (protocol, offset, bytes) = match (prefix.address, side) {
        (IpAddr::V4(address), Side::Source) => (Protocol::Ipv4, 12, address.octets().to_vec()),
        (IpAddr::V4(address), Side::Destination) => (Protocol::Ipv4, 16, address.octets().to_vec()),
        (IpAddr::V6(address), Side::Source) => (Protocol::Ipv6, 8, address.octets().to_vec()),
        (IpAddr::V6(address), Side::Destination) => (Protocol::Ipv6, 24, address.octets().to_vec()),
    };
    narrow(w, table, protocol);
    load_payload(w, payload::NETWORK, offset, bytes.len() as u32, register::FIRST);
    let mask: Vec<u8> = (0..bytes.len()).map(|index| mask_byte(prefix.length, index)).collect();
    if usize::from(prefix.length) < 8 * bytes.len() {
        write_mask(w, &mask);
    }
    let masked: Vec<u8> = bytes.iter().zip(&mask).map(|(byte, mask)| byte & mask).collect();
    write_compare(w, operation(comparison), &masked);
}

/// Byte `index` of a mask of `length` bits.
fn mask_byte(length: u8, index: usize) -> u8 {
    let bits = usize::from(length).saturating_sub(8 * index).min(8) as u32;
    0xff_u8.checked_shl(8 - bits).unwrap_or(0)
}

fn match_local(w: &mut Writer<'_>, whose: u32) {
    write_expression(w, "fib", |w| {
        w.be32(fib::DESTINATION, register::FIRST);
        w.be32(fib::RESULT, fib::RESULT_ADDRESS_TYPE);
        w.be32(fib::FLAGS, whose);
    });
    write_compare(w, compare::EQUAL, &fib::LOCAL.to_ne_bytes());
}

/// Any of `bits` set.
fn match_conntrack(w: &mut Writer<'_>, key: u32, bits: u32) {
    write_expression(w, "ct", |w| {
        w.be32(conntrack::DESTINATION, register::FIRST);
        w.be32(conntrack::KEY, key);
    });
    write_mask(w, &bits.to_ne_bytes());
    write_compare(w, compare::NOT_EQUAL, &[0; 4]);
}

fn write_verdict(w: &mut Writer<'_>, code: i32, target: Option<&str>) {
    write_expression(w, "immediate", |w| {
        w.be32(immediate::DESTINATION, register::VERDICT);
        w.nested(immediate::DATA, |w| write_jump(w, code, target));
    });
}

fn write_jump(w: &mut Writer<'_>, code: i32, target: Option<&str>) {
    w.nested(data::VERDICT, |w| {
        w.be32(data::VERDICT_CODE, code as u32);
        if let Some(target) = target {
            w.string(data::VERDICT_CHAIN, target);
        }
    });
}

/// Loads the packet's fields side by side, from the first register on.
fn load_key(w: &mut Writer<'_>, table: Family, key: &[Field]) {
    if let Some(protocol) = key.iter().find_map(|field| match field {
        Field::Ipv4 => Some(Protocol::Ipv4),
        Field::Ipv6 => Some(Protocol::Ipv6),
        _ => None,
    }) {
        narrow(w, table, protocol);
    }
    let mut word = 0;
    for field in key {
        let to = register::word(word);
        match field {
            Field::Protocol => load_meta(w, meta::PROTOCOL, to),
            Field::Ipv4 => load_payload(w, payload::NETWORK, 16, 4, to),
            Field::Ipv6 => load_payload(w, payload::NETWORK, 24, 16, to),
            Field::Port | Field::PortRange => load_payload(w, payload::TRANSPORT, 2, 2, to),
            Field::LinkName | Field::Jump => (),
        }
        word += field.padded() / 4;
    }
}

fn translate_source(w: &mut Writer<'_>, address: IpAddr) {
    let (protocol, bytes) = match address {
        IpAddr::V4(address) => (Protocol::Ipv4, address.octets().to_vec()),
        IpAddr::V6(address) => (Protocol::Ipv6, address.octets().to_vec()),
    };
    write_expression(w, "immediate", |w| {
        w.be32(immediate::DESTINATION, register::FIRST);
        w.nested(immediate::DATA, |w| w.bytes(data::VALUE, &bytes));
    });
    write_expression(w, "nat", |w| {
        w.be32(nat::TYPE, nat::SOURCE_NAT);
        w.be32(nat::FAMILY, family(protocol) as u32);
        w.be32(nat::ADDRESS, register::FIRST);
    });
}

fn translate_by_map(w: &mut Writer<'_>, (table, protocol): (Family, Protocol), key: &[Field], map: &str) {
    load_key(w, table, key);
    write_lookup(w, map, Some(register::FIRST));
    let port = match protocol {
        _ if key.last() == Some(&Field::PortRange) => None,
        Protocol::Ipv4 => Some(1),
        Protocol::Ipv6 => Some(4),
    };
    write_expression(w, "nat", |w| {
        w.be32(nat::TYPE, nat::DESTINATION_NAT);
        w.be32(nat::FAMILY, family(protocol) as u32);
        w.be32(nat::ADDRESS, register::FIRST);
        if let Some(port) = port {
            w.be32(nat::PORT, register::word(port));
        }
    });
}
