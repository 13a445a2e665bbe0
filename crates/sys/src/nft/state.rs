//! What stands in the kernel, as far as a comparison needs it.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::model::{Element, Family};
use super::transaction::header;
use super::uapi::{
    GET_ELEMENT, GET_RULE, GET_TABLE, LIST_ELEMENT, NEW_ELEMENT, NEW_RULE, NEW_TABLE, SUBSYSTEM, data, element, rule,
    table,
};
use crate::netlink::wire::{Attributes, Message, read_string};
use crate::netlink::{Error, Socket};

/// Length of `struct nfgenmsg`.
const NFGENMSG: usize = 4;

/// A table as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What `Transaction::replace_table` kept with it; empty for a table of other makers.
    pub fingerprint: Vec<u8>,
    /// Number of rules per chain; chains without rules are missing.
    pub rules: BTreeMap<String, usize>,
}

/// The table, or `None` when there is none.
pub fn read(socket: &mut Socket, family: Family, name: &str) -> Result<Option<State>, Error> {
    let tables = socket.dump(
        SUBSYSTEM << 8 | GET_TABLE,
        |w| header(w, family.number(), 0),
        |message| {
            let attributes = of_kind(&message, NEW_TABLE, family)?;
            let userdata = attributes.find(table::USERDATA).unwrap_or_default().to_vec();
            (attributes.find(table::NAME).map(read_string)? == name).then_some(userdata)
        },
    )?;
    let Some(fingerprint) = tables.into_iter().next() else { return Ok(None) };
    let chains = socket.dump(
        SUBSYSTEM << 8 | GET_RULE,
        |w| {
            header(w, family.number(), 0);
            w.string(rule::TABLE, name);
        },
        |message| {
            let attributes = of_kind(&message, NEW_RULE, family)?;
            let same = attributes.find(rule::TABLE).map(read_string)? == name;
            same.then(|| attributes.find(rule::CHAIN).map(read_string))?
        },
    )?;
    let mut rules = BTreeMap::new();
    for chain in chains {
        *rules.entry(chain).or_insert(0) += 1;
    }
    Ok(Some(State { fingerprint, rules }))
}

/// The elements of a set, sorted; empty when there is no such set.
pub fn elements(socket: &mut Socket, family: Family, table: &str, set: &str) -> Result<Vec<Element>, Error> {
    let parts = socket.dump(
        SUBSYSTEM << 8 | GET_ELEMENT,
        |w| {
            header(w, family.number(), 0);
            w.string(element::TABLE, table);
            w.string(element::SET, set);
        },
        |message| {
            let attributes = of_kind(&message, NEW_ELEMENT, family)?;
            Some(attributes.inside(element::ELEMENTS).filter_map(parse_element).collect::<Vec<_>>())
        },
    );
    match parts {
        Ok(parts) => {
            let mut all: Vec<_> = parts.into_iter().flatten().collect();
            all.sort();
            Ok(all)
        }
        Err(error) if error.errno == Errno::NOENT => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn of_kind<'a>(message: &Message<'a>, kind: u16, family: Family) -> Option<Attributes<'a>> {
    let right = message.kind == SUBSYSTEM << 8 | kind && *message.payload.first()? == family.number();
    right.then(|| message.attributes(NFGENMSG))
}

fn parse_element((kind, value): (u16, &[u8])) -> Option<Element> {
    if kind != LIST_ELEMENT {
        return None;
    }
    let attributes = Attributes::new(value);
    Some(Element {
        key: attributes.inside(element::KEY).find(data::VALUE)?.to_vec(),
        data: attributes.inside(element::DATA).find(data::VALUE).unwrap_or_default().to_vec(),
    })
}
