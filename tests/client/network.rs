//! The default bridge, published ports, host and none.

use testkit::Daemon;

use crate::{eventually, with_busybox, with_images};

fn serve(d: &Daemon, name: &str, publish: &str) {
    let script = "mkdir -p /www && hostname > /www/index.html && httpd -f -p 80 -h /www";
    let _ = d.docker(&["run", "-d", "--name", name, "-h", name, "-p", publish, "busybox", "sh", "-c", script]).ok();
}

fn fetch(d: &Daemon, url: &str) -> String {
    let mut text = String::new();
    eventually(|| {
        let output = d.exec_inside(&["curl", "-s", "-m", "20", url]);
        text = output.stdout;
        output.code == 0
    });
    text
}

#[test]
fn addresses_routes_and_names() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "a1", "busybox", "sleep", "1000"]).ok();
    let address = d.inspect("a1", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    assert!(address.starts_with("172.17.0."), "{address}");
    assert_eq!(d.inspect("a1", "{{.NetworkSettings.Networks.bridge.Gateway}}"), "172.17.0.1");
    let routes = d.docker(&["exec", "a1", "ip", "route"]).text();
    assert!(
        routes.contains("default via 172.17.0.1 dev eth0") && routes.contains("172.17.0.0/16 dev eth0"),
        "{routes}"
    );
    assert!(d.docker(&["exec", "a1", "cat", "/etc/hosts"]).text().contains(&address));
    assert_eq!(d.docker(&["exec", "a1", "cat", "/sys/class/net/eth0/mtu"]).text(), "1500");
    assert!(d.exec_inside(&["ip", "-br", "addr", "show", "docker0"]).text().contains("172.17.0.1/16"));
    let ping = d.docker(&["run", "--rm", "busybox", "ping", "-c1", "-W30", &address]);
    assert_eq!(ping.code, 0, "{ping:?}");
    assert_eq!(d.docker(&["run", "--rm", "busybox", "ping", "-c1", "-W30", "172.17.0.1"]).code, 0);
    d.finish();
}

#[test]
fn addresses_are_given_back() {
    let d = with_busybox();
    for _ in 0..5 {
        let _ = d.docker(&["run", "--rm", "busybox", "true"]).ok();
    }
    let inside = d.docker(&["run", "--rm", "busybox", "ip", "-o", "-4", "addr", "show", "eth0"]).text();
    assert!(inside.contains("172.17.0."), "{inside}");
    // Links of ended containers go beside the answer, not before it.
    let links = || d.exec_inside(&["ip", "-o", "link"]).text();
    let few = eventually(|| links().lines().count() == 2);
    assert!(few, "more than lo and docker0: {}", links());
    d.finish();
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    let d = with_busybox();
    serve(&d, "web", "8081:80");
    assert_eq!(fetch(&d, "http://127.0.0.1:8081/"), "web\n");
    assert_eq!(fetch(&d, "http://172.17.0.1:8081/"), "web\n");
    // Hairpin: another container through the host's address.
    let other = d.docker(&["run", "--rm", "busybox", "wget", "-q", "-O-", "http://172.17.0.1:8081/"]);
    assert_eq!(other.text(), "web");
    assert_eq!(d.docker(&["port", "web"]).text().lines().next(), Some("80/tcp -> 0.0.0.0:8081"));
    assert!(d.docker(&["ps", "--format", "{{.Ports}}"]).text().contains("0.0.0.0:8081->80/tcp"));
    let _ = d.docker(&["rm", "-f", "web"]).ok();
    assert_ne!(d.exec_inside(&["curl", "-s", "-m", "2", "http://127.0.0.1:8081/"]).code, 0);
    d.finish();
}

