//! Links, addresses, routes, sockets that hold ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use rustix::io::Errno;
use sys::netlink::address::{self, Address};
use sys::netlink::link::{self, Bridge, LOOPBACK, Veth};
use sys::netlink::{Batch, Route, Socket, listen, namespace};

use crate::{in_namespace, output};

const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1));
const CONTAINER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2));

/// A bridge `br0` that is up with the gateway's address.
fn bridge(socket: &mut Socket) -> link::Link {
    let mut batch = Batch::new();
    link::create_bridge(&mut batch, &Bridge { name: "br0", mac: [2, 0, 0, 0, 0, 1], mtu: 1400 });
    socket.request(&mut batch).expect("bridge");
    let made = link::find(socket, "br0").expect("find").expect("br0");
    let mut batch = Batch::new();
    address::add(&mut batch, &Address { link: made.index, address: GATEWAY, prefix_len: 16 });
    link::set_up(&mut batch, made.index);
    socket.request(&mut batch).expect("address, up");
    link::find(socket, "br0").expect("find").expect("br0")
}

#[test]
fn bridge_is_made_as_asked() {
    in_namespace(|_| {
        let mut socket = Socket::route().unwrap();
        let made = bridge(&mut socket);
        assert_eq!((made.kind.as_str(), made.mac, made.mtu, made.up), ("bridge", Some([2, 0, 0, 0, 0, 1]), 1400, true));
        assert!(output("ip", &["addr", "show", "br0"]).contains("inet 172.17.0.1/16 brd 172.17.255.255"));
        let mut routes = address::list_routes(&mut socket).unwrap();
        routes.retain(|route| route.destination.is_ipv4());
        assert_eq!(routes.len(), 1);
        assert_eq!((routes[0].destination.to_string().as_str(), routes[0].prefix_len), ("172.17.0.0", 16));
        let mut batch = Batch::new();
        link::delete(&mut batch, "br0");
        socket.request(&mut batch).unwrap();
        assert_eq!(link::find(&mut socket, "br0").unwrap(), None);
        assert_eq!(link::list(&mut socket).unwrap().iter().filter(|l| l.name == "br0").count(), 0);
    });
}

#[test]
fn pair_appears_in_both_namespaces_and_answers() {
    in_namespace(|_| {
        let mut socket = Socket::route().unwrap();
        let br = bridge(&mut socket);
        let (inner, mut inner_socket) = namespace::create_with(|_| Socket::route()).unwrap();
        let outer = namespace::current().unwrap();
        let mut batch = Batch::new();
        let veth = Veth {
            name: "eth0",
            mac: [2, 0, 0, 0, 0, 2],
            index: 20,
            mtu: 1400,
            far_name: "vethabcdef0",
            far_namespace: outer.as_fd(),
        };
        link::set_up(&mut batch, LOOPBACK);
        link::create_veth(&mut batch, &veth);
        address::add(&mut batch, &Address { link: 20, address: CONTAINER, prefix_len: 16 });
        let route = Route::default_by(GATEWAY, 0);
        address::add_route(&mut batch, &route);
        inner_socket.request(&mut batch).unwrap();
        let mut batch = Batch::new();
        link::attach(&mut batch, "vethabcdef0", br.index);
        link::set_hairpin(&mut batch, "vethabcdef0");
        socket.request(&mut batch).unwrap();

        let host_end = link::find(&mut socket, "vethabcdef0").unwrap().unwrap();
        assert_eq!((host_end.kind.as_str(), host_end.master, host_end.up), ("veth", br.index, true));
        assert!(output("ip", &["-d", "link", "show", "vethabcdef0"]).contains("hairpin on"));
        let eth0 = link::find(&mut inner_socket, "eth0").unwrap().unwrap();
        assert_eq!((eth0.index, eth0.mac, eth0.mtu, eth0.up), (20, Some([2, 0, 0, 0, 0, 2]), 1400, true));
        let routes = address::list_routes(&mut inner_socket).unwrap();
        assert!(routes.iter().any(|r| r.prefix_len == 0 && r.gateway == Some(GATEWAY)), "{routes:?}");
        namespace::enter(inner.as_fd(), || {
            output("busybox", &["ping", "-c", "1", "-W", "30", "172.17.0.1"]);
            Ok(())
        })
        .unwrap();
    });
}

#[test]
fn refusals_name_the_message() {
    in_namespace(|_| {
        let mut socket = Socket::route().unwrap();
        bridge(&mut socket);
        let mut batch = Batch::new();
        link::set_up(&mut batch, LOOPBACK);
        link::create_bridge(&mut batch, &Bridge { name: "br0", mac: [2, 0, 0, 0, 0, 1], mtu: 1500 });
        let error = socket.request(&mut batch).unwrap_err();
        assert_eq!((error.index, error.label, error.errno), (1, "create bridge", Errno::EXIST));
        let mut batch = Batch::new();
        link::delete(&mut batch, "nothing0");
        assert_eq!(socket.request(&mut batch).unwrap_err().errno, Errno::NODEV);
        let mut batch = Batch::new();
        let route = Route {
            destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            prefix_len: 0,
            gateway: Some(IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9))),
            link: 0,
        };
        address::add_route(&mut batch, &route);
        let error = socket.request(&mut batch).unwrap_err();
        assert!(error.text.contains("gateway"), "the kernel's words: {error}");
    });
}

