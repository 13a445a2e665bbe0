//! Chains of others that drop what is forwarded: one marked jump in each lets the traffic of our bridges pass.
//!
//! Every base chain at the hook has its say, so what our own table accepts may still be dropped by a host's firewall that
//! forwards nothing by default (`policy drop`, or a last rule that drops or rejects all). A jump at that place, behind
//! whatever rules its administrator wrote, leads to a chain that accepts what goes to and comes from our bridges; what must
//! not reach a container our own table drops in any case. Where the table has a chain `DOCKER-USER`, which administrators
//! fill with rules for containers, forwarded packets go through it first, as with the reference.

use sys::netlink::{Error, Socket};
use sys::nft::foreign::{self, StandingChain, StandingRule};
use sys::nft::{At, Comparison, Family, InChain, Policy, Rule, Statement, Transaction, comment_data};

use crate::plan::{Filtered, TABLE, TABLE_FAMILY};

/// The chain that is jumped to.
pub const CHAIN: &str = "GANTRY-FORWARD";
/// Rules of administrators for containers.
pub const USER_CHAIN: &str = "DOCKER-USER";
/// Comment of our rules in chains of others.
pub const MARK: &str = "gantry";

/// Puts the jumps where they belong, for these bridges, and takes them away where they do not; without bridges all. What is
/// right already is not written again.
pub fn keep(socket: &mut Socket, bridges: &[String], filtered: Filtered) -> Result<(), Error> {
    let all = foreign::chains(socket)?;
    let others = all.iter().filter(|chain| (chain.family, chain.table.as_str()) != (TABLE_FAMILY, TABLE));
    let mut change = Transaction::new();
    for base in others.clone().filter(|chain| chain.forward.is_some()) {
        let of_table =
            |name: &str| all.iter().any(|c| (c.family, &c.table) == (base.family, &base.table) && c.name == name);
        let rules = foreign::rules(socket, base.family, &base.table, &base.name)?;
        let inner = match of_table(CHAIN) {
            true => Some(foreign::rules(socket, base.family, &base.table, CHAIN)?),
            false => None,
        };
        let end = end_of_packets(socket, base, &rules)?;
        let there = There { base, rules: &rules, inner: inner.as_deref(), has_user: of_table(USER_CHAIN), end };
        let kept = match base.family {
            Family::Ip => filtered.ipv4.yes(),
            Family::Ip6 => filtered.ipv6.yes(),
            Family::Inet => filtered.ipv4.yes() || filtered.ipv6.yes(),
        };
        there.bring_in_line(&mut change, if kept { bridges } else { &[] });
    }
    change.commit(socket)
}

/// The first rule of a chain at the hook that lets nothing pass: it refuses all packets, or leads all of them to a chain
/// that refuses them. Its handle.
fn end_of_packets(socket: &mut Socket, base: &StandingChain, rules: &[StandingRule]) -> Result<Option<u64>, Error> {
    for rule in rules {
        let target = rule.jump.as_deref().filter(|chain| rule.jumps_always && *chain != CHAIN && *chain != USER_CHAIN);
        let refused = match target {
            Some(target) => refuses(&foreign::rules(socket, base.family, &base.table, target)?),
            None => rule.refuses_all,
        };
        if refused {
            return Ok(Some(rule.handle));
        }
    }
    Ok(None)
}

/// Whether no packet leaves a chain of these rules.
fn refuses(rules: &[StandingRule]) -> bool {
    rules.iter().find(|rule| rule.refuses_all || rule.may_pass).is_some_and(|rule| rule.refuses_all)
}

/// A chain of another at the hook, and what its table has of ours.
struct There<'a> {
    base: &'a StandingChain,
    rules: &'a [StandingRule],
    /// The rules of our chain, where there is one.
    inner: Option<&'a [StandingRule]>,
    has_user: bool,
    /// The rule behind which no packet comes.
    end: Option<u64>,
}

impl There<'_> {
    fn bring_in_line(&self, change: &mut Transaction, bridges: &[String]) {
        let StandingChain { family, table, name, .. } = self.base;
        let place = InChain { family: *family, table, chain: name };
        let marked = |rule: &&StandingRule| rule.userdata == comment_data(MARK);
        let to = |chain: &'static str| move |rule: &&StandingRule| rule.jump.as_deref() == Some(chain);
        // The administrator's own jump is as good.
        let user: Vec<_> = self.rules.iter().filter(to(USER_CHAIN)).collect();
        let wants_user = self.has_user && !bridges.is_empty() && user.iter().all(marked);
        if wants_user && user.is_empty() {
            change.put_rule(place, &jump(USER_CHAIN), At::Beginning, MARK);
        }
        for rule in user.iter().filter(|rule| marked(rule)).skip(usize::from(wants_user)) {
            change.delete_rules(*family, table, name, Some(rule.handle));
        }
        let ours: Vec<_> = self.rules.iter().filter(to(CHAIN)).collect();
        let wanted = self.wanted_place(bridges);
        let stands = ours.len() == 1 && wanted.is_some_and(|_| self.is_well_placed(ours[0]));
        if !stands {
            ours.iter().for_each(|rule| change.delete_rules(*family, table, name, Some(rule.handle)));
        }
        let Some(at) = wanted else {
            if self.inner.is_some() {
                change.delete_rules(*family, table, CHAIN, None);
                change.delete_chain(*family, table, CHAIN);
            }
            return;
        };
        self.fill(change, bridges);
        if !stands {
            change.put_rule(place, &jump(CHAIN), at, MARK);
        }
    }

    /// Where packets end that nothing in the chain decided about; `None`: they pass, or there is nothing to let pass.
    fn wanted_place(&self, bridges: &[String]) -> Option<At> {
        match self.end {
            _ if bridges.is_empty() => None,
            Some(end) => Some(At::Before(end)),
            None if self.base.forward == Some(Policy::Drop) => Some(At::End),
            None => None,
        }
    }

    /// Nothing follows our jump but the rule that refuses all.
    fn is_well_placed(&self, ours: &StandingRule) -> bool {
        let mut behind = self.rules.iter().skip_while(|rule| rule.handle != ours.handle).skip(1);
        behind.next().map(|rule| rule.handle) == self.end
    }

    /// Our chain, with a rule for either direction of each bridge.
    fn fill(&self, change: &mut Transaction, bridges: &[String]) {
        let StandingChain { family, table, .. } = self.base;
        let wanted: Vec<(String, Rule)> = bridges.iter().flat_map(|bridge| accept(bridge)).collect();
        let standing = self.inner.unwrap_or_default().iter().map(|rule| rule.userdata.as_slice());
        if self.inner.is_some() && standing.eq(wanted.iter().map(|(comment, _)| comment_data(comment))) {
            return;
        }
        change.ensure_chain(*family, table, CHAIN);
        change.delete_rules(*family, table, CHAIN, None);
        for (comment, rule) in &wanted {
            change.put_rule(InChain { family: *family, table, chain: CHAIN }, rule, At::End, comment);
        }
    }
}

fn jump(chain: &str) -> Rule {
    vec![Statement::Counter, Statement::Jump(chain.to_owned())].into()
}

fn accept(bridge: &str) -> [(String, Rule); 2] {
    let rule = |link| Rule::from(vec![link, Statement::Counter, Statement::Accept]);
    let (to, from) = (Statement::OutputLink, Statement::InputLink);
    [
        (format!("{MARK} to {bridge}"), rule(to(Comparison::Is, bridge.to_owned()))),
        (format!("{MARK} from {bridge}"), rule(from(Comparison::Is, bridge.to_owned()))),
    ]
}