/// Runs `script` with a neighbouring machine: behind the link `up0` (10.9.0.1 here, 10.9.0.2 there), with a route to the
/// containers. It runs commands over there.
pub fn with_peer(d: &Daemon, script: impl FnOnce(&dyn Fn(&str) -> testkit::command::Output)) {
    // Names of namespaces are files, which tests beside this one see.
    let name = format!("peer{}", d.pid());
    let setup = format!(
        "ip netns add {name} && ip link add up0 type veth peer name eth0 netns {name} && ip addr add 10.9.0.1/24 dev up0 \
         && ip link set up0 up && ip -n {name} addr add 10.9.0.2/24 dev eth0 && ip -n {name} link set eth0 up \
         && ip -n {name} route add 172.16.0.0/12 via 10.9.0.1"
    );
    let _ = d.exec_inside(&["sh", "-c", &setup]).ok();
    script(&|words| d.exec_inside(&["sh", "-c", &format!("ip netns exec {name} {words}")]));
    let clear = format!("ip link del up0; ip netns del {name}; umount /run/netns 2>/dev/null; true");
    let _ = d.exec_inside(&["sh", "-c", &clear]);
}

#[test]
fn from_another_machine() {
    let d = with_busybox();
    serve(&d, "web", "8081:80");
    with_peer(&d, |peer| {
        assert!(eventually(|| peer("curl -s -m 20 http://10.9.0.1:8081/").stdout == "web\n"));
    });
    d.finish();
}

#[test]
fn udp() {
    let d = with_images();
    let _ = d.docker(&["run", "-d", "--name", "u1", "-p", "9053:53/udp", "probe", "udp-echo", "53"]).ok();
    let probe = testkit::places::program("gantry-probe").display().to_string();
    for address in ["127.0.0.1:9053", "172.17.0.1:9053"] {
        let mut answer = String::new();
        let answered = eventually(|| {
            answer = d.exec_inside(&[&probe, "udp-ask", address, "hello"]).stdout;
            answer == "hello\n"
        });
        assert!(answered, "{address}: {answer:?}");
    }
    assert_eq!(d.docker(&["port", "u1"]).text().lines().next(), Some("53/udp -> 0.0.0.0:9053"));
    d.finish();
}

#[test]
fn a_taken_port_is_an_error_at_once() {
    let d = with_busybox();
    serve(&d, "one", "8081:80");
    let output = d.docker(&["run", "-d", "--name", "two", "-p", "8081:80", "busybox", "sleep", "1"]);
    assert_eq!(output.code, 125);
    assert!(output.stderr.contains("port is already allocated"), "{output:?}");
    assert_eq!(d.inspect("two", "{{.State.Status}}"), "created");
    // Ephemeral and loopback-only.
    let _ = d
        .docker(&[
            "run",
            "-d",
            "--name",
            "e1",
            "-p",
            "127.0.0.1::80",
            "busybox",
            "sh",
            "-c",
            "echo e > /index.html; httpd -f -p 80 -h /",
        ])
        .ok();
    let port = d.docker(&["port", "e1", "80"]).text();
    assert!(port.starts_with("127.0.0.1:"), "{port}");
    assert_eq!(fetch(&d, &format!("http://{port}/")), "e\n");
    d.finish();
}

