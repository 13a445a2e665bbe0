//! The rules that stand, kept in line with the topology.
//!
//! A published port is one or two map elements, and so is a range of them; they are added and deleted in one transaction. When the table is gone or was
//! changed by others (a firewall's reload flushes everything), the whole table is written again, in one transaction: by
//! the next change that finds it so, or when `watch` is told of it.

use std::collections::BTreeSet;

use model::lock::{Mutex, MutexGuard};
use model::{Error, Result};
use rustix::io::Errno;
use sys::netlink::Socket;
use sys::netlink::conntrack::{self, Destination};
use sys::nft::{self, Transaction};

use super::{foreign, legacy};
use crate::config::Enabled;
use crate::endpoint::Protocol;
use crate::family::{self, Family};
use crate::plan::{self, Filtered, OLD_TABLE_FAMILY, TABLE, TABLE_FAMILY, Topology};
use crate::published::{Elements, PORT_SETS, Published, PublishedPorts};

/// See the module.
#[derive(Debug)]
pub struct Rules {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` = no rules are kept: switched off, or this kernel has no nf_tables.
    socket: Option<Socket>,
    topology: Topology,
}

impl Rules {
    /// Rules in the calling thread's namespace. Elements that stand are kept until `replace_published`.
    pub fn open(mut topology: Topology) -> Rules {
        topology.sort();
        let made = Socket::netfilter().map_err(Error::from).and_then(|mut socket| {
            bring_in_line(&mut socket, &topology, Mode::Keep)?;
            Ok(socket)
        });
        let socket = made
            .inspect_err(|error| {
                tracing::warn!(%error, "no firewall rules: published ports work through the proxy only, containers are not masqueraded");
            })
            .ok();
        Rules { state: Mutex::new(State { socket, topology }) }
    }

    /// No rules are kept (`--iptables=false`); those of an earlier daemon go.
    pub fn off(topology: Topology) -> Rules {
        if let Err(error) = remove_all() {
            tracing::warn!(%error, "cannot remove the firewall rules of an earlier daemon");
        }
        Rules { state: Mutex::new(State { socket: None, topology }) }
    }

    /// Lets the traffic of our bridges pass chains of others that drop by default (see `foreign`).
    pub fn keep_jumps(&self) -> Result<()> {
        let state = &mut *self.lock();
        let Some(socket) = &mut state.socket else { return Ok(()) };
        let kept = state.topology.bridges.iter().filter(|_| state.topology.needs_rules());
        let bridges: Vec<_> = kept.map(|bridge| bridge.device.clone()).collect();
        let filtered = state.topology.filtered;
        foreign::keep(socket, &bridges, filtered).map_err(failed)?;
        legacy::keep(if filtered.ipv4.yes() { &bridges } else { &[] })
    }

    /// Writes the whole table again.
    pub fn restore(&self) -> Result<()> {
        let state = &mut *self.lock();
        state.socket.as_mut().map_or(Ok(()), |socket| replace(socket, &state.topology))
    }

    /// Writes the table when it is not what it should be.
    pub fn verify(&self) -> Result<()> {
        let state = &mut *self.lock();
        state.socket.as_mut().map_or(Ok(()), |socket| bring_in_line(socket, &state.topology, Mode::Replace))
    }

    /// The netlink address that changes of these rules are sent from; `None` when no rules are kept.
    pub fn port(&self) -> Option<u32> {
        self.lock().socket.as_ref().and_then(|socket| socket.port().ok())
    }

    /// Whether a network here has the family.
    pub fn has_family(&self, family: Family) -> bool {
        let state = self.lock();
        let mut subnets = state.topology.bridges.iter().flat_map(|bridge| &bridge.subnets);
        subnets.any(|subnet| family::of_net(subnet.net) == family)
    }

    /// The bridges that rules are about.
    pub fn devices(&self) -> Vec<String> {
        self.lock().topology.bridges.iter().map(|bridge| bridge.device.clone()).collect()
    }

    /// How many ports are translated.
    pub fn published(&self) -> usize {
        self.lock().topology.published.count()
    }

    /// Whether translation works.
    pub fn enabled(&self) -> bool {
        self.lock().socket.is_some()
    }

    /// Changes the bridges; published ports stay.
    pub fn change(&self, change: impl FnOnce(&mut Topology)) -> Result<()> {
        let state = &mut *self.lock();
        let before = (state.topology.bridges.clone(), state.topology.drop_foreign);
        change(&mut state.topology);
        state.topology.sort();
        if (&state.topology.bridges, state.topology.drop_foreign) == (&before.0, before.1) {
            return Ok(());
        }
        match &mut state.socket {
            None => Ok(()),
            Some(socket) => bring_in_line(socket, &state.topology, Mode::Keep),
        }
    }

    /// Makes `published` the only elements.
    pub fn replace_published(&self, published: Vec<Published>) -> Result<()> {
        let state = &mut *self.lock();
        state.topology.published = published.into();
        match &mut state.socket {
            None => Ok(()),
            Some(socket) => bring_in_line(socket, &state.topology, Mode::Replace),
        }
    }

    pub fn add(&self, published: &[Published]) -> Result<()> {
        let state = &mut *self.lock();
        let result = state.change(published, |standing| standing.add(published));
        if result.is_err() {
            state.topology.published.remove(published);
        }
        result
    }

    pub fn remove(&self, published: &[Published]) -> Result<()> {
        self.lock().change(published, |standing| standing.remove(published))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The topology is changed before the kernel is asked and is right by itself.
        self.state.lock()
    }
}

impl State {
    /// Changes these ports, and the elements of their containers in line with them.
    fn change(&mut self, ports: &[Published], change: impl FnOnce(&mut PublishedPorts)) -> Result<()> {
        if ports.is_empty() {
            return Ok(());
        }
        let containers: BTreeSet<_> = ports.iter().map(|port| port.container).collect();
        let published = &mut self.topology.published;
        let Some(socket) = &mut self.socket else {
            change(published);
            return Ok(());
        };
        let before = published.elements_of(&containers);
        change(published);
        let result = commit(step(&before, &published.elements_of(&containers)), socket, &self.topology);
        forget_connections(socket, ports);
        result
    }
}

/// From some elements to others.
fn step(before: &Elements, after: &Elements) -> Transaction {
    let mut change = Transaction::new();
    let of = |elements: &Elements, set: &str| elements.get(set).cloned().unwrap_or_default();
    for set in PORT_SETS {
        let (before, after) = (of(before, set), of(after, set));
        let gone: Vec<_> = before.iter().filter(|element| after.binary_search(element).is_err()).cloned().collect();
        change.delete_elements(TABLE_FAMILY, TABLE, set, &gone);
        let fresh: Vec<_> = after.iter().filter(|element| before.binary_search(element).is_err()).cloned().collect();
        change.add_elements(TABLE_FAMILY, TABLE, set, &fresh);
    }
    change
}

/// Commits a change of elements; writes the whole table when what stands is not what the change assumes.
fn commit(change: Transaction, socket: &mut Socket, topology: &Topology) -> Result<()> {
    match change.commit(socket) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::EXIST) => {
            tracing::warn!(%error, "the table was changed by others; writing it again");
            replace(socket, topology)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Lets clients that go on sending datagrams be translated anew.
fn forget_connections(socket: &mut Socket, published: &[Published]) {
    let destinations = |run: &Published| {
        let protocol = run.protocol.number();
        let (host, first) = run.host?;
        let address = Some(host).filter(|host| !host.is_unspecified());
        Some((0..run.count).map(move |n| Destination { protocol, address, port: first.wrapping_add(n) }))
    };
    let udp = published.iter().filter(|run| run.protocol == Protocol::Udp);
    let to: Vec<_> = udp.filter_map(destinations).flatten().collect();
    if let Err(error) = conntrack::forget(socket, &to) {
        tracing::warn!(%error, "cannot forget connections to published ports");
    }
}

/// Removes the table and the jumps that an earlier daemon left.
fn remove_all() -> Result<()> {
    let mut socket = Socket::netfilter().map_err(Error::from)?;
    foreign::keep(&mut socket, &[], Filtered { ipv4: Enabled::No, ipv6: Enabled::No }).map_err(failed)?;
    legacy::keep(&[])?;
    remove_table(&mut socket)
}

fn remove_table(socket: &mut Socket) -> Result<()> {
    let standing = nft::read(socket, TABLE_FAMILY, TABLE).map_err(failed)?;
    if !standing.is_some_and(|standing| is_ours(&standing.fingerprint)) {
        return Ok(());
    }
    let mut change = Transaction::new();
    change.delete_table(TABLE_FAMILY, TABLE);
    change.commit(socket).map_err(failed)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Keep,
    Replace,
}

/// Writes the table when it differs from the topology's. What a daemon without IPv6 left (`ip gantry`) goes in the same
/// transaction, its published ports are kept.
fn bring_in_line(socket: &mut Socket, topology: &Topology, mode: Mode) -> Result<()> {
    if !topology.needs_rules() {
        return remove_table(socket);
    }
    let mut wanted = plan::table(topology);
    let fingerprint = plan::fingerprint(topology);
    let standing = nft::read(socket, TABLE_FAMILY, TABLE).map_err(failed)?;
    let old = nft::read(socket, OLD_TABLE_FAMILY, TABLE).map_err(failed)?.filter(|old| is_ours(&old.fingerprint));
    let mut same = match &standing {
        None => false,
        Some(state) => {
            let rules = wanted.chains.iter().filter(|c| !c.rules.is_empty()).map(|c| (c.name.clone(), c.rules.len()));
            state.fingerprint == fingerprint.as_bytes() && state.rules == rules.collect()
        }
    };
    let from = if standing.is_some() { TABLE_FAMILY } else { OLD_TABLE_FAMILY };
    for set in &mut wanted.sets {
        if standing.is_none() && old.is_none() {
            continue;
        }
        let elements = nft::elements(socket, from, TABLE, &set.name).map_err(failed)?;
        if mode == Mode::Keep && PORT_SETS.contains(&set.name.as_str()) {
            set.elements = elements;
        } else {
            same &= set.elements == elements;
        }
    }
    if same && old.is_none() {
        return Ok(());
    }
    let mut change = Transaction::new();
    change.replace_table(&wanted, fingerprint.as_bytes());
    if old.is_some() {
        change.delete_table(OLD_TABLE_FAMILY, TABLE);
    }
    change.commit(socket).map_err(failed)
}

/// Whether a table carries a mark of this crate's.
fn is_ours(fingerprint: &[u8]) -> bool {
    fingerprint.starts_with(TABLE.as_bytes())
}

fn replace(socket: &mut Socket, topology: &Topology) -> Result<()> {
    if !topology.needs_rules() {
        return remove_table(socket);
    }
    let mut change = Transaction::new();
    change.replace_table(&plan::table(topology), plan::fingerprint(topology).as_bytes());
    change.commit(socket).map_err(failed)
}

fn failed(error: sys::netlink::Error) -> Error {
    if nft::is_unsupported(&error) {
        return Error::system("this kernel has no nf_tables").with_source(error);
    }
    Error::system(format!("nftables: {error}")).with_source(error)
}
