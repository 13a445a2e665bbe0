//! Host ports: which are taken, which is next, and the sockets that hold them.
//!
//! A port is first reserved in the books (so that two containers never race and the error names the conflict), then
//! bound (so that no other process can have it). IPv4 and IPv6 bindings of one published port get the same number.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};

use model::lock::{Mutex, MutexGuard};
use model::{Context, Error, Result};
use sys::fdpass::{PARKED_FDS, Parked};
use sys::netlink::listen::{self, Opening, Reach};

use crate::bound::BoundPorts;
use crate::config::Enabled;
use crate::endpoint::{BoundPort, Protocol, PublishSpec};

/// How many ports of a range are tried when other processes hold them.
const ATTEMPTS: usize = 10;
/// The range of automatic ports when the kernel's own cannot be read.
const FALLBACK: RangeInclusive<u16> = 49153..=65535;

/// Why a port was not given.
#[derive(Debug)]
enum Refused {
    /// Taken by another container.
    Taken(IpAddr, u16),
    /// The whole range is taken.
    Exhausted,
    /// No port has the number 0.
    Range(u16, u16),
    /// By the kernel: another process has it, or the address is not this host's.
    Bind(SocketAddr, io::Error),
}

/// All published ports of this daemon.
#[derive(Debug)]
pub struct Ports {
    books: Mutex<Books>,
    automatic: RangeInclusive<u16>,
    /// Ports that the administrator keeps from automatic choice.
    reserved: BTreeSet<u16>,
    /// What new sockets are deaf by.
    filter: listen::Filter,
}

#[derive(Debug, Default)]
struct Books {
    taken: BTreeMap<(Protocol, IpAddr), BTreeSet<u16>>,
    /// The port given last per range; the next search starts after it.
    last: BTreeMap<(Protocol, IpAddr, u16, u16), u16>,
}

/// Where one published port is bound: the same number on each address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub container_port: u16,
    pub protocol: Protocol,
    pub addresses: Vec<IpAddr>,
    pub host_ports: Option<(u16, u16)>,
    /// One socket may serve all addresses of both families.
    pub shared: Enabled,
}

/// Sockets of one container that are held as such; further ones are parked, a queueful at a time.
const LOOSE: usize = 1024;

/// The sockets of one container's ports.
#[derive(Debug, Default)]
pub struct Bound {
    /// In the order in which they were bound. One of IPv4 may have no socket of its own: one of IPv6 serves it as well.
    pub ports: BoundPorts,
    pub loose: Vec<(BoundPort, OwnedFd)>,
    pub parked: Vec<(Vec<BoundPort>, Parked)>,
}

impl Bound {
    fn add(&mut self, Held { ports, sockets }: Held) -> Result<(), Refused> {
        self.ports.extend(ports);
        self.loose.extend(sockets);
        while self.loose.len() >= LOOSE + PARKED_FDS {
            let part = &self.loose[LOOSE..LOOSE + PARKED_FDS];
            let fds: Vec<_> = part.iter().map(|(_, socket)| socket.as_fd()).collect();
            let first = SocketAddr::new(part[0].0.host_ip, part[0].0.host_port);
            let parked = Parked::new(&fds).map_err(|e| Refused::Bind(first, e))?;
            let ports = self.loose.drain(LOOSE..LOOSE + PARKED_FDS).map(|(port, _)| port).collect();
            self.parked.push((ports, parked));
        }
        Ok(())
    }

    /// What the monitor is given; `target` tells where a port leads to.
    pub fn hand_out(self, target: impl Fn(&BoundPort) -> Option<SocketAddr>) -> crate::endpoint::Sockets {
        let with_target = |port: BoundPort| Some((port, target(&port)?));
        let loose = self.loose.into_iter().filter_map(|(port, fd)| Some((port, target(&port)?, fd)));
        let parked =
            self.parked.into_iter().map(|(ports, queue)| (ports.into_iter().filter_map(with_target).collect(), queue));
        crate::endpoint::Sockets { loose: loose.collect(), parked: parked.collect() }
    }