#[test]
fn none_and_host() {
    let d = with_busybox();
    assert_eq!(
        d.docker(&["run", "--rm", "--network", "none", "busybox", "ip", "-o", "link"]).text().lines().count(),
        1
    );
    assert_eq!(d.docker(&["run", "--rm", "--network", "none", "busybox", "ping", "-c1", "-W30", "127.0.0.1"]).code, 0);
    assert!(d.docker(&["run", "--rm", "--network", "host", "busybox", "ip", "-o", "link"]).text().contains("docker0"));
    let _ = d.docker(&["run", "-d", "--name", "a1", "busybox", "sleep", "100"]).ok();
    let address = d.inspect("a1", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    assert!(d.docker(&["run", "--rm", "--network", "container:a1", "busybox", "ip", "addr"]).text().contains(&address));
    d.docker(&["run", "--rm", "--network", "nosuch", "busybox", "true"]).fails(125, "network nosuch not found");
    d.finish();
}

/// B-nw-9
#[test]
fn who_joins_a_network_joins_its_names_too() {
    let d = with_busybox();
    let host = ["-h", "first", "--domainname", "example.org", "--add-host", "far:10.1.2.3"];
    let _ = d.docker(&[&["run", "-d", "--name", "a1"], &host[..], &["busybox", "sleep", "1000"]].concat()).ok();
    let hosts = d.docker(&["exec", "a1", "cat", "/etc/hosts"]).text();
    for (name, joined) in [("a2", "container:a1"), ("a3", "container:a2")] {
        let _ = d.docker(&["run", "-d", "--name", name, "--network", joined, "busybox", "sleep", "1000"]).ok();
        assert_eq!(d.docker(&["exec", name, "hostname"]).text(), "first");
        assert_eq!(d.docker(&["exec", name, "cat", "/etc/hosts"]).text(), hosts);
        assert_eq!(d.inspect(name, "{{.Config.Hostname}}.{{.Config.Domainname}}"), "first.example.org");
        assert_eq!(d.inspect(name, "{{.HostsPath}}"), d.inspect("a1", "{{.HostsPath}}"));
        assert_eq!(d.inspect(name, "{{.NetworkSettings.SandboxID}}{{.NetworkSettings.SandboxKey}}"), "");
    }
    d.finish();
}

#[test]
fn name_servers_and_extra_hosts() {
    let d = with_busybox();
    let run =
        |args: &[&str], file: &str| d.docker(&[&["run", "--rm"], args, &["busybox", "cat", file]].concat()).text();
    let resolv =
        run(&["--dns", "9.9.9.9", "--dns-search", "example.org", "--dns-option", "ndots:3"], "/etc/resolv.conf");
    for wanted in ["nameserver 9.9.9.9", "search example.org", "options ndots:3"] {
        assert!(resolv.contains(wanted), "{resolv}");
    }
    assert!(run(&["--add-host", "far:10.1.2.3"], "/etc/hosts").contains("10.1.2.3\tfar"));
    assert!(run(&["--add-host", "up:host-gateway"], "/etc/hosts").contains("172.17.0.1\tup"));
    d.finish();
}

#[test]
fn ports_survive_a_crash_of_the_daemon() {
    let mut d = with_busybox();
    serve(&d, "web", "8081:80");
    assert_eq!(fetch(&d, "http://127.0.0.1:8081/"), "web\n");
    d.kill9();
    assert_eq!(fetch(&d, "http://127.0.0.1:8081/"), "web\n");
    assert_eq!(fetch(&d, "http://172.17.0.1:8081/"), "web\n");
    d.again();
    assert_eq!(fetch(&d, "http://127.0.0.1:8081/"), "web\n");
    let output = d.docker(&["run", "-d", "-p", "8081:80", "busybox", "sleep", "1"]);
    assert!(output.stderr.contains("port is already allocated"), "{output:?}");
    d.finish();
}

#[test]
fn the_engine_owns_one_table() {
    let d = with_busybox();
    let _ = d.exec_inside(&["nft", "add table inet strangers"]).ok();
    serve(&d, "web", "8081:80");
    let tables = d.exec_inside(&["nft", "list", "tables"]).text();
    assert!(tables.contains("table inet strangers"), "{tables}");
    let _ = d.exec_inside(&["nft", "delete table inet strangers"]).ok();
    d.finish();
}

#[test]
fn a_flushed_ruleset_opens_no_unpublished_port() {
    let mut d = with_busybox();
    serve(&d, "web", "8081:80");
    let address = d.inspect("web", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    let rules = |d: &Daemon| d.exec_inside(&["nft", "-s", "list", "table", "inet", "gantry"]);
    let whole = rules(&d).ok();
    for round in 0..2 {
        for attack in ["flush ruleset", "delete table inet gantry", "flush chain inet gantry forward"] {
            let _ = d.exec_inside(&["nft", attack]).ok();
            assert!(eventually(|| rules(&d).stdout == whole.stdout), "round {round}, {attack}");
        }
        with_peer(&d, |peer| {
            assert!(eventually(|| peer("curl -s -m 20 http://10.9.0.1:8081/").stdout == "web\n"));
            assert_ne!(peer(&format!("curl -s -m 2 http://{address}:80/")).code, 0);
        });
        d.kill9();
        d.again();
    }
    d.finish();
}

#[test]
fn a_bridge_made_anew_serves_old_and_new_containers() {
    let d = with_busybox();
    serve(&d, "web", "8081:80");
    let address = d.inspect("web", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    let _ = d.exec_inside(&["sh", "-c", "ip link del docker0 && ip link add docker0 type bridge"]).ok();
    let fetch_it = format!("http://{address}/");
    assert_eq!(d.docker(&["run", "--rm", "busybox", "wget", "-q", "-O-", &fetch_it]).text(), "web");
    assert_eq!(fetch(&d, "http://172.17.0.1:8081/"), "web\n");
    d.finish();
}

#[test]
fn a_disabled_network_is_none() {
    let d = with_busybox();
    let body = r#"{"Image":"busybox","Cmd":["ls","/sys/class/net"],"NetworkDisabled":true}"#;
    let _ = d.http("POST", "/containers/create?name=alone", body).expect(201);
    assert_eq!(d.docker(&["start", "-a", "alone"]).text(), "lo");
    let networks = |query: &str| d.http("GET", query, "").expect(200).json()["NetworkSettings"]["Networks"].clone();
    assert_eq!(networks("/containers/alone/json"), serde_json::json!({}));
    let _ = d.docker(&["run", "-d", "--name", "other", "busybox", "sleep", "100"]).ok();
    let body = r#"{"Image":"busybox","Cmd":["sleep","100"],"NetworkDisabled":true}"#;
    let _ = d.http("POST", "/containers/create?name=runs", body).expect(201);
    let _ = d.docker(&["start", "runs"]).ok();
    assert_eq!(networks("/containers/runs/json"), serde_json::json!({}));
    let listed = d.http("GET", "/containers/json?filters=%7B%22name%22%3A%5B%22runs%22%5D%7D", "").expect(200).json();
    assert_eq!(listed[0]["NetworkSettings"]["Networks"], serde_json::json!({}));
    d.finish();
}

/// Exposed ports are shown, without a binding, of containers that a bridge knows of, and of no others.
#[test]
fn exposed_ports_are_those_of_a_bridge() {
    let d = with_busybox();
    let _ = d.docker(&["network", "create", "--internal", "inner"]).ok();
    let run = |name: &str, network: &str| {
        let words = ["run", "-d", "--name", name, "--network", network, "--expose", "99", "-p", "8081:80"];
        let _ = d.docker(&[&words[..], &["busybox", "sleep", "1000"]].concat()).ok();
    };
    let told = |name: &str| d.inspect(name, "{{json .NetworkSettings.Ports}}");
    let listed = |name: &str| d.docker(&["ps", "--format", "{{.Ports}}", "-f", &format!("name=^{name}$")]).text();
    run("nowhere", "none");
    run("host", "host");
    let _ =
        d.docker(&["run", "-d", "--name", "joined", "--network", "container:host", "busybox", "sleep", "1000"]).ok();
    for name in ["nowhere", "host", "joined"] {
        assert_eq!((told(name), listed(name)), ("{}".to_owned(), String::new()), "{name}");
    }
    run("inside", "inner");
    assert_eq!(told("inside"), r#"{"80/tcp":null,"99/tcp":null}"#);
    assert_eq!(listed("inside"), "80/tcp, 99/tcp");
    let _ = d.docker(&["network", "connect", "bridge", "inside"]).ok();
    assert!(told("inside").contains(r#""HostPort":"8081""#) && told("inside").contains(r#""99/tcp":null"#));
    let _ = d.docker(&["network", "disconnect", "inner", "inside"]).ok();
    let _ = d.docker(&["network", "disconnect", "bridge", "inside"]).ok();
    assert_eq!((told("inside"), listed("inside")), ("{}".to_owned(), String::new()), "on no network");
    d.finish();
}

#[test]
fn without_a_default_network_containers_have_loopback_only() {
    let mut d = with_busybox();
    let _ = d.docker(&["create", "--name", "old", "busybox", "ls", "/sys/class/net"]).ok();
    assert!(d.exec_inside(&["ip", "link", "show", "docker0"]).code == 0);
    d.stop();
    d.again_with(&["-b", "none"]);
    assert_ne!(d.exec_inside(&["ip", "link", "show", "docker0"]).code, 0, "docker0 is removed");
    assert_eq!(d.docker(&["network", "ls", "--format", "{{.Name}}"]).text(), "host\nnone");
    assert_eq!(d.docker(&["start", "-a", "old"]).text(), "lo");
    for network in [&[][..], &["--network", "default"], &["--network", "bridge"], &["-p", "8081:80"]] {
        let run = [&["run", "--rm"], network, &["busybox", "ls", "/sys/class/net"]].concat();
        assert_eq!(d.docker(&run).text(), "lo", "{network:?}");
    }
    let _ = d.docker(&["run", "-d", "--name", "runs", "busybox", "sleep", "100"]).ok();
    assert_eq!(d.inspect("runs", "{{.NetworkSettings.Networks.bridge.IPAddress}}{{.NetworkSettings.Ports}}"), "map[]");
    assert!(d.docker(&["run", "--rm", "--network", "host", "busybox", "ls", "/sys/class/net"]).text().contains("lo"));
    d.stop();
    d.again_with(&[]);
    let told = d.docker(&["run", "--rm", "busybox", "ls", "/sys/class/net"]).text();
    assert!(told.contains("eth0"), "{told}");
    d.finish();
}

#[test]
fn without_ipv6_the_hosts_file_has_no_ipv6() {
    let d = with_busybox();
    let hosts = |args: &[&str]| d.docker(&[&["run", "--rm"], args, &["busybox", "cat", "/etc/hosts"]].concat()).text();
    let has_ipv6 = hosts(&[]).contains("::1");
    for network in ["bridge", "none"] {
        for key in ["net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.lo.disable_ipv6"] {
            let on = hosts(&["--network", network, "--sysctl", &format!("{key}=1")]);
            assert!(!on.contains("::1") && !on.contains("ip6-") && on.contains("127.0.0.1"), "{key}: {on}");
            let off = hosts(&["--network", network, "--sysctl", &format!("{key}=0")]);
            assert_eq!(off.contains("::1"), has_ipv6, "{key}: {off}");
        }
    }
    assert_eq!(hosts(&["--sysctl", "net.ipv6.conf.default.disable_ipv6=1"]).contains("::1"), has_ipv6);
    d.finish();
}

#[test]
fn who_joins_itself_is_told_so() {
    let d = with_busybox();
    let body = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"container:self"}}"#;
    let _ = d.http("POST", "/containers/create?name=self", body).expect(201);
    let refused = d.http("POST", "/containers/self/start", "").expect(500).message();
    assert!(refused.ends_with("cannot join own network namespace"), "{refused}");
    let _ = d.docker(&["rm", "self"]).ok();
    d.finish();
}

#[test]
fn the_pools_in_force_are_told() {
    let pools = |d: &Daemon| d.http("GET", "/info", "").expect(200).json()["DefaultAddressPools"].clone();
    let d = testkit::Options::new()
        .args(&["--default-address-pool", "base=10.90.0.0/16,size=24"])
        .args(&["--default-address-pool", "base=10.91.0.0/16,size=26"])
        .start();
    let wanted = serde_json::json!([{"Base": "10.90.0.0/16", "Size": 24}, {"Base": "10.91.0.0/16", "Size": 26}]);
    assert_eq!(pools(&d), wanted);
    assert!(d.exec_inside(&["ip", "-br", "addr", "show", "docker0"]).text().contains("10.90.0.1/24"));
    d.finish();
}

/// Sysctls of the interface: given to the endpoint, or to the container by a client of old.
#[test]
fn sysctls_of_the_interface() {
    let d = with_busybox();
    let told = |version: &str, rest: &str| {
        let body = format!(
            r#"{{"Image":"busybox","Cmd":["cat","/proc/sys/net/ipv4/conf/eth0/log_martians"],"HostConfig":{{"AutoRemove":true{rest}}}}}"#
        );
        let id = d.http("POST", &format!("/{version}/containers/create"), &body).expect(201).json()["Id"].clone();
        d.docker(&["start", "-a", id.as_str().unwrap()]).text()
    };
    assert_eq!(told("v1.47", ""), "0");
    assert_eq!(told("v1.47", r#","Sysctls":{"net.ipv4.conf.eth0.log_martians":"1"}"#), "1");
    let option = r#"{"com.docker.network.endpoint.sysctls":"net.ipv4.conf.IFNAME.log_martians=1"}"#;
    let endpoint = format!(r#"}},"NetworkingConfig":{{"EndpointsConfig":{{"bridge":{{"DriverOpts":{option}}}}}"#);
    assert_eq!(told("v1.56", &endpoint), "1");
    // By the name that the link has, also of one that is plugged into a container that runs.
    let prefix = ["network", "create", "-o", "com.docker.network.container_iface_prefix=lan", "app"];
    let _ = d.docker(&prefix).ok();
    let option = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1";
    let network = format!("name=app,driver-opt={option}");
    let _ = d.docker(&["network", "create", "first"]).ok();
    let run = ["run", "-d", "--name", "c", "--network", "first", "--network", &network, "busybox", "sleep", "1000"];
    let _ = d.docker(&run).ok();
    let martians =
        |link: &str| d.docker(&["exec", "c", "cat", &format!("/proc/sys/net/ipv4/conf/{link}/log_martians")]).text();
    assert_eq!((martians("eth0"), martians("lan0")), ("0".to_owned(), "1".to_owned()));
    let _ = d.docker(&["network", "disconnect", "app", "c"]).ok();
    let _ = d.docker(&["network", "connect", "--driver-opt", option, "app", "c"]).ok();
    assert_eq!(martians("lan0"), "1");
    let _ = d.docker(&["network", "disconnect", "app", "c"]).ok();
    let wrong = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.no_such=1";
    d.docker(&["network", "connect", "--driver-opt", wrong, "app", "c"])
        .fails(1, "/proc/sys/net/ipv4/conf/lan0/no_such is not a sysctl file");
    let elsewhere = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.../../../../kernel/hostname=x";
    d.docker(&["network", "connect", "--driver-opt", elsewhere, "app", "c"]).fails(1, "net.X.Y.IFNAME.Z");
    assert_eq!(d.docker(&["exec", "c", "ls", "/sys/class/net"]).text(), "eth0\nlo");
    // What connect is given is checked as at create.
    let refused = |settings: &str, text: &str| {
        let body = format!(r#"{{"Container":"c","EndpointConfig":{settings}}}"#);
        let message = d.http("POST", "/networks/app/connect", &body).expect(400).message();
        assert!(message.contains(text), "{message}");
    };
    refused(r#"{"Aliases":["a\\nb"]}"#.replace("\\\\", "\\").as_str(), "it contains a control character");
    refused(
        r#"{"DriverOpts":{"com.docker.network.endpoint.sysctls":"a.b.c"}}"#,
        "unrecognised network interface sysctl",
    );
    refused(r#"{"IPAMConfig":{"IPv4Address":"0.0.0.0"}}"#, "invalid IPv4 address: 0.0.0.0");
    d.finish();
}

/// The address that was asked for is shown to clients of old in the container's configuration.
#[test]
fn a_mac_address_that_was_asked_for() {
    let d = with_busybox();
    let mac = "02:42:ac:11:00:99";
    let args = ["run", "-d", "--name", "a1", "--mac-address", mac, "busybox", "sleep", "100"];
    let _ = d.docker(&args).ok();
    assert_eq!(d.docker(&["exec", "a1", "cat", "/sys/class/net/eth0/address"]).text(), mac);
    let config = |version: &str| {
        let answer = d.http("GET", &format!("/{version}/containers/a1/json"), "").expect(200).json();
        answer["Config"].get("MacAddress").cloned()
    };
    assert_eq!((config("v1.51"), config("v1.52")), (Some(mac.into()), None));
    d.finish();
}

#[test]
fn how_many_addresses_are_taken() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "a1", "busybox", "sleep", "100"]).ok();
    let inspect =
        |version: &str, name: &str| d.http("GET", &format!("/{version}/networks/{name}"), "").expect(200).json();
    let counts = &inspect("v1.52", "bridge")["Status"]["IPAM"]["Subnets"]["172.17.0.0/16"];
    // The network's own address, the gateway, the container, the address for all.
    assert_eq!((counts["IPsInUse"].as_u64(), counts["DynamicIPsAvailable"].as_u64()), (Some(4), Some(65_532)));
    assert!(inspect("v1.51", "bridge").get("Status").is_none());
    assert_eq!(inspect("v1.52", "none")["Status"], serde_json::json!({"IPAM": {}}));
    assert!(inspect("v1.52", "none")["IPAM"]["Config"].is_null());
    d.finish();
}
