//! The resolver against clients and servers in namespaces of the test's own. A test's thread is in a network namespace that
//! stands for the host's; the sandbox's is another one. Servers are at other loopback addresses of the sandbox.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;

use dns::message::{Verdict, kind};
use dns::names::Member;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sys::clone::Flags;

use super::*;
use crate::proto::{Upstream, Zone};

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 21);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 22);

struct Bench {
    resolver: Resolver,
    dir: tempfile::TempDir,
}

fn member(names: &[&str], addresses: &[&str]) -> Member {
    Member {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

fn zone(network: &str, dir: &Path) -> Zone {
    Zone { network: network.into(), names: dir.join(network), aliases: Vec::new() }
}

impl Bench {
    /// A sandbox on the network `app` with these members.
    fn new(members: &[Member], servers: &[Ipv4Addr]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        dns::names::replace(&dir.path().join("app"), members).unwrap();
        let upstream = Upstream::Given(servers.iter().map(|server| IpAddr::V4(*server)).collect());
        let spec = ResolverSpec { zones: vec![zone("app", dir.path())], upstream, ..ResolverSpec::default() };
        Bench { resolver: open(spec), dir }
    }

    fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.resolver.namespaces.inside(|| Ok(work())).unwrap()
    }

    fn socket(&self, address: &str) -> UdpSocket {
        let socket = self.inside(|| UdpSocket::bind(address)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn client(&self) -> UdpSocket {
        let socket = self.socket("127.0.0.1:0");
        socket.connect((place::ADDRESS, place::PORT)).unwrap();
        socket
    }

    fn server(&self, address: Ipv4Addr) -> UdpSocket {
        self.socket(&format!("{address}:53"))
    }

    fn stream(&self) -> TcpStream {
        let stream = self.inside(|| TcpStream::connect((place::ADDRESS, place::PORT))).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// Lets the resolver work until there is a result.
    fn until<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 65_536];
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < end, "nothing has come");
            let timeout = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
            let mut fds = [PollFd::from_borrowed_fd(self.resolver.pollable(), PollFlags::IN)];
            let _ = poll(&mut fds, Some(&timeout)).unwrap();
            self.resolver.handle(&mut buffer);
            self.resolver.expire(Instant::now());
        }
    }

    fn datagram(&mut self, socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        self.until(|| received(socket))
    }

    /// The answer to a query by datagram.
    fn ask(&mut self, query: &[u8]) -> Vec<u8> {
        let client = self.client();
        client.send(query).unwrap();
        let (answer, from) = self.datagram(&client);
        assert_eq!(from, (place::ADDRESS, place::PORT).into());
        answer
    }

    fn addresses(&mut self, name: &str, kind: u16) -> (u8, Vec<IpAddr>) {
        let query = message::query(77, name, kind);
        let answer = self.ask(&query);
        assert!(message::judge(&query, &answer) != Verdict::Foreign);
        (answer[3] & 15, records(&query, &answer))
    }

    /// The answer by a connection.
    fn answer(&mut self, stream: &mut TcpStream) -> Vec<u8> {
        let mut input = Vec::new();
        self.until(|| {
            let mut part = [0; 4096];
            while let Ok(read) = stream.read(&mut part) {
                assert_ne!(read, 0, "closed");
                input.extend_from_slice(&part[..read]);
            }
            let length = usize::from(u16::from_be_bytes([*input.first()?, *input.get(1)?]));
            input.get(2..2 + length).map(<[u8]>::to_vec)
        })
    }
}

fn open(spec: ResolverSpec) -> Resolver {
    sys::ns::unshare(Flags::NEWNET).unwrap();
    sys::ns::loopback_up().unwrap();
    let made = sys::netlink::namespace::create_with(|_| sys::ns::loopback_up()).unwrap();
    Resolver::open(made.0, spec).unwrap()
}