    /// Lets every socket listen. An error: another process listens at one of the ports meanwhile.
    pub fn listen(&self) -> Result<()> {
        let listen = |port: &BoundPort, socket: &OwnedFd| {
            let address = SocketAddr::new(port.host_ip, port.host_port);
            let listening = listen::start(kind(port.protocol), socket);
            listening.map_err(|e| Refused::Bind(address, e).into_error(port.protocol))
        };
        self.loose.iter().try_for_each(|(port, socket)| listen(port, socket))?;
        for (ports, parked) in &self.parked {
            let copies = parked.copies().context("opening published ports")?;
            ports.iter().zip(&copies).try_for_each(|(port, socket)| listen(port, socket))?;
        }
        Ok(())
    }
}

/// What holds one published port.
struct Held {
    /// See [`Bound::ports`].
    ports: Vec<BoundPort>,
    sockets: Vec<(BoundPort, OwnedFd)>,
}

/// Host addresses of ports that name none, and which ones can serve the container.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// `--ip`, or the network's option.
    pub address: IpAddr,
    /// The container has IPv4, or a proxy carries it to the container's IPv6 address.
    pub ipv4: bool,
    /// The host has IPv6, and the container has it or a proxy carries it to the container's IPv4 address.
    pub ipv6: bool,
    /// Both families lead to one address of the container.
    pub shared: Enabled,
}

/// Pure: what to bind for the requested ports, in binding order.
pub fn groups(requested: &[PublishSpec], defaults: Defaults) -> Vec<Group> {
    let mut sorted: Vec<_> = requested.to_vec();
    sorted.iter_mut().for_each(|p| p.host_ports = p.host_ports.filter(|range| *range != (0, 0)));
    // A number that is asked for goes before one that may be another.
    let is_choice = |p: &PublishSpec| p.host_ports.is_none_or(|(first, last)| first != last);
    sorted.sort_by_key(|p| (is_choice(p), p.container_port, p.protocol, p.host_ports, p.host_ip));
    let mut groups: Vec<Group> = Vec::new();
    for port in sorted {
        let addresses = match port.host_ip {
            Some(ip) => vec![ip],
            None if defaults.address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
                vec![defaults.address, IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
            }
            None => vec![defaults.address],
        };
        let shared = Enabled::from(port.host_ip.is_none() && defaults.shared.yes());
        let addresses: Vec<_> =
            addresses.into_iter().filter(|a| if a.is_ipv4() { defaults.ipv4 } else { defaults.ipv6 }).collect();
        if addresses.is_empty() {
            continue;
        }
        let made = Group {
            container_port: port.container_port,
            protocol: port.protocol,
            shared: Enabled::from(shared.yes() && addresses.len() == 2 && port.protocol != Protocol::Sctp),
            addresses,
            host_ports: port.host_ports,
        };
        match groups.last_mut().filter(|last| last.may_share(&made)) {
            Some(last) => {
                last.addresses.extend(made.addresses);
                last.shared = Enabled::No;
            }
            None => groups.push(made),
        }
    }
    groups
}

impl Group {
    /// Two requests that differ in the host address only get the same number.
    fn may_share(&self, other: &Group) -> bool {
        let same = (self.container_port, self.protocol, self.host_ports)
            == (other.container_port, other.protocol, other.host_ports);
        same && other.addresses.iter().all(|a| self.addresses.iter().all(|b| !conflict(*a, *b)))
    }
}

