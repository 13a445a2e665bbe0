//! The daemon's options about networks, each by what containers and their neighbours see of it.

use serde_json::Value;
use testkit::{Daemon, Options};

use crate::eventually;
use crate::network::with_peer;

/// A daemon with these words and the image `busybox`.
#[track_caller]
fn with(words: &[&str]) -> Daemon {
    let d = Options::new().args(words).start();
    d.busybox();
    d
}

/// What a script says in a container of its own.
#[track_caller]
fn said(d: &Daemon, options: &[&str], script: &str) -> String {
    d.docker(&[&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat()).text()
}

/// A container that serves its name at port 80; its address.
#[track_caller]
fn server(d: &Daemon, name: &str, options: &[&str]) -> String {
    let script = "mkdir -p /www && hostname > /www/index.html && httpd -f -p 80 -h /www";
    let words = [&["run", "-d", "--name", name, "-h", name], options, &["busybox", "sh", "-c", script]].concat();
    let _ = d.docker(&words).ok();
    d.inspect(name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
}

fn warnings(d: &Daemon) -> String {
    d.http("GET", "/info", "").expect(200).json()["Warnings"].to_string()
}

#[test]
fn default_options_of_new_networks() {
    let d = with(&[
        "--default-network-opt",
        "bridge=com.docker.network.driver.mtu=1400",
        "--default-network-opt",
        "bridge=com.docker.network.container_iface_prefix=lan",
        "--default-network-opt",
        "macvlan=com.docker.network.driver.mtu=1300",
        "--mtu",
        "1450",
    ]);
    let _ = d.docker(&["network", "create", "plain"]).ok();
    let _ = d.docker(&["network", "create", "-o", "com.docker.network.driver.mtu=1350", "own"]).ok();
    let mtu = |network: &str, link: &str| said(&d, &["--network", network], &format!("cat /sys/class/net/{link}/mtu"));
    assert_eq!([mtu("plain", "lan0"), mtu("own", "lan0"), mtu("bridge", "eth0")], ["1400", "1350", "1450"]);
    let shown = d.http("GET", "/networks/own", "").expect(200).json();
    assert_eq!(shown["Options"]["com.docker.network.container_iface_prefix"], "lan");
    let _ = d.docker(&["network", "rm", "plain", "own"]).ok();
    d.finish();
}

#[test]
fn defaults_of_name_servers_and_the_hosts_gateway() {
    let words = ["--dns", "9.9.9.9", "--dns", "fd00::53", "--dns-search", "example.org", "--dns-opt", "ndots:3"];
    let d = with(&[&words[..], &["--host-gateway-ip", "10.1.2.3", "--host-gateway-ip", "fd00::1"]].concat());
    let resolv = said(&d, &[], "cat /etc/resolv.conf");
    for wanted in ["nameserver 9.9.9.9", "nameserver fd00::53", "search example.org", "options ndots:3"] {
        assert!(resolv.contains(wanted), "{resolv}");
    }
    let own = said(&d, &["--dns", "1.1.1.1", "--dns-search", "."], "cat /etc/resolv.conf");
    assert!(own.contains("nameserver 1.1.1.1") && !own.contains("9.9.9.9") && !own.contains("example.org"), "{own}");
    let hosts = said(&d, &["--add-host", "up:host-gateway"], "cat /etc/hosts");
    assert!(hosts.contains("10.1.2.3\tup"), "{hosts}");
    d.finish();
}

#[test]
fn the_default_bridge_of_both_families() {
    let d = with(&[
        "--ipv6",
        "--bip",
        "10.77.0.9/24",
        "--fixed-cidr",
        "10.77.0.64/29",
        "--default-gateway",
        "10.77.0.1",
        "--bip6",
        "fd00:77::9/64",
        "--fixed-cidr-v6",
        "fd00:77::8000/120",
        "--default-gateway-v6",
        "fd00:77::1",
    ]);
    let all =
        said(&d, &[], "ip -o addr show eth0; ip route; ip -6 route; ping -c1 -W30 10.77.0.9; ping -c1 -W30 fd00:77::9");
    for wanted in [
        "10.77.0.64/24",
        "fd00:77::8000/64",
        "default via 10.77.0.1 dev eth0",
        "default via fd00:77::1 dev eth0",
        "64 bytes from 10.77.0.9",
        "64 bytes from fd00:77::9",
    ] {
        assert!(all.contains(wanted), "{wanted}: {all}");
    }
    let shown = d.http("GET", "/networks/bridge", "").expect(200).json();
    assert_eq!(shown["EnableIPv6"], true);
    let config = |at: usize, field: &str| shown["IPAM"]["Config"][at][field].clone();
    assert_eq!(
        [config(0, "Subnet"), config(0, "IPRange"), config(1, "Subnet"), config(1, "IPRange")],
        ["10.77.0.0/24", "10.77.0.64/29", "fd00:77::/64", "fd00:77::8000/120"].map(Value::from)
    );
    d.finish();
}

/// Published ports at the containers' own addresses, for another machine with a route to them.
#[test]
fn direct_routing_is_asked_for() {
    let reached = |d: &Daemon, address: &str| {
        let mut told = String::new();
        with_peer(d, |peer| {
            let port = |port: u16| peer(&format!("curl -s -m 20 http://10.9.0.1:{port}/")).stdout;
            assert!(eventually(|| port(8080) == "web\n"), "{}", port(8080));
            told = peer(&format!("curl -s -m 3 http://{address}/")).stdout;
        });
        told
    };
    let d = with(&[]);
    let address = server(&d, "web", &["-p", "8080:80"]);
    assert_eq!(reached(&d, &address), "");
    d.finish();
    let d = with(&["--allow-direct-routing"]);
    let address = server(&d, "web", &["-p", "8080:80"]);
    assert_eq!(reached(&d, &address), "web\n");
    assert!(!warnings(&d).contains("IPTABLES_RAW"));
    d.finish();
    let d = Options::new().env("DOCKER_INSECURE_NO_IPTABLES_RAW", "1").start();
    d.busybox();
    let address = server(&d, "web", &["-p", "8080:80"]);
    assert_eq!(reached(&d, &address), "web\n");
    assert!(warnings(&d).contains("WARNING: DOCKER_INSECURE_NO_IPTABLES_RAW is set"));
    d.finish();
}

/// Without rules published ports are served by the proxy; the backend that is named is told truly.
#[test]
fn without_rules_the_proxy_serves() {
    let d = with(&["--iptables=false", "--ip6tables=false", "--firewall-backend", "iptables"]);
    let shown = d.http("GET", "/info", "").expect(200).json();
    assert_eq!(shown["FirewallBackend"]["Driver"], "nftables");
    let _ = server(&d, "web", &["-p", "8080:80"]);
    with_peer(&d, |peer| {
        assert!(eventually(|| peer("curl -s -m 20 http://10.9.0.1:8080/").stdout == "web\n"));
    });
    assert_ne!(d.exec_inside(&["nft", "list", "table", "inet", "gantry"]).code, 0);
    d.finish();
}

#[test]
fn the_host_address_of_ports() {
    let d = with(&["--ip", "127.0.0.1"]);
    let _ = server(&d, "web", &["-p", "8080:80"]);
    assert_eq!(d.docker(&["port", "web", "80"]).text(), "127.0.0.1:8080");
    assert!(eventually(|| d.exec_inside(&["curl", "-s", "-m", "20", "http://127.0.0.1:8080/"]).stdout == "web\n"));
    with_peer(&d, |peer| assert_eq!(peer("curl -s -m 3 http://10.9.0.1:8080/").stdout, ""));
    d.finish();
}