#[test]
fn link_settings_change() {
    in_namespace(|_| {
        let mut socket = Socket::route().unwrap();
        let br = bridge(&mut socket);
        let mut batch = Batch::new();
        link::set_mtu(&mut batch, br.index, 1300);
        link::set_mac(&mut batch, br.index, [2, 0, 0, 0, 0, 9]);
        address::set_neighbour(&mut batch, br.index, CONTAINER, [2, 0, 0, 0, 0, 2]);
        address::set_neighbour(&mut batch, br.index, CONTAINER, [2, 0, 0, 0, 0, 3]);
        socket.request(&mut batch).unwrap();
        let changed = link::find(&mut socket, "br0").unwrap().unwrap();
        assert_eq!((changed.mtu, changed.mac), (1300, Some([2, 0, 0, 0, 0, 9])));
        assert!(output("ip", &["neigh", "show", "dev", "br0"]).contains("02:00:00:00:00:03"));
        let mut batch = Batch::new();
        address::remove(&mut batch, &Address { link: br.index, address: GATEWAY, prefix_len: 16 });
        socket.request(&mut batch).unwrap();
        assert!(address::list(&mut socket).unwrap().iter().all(|a| a.address != GATEWAY));
    });
}

#[test]
fn port_sockets_are_deaf_until_told() {
    in_namespace(|_| {
        let any = SocketAddr::from(([127, 0, 0, 1], 8081));
        let filter = listen::Filter::load();
        let (kind, own) = (listen::Kind::Tcp, listen::Reach::Own);
        let (later, never) = (listen::Opening::Later, listen::Opening::Never);
        let socket = listen::bind(kind, (any, own), (later, &filter)).unwrap();
        assert!(std::net::TcpStream::connect(any).is_err(), "refused");
        listen::start(kind, &socket).unwrap();
        std::net::TcpStream::connect_timeout(&any, std::time::Duration::from_secs(30)).unwrap();
        let second = listen::bind(kind, (any, own), (later, &filter)).unwrap_err();
        assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);
        let deaf = SocketAddr::from(([127, 0, 0, 1], 8083));
        let _deaf = listen::bind(kind, (deaf, own), (never, &filter)).unwrap();
        let soon = std::time::Duration::from_millis(100);
        assert!(std::net::TcpStream::connect_timeout(&deaf, soon).is_err(), "deaf");
        let v6 = SocketAddr::from(([0u16; 8], 8082));
        let _both = (
            listen::bind(kind, (v6, own), (never, &filter)).unwrap(),
            listen::bind(kind, (SocketAddr::from(([0; 4], 8082)), own), (never, &filter)).unwrap(),
        );
        listen::bind(listen::Kind::Udp, (v6, own), (later, &filter)).unwrap();
        let both = (SocketAddr::from(([0u16; 8], 8082)), listen::Reach::Both);
        assert!(listen::bind(kind, both, (later, &filter)).is_err(), "one family has it");
        assert!(listen::has_ipv6());
    });
}

/// Addresses and routes of IPv6, and a default route that is replaced.
#[test]
fn both_families() {
    in_namespace(|_| {
        let mut socket = Socket::route().unwrap();
        let br = bridge(&mut socket);
        let own: IpAddr = "fd00:1::1".parse().unwrap();
        let mut batch = Batch::new();
        address::add(&mut batch, &Address { link: br.index, address: own, prefix_len: 64 });
        address::add_route(&mut batch, &Route::default_by("fd00:1::2".parse().unwrap(), br.index));
        address::replace_route(&mut batch, &Route::default_by("fd00:1::3".parse().unwrap(), br.index));
        address::replace_route(&mut batch, &Route::default_by(CONTAINER, br.index));
        address::set_neighbour(&mut batch, br.index, "fd00:1::9".parse().unwrap(), [2, 0, 0, 0, 0, 9]);
        socket.request(&mut batch).unwrap();
        let addresses = address::list(&mut socket).unwrap();
        let text = |address: &Address| format!("{}/{}", address.address, address.prefix_len);
        let kept = addresses.iter().filter(|a| a.link == br.index && !a.is_link_local()).map(text);
        assert_eq!(kept.collect::<Vec<_>>(), ["172.17.0.1/16", "fd00:1::1/64"]);
        let routes = address::list_routes(&mut socket).unwrap();
        let gateways = routes.iter().filter(|r| r.prefix_len == 0).filter_map(|r| r.gateway);
        assert_eq!(gateways.map(|g| g.to_string()).collect::<Vec<_>>(), ["172.17.0.2", "fd00:1::3"]);
        assert!(output("ip", &["-6", "neigh"]).contains("fd00:1::9 dev br0 lladdr 02:00:00:00:00:09"));
        let mut batch = Batch::new();
        address::remove(&mut batch, &Address { link: br.index, address: own, prefix_len: 64 });
        socket.request(&mut batch).unwrap();
        assert!(!address::list(&mut socket).unwrap().iter().any(|a| a.address == own));
    });
}

/// A link on a parent, made in another namespace; what the kernel lacks is refused by that.
#[test]
fn links_on_a_parent() {
    use sys::netlink::link::{OnLink, Upper};
    in_namespace(|_| {
        let mut socket = Socket::route().unwrap();
        let br = bridge(&mut socket);
        let (inner, mut inner_socket) = namespace::create_with(|_| Socket::route()).unwrap();
        let mut batch = Batch::new();
        let (mac, mtu) = (Some([2, 0, 0, 0, 0, 7]), Some(1300));
        let namespace = Some(inner.as_fd());
        let kind = Upper::Macvlan { mode: 4 };
        link::create_on_link(
            &mut batch,
            &OnLink { name: "mv0", mac, index: 7, parent: br.index, mtu, kind, namespace },
        );
        socket.request(&mut batch).unwrap();
        let made = link::find(&mut inner_socket, "mv0").unwrap().unwrap();
        assert_eq!((made.kind.as_str(), made.mac, made.mtu, made.up), ("macvlan", mac, 1300, false));
        assert_eq!(made.index, 7);
    });
}
