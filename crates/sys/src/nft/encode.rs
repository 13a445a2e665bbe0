//! From data to nf_tables messages: chains, sets, and rules as programs of the kernel's register machine.

use super::model::{
    Chain, Comparison, ConntrackState, Element, Field, Hook, HookPoint, Policy, Prefix, Rule, Set, Statement,
};
use super::uapi::{
    LIST_ELEMENT, bitwise, chain, compare, conntrack, data, element, expression, fib, immediate, lookup, meta, nat,
    payload, register, rule, set, verdict,
};
use crate::netlink::wire::Writer;

/// Length of a link name in a register.
const LINK_NAME: usize = 16;

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
    w.be32(set::FLAGS, if made.data.is_empty() { 0 } else { set::FLAG_MAP });
    w.be32(set::KEY_TYPE, concatenated_type(&made.key));
    w.be32(set::KEY_LENGTH, length(&made.key));
    if !made.data.is_empty() {
        w.be32(set::DATA_TYPE, concatenated_type(&made.data));
        w.be32(set::DATA_LENGTH, length(&made.data));
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

/// Keys, with data only when elements are added.
pub(super) fn write_elements(w: &mut Writer<'_>, table: &str, name: &str, elements: &[Element], with_data: bool) {
    w.string(element::TABLE, table);
    w.string(element::SET, name);
    w.nested(element::ELEMENTS, |w| {
        for item in elements {
            w.nested(LIST_ELEMENT, |w| {
                w.nested(element::KEY, |w| w.bytes(data::VALUE, &item.key));
                if with_data && !item.data.is_empty() {
                    w.nested(element::DATA, |w| w.bytes(data::VALUE, &item.data));
                }
            });
        }
    });
}

pub(super) fn write_rule(w: &mut Writer<'_>, table: &str, chain_name: &str, made: &Rule) {
    w.string(rule::TABLE, table);
    w.string(rule::CHAIN, chain_name);
    w.nested(rule::EXPRESSIONS, |w| {
        for statement in &made.statements {
            write_statement(w, statement);
        }
    });
}

fn write_statement(w: &mut Writer<'_>, statement: &Statement) {
    match statement {
        Statement::InputLink(comparison, name) => match_link(w, meta::INPUT_NAME, *comparison, name),
        Statement::OutputLink(comparison, name) => match_link(w, meta::OUTPUT_NAME, *comparison, name),
        Statement::Source(comparison, prefix) => match_network(w, 12, *comparison, *prefix),
        Statement::Destination(comparison, prefix) => match_network(w, 16, *comparison, *prefix),
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
        Statement::TranslateByMap { key, map } => translate_by_map(w, key, map),
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

fn write_mask(w: &mut Writer<'_>, mask: [u8; 4]) {
    write_expression(w, "bitwise", |w| {
        w.be32(bitwise::SOURCE, register::FIRST);
        w.be32(bitwise::DESTINATION, register::FIRST);
        w.be32(bitwise::LENGTH, 4);
        w.nested(bitwise::MASK, |w| w.bytes(data::VALUE, &mask));
        w.nested(bitwise::XOR, |w| w.bytes(data::VALUE, &[0; 4]));
    });
}

fn operation(comparison: Comparison) -> u32 {
    match comparison {
        Comparison::Is => compare::EQUAL,
        Comparison::IsNot => compare::NOT_EQUAL,
    }
}

fn match_link(w: &mut Writer<'_>, key: u32, comparison: Comparison, name: &str) {
    let mut padded = [0u8; LINK_NAME];
    let length = name.len().min(LINK_NAME - 1);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    load_meta(w, key, register::FIRST);
    write_compare(w, operation(comparison), &padded);
}

/// `offset` of the address in the IPv4 header.
fn match_network(w: &mut Writer<'_>, offset: u32, comparison: Comparison, prefix: Prefix) {
    load_payload(w, payload::NETWORK, offset, 4, register::FIRST);
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.length)).unwrap_or(0);
    if prefix.length < 32 {
        write_mask(w, mask.to_be_bytes());
    }
    write_compare(w, operation(comparison), &(u32::from(prefix.address) & mask).to_be_bytes());
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
    write_mask(w, bits.to_ne_bytes());
    write_compare(w, compare::NOT_EQUAL, &[0; 4]);
}

fn write_verdict(w: &mut Writer<'_>, code: i32, target: Option<&str>) {
    write_expression(w, "immediate", |w| {
        w.be32(immediate::DESTINATION, register::VERDICT);
        w.nested(immediate::DATA, |w| {
            w.nested(data::VERDICT, |w| {
                w.be32(data::VERDICT_CODE, code as u32);
                if let Some(target) = target {
                    w.string(data::VERDICT_CHAIN, target);
                }
            });
        });
    });
}

fn translate_by_map(w: &mut Writer<'_>, key: &[Field], map: &str) {
    let mut word = 0;
    for field in key {
        let to = register::word(word);
        match field {
            Field::Protocol => load_meta(w, meta::PROTOCOL, to),
            Field::Ipv4 => load_payload(w, payload::NETWORK, 16, 4, to),
            Field::Ipv6 => load_payload(w, payload::NETWORK, 24, 16, to),
            Field::Port => load_payload(w, payload::TRANSPORT, 2, 2, to),
        }
        word += field.padded() / 4;
    }
    write_expression(w, "lookup", |w| {
        w.string(lookup::SET, map);
        w.be32(lookup::SOURCE, register::FIRST);
        w.be32(lookup::DESTINATION, register::FIRST);
    });
    let (family, port) = if key.contains(&Field::Ipv6) { (libc::AF_INET6, 4) } else { (libc::AF_INET, 1) };
    write_expression(w, "nat", |w| {
        w.be32(nat::TYPE, nat::DESTINATION_NAT);
        w.be32(nat::FAMILY, family as u32);
        w.be32(nat::ADDRESS, register::FIRST);
        w.be32(nat::PORT, register::word(port));
    });
}
