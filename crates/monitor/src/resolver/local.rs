//! Names that the sandbox's networks have, in the reference's order: the whole name on every network, then what stands before
//! a dot on the network that is called as what stands behind it; aliases of this container before names of the network.

use std::net::IpAddr;

use dns::message::{Answer, Query, kind, rcode};
use dns::names::Names;

use crate::proto::Zone;

/// The networks of a sandbox.
#[derive(Debug, Default)]
pub struct Local {
    zones: Vec<OpenZone>,
    keeps_single_labels: bool,
    found: Vec<IpAddr>,
    random: u64,
}

#[derive(Debug)]
struct OpenZone {
    zone: Zone,
    names: Option<Names>,
}

impl OpenZone {
    /// Its names as they are now.
    fn names(&mut self) -> Option<&Names> {
        if self.names.as_ref().is_none_or(Names::is_replaced) {
            self.names = Names::open(&self.zone.names).ok();
        }
        self.names.as_ref()
    }

    fn alias(&self, name: &[u8]) -> Option<&str> {
        let mut aliases = self.zone.aliases.iter();
        aliases.find(|(alias, _)| alias.as_bytes().eq_ignore_ascii_case(name)).map(|(_, target)| target.as_str())
    }

    /// Looks an alias or a name up. An alias hides the network's name of the same letters.
    fn look_up(&mut self, name: &[u8], is_alias: bool, found: &mut Vec<IpAddr>) -> bool {
        let alias = self.alias(name).map(|target| target.trim_end_matches('.').to_ascii_lowercase());
        let name = match (is_alias, &alias) {
            (true, Some(target)) => target.as_bytes(),
            (false, None) => name,
            _ => return false,
        };
        self.names().is_some_and(|names| names.addresses(name, found).is_some())
    }
}

impl Local {
    /// The networks of this order.
    pub fn new(zones: Vec<Zone>, keeps_single_labels: bool) -> Local {
        let zones = zones.into_iter().map(|zone| OpenZone { zone, names: None }).collect();
        Local { zones, keeps_single_labels, found: Vec::new(), random: sys::random::number() | 1 }
    }

    /// Writes the answer to `out`; false: somebody else may know.
    pub fn answer(&mut self, query: &Query<'_>, limit: usize, out: &mut Vec<u8>) -> bool {
        if query.class != kind::INTERNET || !query.name().is_plain() {
            return false;
        }
        if query.kind == kind::PTR {
            return self.answer_address(query, limit, out);
        }
        if !self.find(query.name().text()) {
            let is_single = !query.name().text().contains(&b'.');
            if !(self.keeps_single_labels && is_single && matches!(query.kind, kind::A | kind::AAAA)) {
                return false;
            }
            self.found.clear();
        }
        let wanted = |address: &IpAddr| match query.kind {
            kind::A => address.is_ipv4(),
            kind::AAAA => address.is_ipv6(),
            kind::ANY => true,
            // There is nothing else, and nobody else is asked for a name of ours.
            _ => false,
        };
        self.found.retain(wanted);
        self.shuffle();
        let mut answer = Answer::begin(query, rcode::NO_ERROR, limit, out);
        self.found.iter().for_each(|address| answer.address(*address));
        answer.end();
        true
    }

    fn answer_address(&mut self, query: &Query<'_>, limit: usize, out: &mut Vec<u8>) -> bool {
        let Some(address) = query.name().reverse() else { return false };
        let found = self.zones.iter_mut().find_map(|zone| {
            let name = zone.names()?.name(address)?;
            Some(format!("{name}.{}", zone.zone.network))
        });
        let Some(name) = found else { return false };
        let mut answer = Answer::begin(query, rcode::NO_ERROR, limit, out);
        answer.pointer(&name);
        answer.end();
        true
    }

    /// Whether the name is known; its addresses are in `found` then.
    fn find(&mut self, name: &[u8]) -> bool {
        let Local { zones, found, .. } = self;
        let dots = name.iter().enumerate().rev().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
        for end in std::iter::once(name.len()).chain(dots) {
            let (name, network) = (&name[..end], name.get(end + 1..));
            for is_alias in [true, false] {
                for zone in zones.iter_mut() {
                    let is_meant =
                        network.is_none_or(|network| zone.zone.network.as_bytes().eq_ignore_ascii_case(network));
                    if is_meant && zone.look_up(name, is_alias, found) {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Fisher and Yates.
    fn shuffle(&mut self) {
        for last in (1..self.found.len()).rev() {
            // Xorshift: who comes first is no secret.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.found.swap(last, (self.random % (last as u64 + 1)) as usize);
        }
    }
}
