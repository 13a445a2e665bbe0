//! Announcements of addresses: who knew an address as another link's learns at once whose it is now. The first one is the
//! kernel's: it comes when a link is told its hardware address anew, where the link's settings say so. It is repeated, since
//! a frame can be lost (RFC 5227, 2.3; RFC 4861, 7.2.6), by frames of our own: the kernel's would cost the container what it
//! knows of its neighbours.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::id::EndpointId;
use model::lock::{Condvar, Mutex};
use model::{Error, Result};
use sys::netlink::namespace;
use sys::packet::LinkSocket;

use super::{Join, option};

/// Options of a network.
type Options = BTreeMap<String, String>;

/// How many a network's option may ask for.
const COUNTS: std::ops::RangeInclusive<i64> = 0..=3;
const DEFAULT_COUNT: i64 = 3;
/// Milliseconds between them.
const PAUSES: std::ops::RangeInclusive<i64> = 100..=2000;
const DEFAULT_PAUSE: i64 = 1000;
/// Links that announce themselves again at once; each holds a descriptor. Further ones have announced themselves once.
const MAX_LINKS: usize = 256;
/// Settings of the kernel that make a link announce its addresses (ip-sysctl.rst), by family.
const SETTINGS: [&str; 2] = ["net/ipv4/conf/{}/arp_notify", "net/ipv6/conf/{}/ndisc_notify"];

/// Refuses options that no network can have, in the reference's words.
pub fn check(options: &Options) -> Result<()> {
    number(options, option::ADVERTISED, "an integer", COUNTS)?;
    number(options, option::ADVERTISED_EVERY, "integer milliseconds", PAUSES).map(drop)
}

fn number(options: &Options, option: &str, kind: &str, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>> {
    let Some(text) = options.get(option) else { return Ok(None) };
    let number = text.parse::<i64>();
    let number = number.map_err(|_| Error::system(format!("value for option {option} {text:?} must be {kind}")))?;
    match range.contains(&number) {
        true => Ok(Some(number)),
        false => Err(Error::system(format!("{option} must be in the range {} to {}", range.start(), range.end()))),
    }
}

/// How often endpoints of a network announce their addresses, and how long after each other.
#[derive(Clone, Copy, Debug)]
pub struct Announcements {
    pub count: u32,
    pub pause: Duration,
}

impl Announcements {
    /// Those of a network with these options.
    pub fn of(options: &Options) -> Announcements {
        let count = number(options, option::ADVERTISED, "", COUNTS).ok().flatten().unwrap_or(DEFAULT_COUNT);
        let pause = number(options, option::ADVERTISED_EVERY, "", PAUSES).ok().flatten().unwrap_or(DEFAULT_PAUSE);
        Announcements { count: count.unsigned_abs() as u32, pause: Duration::from_millis(pause.unsigned_abs()) }
    }
}

/// A link of a sandbox that has announced its addresses once.
#[derive(Debug)]
struct Announced {
    /// The sandbox's.
    namespace: OwnedFd,
    index: u32,
    addresses: Vec<IpAddr>,
}

/// Announces addresses of new links again, by a thread that exists only while there are any.
#[derive(Clone, Debug, Default)]
pub struct Announcer {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    due: HashMap<EndpointId, Due>,
    /// The one that is announced now; `None` when it was forgotten meanwhile.
    busy: Option<EndpointId>,
    runs: bool,
}

#[derive(Debug)]
struct Due {
    at: Instant,
    left: u32,
    pause: Duration,
    link: Announced,
}

impl Announcer {
    /// Has the new link with this index announced again, as often as is left after the first time.
    pub fn add(&self, request: &Join<'_>, index: u32) {
        let Announcements { count, pause } = Announcements::of(&request.network.options);
        let left = count.saturating_sub(1);
        let namespace = request.sandbox.namespace().and_then(|sandbox| sandbox.fd().try_clone_to_owned().ok());
        let (Some(namespace), 1..) = (namespace, left) else { return };
        let addresses = request.endpoint.addresses.iter().map(|assigned| assigned.address).collect();
        let link = Announced { namespace, index, addresses };
        let (state, wake) = &*self.shared;
        let mut state = state.lock();
        if state.due.len() >= MAX_LINKS {
            return;
        }
        state.due.insert(request.endpoint.id.clone(), Due { at: Instant::now() + pause, left, pause, link });
        wake.notify_one();
        if state.runs {
            return;
        }
        let mine = self.clone();
        let thread = std::thread::Builder::new().name("announce".to_owned()).stack_size(128 * 1024);
        match thread.spawn(move || mine.run()) {
            Ok(_) => state.runs = true,
            Err(error) => {
                tracing::warn!(%error, "addresses are announced once only");
                state.due.clear();
            }
        }
    }

    /// An endpoint leaves its sandbox: nothing of it holds the namespace any more.
    pub fn forget(&self, endpoint: &EndpointId) {
        let mut state = self.shared.0.lock();
        let due = state.due.remove(endpoint);
        let _ = state.busy.take_if(|busy| busy == endpoint);
        drop(state);
        drop(due);
    }

    /// How many links are to be announced again.
    pub fn count(&self) -> usize {
        self.shared.0.lock().due.len()
    }

    fn run(&self) {
        let (state, wake) = &*self.shared;
        let mut state = state.lock();
        loop {
            let Some(next) = state.next() else {
                state.runs = false;
                return;
            };
            let pause = next.saturating_duration_since(Instant::now());
            if !pause.is_zero() {
                state = wake.wait_timeout_while(state, pause, |state| state.next() == Some(next));
                continue;
            }
            // Sandboxes are made and left while this one is seen to.
            let Some((endpoint, mut due)) = state.take(next) else { continue };
            state.busy = Some(endpoint.clone());
            drop(state);
            let goes_on = due.announce();
            state = self.shared.0.lock();
            if state.busy.take().is_some() && goes_on {
                state.due.insert(endpoint, due);
            }
        }
    }
}

impl State {
    fn next(&self) -> Option<Instant> {
        self.due.values().map(|due| due.at).min()
    }

    fn take(&mut self, at: Instant) -> Option<(EndpointId, Due)> {
        let (id, _) = self.due.iter().find(|(_, due)| due.at == at)?;
        self.due.remove_entry(&id.clone())
    }
}

impl Due {
    /// Whether it is to be announced once more after this. A link that is gone is not.
    fn announce(&mut self) -> bool {
        self.left -= 1;
        self.at += self.pause;
        let sent = namespace::move_into(self.link.namespace.as_fd())
            .and_then(|()| send(self.link.index, &self.link.addresses));
        sent.is_ok() && self.left > 0
    }
}

/// Announces addresses of a link of the calling thread's namespace, with the hardware address that it has now.
fn send(index: u32, addresses: &[IpAddr]) -> io::Result<()> {
    let socket = LinkSocket::open(index)?;
    let mac = socket.mac()?;
    addresses.iter().try_for_each(|address| match address {
        IpAddr::V4(address) => socket.send(&arp(mac, *address)),
        IpAddr::V6(address) => socket.send(&advertisement(mac, *address)),
    })
}

/// An ARP request for the sender's own address to all (RFC 5227, 2.3), in an Ethernet frame.
fn arp(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    const HEAD: [u8; 10] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1];
    let own = address.octets();
    [&[0xff; 6][..], &mac, &HEAD, &mac, &own, &[0; 6], &own].concat()
}

