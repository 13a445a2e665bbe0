//! Chains of tables that others own, as far as a jump into one of them needs it: which stand at a hook, and their rules.

use super::model::{Family, Policy};
use super::transaction::header;
use super::uapi::{
    GET_CHAIN, GET_RULE, GET_TABLE, LIST_ELEMENT, NEW_CHAIN, NEW_RULE, NEW_TABLE, SUBSYSTEM, chain, compat, data,
    expression, immediate, rule, table, verdict,
};
use crate::netlink::wire::{Attributes, Message, read_string};
use crate::netlink::{Error, Socket};

/// Length of `struct nfgenmsg`.
const NFGENMSG: usize = 4;

/// A chain as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingChain {
    /// The family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its own name.
    pub name: String,
    /// What it does with forwarded packets that no rule decides about; `None` = it does not stand at that hook.
    pub forward: Option<Policy>,
}

/// A rule as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingRule {
    /// Its number in the chain.
    pub handle: u64,
    /// What its maker noted with it.
    pub userdata: Vec<u8>,
    /// The chain that it jumps or goes to.
    pub jump: Option<String>,
    /// Every packet that meets it is dropped or refused.
    pub refuses_all: bool,
    /// Every packet that meets it jumps.
    pub jumps_always: bool,
    /// Packets may be accepted by it, or leave its chain.
    pub may_pass: bool,
}

/// All chains of tables of IPv4, IPv6 and both that are not kept by a process alone (`owner`).
pub fn chains(socket: &mut Socket) -> Result<Vec<StandingChain>, Error> {
    let owned = socket.dump(SUBSYSTEM << 8 | GET_TABLE, |w| header(w, 0, 0), owned_table)?;
    let mut chains = socket.dump(SUBSYSTEM << 8 | GET_CHAIN, |w| header(w, 0, 0), standing_chain)?;
    chains.retain(|chain| !owned.iter().any(|(family, name)| (*family, name) == (chain.family, &chain.table)));
    Ok(chains)
}

/// A table that nobody but its owner can change.
fn owned_table(message: Message<'_>) -> Option<(Family, String)> {
    if message.kind != SUBSYSTEM << 8 | NEW_TABLE {
        return None;
    }
    let attributes = message.attributes(NFGENMSG);
    attributes.find(table::OWNER)?;
    Some((Family::of_number(*message.payload.first()?)?, attributes.find(table::NAME).map(read_string)?))
}

fn standing_chain(message: Message<'_>) -> Option<StandingChain> {
    if message.kind != SUBSYSTEM << 8 | NEW_CHAIN {
        return None;
    }
    let family = Family::of_number(*message.payload.first()?)?;
    let attributes = message.attributes(NFGENMSG);
    let hook = attributes.inside(chain::HOOK).find(chain::HOOK_NUMBER).and_then(be32);
    let filters = attributes.find(chain::TYPE).map(read_string).is_some_and(|kind| kind == "filter");
    let policy = match attributes.find(chain::POLICY).and_then(be32) {
        Some(number) if number.cast_signed() == verdict::DROP => Policy::Drop,
        _ => Policy::Accept,
    };
    Some(StandingChain {
        family,
        table: attributes.find(chain::TABLE).map(read_string)?,
        name: attributes.find(chain::NAME).map(read_string)?,
        forward: (filters && hook == Some(libc::NF_INET_FORWARD as u32)).then_some(policy),
    })
}

/// The rules of a chain, in their order.
pub fn rules(socket: &mut Socket, family: Family, table: &str, name: &str) -> Result<Vec<StandingRule>, Error> {
    socket.dump(
        SUBSYSTEM << 8 | GET_RULE,
        |w| {
            header(w, family.number(), 0);
            w.string(rule::TABLE, table);
            w.string(rule::CHAIN, name);
        },
        |message| {
            if message.kind != SUBSYSTEM << 8 | NEW_RULE || *message.payload.first()? != family.number() {
                return None;
            }
            let attributes = message.attributes(NFGENMSG);
            let is = |kind, wanted: &str| attributes.find(kind).map(read_string).is_some_and(|own| own == wanted);
            (is(rule::TABLE, table) && is(rule::CHAIN, name)).then(|| standing_rule(&attributes))?
        },
    )
}

fn standing_rule(attributes: &Attributes<'_>) -> Option<StandingRule> {
    let handle = u64::from_be_bytes(attributes.find(rule::HANDLE)?.try_into().ok()?);
    let expressions: Vec<Effect> = attributes
        .inside(rule::EXPRESSIONS)
        .filter(|(kind, _)| *kind == LIST_ELEMENT)
        .map(|(_, value)| effect(Attributes::new(value)))
        .collect();
    let is_limited =
        |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Condition | Effect::Other));
    let jump = expressions.iter().find_map(|effect| match effect {
        Effect::Jump(target) => Some(target.clone()),
        _ => None,
    });
    Some(StandingRule {
        handle,
        userdata: attributes.find(rule::USERDATA).unwrap_or_default().to_vec(),
        jump,
        refuses_all: expressions.contains(&Effect::Refuse) && !is_limited(&expressions),
        jumps_always: expressions.iter().any(|effect| matches!(effect, Effect::Jump(_))) && !is_limited(&expressions),
        may_pass: expressions.iter().any(|effect| matches!(effect, Effect::Jump(_) | Effect::Other)),
    })
}

/// What an expression does to the packets of its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Effect {
    /// It is counted, logged or commented on.
    Nothing,
    /// Drop or reject.
    Refuse,
    Jump(String),
    /// It looks at the packet: some match, some do not.
    Condition,
    /// Something else, as accept.
    Other,
}

fn effect(attributes: Attributes<'_>) -> Effect {
    let name = attributes.find(expression::NAME).map(read_string).unwrap_or_default();
    let inner = || attributes.inside(expression::DATA);
    let compat = || inner().find(compat::NAME).map(read_string).unwrap_or_default();
    match name.as_str() {
        "counter" | "log" => Effect::Nothing,
        "reject" => Effect::Refuse,
        // Of the iptables program: its own matches and targets.
        "match" if compat() == "comment" => Effect::Nothing,
        "match" | "meta" | "cmp" | "payload" | "ct" | "bitwise" | "limit" | "range" => Effect::Condition,
        "target" if compat() == "REJECT" => Effect::Refuse,
        "target" if matches!(compat().as_str(), "LOG" | "NFLOG") => Effect::Nothing,
        "immediate" => {
            let told = inner();
            let inside = told.inside(immediate::DATA);
            let verdict = inside.inside(data::VERDICT);
            match verdict.find(data::VERDICT_CODE).and_then(be32).map(u32::cast_signed) {
                Some(verdict::DROP) => Effect::Refuse,
                Some(verdict::JUMP | verdict::GOTO) => {
                    Effect::Jump(verdict.find(data::VERDICT_CHAIN).map(read_string).unwrap_or_default())
                }
                _ => Effect::Other,
            }
        }
        _ => Effect::Other,
    }
}

fn be32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}
