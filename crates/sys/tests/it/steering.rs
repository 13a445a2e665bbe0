//! Steering packets and connections to sockets of another port.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use crate::Case;

pub const CASES: &[Case] = &[
    ("steering::what_is_meant_for_one_address_is_steered", what_is_meant_for_one_address_is_steered),
    ("steering::work_in_another_namespace_ends_at_home", work_in_another_namespace_ends_at_home),
];

const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

fn what_is_meant_for_one_address_is_steered() {
    sys::ns::loopback_up().unwrap();
    let udp = UdpSocket::bind((ADDRESS, 0)).unwrap();
    let tcp = TcpListener::bind((ADDRESS, 0)).unwrap();
    let home = sys::netlink::namespace::current().unwrap();
    let targets = sys::steer::Targets { udp: udp.as_fd(), tcp: tcp.as_fd() };
    let link = sys::steer::steer(home.as_fd(), (ADDRESS, 53), targets).unwrap();
    // Somebody else's server takes the rest.
    let other = UdpSocket::bind("0.0.0.0:53").unwrap();
    let other_tcp = TcpListener::bind("0.0.0.0:53").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"mine", (ADDRESS, 53)).unwrap();
    client.send_to(b"other", "127.0.0.1:53").unwrap();
    let mut buffer = [0; 16];
    assert_eq!(udp.recv_from(&mut buffer).unwrap(), (4, client.local_addr().unwrap()));
    assert_eq!(other.recv_from(&mut buffer).unwrap().0, 5);
    let mut stream = TcpStream::connect((ADDRESS, 53)).unwrap();
    stream.write_all(b"hello").unwrap();
    let (mut accepted, _) = tcp.accept().unwrap();
    accepted.read_exact(&mut buffer[..5]).unwrap();
    assert_eq!((&buffer[..5], accepted.local_addr().unwrap().port()), (&b"hello"[..], 53));
    drop(link);
    client.send_to(b"late", (ADDRESS, 53)).unwrap();
    assert_eq!(other.recv_from(&mut buffer).unwrap().0, 4, "once the link is closed");
    let _stream = TcpStream::connect((ADDRESS, 53)).unwrap();
    let _ = other_tcp.accept().unwrap();
}

fn work_in_another_namespace_ends_at_home() {
    let home = sys::netlink::namespace::current().unwrap();
    let before = sys::netlink::namespace::cookie().unwrap();
    let other = sys::netlink::namespace::create().unwrap();
    let inside = sys::ns::in_network(other.as_fd(), home.as_fd(), sys::netlink::namespace::cookie).unwrap();
    assert_ne!(inside, before);
    assert_eq!(sys::netlink::namespace::cookie().unwrap(), before);
    let failed = sys::ns::in_network(other.as_fd(), home.as_fd(), || {
        Err::<(), _>(std::io::Error::from(std::io::ErrorKind::Other))
    });
    assert!(failed.is_err());
    assert_eq!(sys::netlink::namespace::cookie().unwrap(), before);
}
