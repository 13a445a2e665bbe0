//! Networks that users make: the docker CLI's commands, what containers on them reach, hot plug, recovery.

use testkit::Daemon;

use crate::{eventually, with_busybox};

/// `docker run -d` of a container that sleeps.
fn sleeper(d: &Daemon, name: &str, options: &[&str]) {
    let words = [&["run", "-d", "--name", name][..], options, &["busybox", "sleep", "1000"]].concat();
    let _ = d.docker(&words).ok();
}

fn inside(d: &Daemon, name: &str, command: &str) -> String {
    d.docker(&["exec", name, "sh", "-c", command]).text()
}

fn pings(d: &Daemon, name: &str, to: &str, seconds: &str) -> bool {
    d.docker(&["exec", name, "ping", "-c1", "-W", seconds, to]).code == 0
}

fn endpoint(d: &Daemon, name: &str, network: &str, field: &str) -> String {
    d.inspect(name, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}"))
}

/// The host is a router already: otherwise the first network of IPv6 makes it one, with a rule that stays.
fn route_ipv6(d: &Daemon) {
    let _ = d.exec_inside(&["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"]).ok();
}

#[test]
fn a_network_is_made_listed_inspected_and_removed() {
    let d = with_busybox();
    let make = [
        "network",
        "create",
        "--subnet",
        "10.55.0.0/16",
        "--ip-range",
        "10.55.7.0/24",
        "--gateway",
        "10.55.0.9",
        "--aux-address",
        "printer=10.55.7.0",
        "--label",
        "a=b",
        "--attachable",
        "-o",
        "com.docker.network.bridge.name=app0",
        "-o",
        "com.docker.network.driver.mtu=1400",
        "app",
    ];
    let id = d.docker(&make).text();
    assert_eq!(id.len(), 64);
    let show = |template: &str| d.docker(&["network", "inspect", "app", "-f", template]).text();
    assert_eq!(
        show("{{.Id}} {{.Driver}} {{.Scope}} {{.Attachable}} {{.Internal}} {{.Labels.a}}"),
        format!("{id} bridge local true false b")
    );
    assert_eq!(
        show("{{with index .IPAM.Config 0}}{{.Subnet}} {{.IPRange}} {{.Gateway}}{{end}}"),
        "10.55.0.0/16 10.55.7.0/24 10.55.0.9"
    );
    assert!(d.exec_inside(&["ip", "-br", "addr", "show", "app0"]).text().contains("10.55.0.9/16"));
    assert!(d.exec_inside(&["ip", "link", "show", "app0"]).text().contains("mtu 1400"));
    assert_eq!(d.docker(&["network", "ls", "-q", "--no-trunc", "-f", "label=a=b"]).text(), id);
    assert_eq!(d.docker(&["network", "ls", "-q", "-f", "label=a=c"]).text(), "");
    assert_eq!(
        d.docker(&["network", "ls", "--format", "{{.Name}}", "-f", "type=custom", "-f", "driver=bridge"]).text(),
        "app"
    );
    assert_eq!(d.docker(&["network", "ls", "--format", "{{.Name}}", "-f", "dangling=true"]).text(), "app");
    sleeper(&d, "one", &["--network", "app"]);
    assert_eq!(endpoint(&d, "one", "app", "IPAddress"), "10.55.7.1", "the range, without the auxiliary address");
    assert_eq!(show("{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}"), "one 10.55.7.1/16");
    d.docker(&["network", "rm", "app"]).fails(1, "network app has active endpoints (name:\"one\" id:\"");
    assert_eq!(inside(&d, "one", "cat /sys/class/net/eth0/mtu"), "1400");
    let _ = d.docker(&["rm", "-f", "one"]).ok();
    assert_eq!(d.docker(&["network", "rm", "app"]).text(), "app");
    d.docker(&["network", "inspect", "app"]).fails(1, "network app not found");
    assert_ne!(d.exec_inside(&["ip", "link", "show", "app0"]).code, 0);
    d.finish();
}

