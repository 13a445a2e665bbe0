//! Tables, chains, rules and sets as data.

use std::net::IpAddr;

/// Length of a link's name in keys and registers.
pub(super) const LINK_NAME: usize = 16;
/// `NFT_DATA_VERDICT`, the type of verdicts as a map's data.
pub(super) const VERDICT_TYPE: u32 = 0xffff_ff00;

/// What packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    Ip,
    Ip6,
    /// IPv4 and IPv6.
    Inet,
}

impl Family {
    pub(super) fn of_number(number: u8) -> Option<Family> {
        [Family::Ip, Family::Ip6, Family::Inet].into_iter().find(|family| family.number() == number)
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Family::Ip => libc::AF_INET as u8,
            Family::Ip6 => libc::AF_INET6 as u8,
            Family::Inet => libc::NFPROTO_INET as u8,
        }
    }
}

/// A whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub family: Family,
    pub name: String,
    pub sets: Vec<Set>,
    pub chains: Vec<Chain>,
}

/// A part of a set's key or data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Transport protocol number (1 byte).
    Protocol,
    Ipv4,
    Ipv6,
    /// Port, network order (2 bytes).
    Port,
    /// A range of ports; the last part of a key ([`Element::end`]).
    PortRange,
    /// Name of a link, padded with zeros (16 bytes).
    LinkName,
    /// A jump to the chain of that name; the only part of a map's data.
    Jump,
}

impl Field {
    /// Bytes of the value itself.
    pub(super) fn length(self) -> u32 {
        match self {
            Field::Protocol => 1,
            Field::Ipv4 => 4,
            Field::Ipv6 => 16,
            Field::Port | Field::PortRange => 2,
            Field::LinkName => LINK_NAME as u32,
            Field::Jump => 0,
        }
    }

    /// Bytes in a concatenation, where each part is padded to a register.
    pub(super) fn padded(self) -> u32 {
        self.length().next_multiple_of(4)
    }

    /// The `nft` program's number of the type, kept by the kernel for its listing.
    pub(super) fn type_number(self) -> u32 {
        match self {
            Field::Ipv4 => 7,
            Field::Ipv6 => 8,
            Field::Protocol => 12,
            Field::Port | Field::PortRange => 13,
            Field::LinkName => 41,
            Field::Jump => VERDICT_TYPE,
        }
    }
}

/// A set, or a map when it has data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    pub key: Vec<Field>,
    /// Empty = a plain set.
    pub data: Vec<Field>,
    pub elements: Vec<Element>,
}

impl Set {
    /// Whether its keys end with a range of ports.
    pub(super) fn has_ranges(&self) -> bool {
        self.key.last() == Some(&Field::PortRange)
    }
}

/// A key, with its data in a map: the parts in network order, each padded to 4 bytes; of a jump the chain's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Element {
    pub key: Vec<u8>,
    /// In a set whose keys end with a [`Field::PortRange`]: the last of the keys that the element is of. Empty otherwise.
    pub end: Vec<u8>,
    pub data: Vec<u8>,
}

impl Element {
    /// Appends a part to a key or to data.
    pub fn push_protocol(part: &mut Vec<u8>, number: u8) {
        part.extend_from_slice(&[number, 0, 0, 0]);
    }

    pub fn push_address(part: &mut Vec<u8>, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => part.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => part.extend_from_slice(&v6.octets()),
        }
    }

    pub fn push_link(part: &mut Vec<u8>, name: &str) {
        part.extend_from_slice(&padded(name));
    }

    /// Ends the key with a range of ports.
    pub fn push_port_range(&mut self, first: u16, last: u16) {
        self.end = self.key.clone();
        Element::push_port(&mut self.key, first);
        Element::push_port(&mut self.end, last);
    }

    pub fn push_port(part: &mut Vec<u8>, port: u16) {
        part.extend_from_slice(&port.to_be_bytes());
        part.extend_from_slice(&[0, 0]);
    }
}

/// A link's name as keys and registers have it; what is too long for a name is cut.
pub(super) fn padded(name: &str) -> [u8; LINK_NAME] {
    let mut padded = [0u8; LINK_NAME];
    let length = name.len().min(LINK_NAME - 1);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    padded
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    /// `None` = only jumped to.
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

/// Where the kernel calls a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub point: HookPoint,
    pub policy: Policy,
}

/// Chain type, hook and customary priority together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    /// Before connection tracking.
    RawPrerouting,
    NatPrerouting,
    NatOutput,
    NatPostrouting,
    FilterForward,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Accept,
    Drop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub statements: Vec<Statement>,
}

impl From<Vec<Statement>> for Rule {
    fn from(statements: Vec<Statement>) -> Rule {
        Rule { statements }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Is,
    IsNot,
}

/// A network of either family; the family's length = one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub address: IpAddr,
    /// Bits.
    pub length: u8,
}

/// States of a connection that match together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConntrackState {
    EstablishedOrRelated,
    Invalid,
}

/// Where a packet comes in or goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Input,
    Output,
}

/// The address family of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Ipv4,
    Ipv6,
}

/// What a rule matches or does, left to right. Statements about addresses match packets of the address's family only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Packets of one family.
    Is(Protocol),
    /// Control messages of one family (ICMP, ICMPv6).
    Icmp(Protocol),
    InputLink(Comparison, String),
    OutputLink(Comparison, String),
    /// The link's name is in the set.
    LinkIn(Direction, String),
    /// Jumps to the chain that the map has for the link's name.
    JumpByLink(Direction, String),
    /// The packet's fields are in the set.
    In {
        key: Vec<Field>,
        set: String,
    },
    Source(Comparison, Prefix),
    Destination(Comparison, Prefix),
    /// The packet carries this mark under the mask.
    Mark {
        value: u32,
        mask: u32,
    },
    /// The source is an address of this host.
    SourceIsLocal,
    /// The destination is an address of this host.
    DestinationIsLocal,
    Connection(ConntrackState),
    /// The connection's destination was translated.
    DestinationTranslated,
    Counter,
    Accept,
    Drop,
    Return,
    Jump(String),
    /// Source translation to the outgoing link's address.
    Masquerade,
    /// Source translation to this address.
    TranslateSource(IpAddr),
    /// Looks the packet's fields up in a map of (address, port) and translates the destination; no element = no match. A
    /// map of ranges of ports has addresses only: the port stays. A
    /// key without an address needs an [`Statement::Is`] before it in a table of both families.
    TranslateByMap {
        protocol: Protocol,
        key: Vec<Field>,
        map: String,
    },
}
