//! Gates at the sandbox's links, as far as they depend on names: the addresses of a name that may be reached pass for as
//! long as the answer lasts. And what the gates tell of: what they dropped, for the daemon.
//!
//! The gates themselves are the kernel's and were hung by the daemon, before the link was up; here they are only found, by
//! the link. A gate that is not found opens for no name.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use dns::message;
use model::egress::{Egress, Ports};
use rustix::event::epoll::{self, EventFlags};
use sys::gate::{Gate, Slot};
use sys::netlink::{Socket, link};

use super::place::Token;
use crate::proto::{Denied, GateSpec, Whose};

/// Seconds that an address passes beyond its answer's time: a client may use it at the last moment.
const GRACE: u32 = 1;
/// Seconds that names of the sandbox's networks last here: another container may be given the address soon.
pub const LOCAL_LASTS: u32 = 30;
/// Open addresses with their ports from which on those whose time is over are looked for.
const SWEEP: usize = 512;
/// How long to wait before a gate is heard again.
const PAUSE: Duration = Duration::from_secs(1);
/// What is kept for a daemon that does not listen, and told at once.
const MAX_DENIED: usize = 32;
/// Names that were refused and are not told of anew for `TOLD`.
const MAX_NAMES: usize = 64;
const TOLD: Duration = Duration::from_secs(60);

/// All gates of a sandbox.
#[derive(Debug, Default)]
pub struct Gates {
    all: Vec<Hung>,
    is_confined: bool,
    denied: VecDeque<Denied>,
    more: u32,
    names: HashMap<Box<[u8]>, Instant>,
    /// Gates are not heard until then.
    paused_until: Option<Instant>,
}

#[derive(Debug)]
struct Hung {
    spec: GateSpec,
    rules: Option<Egress>,
    gate: Option<Gate>,
    open: HashMap<(IpAddr, Option<u16>), Instant>,
}

impl Hung {
    fn ports(&self, name: &str) -> Vec<Option<Ports>> {
        self.rules.as_ref().map(|rules| rules.ports_of(name)).unwrap_or_default()
    }

    /// Whether an address that a server gives for a name may be one of the name's own: not this host's, nor one that
    /// whoever owns the name has no say in.
    fn is_credible(&self, address: IpAddr) -> bool {
        let is_special = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.is_unspecified(),
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified() || v6.to_ipv4_mapped().is_some(),
        };
        let is_never = self.spec.never.iter().any(|(net, length)| contains((*net, *length), address));
        !is_special && !address.is_loopback() && !address.is_multicast() && !is_never
    }

    fn allow(&mut self, address: IpAddr, port: Option<u16>, (now, lasts): (Instant, Duration)) {
        let Some(gate) = &self.gate else { return };
        if self.open.len() >= SWEEP {
            // One that the kernel does not let go of takes a place there: it is counted, and tried again.
            self.open.retain(|(address, port), until| *until > now || gate.forget(*address, *port).is_err());
        }
        let until = now + lasts;
        // What stands for longer by another answer stays.
        if self.open.get(&(address, port)).is_none_or(|known| *known < until)
            && self.open.len() < sys::gate::MAX_NAMES
            && gate.allow(address, port, lasts).is_ok()
        {
            self.open.insert((address, port), until);
        }
    }
}

/// Whether a network of this length in bits has the address.
fn contains((net, length): (IpAddr, u8), address: IpAddr) -> bool {
    match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            (u32::from(net) ^ u32::from(address)) & mask == 0
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            (u128::from(net) ^ u128::from(address)) & mask == 0
        }
        _ => false,
    }
}

impl Gates {
    /// These from now on; those that stand keep what is open.
    pub fn change(&mut self, epoll: &OwnedFd, specs: Vec<GateSpec>, is_confined: bool) {
        let mut before = std::mem::take(&mut self.all);
        self.is_confined = is_confined;
        for spec in specs {
            let rules = Egress::parse(&spec.rules).ok();
            let same = before.iter().position(|hung| hung.spec.link == spec.link && hung.spec.whose == spec.whose);
            let (gate, open) = match same.map(|at| before.swap_remove(at)) {
                Some(Hung { gate: Some(gate), open, .. }) => (Some(gate), open),
                _ => (find(&spec), HashMap::new()),
            };
            self.all.push(Hung { spec, rules, gate, open });
        }
        drop(before);
        self.watch(epoll, EventFlags::IN);
    }

    /// Watches all gates for this; those that are watched already included.
    fn watch(&self, epoll: &OwnedFd, flags: EventFlags) {
        for (index, gate) in self.all.iter().enumerate().filter_map(|(index, hung)| Some((index, hung.gate.as_ref()?)))
        {
            let data = Token::Gate(index as u32).data();
            if epoll::modify(epoll, gate.pollable(), data, flags).is_err() {
                let _ = epoll::add(epoll, gate.pollable(), data, flags);
            }
        }
    }

    /// No rules about destinations.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether servers elsewhere may be asked for a name: one of the links that have gates lets its addresses pass.
    pub fn may_ask(&mut self, name: &[u8], now: Instant) -> bool {
        if !self.is_confined {
            return true;
        }
        let text = std::str::from_utf8(name).unwrap_or_default();
        let passes = |hung: &Hung| !hung.ports(text).is_empty();
        let passes_all = |link: &str| self.all.iter().filter(|hung| hung.spec.link == link).all(passes);
        let may = self.all.iter().any(|hung| passes_all(&hung.spec.link));
        if !may {
            self.refused(name, now);
        }
        may
    }

