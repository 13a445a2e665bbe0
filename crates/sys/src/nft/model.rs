//! Tables, chains, rules and sets as data.

use std::net::{IpAddr, Ipv4Addr};

/// What packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    Ip,
    Ip6,
}

impl Family {
    pub(super) fn number(self) -> u8 {
        match self {
            Family::Ip => libc::AF_INET as u8,
            Family::Ip6 => libc::AF_INET6 as u8,
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
}

impl Field {
    /// Bytes of the value itself.
    pub(super) fn length(self) -> u32 {
        match self {
            Field::Protocol => 1,
            Field::Ipv4 => 4,
            Field::Ipv6 => 16,
            Field::Port => 2,
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
            Field::Port => 13,
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

/// A key, with its data in a map: the parts in network order, each padded to 4 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Element {
    pub key: Vec<u8>,
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

    pub fn push_port(part: &mut Vec<u8>, port: u16) {
        part.extend_from_slice(&port.to_be_bytes());
        part.extend_from_slice(&[0, 0]);
    }
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

/// An IPv4 network; 32 bits = one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub address: Ipv4Addr,
    pub length: u8,
}

/// States of a connection that match together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConntrackState {
    EstablishedOrRelated,
    Invalid,
}

/// What a rule matches or does, left to right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    InputLink(Comparison, String),
    OutputLink(Comparison, String),
    Source(Comparison, Prefix),
    Destination(Comparison, Prefix),
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
    /// Looks the packet's fields up in a map of (address, port) and translates the destination; no element = no match.
    TranslateByMap {
        key: Vec<Field>,
        map: String,
    },
}
