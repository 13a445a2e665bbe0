//! What stands in the kernel, as far as a comparison needs it.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::io::Errno;

use super::model::{Element, Family};
use super::transaction::header;
use super::uapi::{
    GET_ELEMENT, GET_RULE, GET_TABLE, LIST_ELEMENT, NEW_ELEMENT, NEW_GENERATION, NEW_RULE, NEW_TABLE, SUBSYSTEM, data,
    element, rule, table,
};
use crate::netlink::wire::{Attributes, Message, read_string};
use crate::netlink::{Error, Socket};

/// Length of `struct nfgenmsg`.
const NFGENMSG: usize = 4;
/// A set that grows is read again, this often; the wait before it becomes longer by `GROWTH_WAIT` each time (2 s in all).
const GROWTH_ATTEMPTS: u32 = 20;
const GROWTH_WAIT: Duration = Duration::from_millis(10);

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

/// The elements of a set, sorted; empty when there is no such set. `AGAIN` when the set never came to rest.
///
/// The kernel dumps a hash set (`nft_set_hash.c`) in parts, and each part skips as many elements as were told before.
/// When the table behind it grows between two parts, the order is another one: elements come twice and as many are
/// missing, and nothing marks the dump as interrupted. As every part covers the whole table, elements are missing only
/// where others come twice, so a dump without a repetition is complete.
pub fn elements(socket: &mut Socket, family: Family, table: &str, set: &str) -> Result<Vec<Element>, Error> {
    for attempt in 0..GROWTH_ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(GROWTH_WAIT * attempt);
        }
        let mut all = match dump_elements(socket, family, table, set) {
            Err(error) if error.errno == Errno::NOENT => return Ok(Vec::new()),
            other => other?,
        };
        all.sort();
        if all.windows(2).all(|pair| pair[0] != pair[1]) {
            return Ok(all);
        }
    }
    let text = "the set kept growing while it was read".to_owned();
    Err(Error { index: 0, label: "elements", errno: Errno::AGAIN, text })
}

/// One dump of a set's elements, as the kernel tells them.
fn dump_elements(socket: &mut Socket, family: Family, table: &str, set: &str) -> Result<Vec<Element>, Error> {
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
    )?;
    Ok(parts.into_iter().flatten().collect())
}

/// Whether a notice tells of a change of this table or of anything in it.
pub fn is_about(message: &Message<'_>, of: Family, name: &str) -> bool {
    let changes_tables = message.kind >> 8 == SUBSYSTEM && message.kind & 0xff != NEW_GENERATION;
    // Attribute 1 is the table's name in messages of every kind.
    let named = || message.attributes(NFGENMSG).find(table::NAME).map(read_string);
    changes_tables && message.payload.first() == Some(&of.number()) && named().is_some_and(|table| table == name)
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
        end: attributes.inside(element::KEY_END).find(data::VALUE).unwrap_or_default().to_vec(),
        data: parse_data(attributes.inside(element::DATA)),
    })
}

/// A value, or the name of the chain that is jumped to.
fn parse_data(attributes: Attributes<'_>) -> Vec<u8> {
    let jump = || attributes.inside(data::VERDICT).find(data::VERDICT_CHAIN).map(read_string);
    attributes.find(data::VALUE).map_or_else(|| jump().unwrap_or_default().into_bytes(), <[u8]>::to_vec)
}