/// An unsolicited neighbour advertisement to all nodes (RFC 4861, 4.4 and 7.2.6), in an Ethernet frame.
fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const TYPE: [u8; 2] = [0x86, 0xdd];
    /// Version 6; a payload of 32 bytes of ICMPv6, hop limit 255.
    const HEAD: [u8; 8] = [0x60, 0, 0, 0, 0, 32, 58, 255];
    /// Type 136, code 0, the checksum, the flag `override`.
    const MESSAGE: [u8; 8] = [136, 0, 0, 0, 0x20, 0, 0, 0];
    /// The target's hardware address, of 8 bytes.
    const OPTION: [u8; 2] = [2, 1];
    let own = address.octets();
    let mut message = [&MESSAGE[..], &own, &OPTION, &mac].concat();
    // RFC 8200, 8.1.
    let pseudo = [&own[..], &ALL_NODES.octets(), &[0, 0, 0, 32, 0, 0, 0, 58], &message].concat();
    message[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    [&[0x33, 0x33, 0, 0, 0, 1][..], &mac, &TYPE, &HEAD, &own, &ALL_NODES.octets(), &message].concat()
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The settings of a link, or of those to come (`default`).
pub fn settings(link: &str) -> impl Iterator<Item = String> {
    SETTINGS.into_iter().map(move |setting| setting.replace("{}", link))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0x42, 0xac, 0x11, 0, 2];

    #[test]
    fn frames_of_arp() {
        let frame = arp(MAC, Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..14], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0x42, 0xac, 0x11, 0, 2, 8, 6]);
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(
            (&frame[22..28], &frame[28..32], &frame[38..]),
            (&MAC[..], &[172, 17, 0, 2][..], &[172, 17, 0, 2][..])
        );
    }

    #[test]
    fn frames_of_neighbour_discovery() {
        let own: Ipv6Addr = "fd00::2".parse().unwrap();
        let frame = advertisement(MAC, own);
        assert_eq!(frame.len(), 14 + 40 + 32);
        let (source, message) = (&frame[22..38], &frame[54..]);
        assert_eq!((source, &message[8..24]), (&own.octets()[..], &own.octets()[..]));
        assert_eq!(message[24..], [2, 1, 2, 0x42, 0xac, 0x11, 0, 2]);
        // With the checksum in it the sum of all is nothing.
        let pseudo = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58], message].concat();
        assert_eq!(checksum(&pseudo), 0);
    }
}