fn received(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = vec![0; 65_536];
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => Some((buffer[..length].to_vec(), from)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// The addresses of an answer whose records have the question's name.
fn records(query: &[u8], answer: &[u8]) -> Vec<IpAddr> {
    let mut rest = &answer[query.len()..];
    let mut found = Vec::new();
    for _ in 0..u16::from_be_bytes([answer[6], answer[7]]) {
        let length = usize::from(u16::from_be_bytes([rest[10], rest[11]]));
        let data = &rest[12..12 + length];
        match length {
            4 => found.push(IpAddr::from(<[u8; 4]>::try_from(data).unwrap())),
            16 => found.push(IpAddr::from(<[u8; 16]>::try_from(data).unwrap())),
            _ => {}
        }
        rest = &rest[12 + length..];
    }
    found
}

/// What a server would answer: one address, or a code; `filler`: bytes of a further record.
fn response(query: &[u8], code: u8, filler: usize) -> Vec<u8> {
    let mut out = query.to_vec();
    out[2] |= 0x80;
    out[3] |= 0x80 | code;
    let mut add = |kind: u16, data: &[u8]| {
        out[7] += 1;
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(data);
    };
    if code == 0 {
        add(kind::A, &[9, 9, 9, 9]);
    }
    if filler > 0 {
        add(16, &vec![1; filler]);
    }
    out
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn names_of_networks() {
    let members =
        [member(&["web", "www", "web.site"], &["10.0.0.2", "fd00::2"]), member(&["db", "www"], &["10.0.0.3"])];
    let mut bench = Bench::new(&members, &[]);
    assert_eq!(bench.addresses("web", kind::A), (0, vec![ip("10.0.0.2")]));
    assert_eq!(bench.addresses("WEB.", kind::AAAA), (0, vec![ip("fd00::2")]));
    for name in ["web.app", "web.site", "web.site.app"] {
        assert_eq!(bench.addresses(name, kind::A), (0, vec![ip("10.0.0.2")]), "{name}");
    }
    assert_eq!(bench.addresses("db", kind::AAAA), (0, vec![]), "of the other family only");
    for of_others in [15, 16, 65] {
        assert_eq!(bench.addresses("db", of_others), (0, vec![]), "{of_others}");
    }
    assert_eq!(bench.addresses("web", kind::ANY).1.len(), 2);
    assert_eq!(bench.addresses("nobody", kind::A), (2, vec![]), "there are no servers");
    let orders: std::collections::HashSet<_> = (0..64).map(|_| bench.addresses("www", kind::A).1).collect();
    assert_eq!(orders.len(), 2, "shuffled");
    let pointer = bench.ask(&message::query(1, "3.0.0.10.in-addr.arpa", kind::PTR));
    assert!(pointer.ends_with(b"\x02db\x03app\0"));
    let pointer = bench.ask(&message::query(1, &format!("2.{}d.f.ip6.arpa", "0.".repeat(29)), kind::PTR));
    assert!(pointer.ends_with(b"\x03web\x03app\0"));
    dns::names::replace(&bench.dir.path().join("app"), &[member(&["new"], &["10.0.0.4"])]).unwrap();
    assert_eq!(bench.addresses("new", kind::A), (0, vec![ip("10.0.0.4")]));
    assert_eq!(bench.addresses("web", kind::A).0, 2);
}

#[test]
fn networks_have_their_order_and_links_come_first() {
    let mut bench = Bench::new(&[member(&["db"], &["10.0.0.2"])], &[]);
    let dir = bench.dir.path().to_owned();
    dns::names::replace(&dir.join("back"), &[member(&["db"], &["10.1.0.2"]), member(&["old"], &["10.1.0.3"])]).unwrap();
    let mut back = zone("back", &dir);
    back.aliases = vec![("sql".into(), "old".into()), ("old".into(), "db".into())];
    bench.resolver.change(ResolverSpec { zones: vec![back, zone("app", &dir)], ..ResolverSpec::default() });
    let mut first = |name: &str| bench.addresses(name, kind::A).1;
    assert_eq!(first("db"), [ip("10.1.0.2")]);
    assert_eq!(first("db.app"), [ip("10.0.0.2")]);
    assert_eq!(first("SQL"), [ip("10.1.0.3")]);
    assert_eq!(first("sql.back"), [ip("10.1.0.3")]);
    assert_eq!(first("old"), [ip("10.1.0.2")], "the link hides the name");
}

#[test]
fn a_server_of_the_container_may_have_port_53() {
    let mut bench = Bench::new(&[member(&["web"], &["10.0.0.2"])], &[]);
    let own = bench.socket("0.0.0.0:53");
    let own_tcp = bench.inside(|| TcpListener::bind("0.0.0.0:53")).unwrap();
    let other = bench.socket("127.0.0.1:0");
    other.send_to(b"mine", "127.0.0.1:53").unwrap();
    assert_eq!(bench.datagram(&own).0, b"mine");
    assert_eq!(bench.addresses("web", kind::A), (0, vec![ip("10.0.0.2")]));
    let mut stream = bench.stream();
    let query = message::query(5, "web", kind::A);
    stream.write_all(&framed(&query)).unwrap();
    let answer = bench.answer(&mut stream);
    assert_eq!(records(&query, &answer), [ip("10.0.0.2")]);
    own_tcp.set_nonblocking(true).unwrap();
    assert_eq!(own_tcp.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn servers_are_raced() {
    let mut bench = Bench::new(&[], &[FIRST, SECOND]);
    let (first, second, client) = (bench.server(FIRST), bench.server(SECOND), bench.client());
    let query = message::query(7, "example.com", kind::A);
    client.send(&query).unwrap();
    let (asked, from) = bench.datagram(&second);
    assert_ne!(from.port(), 53);
    assert_eq!(message::judge(&asked, &response(&query, 0, 0)), Verdict::Foreign, "a number of its own");
    second.send_to(&response(&asked, 0, 0), from).unwrap();
    assert_eq!(bench.datagram(&client).0, response(&query, 0, 0));
    assert_eq!(received(&first).unwrap().0, asked);
    // The silent one comes last for a while.
    let query = message::query(8, "example.org", kind::A);
    client.send(&query).unwrap();
    let (asked, from) = bench.datagram(&second);
    second.send_to(&response(&asked, 0, 0), from).unwrap();
    assert_eq!(bench.datagram(&client).0, response(&query, 0, 0));
    assert!(bench.resolver.forwards.deadline().is_none());
    assert!(bench.resolver.cache.answer(&Query::parse(&query).unwrap(), Instant::now(), &mut Vec::new()));
    client.send(&query).unwrap();
    assert_eq!(bench.datagram(&client).0, response(&query, 0, 0), "kept");
}

#[test]
fn servers_that_fail_are_passed_over() {
    let mut bench = Bench::new(&[], &[FIRST, SECOND]);
    let (first, second, client) = (bench.server(FIRST), bench.server(SECOND), bench.client());
    for (number, code) in [(1, rcode::SERVER_FAILURE), (2, rcode::REFUSED)] {
        let query = message::query(number, &format!("e{number}.com"), kind::A);
        client.send(&query).unwrap();
        let (asked, from) = bench.datagram(&first);
        first.send_to(&response(&asked, code, 0), from).unwrap();
        let (asked, from) = bench.datagram(&second);
        second.send_to(&response(&asked, 0, 0), from).unwrap();
        assert_eq!(bench.datagram(&client).0, response(&query, 0, 0));
        while received(&first).is_some() {}
    }
    // Both fail, one of them because nobody listens.
    drop(second);
    let query = message::query(3, "e3.com", kind::A);
    client.send(&query).unwrap();
    let (asked, from) = bench.datagram(&first);
    first.send_to(&response(&asked, rcode::REFUSED, 0), from).unwrap();
    assert_eq!(bench.datagram(&client).0[3] & 15, rcode::SERVER_FAILURE);
}

#[test]
fn the_first_server_has_the_last_word_on_names_that_are_not_there() {
    let mut bench = Bench::new(&[], &[FIRST, SECOND]);
    let (first, second, client) = (bench.server(FIRST), bench.server(SECOND), bench.client());
    // A machine that stands still for half a second may make the second one's word the last: then once more.
    let has_word = (0..50).any(|number| {
        bench.resolver.forwards = Forwards::default();
        for socket in [&first, &second, &client] {
            while received(socket).is_some() {}
        }
        let query = message::query(number, &format!("host{number}.corp"), kind::A);
        client.send(&query).unwrap();
        let (asked, from_first) = bench.datagram(&first);
        let (_, from_second) = bench.datagram(&second);
        second.send_to(&response(&asked, rcode::NO_SUCH_NAME, 0), from_second).unwrap();
        first.send_to(&response(&asked, 0, 0), from_first).unwrap();
        bench.datagram(&client).0 == response(&query, 0, 0)
    });
    assert!(has_word);
    // One that says nothing has its time.
    let query = message::query(80, "other.corp", kind::A);
    client.send(&query).unwrap();
    let (asked, from) = bench.datagram(&second);
    second.send_to(&response(&asked, rcode::NO_SUCH_NAME, 0), from).unwrap();
    assert_eq!(bench.datagram(&client).0, response(&query, rcode::NO_SUCH_NAME, 0));
}

#[test]
fn nobody_else_answers() {
    let mut bench = Bench::new(&[], &[FIRST]);
    let (first, stranger, client) = (bench.server(FIRST), bench.server(SECOND), bench.client());
    let query = message::query(7, "bank.example", kind::A);
    client.send(&query).unwrap();
    let (asked, from) = bench.datagram(&first);
    let mut other_question = message::query(message::id(&asked), "bank.exampel", kind::A);
    other_question = response(&other_question, 0, 0);
    for number in 0..u16::MAX {
        if number != message::id(&asked) && number % 1024 == 3 {
            let mut wrong = response(&asked, 0, 0);
            message::set_id(&mut wrong, number);
            first.send_to(&wrong, from).unwrap();
        }
    }
    first.send_to(&other_question, from).unwrap();
    first.send_to(&asked, from).unwrap();
    stranger.send_to(&response(&asked, 0, 0), from).unwrap();
    let mut right = response(&asked, 0, 0);
    let end = right.len() - 1;
    right[end] = 8;
    first.send_to(&right, from).unwrap();
    let answer = bench.datagram(&client).0;
    assert_eq!(records(&query, &answer), [ip("9.9.9.8")], "{answer:?}");
}

#[test]
fn large_answers_go_by_tcp() {
    let mut bench = Bench::new(&[], &[FIRST]);
    let (first, client) = (bench.server(FIRST), bench.client());
    let listener = bench.inside(|| TcpListener::bind((FIRST, 53))).unwrap();
    listener.set_nonblocking(true).unwrap();
    let query = message::query(7, "large.example", kind::A);
    client.send(&query).unwrap();
    let (asked, from) = bench.datagram(&first);
    first.send_to(&response(&asked, 0, 1000), from).unwrap();
    let answer = bench.datagram(&client).0;
    assert!(answer.len() <= 512 && answer[2] & 2 != 0, "cut, and says so");
    let mut stream = bench.stream();
    let query = message::query(8, "larger.example", kind::A);
    stream.write_all(&framed(&query)).unwrap();
    let mut upstream = bench.until(|| listener.accept().ok()).0;
    upstream.set_nonblocking(true).unwrap();
    let asked = bench.answer(&mut upstream);
    let filler = message::MAX_MESSAGE - response(&asked, 0, 1).len() + 1;
    let whole = response(&asked, 0, filler);
    assert_eq!(whole.len(), message::MAX_MESSAGE);
    let sent = framed(&whole);
    let mut at = 0;
    bench.until(|| {
        while let Ok(written) = upstream.write(&sent[at..]) {
            at += written;
            if at == sent.len() {
                return Some(());
            }
        }
        None
    });
    assert_eq!(bench.answer(&mut stream), response(&query, 0, filler));
    assert!(bench.resolver.out.capacity() <= 2 * MAX_QUERY);
}

#[test]
fn servers_without_tcp_are_asked_by_datagrams() {
    let mut bench = Bench::new(&[], &[FIRST]);
    let (first, mut stream) = (bench.server(FIRST), bench.stream());
    let query = message::query(8, "example.com", kind::A);
    stream.write_all(&framed(&query)).unwrap();
    let (asked, from) = bench.datagram(&first);
    first.send_to(&response(&asked, 0, 2000), from).unwrap();
    assert_eq!(bench.answer(&mut stream), response(&query, 0, 2000));
}

#[test]
fn sandboxes_without_a_way_out_ask_nobody() {
    let mut bench = Bench::new(&[member(&["web"], &["10.0.0.2"])], &[]);
    let zones = vec![zone("app", bench.dir.path())];
    bench.resolver.change(ResolverSpec { zones: zones.clone(), is_internal: true, ..ResolverSpec::default() });
    assert_eq!(bench.addresses("example.com", kind::A), (rcode::SERVER_FAILURE, vec![]));
    assert_eq!(bench.addresses("web", kind::A).0, 0);
    let spec = ResolverSpec { zones, is_internal: true, keeps_single_labels: true, ..ResolverSpec::default() };
    bench.resolver.change(spec);
    assert_eq!(bench.addresses("single", kind::A), (rcode::NO_ERROR, vec![]));
    assert_eq!(bench.addresses("two.labels", kind::A).0, rcode::SERVER_FAILURE);
}

#[test]
fn a_connection_asks_many_times() {
    let mut bench = Bench::new(&[member(&["web"], &["10.0.0.2"])], &[FIRST]);
    let (first, mut stream) = (bench.server(FIRST), bench.stream());
    // More than are dealt with at once, some of which have to be asked elsewhere.
    let names: Vec<String> = (0..60).map(|i| if i % 2 == 0 { "web".into() } else { format!("e{i}.com") }).collect();
    let queries = names.iter().enumerate().map(|(i, name)| framed(&message::query(i as u16, name, kind::A)));
    let all: Vec<u8> = queries.flatten().collect();
    stream.write_all(&all).unwrap();
    let (mut input, mut answered) = (Vec::new(), Vec::new());
    bench.until(|| {
        if let Some((asked, from)) = received(&first) {
            first.send_to(&response(&asked, 0, 0), from).unwrap();
        }
        let mut part = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut part) {
            input.extend_from_slice(&part[..read]);
        }
        while let Some(length) = input.first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length))) {
            let Some(answer) = input.get(2..2 + length) else { break };
            answered.push(message::id(answer));
            input.drain(..2 + length);
        }
        (answered.len() == 60).then_some(())
    });
    answered.sort_unstable();
    assert_eq!(answered, (0..60).collect::<Vec<_>>());
}

#[test]
fn connections_are_bounded() {
    let mut bench = Bench::new(&[member(&["web"], &["10.0.0.2"])], &[]);
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..200 {
        idle.push(bench.stream());
        // Each is accepted before the next one comes.
        let mut buffer = vec![0; 4096];
        bench.resolver.handle(&mut buffer);
    }
    let mut last = bench.stream();
    last.write_all(&framed(&message::query(1, "web", kind::A))).unwrap();
    assert!(!bench.answer(&mut last).is_empty());
    let closed = |stream: &mut TcpStream| matches!(stream.read(&mut [0; 1]), Ok(0));
    assert!(idle.iter_mut().filter_map(|stream| closed(stream).then_some(())).count() >= 200 - 64);
    // One that announces more than a query may have is let go.
    let mut greedy = bench.stream();
    greedy.write_all(&[0xff, 0xff, 0]).unwrap();
    bench.until(|| closed(&mut greedy).then_some(()));
    bench.resolver.expire(Instant::now() + Duration::from_secs(60));
    assert!(bench.resolver.deadline().is_none());
}

#[test]
fn a_flood_is_bounded_and_ends() {
    let mut bench = Bench::new(&[member(&["web"], &["10.0.0.2"])], &[FIRST]);
    let (_silent, client) = (bench.server(FIRST), bench.client());
    let mut refused = 0;
    for number in 0..3000u16 {
        client.send(&message::query(number, &format!("n{number}.example"), kind::A)).unwrap();
        let mut buffer = vec![0; 65_536];
        bench.resolver.handle(&mut buffer);
        while let Some((answer, _)) = received(&client) {
            assert_eq!(answer[3] & 15, rcode::REFUSED);
            refused += 1;
        }
    }
    // Some may have expired meanwhile, if the machine is slow.
    assert!(refused > 0 || bench.resolver.forwards.deadline().is_some());
    assert_eq!(bench.addresses("web", kind::A).0, 0, "names of ours are answered meanwhile");
    bench.resolver.expire(Instant::now());
    let end = Instant::now() + PATIENCE;
    while bench.resolver.forwards.deadline().is_some() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(20));
        bench.resolver.expire(Instant::now());
    }
    assert_eq!(bench.addresses("web", kind::A).0, 0);
}

#[test]
fn whatever_arrives_it_goes_on() {
    let mut bench = Bench::new(&[member(&["web"], &["10.0.0.2"])], &[FIRST]);
    let (client, mut seed) = (bench.client(), 7u64);
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u8
    };
    let mut buffer = vec![0; 65_536];
    for round in 0..2000 {
        let mut bytes = message::query(round, "web.example", kind::A);
        let at = usize::from(random()) % bytes.len();
        bytes[at] = random();
        bytes.extend((0..random() % 40).map(|_| random()));
        let _ = client.send(&bytes);
        if round % 100 == 0 {
            let mut stream = bench.stream();
            let _ = stream.write_all(&bytes);
        }
        bench.resolver.handle(&mut buffer);
        while received(&client).is_some() {}
    }
    let large = vec![0; 60_000];
    client.send(&large).unwrap();
    assert_eq!(bench.addresses("web", kind::A).0, 0);
}
