//! Changes that the kernel carries out together or not at all.

use super::encode::{self, Data};
use super::model::{Chain, Element, Family, Field, Rule, Table};
use super::uapi::{
    BATCH_BEGIN, BATCH_END, DELETE_CHAIN, DELETE_ELEMENT, DELETE_RULE, DELETE_TABLE, NEW_CHAIN, NEW_ELEMENT, NEW_RULE,
    NEW_SET, NEW_TABLE, SUBSYSTEM, chain as uapi_chain, rule as attribute, table,
};
use crate::netlink::wire::Writer;
use crate::netlink::{Batch, Error, Socket};

/// Elements in one message, so that their list stays below an attribute's 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 500;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const EXCLUSIVE: u16 = libc::NLM_F_EXCL as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;

/// A kind of change: its name in errors, the message and its flags.
#[derive(Clone, Copy)]
struct Kind {
    label: &'static str,
    message: u16,
    flags: u16,
}

/// A set.
#[derive(Clone, Copy)]
struct Place<'a> {
    family: Family,
    table: &'a str,
    set: &'a str,
}

const ENSURE_TABLE: Kind = Kind { label: "add table", message: NEW_TABLE, flags: CREATE };
const ADD_TABLE: Kind = Kind { label: "add table", message: NEW_TABLE, flags: CREATE | EXCLUSIVE };
const ADD_SET: Kind = Kind { label: "add set", message: NEW_SET, flags: CREATE | EXCLUSIVE };
const ADD_CHAIN: Kind = Kind { label: "add chain", message: NEW_CHAIN, flags: CREATE | EXCLUSIVE };
const ENSURE_CHAIN: Kind = Kind { label: "add chain", message: NEW_CHAIN, flags: CREATE };
const REMOVE_CHAIN: Kind = Kind { label: "delete chain", message: DELETE_CHAIN, flags: 0 };
const INSERT_RULE: Kind = Kind { label: "insert rule", message: NEW_RULE, flags: CREATE };
const REMOVE_RULES: Kind = Kind { label: "delete rule", message: DELETE_RULE, flags: 0 };
const ADD_RULE: Kind = Kind { label: "add rule", message: NEW_RULE, flags: CREATE | APPEND };
const ADD_ELEMENTS: Kind = Kind { label: "add elements", message: NEW_ELEMENT, flags: CREATE };
const REMOVE_TABLE: Kind = Kind { label: "delete table", message: DELETE_TABLE, flags: 0 };
const REMOVE_ELEMENTS: Kind = Kind { label: "delete elements", message: DELETE_ELEMENT, flags: 0 };

/// Changes in the order in which they are made.
#[derive(Debug)]
pub struct Transaction {
    batch: Batch,
    sets: u32,
}

impl Default for Transaction {
    fn default() -> Self {
        Transaction::new()
    }
}

/// A chain that rules are put into.
#[derive(Clone, Copy, Debug)]
pub struct InChain<'a> {
    /// The family of its table.
    pub family: Family,
    /// Its table.
    pub table: &'a str,
    /// Its own name.
    pub chain: &'a str,
}

/// Where a rule is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Beginning,
    /// Before the rule of this handle.
    Before(u64),
    End,
}

/// A rule's user data with a comment.
pub fn comment_data(comment: &str) -> Vec<u8> {
    let text = &comment.as_bytes()[..comment.len().min(LONGEST_COMMENT)];
    [&[attribute::COMMENT, text.len() as u8 + 1][..], text, &[0]].concat()
}

/// Bytes.
const LONGEST_COMMENT: usize = 127;

/// Writes `struct nfgenmsg`.
pub(super) fn header(w: &mut Writer<'_>, family: u8, resource: u16) {
    w.put(&[family, 0]);
    w.put(&resource.to_be_bytes());
}

impl Transaction {
    pub fn new() -> Transaction {
        let mut batch = Batch::new();
        batch.push("begin transaction", BATCH_BEGIN, 0, |w| header(w, 0, SUBSYSTEM));
        Transaction { batch, sets: 0 }
    }