    fn refused(&mut self, name: &[u8], now: Instant) {
        if self.names.len() >= MAX_NAMES {
            self.names.retain(|_, at| *at + TOLD > now);
        }
        if self.names.contains_key(name) {
            return;
        }
        if self.names.len() >= MAX_NAMES {
            self.more = self.more.saturating_add(1);
            return;
        }
        self.names.insert(name.into(), now);
        self.tell(Denied { name: String::from_utf8_lossy(name).into_owned(), ..Denied::default() });
    }

    fn tell(&mut self, denied: Denied) {
        match self.denied.len() < MAX_DENIED {
            true => self.denied.push_back(denied),
            false => self.more = self.more.saturating_add(1),
        }
    }

    /// Opens the gates for the addresses in an answer for a name. `is_local`: the answer is the daemon's own.
    pub fn open(&mut self, name: &[u8], response: &[u8], (is_local, now): (bool, Instant)) {
        let Ok(name) = std::str::from_utf8(name) else { return };
        for hung in &mut self.all {
            let ports = hung.ports(name);
            if ports.is_empty() {
                continue;
            }
            let (addresses, seconds) = message::addresses(response);
            let lasts = Duration::from_secs(u64::from(seconds) + u64::from(GRACE));
            for address in addresses {
                if !is_local && !hung.is_credible(address) {
                    continue;
                }
                for port in &ports {
                    match port {
                        None => hung.allow(address, None, (now, lasts)),
                        Some(Ports { first, last }) => {
                            (*first..=*last).for_each(|port| hung.allow(address, Some(port), (now, lasts)));
                        }
                    }
                }
            }
        }
    }

    /// Hears a gate, then none for a moment.
    pub fn receive(&mut self, epoll: &OwnedFd, index: u32, now: Instant) {
        let mut heard = Vec::new();
        if let Some(gate) = self.all.get_mut(index as usize).and_then(|hung| hung.gate.as_mut()) {
            // What is behind the ring's size has come meanwhile.
            heard.extend(std::iter::from_fn(|| gate.next_dropped()).take(4 * MAX_DENIED));
        }
        for dropped in heard {
            let to = Some(SocketAddr::new(dropped.address, dropped.port));
            self.tell(Denied { protocol: dropped.protocol, to, name: String::new() });
        }
        self.watch(epoll, EventFlags::empty());
        self.paused_until = Some(now + PAUSE);
    }

    /// When [`Gates::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Hears the gates again.
    pub fn expire(&mut self, epoll: &OwnedFd, now: Instant) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            self.watch(epoll, EventFlags::IN);
        }
    }

    /// What was not let pass, and how many more; empty: nothing that was not told.
    pub fn take_denied(&mut self) -> (Vec<Denied>, u32) {
        (std::mem::take(&mut self.denied).into(), std::mem::take(&mut self.more))
    }

    /// There is something to tell.
    pub fn has_denied(&self) -> bool {
        !self.denied.is_empty()
    }
}

/// The gate at a link in the monitor's own namespace.
fn find(spec: &GateSpec) -> Option<Gate> {
    let slot = match spec.whose {
        Whose::Container => Slot::Container,
        Whose::Network => Slot::Network,
    };
    let mut socket = Socket::route().ok()?;
    let found = link::find(&mut socket, &spec.link).ok()??;
    Gate::find(&mut socket, found.index, slot).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hung(link: &str, whose: Whose, rules: &str) -> Hung {
        let never = vec![("10.1.0.0".parse().unwrap(), 16), ("fd00:1::".parse().unwrap(), 64)];
        let spec = GateSpec { link: link.into(), whose, rules: rules.into(), never, ..GateSpec::default() };
        Hung { rules: Egress::parse(rules).ok(), spec, gate: None, open: HashMap::new() }
    }

    #[test]
    fn names_have_to_pass_all_gates_of_a_link() {
        let now = Instant::now();
        let all = vec![
            hung("a", Whose::Container, "allow:example.org,*.example.net"),
            hung("a", Whose::Network, "allow:example.org:443,other.example"),
            hung("b", Whose::Container, "allow:only-b.example"),
        ];
        let mut gates = Gates { all, is_confined: true, ..Gates::default() };
        for (name, may) in [
            ("example.org", true),
            ("only-b.example", true),
            ("www.example.net", false),
            ("other.example", false),
            ("secret.evil.example", false),
            ("1.0.0.10.in-addr.arpa", false),
            ("", false),
        ] {
            assert_eq!(gates.may_ask(name.as_bytes(), now), may, "{name}");
        }
        assert!(!gates.may_ask(b"\xff.example.org", now));
        let told = gates.take_denied().0.len();
        assert!(!gates.may_ask(b"other.example", now) && told == 6);
        assert!(gates.take_denied().0.is_empty(), "once");
        gates.is_confined = false;
        assert!(gates.may_ask(b"other.example", now), "by a link without a gate");
    }

    #[test]
    fn names_do_not_open_what_is_not_theirs() {
        let hung = hung("a", Whose::Container, "allow:example.org");
        for address in ["192.0.2.1", "10.2.0.1", "2001:db8::1", "fd00:2::1"] {
            assert!(hung.is_credible(address.parse().unwrap()), "{address}");
        }
        for address in [
            "169.254.169.254",
            "127.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "10.1.0.1",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:1::1",
            "::ffff:169.254.169.254",
        ] {
            assert!(!hung.is_credible(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn what_is_told_is_bounded() {
        let mut gates = Gates { is_confined: true, ..Gates::default() };
        for i in 0..10_000 {
            gates.may_ask(format!("{i}.evil.example").as_bytes(), Instant::now());
        }
        let (denied, more) = gates.take_denied();
        assert_eq!((denied.len(), more as usize), (MAX_DENIED, 10_000 - MAX_DENIED));
        assert!(gates.names.len() <= MAX_NAMES);
    }
}
