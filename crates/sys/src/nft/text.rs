//! The text form of a table, in the syntax of `nft list table`, with counters at zero.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::model::{
    Chain, Comparison, ConntrackState, Direction, Element, Family, Field, HookPoint, Policy, Prefix, Protocol, Rule,
    Set, Statement, Table,
};

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Inet => "inet",
        };
        writeln!(f, "table {family} {} {{", self.name)?;
        let mut first = true;
        for set in &self.sets {
            separate(f, &mut first)?;
            write_set(f, set)?;
        }
        for chain in &self.chains {
            separate(f, &mut first)?;
            write_chain(f, chain)?;
        }
        writeln!(f, "}}")
    }
}

fn separate(f: &mut fmt::Formatter<'_>, first: &mut bool) -> fmt::Result {
    if std::mem::take(first) { Ok(()) } else { writeln!(f) }
}

fn write_set(f: &mut fmt::Formatter<'_>, set: &Set) -> fmt::Result {
    let word = if set.data.is_empty() { "set" } else { "map" };
    writeln!(f, "\t{word} {} {{", set.name)?;
    write!(f, "\t\ttype {}", types(&set.key))?;
    if !set.data.is_empty() {
        write!(f, " : {}", types(&set.data))?;
    }
    writeln!(f)?;
    if set.has_ranges() {
        writeln!(f, "\t\tflags interval")?;
    }
    if !set.elements.is_empty() {
        let elements: Vec<_> = set.elements.iter().map(|e| element(set, e)).collect();
        writeln!(f, "\t\telements = {{ {} }}", elements.join(",\n\t\t\t     "))?;
    }
    writeln!(f, "\t}}")
}

fn types(fields: &[Field]) -> String {
    let name = |field: &Field| match field {
        Field::Protocol => "inet_proto",
        Field::Ipv4 => "ipv4_addr",
        Field::Ipv6 => "ipv6_addr",
        Field::Port | Field::PortRange => "inet_service",
        Field::LinkName => "ifname",
        Field::Jump => "verdict",
    };
    fields.iter().map(name).collect::<Vec<_>>().join(" . ")
}

fn element(set: &Set, element: &Element) -> String {
    let mut key = values(&set.key, &element.key);
    if let Some((_, last)) = element.end.split_last_chunk::<4>() {
        key = format!("{key}-{}", value(Field::Port, last));
    }
    if set.data.is_empty() { key } else { format!("{key} : {}", values(&set.data, &element.data)) }
}

fn values(fields: &[Field], bytes: &[u8]) -> String {
    let mut rest = bytes;
    let mut texts = Vec::new();
    for field in fields {
        if *field == Field::Jump {
            texts.push(format!("jump {}", String::from_utf8_lossy(rest)));
            break;
        }
        let (part, after) = rest.split_at_checked(field.padded() as usize).unwrap_or((rest, &[]));
        texts.push(value(*field, part));
        rest = after;
    }
    texts.join(" . ")
}

fn value(field: Field, part: &[u8]) -> String {
    match (field, part) {
        (Field::Protocol, [6, ..]) => "tcp".to_owned(),
        (Field::Protocol, [17, ..]) => "udp".to_owned(),
        (Field::Protocol, [132, ..]) => "sctp".to_owned(),
        (Field::Protocol, [number, ..]) => number.to_string(),
        (Field::Port | Field::PortRange, [high, low, ..]) => u16::from_be_bytes([*high, *low]).to_string(),
        (Field::LinkName, _) => format!("\"{}\"", String::from_utf8_lossy(part).trim_end_matches('\0')),
        (Field::Ipv4, _) => {
            <[u8; 4]>::try_from(part).map_or_else(|_| "?".to_owned(), |a| Ipv4Addr::from(a).to_string())
        }
        (Field::Ipv6, _) => {
            <[u8; 16]>::try_from(part).map_or_else(|_| "?".to_owned(), |a| Ipv6Addr::from(a).to_string())
        }
        _ => "?".to_owned(),
    }
}