    fn push(&mut self, kind: Kind, family: Family, body: impl FnOnce(&mut Writer<'_>)) {
        self.batch.push(kind.label, SUBSYSTEM << 8 | kind.message, kind.flags, |w| {
            header(w, family.number(), 0);
            body(w);
        });
    }

    /// Makes `wanted` the table's whole contents, whatever stands now. `fingerprint` (at most 256 bytes) is kept with
    /// the table and read back by `read`.
    pub fn replace_table(&mut self, wanted: &Table, fingerprint: &[u8]) {
        // The table is added first so that deleting it cannot fail.
        let family = wanted.family;
        let name = &wanted.name;
        self.push(ENSURE_TABLE, family, |w| write_table(w, name, &[]));
        self.delete_table(family, name);
        self.push(ADD_TABLE, family, |w| write_table(w, name, fingerprint));
        for set in &wanted.sets {
            self.sets += 1;
            let id = self.sets;
            self.push(ADD_SET, family, |w| encode::write_set(w, name, set, id));
        }
        for chain in &wanted.chains {
            self.push(ADD_CHAIN, family, |w| encode::write_chain(w, name, chain));
        }
        // A jump needs its chain.
        for set in &wanted.sets {
            let with = if set.data[..] == [Field::Jump] { Data::Jumps } else { Data::Values };
            self.write_elements(Place { family, table: name, set: &set.name }, &set.elements, with);
        }
        for chain in &wanted.chains {
            for rule in &chain.rules {
                let write = |w: &mut Writer<'_>| encode::write_rule(w, (family, name), &chain.name, rule);
                self.push(ADD_RULE, family, write);
            }
        }
    }

    /// The kernel refuses when there is no such table.
    pub fn delete_table(&mut self, family: Family, name: &str) {
        self.push(REMOVE_TABLE, family, |w| w.string(table::NAME, name));
    }

    /// The kernel refuses an element that exists with other data.
    pub fn add_elements(&mut self, family: Family, table: &str, set: &str, elements: &[Element]) {
        self.write_elements(Place { family, table, set }, elements, Data::Values);
    }

    fn write_elements(&mut self, place: Place<'_>, elements: &[Element], with: Data) {
        let Place { family, table, set } = place;
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.push(ADD_ELEMENTS, family, |w| encode::write_elements(w, table, set, part, with));
        }
    }

    /// The kernel refuses an element that does not exist.
    pub fn delete_elements(&mut self, family: Family, table: &str, set: &str, elements: &[Element]) {
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let write = |w: &mut Writer<'_>| encode::write_elements(w, table, set, part, Data::Without);
            self.push(REMOVE_ELEMENTS, family, write);
        }
    }

    /// A chain that is only jumped to, unless it stands.
    pub fn ensure_chain(&mut self, family: Family, table: &str, name: &str) {
        let made = Chain { name: name.to_owned(), hook: None, rules: Vec::new() };
        self.push(ENSURE_CHAIN, family, |w| encode::write_chain(w, table, &made));
    }

    /// Puts a rule into a chain that may be another's; `comment` (at most 127 bytes) is kept with it as the `nft` program
    /// does.
    pub fn put_rule(&mut self, place: InChain<'_>, rule: &Rule, at: At, comment: &str) {
        let InChain { family, table, chain } = place;
        let kind = if at == At::End { ADD_RULE } else { INSERT_RULE };
        self.push(kind, family, |w| {
            encode::write_rule(w, (family, table), chain, rule);
            if let At::Before(handle) = at {
                w.bytes(attribute::POSITION, &handle.to_be_bytes());
            }
            w.bytes(attribute::USERDATA, &comment_data(comment));
        });
    }

    /// Deletes a rule, or all of the chain.
    pub fn delete_rules(&mut self, family: Family, table: &str, chain: &str, handle: Option<u64>) {
        self.push(REMOVE_RULES, family, |w| {
            w.string(attribute::TABLE, table);
            w.string(attribute::CHAIN, chain);
            if let Some(handle) = handle {
                w.bytes(attribute::HANDLE, &handle.to_be_bytes());
            }
        });
    }

    /// Deletes a chain that has no rules and that nothing jumps to.
    pub fn delete_chain(&mut self, family: Family, table: &str, name: &str) {
        self.push(REMOVE_CHAIN, family, |w| {
            w.string(uapi_chain::TABLE, table);
            w.string(uapi_chain::NAME, name);
        });
    }

    /// True when no change was added.
    pub fn is_empty(&self) -> bool {
        self.batch.len() == 1
    }

    /// Carries out everything or nothing; the error's index is 1 for the first change (0 is the begin message).
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        // The acknowledgement is asked of the last change: kernels before 6.10 do not acknowledge the end message.
        let last = self.batch.len() - 1;
        self.batch.push("end transaction", BATCH_END, 0, |w| header(w, 0, SUBSYSTEM));
        socket.transact(&mut self.batch, last, |_| ())
    }
}

fn write_table(w: &mut Writer<'_>, name: &str, fingerprint: &[u8]) {
    w.string(table::NAME, name);
    w.be32(table::FLAGS, 0);
    if !fingerprint.is_empty() {
        w.bytes(table::USERDATA, fingerprint);
    }
}