#[test]
fn refusals_in_the_references_words() {
    let d = with_busybox();
    let refused = |words: &[&str], text: &str| d.docker(&[&["network", "create"][..], words].concat()).fails(1, text);
    let _ = d.docker(&["network", "create", "--subnet", "10.56.0.0/16", "a"]).ok();
    refused(&["a"], "network with name a already exists");
    refused(
        &["--subnet", "10.56.7.0/24", "b"],
        "invalid pool request: Pool overlaps with other one on this address space",
    );
    refused(&["-d", "nothing", "b"], "plugin \"nothing\" not found");
    refused(&["--ipam-driver", "nothing", "b"], "plugin \"nothing\" not found");
    refused(&["bridge"], "operation is not permitted on predefined bridge network");
    refused(&["-d", "host", "b"], "only one instance of \"host\" network is allowed");
    refused(&["-d", "overlay", "b"], "This node is not a swarm manager.");
    refused(
        &["-o", "com.docker.network.bridge.enable_icc=maybe", "b"],
        "failed to parse com.docker.network.bridge.enable_icc value: maybe",
    );
    refused(&["-o", "com.docker.network.bridge.gateway_mode_ipv4=odd", "b"], "unknown gateway mode odd");
    refused(
        &["-o", "com.docker.network.bridge.gateway_mode_ipv4=isolated", "b"],
        "gateway mode 'isolated' can only be used for an internal network",
    );
    refused(&["-o", "com.docker.network.bridge.name=docker0", "b"], "networks have same bridge name");
    refused(&["-o", "com.docker.network.host_ipv4=fd00::1", "b"], "value: fd00::1 (it is no IPv4 address)");
    refused(&["-o", "com.docker.network.host_ipv6=10.0.0.1", "b"], "value: 10.0.0.1 (it is no IPv6 address)");
    refused(&["--ipam-driver", "null", "b"], "ipv4 pool is empty");
    refused(&["--ipam-driver", "null", "--ipv6", "--ipv4=false", "b"], "ipv6 pool is empty");
    refused(&["-d", "macvlan", "--ipam-driver", "null", "b"], "ipv4 pool is empty");
    let marked = ["-o", "com.docker.network.bridge.default_bridge=true", "-o", "com.docker.network.bridge.name=own0"];
    let text = "bridge device with non default name own0 must be created manually";
    refused(&[&marked[..], &["b"]].concat(), text);
    let _ = d.exec_inside(&["ip", "link", "add", "own0", "type", "bridge"]);
    refused(&[&marked[..], &["b"]].concat(), text);
    assert_eq!(d.exec_inside(&["ip", "link", "del", "own0"]).code, 0, "it still stands");
    refused(&["-o", "com.docker.network.bridge.name=a-name-that-is-too-long", "b"], "umerical result out of range");
    for address in ["10.56.0.0", "10.56.255.255"] {
        d.docker(&["run", "--rm", "--network", "a", "--ip", address, "busybox", "true"])
            .fails(125, "Address already in use");
    }
    let loopback = "name=a,driver-opt=com.docker.network.endpoint.ifname=lo";
    d.docker(&["run", "--rm", "--network", loopback, "busybox", "true"])
        .fails(125, "error renaming interface to \"lo\": file exists");
    d.docker(&["network", "rm", "bridge"]).fails(1, "bridge is a pre-defined network and cannot be removed");
    d.docker(&["run", "--rm", "--network", "a", "--ip", "10.99.0.1", "busybox", "true"])
        .fails(125, "no configured subnet contains IP address 10.99.0.1");
    sleeper(&d, "first", &["--network", "a", "--ip", "10.56.0.7"]);
    d.docker(&["run", "--rm", "--network", "a", "--ip", "10.56.0.7", "busybox", "true"])
        .fails(125, "Address already in use");
    // Nothing of what was refused stands.
    assert_eq!(d.docker(&["network", "ls", "-q", "-f", "type=custom"]).text().lines().count(), 1);
    d.finish();
}