fn write_chain(f: &mut fmt::Formatter<'_>, chain: &Chain) -> fmt::Result {
    writeln!(f, "\tchain {} {{", chain.name)?;
    if let Some(hook) = chain.hook {
        let point = match hook.point {
            HookPoint::RawPrerouting => "filter hook prerouting priority raw",
            HookPoint::NatPrerouting => "nat hook prerouting priority dstnat",
            // The `nft` program has a name for this number at the prerouting hook only.
            HookPoint::NatOutput => "nat hook output priority -100",
            HookPoint::NatPostrouting => "nat hook postrouting priority srcnat",
            HookPoint::FilterForward => "filter hook forward priority filter",
        };
        let policy = match hook.policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        writeln!(f, "\t\ttype {point}; policy {policy};")?;
    }
    for rule in &chain.rules {
        writeln!(f, "\t\t{rule}")?;
    }
    writeln!(f, "\t}}")
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.statements.iter().map(statement).collect();
        f.write_str(&texts.join(" "))
    }
}

fn statement(statement: &Statement) -> String {
    match statement {
        Statement::Is(Protocol::Ipv4) => "meta nfproto ipv4".to_owned(),
        Statement::Is(Protocol::Ipv6) => "meta nfproto ipv6".to_owned(),
        Statement::Icmp(Protocol::Ipv4) => "meta l4proto icmp".to_owned(),
        Statement::Icmp(Protocol::Ipv6) => "meta l4proto ipv6-icmp".to_owned(),
        Statement::InputLink(comparison, name) => format!("iifname {}\"{name}\"", operator(*comparison)),
        Statement::OutputLink(comparison, name) => format!("oifname {}\"{name}\"", operator(*comparison)),
        Statement::LinkIn(direction, set) => format!("{} @{set}", link(*direction)),
        Statement::JumpByLink(direction, map) => format!("{} vmap @{map}", link(*direction)),
        Statement::In { key, set } => format!("{} @{set}", packet_fields(key)),
        Statement::Source(comparison, prefix) => address("saddr", *comparison, *prefix),
        Statement::Destination(comparison, prefix) => address("daddr", *comparison, *prefix),
        Statement::Mark { value, mask: u32::MAX } => format!("meta mark {value:#010x}"),
        Statement::Mark { value, mask } => format!("meta mark & {mask:#010x} == {value:#010x}"),
        Statement::SourceIsLocal => "fib saddr type local".to_owned(),
        Statement::DestinationIsLocal => "fib daddr type local".to_owned(),
        Statement::Connection(ConntrackState::EstablishedOrRelated) => "ct state established,related".to_owned(),
        Statement::Connection(ConntrackState::Invalid) => "ct state invalid".to_owned(),
        Statement::DestinationTranslated => "ct status dnat".to_owned(),
        Statement::Counter => "counter packets 0 bytes 0".to_owned(),
        Statement::Accept => "accept".to_owned(),
        Statement::Drop => "drop".to_owned(),
        Statement::Return => "return".to_owned(),
        Statement::Jump(chain) => format!("jump {chain}"),
        Statement::Masquerade => "masquerade".to_owned(),
        Statement::TranslateSource(IpAddr::V4(address)) => format!("snat ip to {address}"),
        Statement::TranslateSource(IpAddr::V6(address)) => format!("snat ip6 to {address}"),
        Statement::TranslateByMap { protocol, key, map } => translation(*protocol, key, map),
    }
}

fn link(direction: Direction) -> &'static str {
    match direction {
        Direction::Input => "iifname",
        Direction::Output => "oifname",
    }
}

fn translation(protocol: Protocol, key: &[Field], map: &str) -> String {
    let family = match protocol {
        Protocol::Ipv4 => "ip",
        Protocol::Ipv6 => "ip6",
    };
    format!("dnat {family} to {} map @{map}", packet_fields(key))
}

fn packet_fields(key: &[Field]) -> String {
    key.iter().map(|field| packet_field(*field)).collect::<Vec<_>>().join(" . ")
}

fn operator(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Is => "",
        Comparison::IsNot => "!= ",
    }
}

fn address(side: &str, comparison: Comparison, prefix: Prefix) -> String {
    let (family, whole) = match prefix.address {
        IpAddr::V4(_) => ("ip", 32),
        IpAddr::V6(_) => ("ip6", 128),
    };
    let length = if prefix.length == whole { String::new() } else { format!("/{}", prefix.length) };
    format!("{family} {side} {}{}{length}", operator(comparison), prefix.address)
}

fn packet_field(field: Field) -> &'static str {
    match field {
        Field::Protocol => "meta l4proto",
        Field::Ipv4 => "ip daddr",
        Field::Ipv6 => "ip6 daddr",
        Field::Port | Field::PortRange => "th dport",
        Field::LinkName => "iifname",
        Field::Jump => "?",
    }
}