/// Whether one port number cannot be bound on both addresses.
fn conflict(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

impl Ports {
    /// Reads the kernel's range of automatic ports in the calling thread's namespace. `daemon`: addresses of TCP sockets
    /// of the daemon itself, whose ports no container gets.
    pub fn open(daemon: &[SocketAddr]) -> Ports {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
        let mut books = Books::default();
        for address in daemon {
            books.taken.entry((Protocol::Tcp, address.ip().to_canonical())).or_default().insert(address.port());
        }
        Ports {
            books: Mutex::new(books),
            automatic: parse_range(&read("ip_local_port_range")).unwrap_or(FALLBACK),
            reserved: parse_list(&read("ip_local_reserved_ports")),
            filter: listen::Filter::load(),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Every change is a single insertion or removal: a panic elsewhere leaves the books right.
        self.books.lock()
    }

    /// Reserves and binds every group, or nothing. The sockets are deaf (see `sys::netlink::listen`).
    pub fn bind(&self, groups: &[Group], opening: Opening) -> Result<Bound> {
        let mut bound = Bound::default();
        for group in groups {
            let added = self.bind_group(group, opening).and_then(|held| bound.add(held));
            if let Err(refused) = added {
                self.give_back(bound);
                return Err(refused.into_error(group.protocol));
            }
        }
        Ok(bound)
    }

    /// Closes sockets, then frees their ports: whoever gets one next can bind it.
    pub fn give_back(&self, bound: Bound) {
        let Bound { ports, loose, parked } = bound;
        drop((loose, parked));
        self.release(ports.iter());
    }

    fn bind_group(&self, group: &Group, opening: Opening) -> Result<Held, Refused> {
        let fixed = group.host_ports.is_some_and(|(first, last)| first == last);
        let mut attempt = 1;
        loop {
            let number = self.reserve(group)?;
            match bind_all(group, number, (opening, &self.filter)) {
                Ok(held) => return Ok(held),
                Err(refused) => {
                    self.release(group.bound(number));
                    if fixed || attempt == ATTEMPTS {
                        return Err(refused);
                    }
                    attempt += 1;
                }
            }
        }
    }

    fn reserve(&self, group: &Group) -> Result<u16, Refused> {
        let mut books = self.books();
        let number = match group.host_ports {
            Some((0, last)) => return Err(Refused::Range(0, last)),
            Some((first, last)) if first == last => match books.conflict(group, first) {
                Some(address) => return Err(Refused::Taken(address, first)),
                None => first,
            },
            Some((first, last)) => books.search(group, first..=last, &BTreeSet::new()).ok_or(Refused::Exhausted)?,
            None => books.search(group, self.automatic.clone(), &self.reserved).ok_or(Refused::Exhausted)?,
        };
        for address in &group.addresses {
            books.taken.entry((group.protocol, *address)).or_default().insert(number);
        }
        Ok(number)
    }

    /// Marks the ports of a container that ran before this daemon did.
    pub fn adopt(&self, ports: impl IntoIterator<Item = BoundPort>) {
        let mut books = self.books();
        for port in ports {
            books.taken.entry((port.protocol, port.host_ip)).or_default().insert(port.host_port);
        }
    }

    /// Frees ports in the books; their sockets are closed by whoever holds them.
    pub fn release(&self, ports: impl IntoIterator<Item = BoundPort>) {
        let mut books = self.books();
        for port in ports {
            if let Some(taken) = books.taken.get_mut(&(port.protocol, port.host_ip)) {
                taken.remove(&port.host_port);
            }
        }
        books.taken.retain(|_, taken| !taken.is_empty());
    }

    /// How many (address, port) pairs are taken.
    pub fn taken(&self) -> usize {
        self.books().taken.values().map(BTreeSet::len).sum()
    }
}

impl Books {
    /// The requested address that cannot have the port.
    fn conflict(&self, group: &Group, number: u16) -> Option<IpAddr> {
        group.addresses.iter().copied().find_map(|wanted| {
            self.taken
                .iter()
                .find(|((protocol, address), taken)| {
                    *protocol == group.protocol && conflict(*address, wanted) && taken.contains(&number)
                })
                .map(|((_, address), _)| *address)
        })
    }

    fn search(&mut self, group: &Group, range: RangeInclusive<u16>, skip: &BTreeSet<u16>) -> Option<u16> {
        let (first, last) = (*range.start(), *range.end());
        let key = (group.protocol, *group.addresses.first()?, first, last);
        let after = self.last.get(&key).filter(|given| (first..last).contains(given)).map_or(first, |given| given + 1);
        let order = (after..=last).chain(first..after);
        let number = order.into_iter().find(|n| !skip.contains(n) && self.conflict(group, *n).is_none())?;
        self.last.insert(key, number);
        Some(number)
    }
}

impl Group {
    fn bound(&self, host_port: u16) -> Vec<BoundPort> {
        let (container_port, protocol) = (self.container_port, self.protocol);
        self.addresses.iter().map(|ip| BoundPort { container_port, protocol, host_ip: *ip, host_port }).collect()
    }
}

fn kind(protocol: Protocol) -> listen::Kind {
    match protocol {
        Protocol::Tcp => listen::Kind::Tcp,
        Protocol::Udp => listen::Kind::Udp,
        Protocol::Sctp => listen::Kind::Sctp,
    }
}

fn bind_all(group: &Group, number: u16, how: (Opening, &listen::Filter)) -> Result<Held, Refused> {
    let kind = kind(group.protocol);
    let ports = group.bound(number);
    if let [first, second] = ports[..]
        && group.shared.yes()
    {
        let own = if first.host_ip.is_ipv6() { first } else { second };
        // Which family a conflict is of is found out by sockets of one each.
        if let Ok(socket) = listen::bind(kind, (SocketAddr::new(own.host_ip, number), Reach::Both), how) {
            return Ok(Held { ports, sockets: vec![(own, socket)] });
        }
    }
    let bind = |port: BoundPort| {
        let address = SocketAddr::new(port.host_ip, number);
        let socket = listen::bind(kind, (address, Reach::Own), how);
        socket.map(|socket| (port, socket)).map_err(|e| Refused::Bind(address, e))
    };
    let sockets = ports.iter().copied().map(bind).collect::<Result<_, _>>()?;
    Ok(Held { ports, sockets })
}

impl Refused {
    fn into_error(self, protocol: Protocol) -> Error {
        match self {
            Refused::Taken(ip, port) => {
                Error::system(format!("Bind for {ip}:{port} failed: port is already allocated"))
            }
            Refused::Exhausted => Error::system("all ports are allocated"),
            Refused::Range(first, last) => Error::system(format!("invalid port range: {first}-{last}")),
            Refused::Bind(address, error) => {
                let reason = model::error::io_text(&error);
                Error::system(format!("failed to bind host port {address}/{protocol}: {reason}")).with_source(error)
            }
        }
    }
}

/// First and last port, separated by white space.
fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (first > 0 && first <= last).then_some(first..=last)
}

/// `1,2,10-20`.
fn parse_list(text: &str) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            ports.extend(first..=last);
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    const BOTH: Defaults = Defaults { address: ANY4, ipv4: true, ipv6: true, shared: Enabled::No };

    fn ports(automatic: RangeInclusive<u16>) -> Ports {
        Ports { automatic, reserved: BTreeSet::from([101]), ..Ports::open(&[]) }
    }

    fn spec(container_port: u16, host_ip: Option<&str>, host_ports: Option<(u16, u16)>) -> PublishSpec {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        PublishSpec { container_port, protocol: Protocol::Tcp, host_ip, host_ports }
    }

    fn group(addresses: &[IpAddr], host_ports: Option<(u16, u16)>) -> Group {
        let (addresses, shared) = (addresses.to_vec(), Enabled::No);
        Group { container_port: 80, protocol: Protocol::Tcp, addresses, host_ports, shared }
    }

    fn reserve(ports: &Ports, group: &Group) -> String {
        ports.reserve(group).map_or_else(|r| r.into_error(Protocol::Tcp).message().to_owned(), |n| n.to_string())
    }

    #[test]
    fn unspecified_means_both_families() {
        let made = groups(&[spec(80, None, Some((8080, 8080)))], BOTH);
        assert_eq!(made, [group(&[ANY4, ANY6], Some((8080, 8080)))]);
        let without = Defaults { ipv6: false, ..BOTH };
        assert_eq!(groups(&[spec(80, None, None)], without), [group(&[ANY4], None)]);
        assert_eq!(groups(&[spec(80, Some("::"), None)], without), []);
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let configured = Defaults { address: local, ..BOTH };
        assert_eq!(groups(&[spec(80, None, None)], configured), [group(&[local], None)]);
    }

    /// Where both families lead to one address and none is named, one socket does.
    #[test]
    fn a_socket_is_shared_by_the_families() {
        let one_target = Defaults { shared: Enabled::Yes, ..BOTH };
        let shared = |requested: &[PublishSpec], defaults| {
            groups(requested, defaults).iter().map(|group| group.shared.yes()).collect::<Vec<_>>()
        };
        let any = spec(80, None, Some((0, 0)));
        assert_eq!(shared(std::slice::from_ref(&any), one_target), [true]);
        assert_eq!(shared(std::slice::from_ref(&any), BOTH), [false]);
        assert_eq!(shared(std::slice::from_ref(&any), Defaults { ipv6: false, ..one_target }), [false]);
        assert_eq!(shared(&[spec(80, Some("0.0.0.0"), None), spec(80, Some("::"), None)], one_target), [false]);
        let sctp = PublishSpec { protocol: Protocol::Sctp, ..any.clone() };
        assert_eq!(shared(&[sctp], one_target), [false]);
    }

    #[test]
    fn a_shared_socket_hears_both_families_and_a_conflict_is_named() {
        use sys::netlink::{Batch, Socket, link, namespace};
        let one_target = Defaults { shared: Enabled::Yes, ..BOTH };
        let body = || {
            let ports = Ports::open(&[]);
            let wanted = groups(&[spec(80, None, Some((8080, 8080)))], one_target);
            let bound = ports.bind(&wanted, Opening::Later).unwrap();
            assert_eq!((bound.ports.len(), bound.loose.len(), bound.loose[0].0.host_ip), (2, 1, ANY6));
            assert_eq!(bound.ports.iter().map(|port| port.host_ip).collect::<Vec<_>>(), [ANY4, ANY6]);
            bound.listen().unwrap();
            assert!(["127.0.0.1", "::1"].iter().all(|ip| std::net::TcpStream::connect((*ip, 8080)).is_ok()));
            ports.give_back(bound);
            assert_eq!(ports.taken(), 0);
            let _taken = std::net::TcpListener::bind(("127.0.0.1", 8080)).unwrap();
            let refused = ports.bind(&wanted, Opening::Later).unwrap_err();
            let text = "failed to bind host port 0.0.0.0:8080/tcp: address already in use";
            assert_eq!((refused.message(), ports.taken()), (text, 0));
        };
        let made = namespace::create_with(|_| {
            let mut batch = Batch::new();
            link::set_up(&mut batch, link::LOOPBACK);
            Socket::route()?.request(&mut batch)?;
            body();
            Ok(())
        });
        made.expect("a network namespace (root is needed)");
    }

    #[test]
    fn requests_that_differ_in_address_share_a_number() {
        let made =
            groups(&[spec(80, Some("127.0.0.1"), None), spec(80, Some("10.0.0.1"), None), spec(80, None, None)], BOTH);
        assert_eq!(made.len(), 2, "0.0.0.0 conflicts with the others: {made:?}");
        let made = groups(&[spec(80, None, None), spec(80, None, None)], BOTH);
        assert_eq!(made.len(), 2, "the same twice needs two numbers");
    }

    #[test]
    fn automatic_ports_run_on_and_skip_reserved_ones() {
        let ports = ports(100..=104);
        let both = group(&[ANY4, ANY6], None);
        assert_eq!([reserve(&ports, &both), reserve(&ports, &both), reserve(&ports, &both)], ["100", "102", "103"]);
        ports.release(both.bound(102));
        assert_eq!([reserve(&ports, &both), reserve(&ports, &both)], ["104", "102"]);
        assert_eq!(reserve(&ports, &both), "all ports are allocated");
    }

    #[test]
    fn a_range_that_is_used_up_starts_again_at_its_first_free_port() {
        let ports = ports(100..=104);
        for range in [Some((200, 202)), Some((65534, 65535))] {
            let wanted = group(&[ANY4], range);
            let (first, last) = range.unwrap();
            for number in (first..=last).chain(first..=last) {
                assert_eq!(reserve(&ports, &wanted), number.to_string());
                ports.release(wanted.bound(number));
            }
        }
        assert_eq!(reserve(&ports, &group(&[ANY4], Some((0, 10)))), "invalid port range: 0-10");
    }

    #[test]
    fn fixed_ports_go_before_ranges_and_automatic_ones() {
        let requested = [
            spec(80, None, None),
            spec(81, None, Some((0, 0))),
            spec(82, None, Some((8000, 8010))),
            spec(90, None, Some((8000, 8000))),
        ];
        let made = groups(&requested, Defaults { ipv6: false, ..BOTH });
        assert_eq!(made.iter().map(|g| g.container_port).collect::<Vec<_>>(), [90, 80, 81, 82]);
        let automatic = ports(100..=104);
        let fixed = groups(&[spec(80, None, None), spec(81, None, Some((100, 100)))], BOTH);
        assert_eq!([reserve(&automatic, &fixed[0]), reserve(&automatic, &fixed[1])], ["100", "102"]);
    }

    #[test]
    fn ports_of_the_daemon_are_taken() {
        let ports = Ports { automatic: 2375..=2376, ..Ports::open(&["[::ffff:127.0.0.1]:2375".parse().unwrap()]) };
        let refused = reserve(&ports, &group(&[ANY4], Some((2375, 2375))));
        assert_eq!(refused, "Bind for 127.0.0.1:2375 failed: port is already allocated");
        assert_eq!(reserve(&ports, &group(&[ANY4], None)), "2376");
        assert_eq!(reserve(&ports, &group(&["10.0.0.1".parse().unwrap()], Some((2375, 2375)))), "2375");
    }

    #[test]
    fn conflicts_name_the_address_that_has_the_port() {
        let ports = ports(100..=104);
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let other: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(reserve(&ports, &group(&[local], Some((8081, 8081)))), "8081");
        assert_eq!(reserve(&ports, &group(&[other], Some((8081, 8081)))), "8081");
        assert_eq!(reserve(&ports, &group(&[ANY6], Some((8081, 8081)))), "8081");
        let refused = reserve(&ports, &group(&[local], Some((8081, 8081))));
        assert_eq!(refused, "Bind for 127.0.0.1:8081 failed: port is already allocated");
        let refused = reserve(&ports, &group(&[ANY4], Some((8081, 8081))));
        assert!(refused.ends_with(":8081 failed: port is already allocated"), "{refused}");
        assert_eq!(ports.taken(), 3);
        assert_eq!(reserve(&ports, &group(&[ANY4], Some((8081, 8083)))), "8082");
        assert_eq!(reserve(&ports, &group(&[ANY4], Some((8081, 8083)))), "8083");
        assert_eq!(reserve(&ports, &group(&[ANY4], Some((8081, 8083)))), "all ports are allocated");
    }

    #[test]
    fn the_kernels_lists() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(parse_range("5 1"), None);
        assert_eq!(parse_range(""), None);
        assert_eq!(parse_list("8080,9148-9150\n"), BTreeSet::from([8080, 9148, 9149, 9150]));
        assert_eq!(parse_list("\n"), BTreeSet::new());
    }
}