/// What the CLI refuses itself.
#[test]
fn configurations_that_are_refused() {
    let d = with_busybox();
    let config = |config: &str| {
        let body = format!(r#"{{"Name":"b","IPAM":{{"Config":[{config}]}}}}"#);
        d.http("POST", "/networks/create", &body).expect(400).message()
    };
    assert_eq!(
        config(r#"{"Subnet":"10.57.0.1/16"}"#),
        "invalid network config:\ninvalid subnet 10.57.0.1/16: it should be 10.57.0.0/16"
    );
    for (subnet, why) in [
        ("10.57.300.0/24", r#"ParseAddr("10.57.300.0"): IPv4 field has value >255"#),
        ("10.57.0.0/33", "prefix length out of range"),
        ("10.57.0.0", "no '/'"),
    ] {
        let wanted = format!("invalid JSON: netip.ParsePrefix({subnet:?}): {why}");
        assert_eq!(config(&format!(r#"{{"Subnet":"{subnet}"}}"#)), wanted);
    }
    assert_eq!(
        config(r#"{"Subnet":"10.57.0.0/16","Gateway":"10.57.0"}"#),
        r#"invalid JSON: ParseAddr("10.57.0"): IPv4 address too short"#
    );
    let gateway = config(r#"{"Subnet":"10.57.0.0/16","Gateway":"10.58.0.1","IPRange":"10.57.0.0/8"}"#);
    assert!(
        gateway.contains("* invalid ip-range 10.57.0.0/8: CIDR block is bigger than its parent subnet 10.57.0.0/16\n"),
        "{gateway}"
    );
    assert!(
        gateway.ends_with("* invalid gateway 10.58.0.1: parent subnet 10.57.0.0/16 doesn't contain this address"),
        "{gateway}"
    );
    d.finish();
}

#[test]
fn a_configuration_network_only_lends_its_settings() {
    let d = with_busybox();
    let second = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begin = second().to_string();
    let make = |words: &[&str]| d.docker(&[&["network", "create"][..], words].concat());
    let _ = make(&["--config-only", "--subnet", "10.99.0.0/24", "--label", "a=b", "settings"]).ok();
    let _ = make(&["--config-from", "settings", "real"]).ok();
    let show = "{{.Driver}} {{.ConfigOnly}} {{.ConfigFrom.Network}} {{(index .IPAM.Config 0).Subnet}} {{.Labels.a}}";
    let shown = |name: &str| d.docker(&["network", "inspect", name, "-f", show]).text();
    assert_eq!(shown("settings"), "null true  10.99.0.0/24 b");
    assert_eq!(shown("real"), "bridge false settings 10.99.0.0/24 b");
    d.docker(&["run", "--rm", "--network", "settings", "busybox", "true"])
        .fails(125, "cannot create endpoint on configuration-only network");
    d.docker(&["network", "rm", "settings"]).fails(1, "configuration network \"settings\" is in use");
    let _ = d.docker(&["network", "rm", "real"]).ok();
    let _ = d.docker(&["network", "rm", "settings"]).ok();
    let format = "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}";
    let end = (second() + 1).to_string();
    let told = d.docker(&["events", "--since", &begin, "--until", &end, "-f", "type=network", "--format", format]);
    let told: Vec<_> = told.ok().stdout.lines().map(str::to_owned).collect();
    assert_eq!(told, ["create settings null", "create real bridge", "destroy real bridge"]);
    d.finish();
}

#[test]
fn containers_of_a_network_reach_each_other_and_nobody_of_another() {
    let d = with_busybox();
    for name in ["red", "blue"] {
        let _ = d.docker(&["network", "create", name]).ok();
    }
    sleeper(&d, "r1", &["--network", "red"]);
    sleeper(&d, "r2", &["--network", "red"]);
    sleeper(&d, "b1", &["--network", "blue"]);
    let address = |name: &str, network: &str| endpoint(&d, name, network, "IPAddress");
    assert!(pings(&d, "r1", &address("r2", "red"), "30"));
    assert!(!pings(&d, "r1", &address("b1", "blue"), "2"), "another network");
    // Both are on one from now on.
    let _ = d.docker(&["network", "connect", "blue", "r1"]).ok();
    assert!(pings(&d, "r1", &address("b1", "blue"), "30"));
    assert!(inside(&d, "r1", "ip -o -4 addr").contains("eth1"));
    let _ = d.docker(&["network", "disconnect", "blue", "r1"]).ok();
    assert!(!inside(&d, "r1", "ip -o -4 addr").contains("eth1"));
    assert!(!pings(&d, "r1", &address("b1", "blue"), "2"));
    d.finish();
}

#[test]
fn several_networks_at_the_start() {
    let d = with_busybox();
    for (name, subnet) in [("aa", "10.61.0.0/16"), ("bb", "10.62.0.0/16"), ("cc", "10.63.0.0/16")] {
        let _ = d.docker(&["network", "create", "--subnet", subnet, name]).ok();
    }
    let _ = d.docker(&["network", "create", "--internal", "--subnet", "10.64.0.0/16", "inner"]).ok();
    let options = [
        "--network",
        "name=bb,ip=10.62.0.5,alias=web,mac-address=02:11:22:33:44:55",
        "--network",
        "cc",
        "--network",
        "name=aa,driver-opt=com.docker.network.endpoint.ifname=lan0",
        "--network",
        "inner",
    ];
    sleeper(&d, "multi", &options);
    assert_eq!(endpoint(&d, "multi", "bb", "IPAddress"), "10.62.0.5");
    assert_eq!(endpoint(&d, "multi", "bb", "MacAddress"), "02:11:22:33:44:55");
    let names = endpoint(&d, "multi", "bb", "DNSNames");
    assert!(names.starts_with("[multi web "), "{names}");
    let links = inside(&d, "multi", "ip -o -4 addr");
    assert!(links.contains("eth0    inet 10.62.0.5/16") && links.contains("lan0    inet 10.61."), "{links}");
    assert!(links.contains("inet 10.63.") && links.contains("inet 10.64."), "{links}");
    assert_eq!(inside(&d, "multi", "ip route | grep default"), "default via 10.61.0.1 dev lan0", "the first name");
    assert_eq!(endpoint(&d, "multi", "inner", "Gateway"), "");
    // The default route follows the networks.
    let _ = d.docker(&["network", "disconnect", "aa", "multi"]).ok();
    assert!(inside(&d, "multi", "ip route | grep default").starts_with("default via 10.62.0.1 dev eth0"));
    let _ = d.docker(&["network", "connect", "--gw-priority", "5", "aa", "multi"]).ok();
    assert!(inside(&d, "multi", "ip route | grep default").starts_with("default via 10.61.0.1"));
    let hosts = inside(&d, "multi", "cat /etc/hosts");
    assert!(hosts.contains("10.62.0.5") && hosts.contains(&endpoint(&d, "multi", "aa", "IPAddress")), "{hosts}");
    // All of it comes back with the next run.
    let _ = d.docker(&["restart", "-t", "0", "multi"]).ok();
    assert_eq!(inside(&d, "multi", "ip -o -4 addr | grep -c eth"), "4");
    assert!(inside(&d, "multi", "ip route | grep default").starts_with("default via 10.61.0.1"));
    d.finish();
}

#[test]
fn an_internal_network_has_no_way_out() {
    let d = with_busybox();
    let _ = d.docker(&["network", "create", "--internal", "inner"]).ok();
    sleeper(&d, "in1", &["--network", "inner"]);
    sleeper(&d, "in2", &["--network", "inner"]);
    sleeper(&d, "out", &[]);
    assert_eq!(d.docker(&["exec", "in1", "sh", "-c", "ip route | grep default"]).code, 1);
    assert!(pings(&d, "in1", &endpoint(&d, "in2", "inner", "IPAddress"), "30"));
    let out = endpoint(&d, "out", "bridge", "IPAddress");
    let route = format!("ip route add default via {}", "172.18.0.1");
    let _ = d.docker(&["exec", "--privileged", "in1", "sh", "-c", &route]).ok();
    assert!(!pings(&d, "in1", &out, "2"), "even by a route of its own");
    d.finish();
}

#[test]
fn both_families() {
    let d = with_busybox();
    route_ipv6(&d);
    let _ = d.docker(&["network", "create", "--ipv6", "auto"]).ok();
    let _ =
        d.docker(&["network", "create", "--ipv6", "--subnet", "fd00:77::/64", "--subnet", "10.77.0.0/16", "dual"]).ok();
    let subnets = d.docker(&["network", "inspect", "auto", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}"]).text();
    assert!(subnets.contains("::/64") && subnets.contains("fd"), "{subnets}");
    sleeper(&d, "one", &["--network", "dual", "--ip6", "fd00:77::9"]);
    sleeper(&d, "two", &["--network", "dual"]);
    assert_eq!(endpoint(&d, "one", "dual", "GlobalIPv6Address"), "fd00:77::9");
    assert_eq!(endpoint(&d, "one", "dual", "IPv6Gateway"), "fd00:77::1");
    assert!(pings(&d, "two", "fd00:77::9", "30") && pings(&d, "two", "fd00:77::1", "30"));
    assert!(inside(&d, "one", "ip -6 route").contains("default via fd00:77::1"));
    let _ = d.docker(&["network", "connect", "auto", "one"]).ok();
    assert!(inside(&d, "one", "ip -6 addr").contains(&endpoint(&d, "one", "auto", "GlobalIPv6Address")));
    // A network of IPv6 alone.
    let _ = d.docker(&["network", "create", "--ipv6", "--ipv4=false", "--subnet", "fd00:78::/64", "six"]).ok();
    sleeper(&d, "six1", &["--network", "six"]);
    assert_eq!(endpoint(&d, "six1", "six", "IPAddress"), "");
    assert!(pings(&d, "six1", "fd00:78::1", "30"));
    d.finish();
}

#[test]
fn a_published_port_of_a_network() {
    let d = with_busybox();
    route_ipv6(&d);
    let _ =
        d.docker(&["network", "create", "--ipv6", "--subnet", "fd00:79::/64", "--subnet", "10.79.0.0/16", "app"]).ok();
    let _ = d.docker(&["network", "create", "other"]).ok();
    let script = "mkdir /w && echo hello > /w/index.html && httpd -f -p 80 -h /w";
    let _ = d
        .docker(&["run", "-d", "--name", "web", "--network", "app", "-p", "8090:80", "busybox", "sh", "-c", script])
        .ok();
    for url in ["http://127.0.0.1:8090/", "http://10.79.0.1:8090/", "http://[fd00:79::1]:8090/", "http://[::1]:8090/"] {
        assert!(eventually(|| d.exec_inside(&["curl", "-s", "-m", "20", url]).stdout == "hello\n"), "{url}");
    }
    // From another network by the host's address, not by the container's own.
    let get = |url: &str| {
        // Not as the first process, which no signal from within would end.
        let script = format!("timeout 5 wget -q -O- {url}; exit $?");
        d.docker(&["run", "--rm", "--network", "other", "busybox", "sh", "-c", &script])
    };
    assert_eq!(get("http://10.79.0.1:8090/").text(), "hello");
    assert_ne!(get(&format!("http://{}:80/", endpoint(&d, "web", "app", "IPAddress"))).code, 0);
    d.finish();
}

#[test]
fn networks_and_endpoints_outlive_the_daemon() {
    let mut d = with_busybox();
    let _ = d.docker(&["network", "create", "--label", "x=y", "app"]).ok();
    let _ = d.docker(&["network", "create", "late"]).ok();
    sleeper(&d, "one", &["--network", "app", "-p", "8091:80"]);
    sleeper(&d, "two", &["--network", "app"]);
    let _ = d.docker(&["network", "connect", "late", "one"]).ok();
    let shown = |d: &Daemon| {
        (d.inspect("one", "{{json .NetworkSettings.Networks}}"), d.docker(&["network", "inspect", "app"]).text())
    };
    let before = shown(&d);
    d.kill9();
    d.again();
    assert_eq!(shown(&d), before);
    assert!(pings(&d, "two", &endpoint(&d, "one", "app", "IPAddress"), "30"));
    let _ = d.docker(&["network", "disconnect", "late", "one"]).ok();
    assert_eq!(d.docker(&["network", "rm", "late"]).text(), "late");
    // The books are right: what lives is not given again.
    sleeper(&d, "three", &["--network", "app"]);
    let addresses = ["one", "two", "three"].map(|name| endpoint(&d, name, "app", "IPAddress"));
    assert!(addresses[0] != addresses[2] && addresses[1] != addresses[2], "{addresses:?}");
    d.finish();
}

#[test]
fn a_container_that_does_not_run_changes_its_networks() {
    let d = with_busybox();
    let _ = d.docker(&["network", "create", "app"]).ok();
    let _ = d.docker(&["create", "--name", "c", "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["network", "connect", "--alias", "db", "app", "c"]).ok();
    let _ = d.docker(&["network", "disconnect", "bridge", "c"]).ok();
    d.docker(&["network", "disconnect", "bridge", "c"]).fails(1, "is not connected to the network bridge");
    let _ = d.docker(&["start", "c"]).ok();
    assert_eq!(d.inspect("c", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}"), "app");
    assert_eq!(inside(&d, "c", "ip -o -4 addr | grep -c eth"), "1");
    let _ = d.docker(&["network", "disconnect", "app", "c"]).ok();
    assert_eq!(d.inspect("c", "{{len .NetworkSettings.Networks}}"), "0");
    assert_eq!(inside(&d, "c", "ip -o link | wc -l"), "1", "loopback alone");
    d.docker(&["network", "disconnect", "app", "c"]).fails(1, "is not connected to network app");
    for (network, text) in
        [("host", "cannot connect container to host network"), ("nothing", "network nothing not found")]
    {
        d.docker(&["network", "connect", network, "c"]).fails(1, text);
    }
    sleeper(&d, "shared", &["--network", "container:c"]);
    d.docker(&["network", "connect", "app", "shared"]).fails(1, "container sharing network namespace");
    d.finish();
}

#[test]
fn unused_networks_are_pruned() {
    let d = with_busybox();
    for (name, label) in [("used", "k=1"), ("kept", "k=2"), ("gone", "k=1"), ("old", "k=1")] {
        let _ = d.docker(&["network", "create", "--label", label, name]).ok();
    }
    sleeper(&d, "c", &["--network", "used"]);
    let pruned = d.docker(&["network", "prune", "-f", "--filter", "label=k=1", "--filter", "until=1s"]).text();
    assert!(pruned.is_empty() || pruned.contains("gone"), "{pruned}");
    let pruned = d.docker(&["network", "prune", "-f", "--filter", "label!=k=2"]).text();
    let left = d.docker(&["network", "ls", "--format", "{{.Name}}", "-f", "type=custom"]).text();
    assert_eq!(left, "kept\nused", "{pruned}");
    d.finish();
}

#[test]
fn events_of_networks() {
    let d = with_busybox();
    let id = d.docker(&["network", "create", "app"]).text();
    sleeper(&d, "c", &[]);
    let container = d.inspect("c", "{{.Id}}");
    let _ = d.docker(&["network", "connect", "app", "c"]).ok();
    let _ = d.docker(&["network", "disconnect", "app", "c"]).ok();
    let _ = d.docker(&["network", "rm", "app"]).ok();
    let format = "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}} {{.Actor.Attributes.container}}";
    let filter = format!("network={id}");
    let plain = "app bridge <no value>";
    let with = format!("app bridge {container}");
    let wanted = [
        format!("create {plain}"),
        format!("connect {with}"),
        format!("disconnect {with}"),
        format!("destroy {plain}"),
    ];
    let mut told = String::new();
    eventually(|| {
        told = d.docker(&["events", "--since", "1h", "--until", "0s", "-f", &filter, "--format", format]).text();
        told.lines().count() >= wanted.len()
    });
    assert_eq!(told.lines().collect::<Vec<_>>(), wanted);
    d.finish();
}

#[test]
fn a_renamed_container_is_called_otherwise_in_its_networks() {
    let mut d = with_busybox();
    let _ = d.docker(&["network", "create", "app"]).ok();
    sleeper(&d, "old", &["--network", "app", "--network-alias", "db", "--hostname", "box"]);
    let id = d.inspect("old", "{{slice .Id 0 12}}");
    assert_eq!(endpoint(&d, "old", "app", "DNSNames"), format!("[old db {id} box]"));
    let _ = d.docker(&["rename", "old", "new"]).ok();
    assert_eq!(endpoint(&d, "new", "app", "DNSNames"), format!("[new db {id} box]"));
    d.docker(&["network", "rm", "app"]).fails(1, "network app has active endpoints (name:\"new\" id:");
    d.kill9();
    d.again();
    assert_eq!(endpoint(&d, "new", "app", "DNSNames"), format!("[new db {id} box]"));
    let _ = d.docker(&["restart", "-t", "0", "new"]).ok();
    assert_eq!(endpoint(&d, "new", "app", "DNSNames"), format!("[new db {id} box]"));
    d.finish();
}

/// Names are shown from the first start on, or from the connect before it, and after the end.
#[test]
fn an_ended_container_keeps_its_names() {
    let d = with_busybox();
    let _ = d.docker(&["network", "create", "app"]).ok();
    let _ = d.docker(&["create", "--name", "c", "--network", "app", "--network-alias", "db", "busybox", "true"]).ok();
    let id = d.inspect("c", "{{slice .Id 0 12}}");
    assert_eq!(endpoint(&d, "c", "app", "DNSNames"), "[]");
    let _ = d.docker(&["start", "-a", "c"]).ok();
    assert_eq!(endpoint(&d, "c", "app", "DNSNames"), format!("[c db {id}]"));
    assert_eq!(endpoint(&d, "c", "app", "IPAddress"), "");
    let _ = d.docker(&["rename", "c", "other"]).ok();
    assert_eq!(endpoint(&d, "other", "app", "DNSNames"), format!("[other db {id}]"));
    let _ = d.docker(&["create", "--name", "later", "busybox", "true"]).ok();
    let _ = d.docker(&["network", "connect", "--alias", "x", "app", "later"]).ok();
    let id = d.inspect("later", "{{slice .Id 0 12}}");
    assert_eq!(endpoint(&d, "later", "app", "DNSNames"), format!("[later x {id}]"));
    let _ = d.docker(&["start", "-a", "later"]).ok();
    assert_eq!(endpoint(&d, "later", "app", "DNSNames"), format!("[later x {id}]"));
    assert_eq!(endpoint(&d, "later", "bridge", "DNSNames"), "[]");
    d.finish();
}

/// Published ports belong to the endpoint with the way out, whichever that is.
#[test]
fn published_ports_move_with_the_way_out() {
    let mut d = with_busybox();
    for name in ["a", "b", "c"] {
        let _ = d.docker(&["network", "create", name]).ok();
    }
    let script = "mkdir /w && echo hello > /w/index.html && httpd -f -p 80 -h /w";
    let words = ["run", "-d", "--name", "web", "--network", "b", "-p", "8092:80", "-p", "8093:80/udp"];
    let _ = d.docker(&[&words[..], &["busybox", "sh", "-c", script]].concat()).ok();
    let answers = |d: &Daemon| {
        // By the packet filter, from a container, and by the proxy.
        let gateway = d.docker(&["network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"]).text();
        ["127.0.0.1", gateway.as_str(), "[::1]"].iter().all(|ip| {
            let url = format!("http://{ip}:8092/");
            eventually(|| d.exec_inside(&["curl", "-s", "-m", "20", &url]).stdout == "hello\n")
        })
    };
    let sockets = |d: &Daemon| {
        let out = d.exec_inside(&["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6"]);
        let fields = out.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let is_open = |f: &Vec<&str>| f.len() > 3 && ["0A", "07"].contains(&f[3]);
        fields.filter(|f| is_open(f) && (f[1].ends_with(":1F9C") || f[1].ends_with(":1F9D"))).count()
    };
    assert!(answers(&d));
    let all = sockets(&d);
    assert_eq!(all, 2, "of both families");
    // One before it in the alphabet takes them, one behind it does not.
    let _ = d.docker(&["network", "connect", "a", "web"]).ok();
    let _ = d.docker(&["network", "connect", "c", "web"]).ok();
    assert!(answers(&d));
    let _ = d.docker(&["network", "disconnect", "b", "web"]).ok();
    assert!(answers(&d));
    d.kill9();
    d.again();
    assert!(answers(&d));
    let _ = d.docker(&["network", "disconnect", "a", "web"]).ok();
    assert!(answers(&d));
    assert_eq!(d.inspect("web", "{{(index .NetworkSettings.Ports \"80/tcp\" 0).HostPort}}"), "8092");
    let _ = d.docker(&["network", "disconnect", "c", "web"]).ok();
    assert_eq!(sockets(&d), 0, "who is on no network publishes nothing");
    // Anybody may have them now.
    let _ = d.docker(&["run", "-d", "--name", "other", "-p", "8092:80", "busybox", "sh", "-c", script]).ok();
    d.docker(&["network", "connect", "a", "web"]).fails(1, "port is already allocated");
    assert!(answers(&d));
    assert_eq!(d.inspect("web", "{{len .NetworkSettings.Networks}}"), "0");
    let _ = d.docker(&["rm", "-f", "other"]).ok();
    let _ = d.docker(&["network", "connect", "--gw-priority", "1", "a", "web"]).ok();
    assert!(answers(&d));
    let _ = d.docker(&["network", "connect", "--gw-priority", "2", "c", "web"]).ok();
    assert!(answers(&d));
    assert_eq!(sockets(&d), all);
    d.finish();
}

/// What a daemon that dies at any moment leaves of networks, its successor removes or keeps whole.
#[test]
fn a_daemon_killed_while_networks_change_leaks_nothing() {
    let mut d = with_busybox();
    let (_, _) = (d.docker(&["network", "create", "a"]).ok(), d.docker(&["network", "create", "b"]).ok());
    sleeper(&d, "c", &["--network", "a", "-p", "8094:80", "-p", "9100-9199:9100-9199"]);
    let ranges = |d: &Daemon| d.exec_inside(&["nft", "list", "map", "inet", "gantry", "range-any"]).stdout;
    let links = |d: &Daemon| d.exec_inside(&["ip", "-o", "link", "show", "type", "veth"]).stdout.lines().count();
    for round in 0..testkit::soak::rounds(6, 50) {
        let (network, other) = if round % 2 == 0 { ("b", "a") } else { ("a", "b") };
        let new = format!("n{round}");
        let _ = d.docker(&["network", "create", "old"]).ok();
        let changes = [
            vec!["network", "connect", network, "c"],
            vec!["network", "disconnect", other, "c"],
            vec!["network", "create", &new],
            vec!["network", "rm", "old"],
            vec!["run", "--name", "r", "-p", "9300-9399:9300-9399", "busybox", "true"],
        ];
        let running: Vec<_> = changes.iter().map(|words| d.spawn(words)).collect();
        // The client alone takes some time; then the daemon is somewhere between the first step and the last.
        std::thread::sleep(std::time::Duration::from_millis(10 + 11 * (round as u64 % 15)));
        d.kill9();
        drop(running);
        d.again();
        let _ = d.docker(&["rm", "-f", "r"]);
        // A start that waits for nothing else: the daemon has brought all in line.
        assert!(eventually(|| {
            let inner = inside(&d, "c", "ls /sys/class/net | grep -c eth; true");
            let shown = d.inspect("c", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}");
            let shown = shown.split_whitespace().count();
            inner == shown.to_string() && links(&d) == shown
        }));
        let routes = inside(&d, "c", "ip route | grep -c default; true");
        let networks = d.inspect("c", "{{len .NetworkSettings.Networks}}");
        assert_eq!(routes, if networks == "0" { "0" } else { "1" });
        // Whatever it was, it can be made to be the next round's beginning.
        for words in [["network", "rm", &new, "old"], ["network", "connect", network, "c"]] {
            let _ = d.docker(&words);
        }
        let _ = d.docker(&["network", "disconnect", other, "c"]);
        assert_eq!(d.inspect("c", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}"), network);
        assert_eq!(d.docker(&["network", "ls", "-q", "-f", "type=custom"]).text().lines().count(), 2);
        let ports = d.inspect("c", "{{range .NetworkSettings.Ports}}{{range .}}{{.HostPort}} {{end}}{{end}}");
        assert!(ports.starts_with("8094") && ports.contains(" 9100 ") && ports.contains(" 9199 "), "{ports}");
        let ranges = ranges(&d);
        assert!(ranges.matches("tcp . ").count() == 1 && ranges.contains("tcp . 9100-9199 : "), "{ranges}");
    }
    d.finish();
}

/// A sysctl of the container or of the endpoint takes IPv6 from it: it has no such address, and no name leads to one.
#[test]
fn a_container_without_ipv6_gets_no_address_of_it() {
    let d = with_busybox();
    let _ = d.docker(&["network", "create", "--ipv6", "--subnet", "fd00:77::/64", "six"]).ok();
    sleeper(&d, "with", &["--network", "six"]);
    sleeper(&d, "all", &["--network", "six", "--sysctl", "net.ipv6.conf.all.disable_ipv6=1"]);
    let option = "name=six,\"driver-opt=com.docker.network.endpoint.sysctls=net.ipv6.conf.IFNAME.disable_ipv6=1\"";
    sleeper(&d, "link", &["--network", option, "-p", "127.0.0.1:8093:80"]);
    let address =
        "{{.NetworkSettings.Networks.six.GlobalIPv6Address}} {{.NetworkSettings.Networks.six.GlobalIPv6PrefixLen}}";
    assert_eq!(d.inspect("with", address), "fd00:77::2 64");
    for name in ["all", "link"] {
        assert_eq!(d.inspect(name, address).trim(), "0", "{name}");
        assert_eq!(inside(&d, name, "ip -6 addr show dev eth0"), "", "{name}");
        assert!(!inside(&d, name, "cat /etc/hosts").contains("fd00:77"), "{name}");
        d.docker(&["exec", "with", "ping", "-6", "-c1", name]).fails(1, "bad address");
        let _ = d.docker(&["exec", "with", "ping", "-4", "-c1", name]).ok();
    }
    // It stays so when the container is connected anew.
    let _ = d.docker(&["network", "disconnect", "six", "all"]).ok();
    let _ = d.docker(&["network", "connect", "six", "all"]).ok();
    assert_eq!(inside(&d, "all", "ip -6 addr show dev eth0"), "");
    d.finish();
}
