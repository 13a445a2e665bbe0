//! Networks and addresses of a plugin, which is a program in another language behind a socket: it works, hangs, lies, goes,
//! comes back and forgets.

use std::ops::{Deref, DerefMut};

use serde_json::Value;
use testkit::Daemon;

use crate::plugin_program::PluginProgram;
use crate::{eventually, with_busybox};

/// A running test plugin.
struct Plugin(PluginProgram);

const SOCKET: &str = "/run/docker/plugins/test.sock";

impl Deref for Plugin {
    type Target = PluginProgram;

    fn deref(&self) -> &PluginProgram {
        &self.0
    }
}

impl DerefMut for Plugin {
    fn deref_mut(&mut self) -> &mut PluginProgram {
        &mut self.0
    }
}

impl Plugin {
    /// Starts one in the daemon's namespaces; `words` say how it is.
    fn start(d: &Daemon, words: &[&'static str]) -> Plugin {
        Plugin(PluginProgram::start(d, "network_plugin.py", "plugin", &[&[SOCKET], words].concat()))
    }

    /// The calls since the last look.
    fn calls(&self) -> Vec<String> {
        self.take_calls().lines().map(str::to_owned).collect()
    }

    /// Waits until it was called so since the last look.
    fn await_call(&self, method: &str) {
        let path = self.dir.join("calls");
        let called = || std::fs::read_to_string(&path).unwrap_or_default().lines().any(|line| line == method);
        assert!(eventually(called), "{method} is not called");
    }

    /// The arguments of the last call of a method.
    fn arguments(&self, method: &str) -> Value {
        let text = std::fs::read_to_string(self.dir.join("arguments")).unwrap_or_default();
        let mut all = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let last = all.find(|call| call["method"] == method);
        last.unwrap_or_else(|| panic!("{method} was not called"))["args"].clone()
    }
}

/// A daemon with an image whose plugins are its own, and the plugin `test`.
fn with_plugin(words: &[&'static str]) -> (Daemon, Plugin) {
    let d = with_busybox();
    let _ = d.exec_inside(&["mkdir", "-p", "/run"]).ok();
    let _ = d.exec_inside(&["mount", "-t", "tmpfs", "own", "/run"]).ok();
    let plugin = Plugin::start(&d, words);
    (d, plugin)
}

/// Lets go of what the test has mounted, which the census would find.
fn finish(d: Daemon, plugin: Plugin) {
    d.remove_containers();
    drop(plugin);
    let _ = d.exec_inside(&["umount", "/run"]).ok();
    d.finish();
}

fn sleeper(d: &Daemon, name: &str, options: &[&str]) {
    let mut words = vec!["run", "-d", "--name", name];
    words.extend(options);
    words.extend(["busybox", "sleep", "1000"]);
    let _ = d.docker(&words).ok();
}

fn inside(d: &Daemon, name: &str, command: &str) -> String {
    d.docker(&["exec", name, "sh", "-c", command]).text()
}

fn devices(d: &Daemon) -> usize {
    d.exec_inside(&["ip", "-o", "link"]).text().lines().filter(|line| line.contains(": pb-")).count()
}

const LEAVING: [&str; 4] = [
    "NetworkDriver.RevokeExternalConnectivity",
    "NetworkDriver.Leave",
    "NetworkDriver.DeleteEndpoint",
    "IpamDriver.ReleaseAddress",
];

#[test]
fn a_plugin_makes_networks_and_places_in_them() {
    let (mut d, plugin) = with_plugin(&[]);
    let create = ["network", "create", "-d", "test", "-o", "color=blue", "--ipam-driver", "test", "--ipam-opt", "a=b"];
    let _ = d
        .docker(
            &[
                &create[..],
                &["--label", "x=y", "--aux-address", "router=10.44.0.9", "--subnet", "10.44.0.0/24"],
                &["net"],
            ]
            .concat(),
        )
        .ok();
    let made = plugin.arguments("NetworkDriver.CreateNetwork");
    assert_eq!(made["Options"]["com.docker.network.generic"]["color"], "blue", "{made}");
    assert_eq!(
        (&made["IPv4Data"][0]["Pool"], &made["IPv4Data"][0]["Gateway"], &made["IPv4Data"][0]["AuxAddresses"]["router"]),
        (&"10.44.0.0/24".into(), &"10.44.0.1/24".into(), &"10.44.0.9/24".into())
    );
    let pool = plugin.arguments("IpamDriver.RequestPool");
    assert_eq!(
        (&pool["AddressSpace"], &pool["Options"]["a"], &pool["V6"]),
        (&"here".into(), &"b".into(), &false.into())
    );
    let shown = d.http("GET", "/networks/net", "").expect(200).json();
    assert_eq!(
        (&shown["Driver"], &shown["Scope"], &shown["IPAM"]["Driver"], &shown["IPAM"]["Options"]["a"]),
        (&"test".into(), &"local".into(), &"test".into(), &"b".into())
    );
    assert!(d.docker(&["info", "-f", "{{.Plugins.Network}}"]).text().contains("test"));
    let _ = plugin.calls();
    places_in_a_network_of_a_plugin(&mut d, &plugin);
    let _ = d.docker(&["network", "rm", "net"]).ok();
    plugin.await_call("IpamDriver.ReleasePool");
    assert_eq!(devices(&d), 0);
    finish(d, plugin);
}

/// Of the network `net`, 10.44.0.0/24.
fn places_in_a_network_of_a_plugin(d: &mut Daemon, plugin: &Plugin) {
    sleeper(d, "one", &["--network", "net", "-p", "8080:80", "--mac-address", "02:00:00:00:0a:0b"]);
    assert_eq!(
        plugin.calls(),
        [
            "IpamDriver.RequestAddress",
            "NetworkDriver.CreateEndpoint",
            "NetworkDriver.Join",
            "NetworkDriver.ProgramExternalConnectivity"
        ]
    );
    let endpoint = plugin.arguments("NetworkDriver.CreateEndpoint");
    assert_eq!(
        (&endpoint["Interface"]["Address"], &endpoint["Interface"]["MacAddress"]),
        (&"10.44.0.2/24".into(), &"02:00:00:00:0a:0b".into())
    );
    let key = plugin.arguments("NetworkDriver.Join")["SandboxKey"].clone();
    assert_eq!(key, d.inspect("one", "{{.NetworkSettings.SandboxKey}}"));
    let outside = plugin.arguments("NetworkDriver.ProgramExternalConnectivity");
    assert_eq!(
        (
            &outside["Options"]["com.docker.network.portmap"][0]["HostPort"],
            &outside["Options"]["com.docker.network.portmap"][0]["Port"]
        ),
        (&8080.into(), &80.into())
    );
    sleeper(d, "two", &["--network", "net", "--network-alias", "second"]);
    assert!(inside(d, "one", "ip -o link show plug0").contains("02:00:00:00:0a:0b"));
    for name in ["10.44.0.1", "10.44.0.3", "two", "second"] {
        let _ = d.docker(&["exec", "one", "ping", "-c1", "-W30", name]).ok();
    }
    let routes = inside(d, "one", "ip route");
    for route in ["default via 10.44.0.1 dev plug0", "10.210.0.0/24 dev plug0", "10.211.0.0/24 via 10.44.0.1 dev plug0"]
    {
        assert!(routes.contains(route), "{routes}");
    }
    d.docker(&["network", "rm", "net"]).fails(1, "has active endpoints");
    // What was made by one daemon is undone by the next.
    d.crash();
    assert_eq!(inside(d, "two", "ping -c1 -W30 one >/dev/null && echo ok"), "ok");
    let _ = plugin.calls();
    let _ = d.docker(&["stop", "-t0", "one"]).ok();
    plugin.await_call("IpamDriver.ReleaseAddress");
    assert_eq!(plugin.calls().iter().filter(|call| LEAVING.contains(&call.as_str())).count(), 3);
    sleeper(d, "three", &["--network", "net", "--ip", "10.44.0.77"]);
    assert_eq!(inside(d, "two", "ping -c1 -W30 10.44.0.77 >/dev/null && echo ok"), "ok");
    let _ = d.docker(&["rm", "-f", "one", "two", "three"]).ok();
}

/// A running container joins and leaves; the link, which is called as any other of a running container, goes back to the plugin,
/// under its name.
#[test]
fn a_running_container_joins_and_leaves_a_plugins_network() {
    let (d, plugin) = with_plugin(&[]);
    let _ = d
        .docker(&[
            "network",
            "create",
            "-d",
            "test",
            "--ipv6",
            "--subnet",
            "10.45.0.0/24",
            "--subnet",
            "fd00:45::/64",
            "net",
        ])
        .ok();
    sleeper(&d, "one", &[]);
    let _ = plugin.calls();
    let _ = d.docker(&["network", "connect", "--driver-opt", "speed=fast", "--gw-priority", "5", "net", "one"]).ok();
    assert_eq!(plugin.arguments("NetworkDriver.CreateEndpoint")["Options"]["speed"], "fast");
    let endpoint = plugin.arguments("NetworkDriver.Join")["EndpointID"].as_str().unwrap().to_owned();
    assert!(inside(&d, "one", "ip -o addr show eth1").contains("fd00:45::2/64"));
    let routes = inside(&d, "one", "ip route; ip -6 route");
    assert!(
        routes.contains("default via 10.45.0.1 dev eth1") && routes.contains("default via fd00:45::1 dev eth1"),
        "{routes}"
    );
    assert_eq!(inside(&d, "one", "ping -c1 -W30 fd00:45::1 >/dev/null && echo ok"), "ok");
    let _ = plugin.calls();
    plugin.mode("say NetworkDriver.DeleteEndpoint {}");
    let _ = d.docker(&["network", "disconnect", "net", "one"]).ok();
    assert_eq!(plugin.calls(), LEAVING[..3]);
    let source = format!("c{}", &endpoint[..10]);
    assert!(d.exec_inside(&["ip", "-o", "link", "show", &source]).text().contains(&source), "it is the plugin's again");
    let _ = d.exec_inside(&["ip", "link", "del", &source]).ok();
    assert!(inside(&d, "one", "ip route").contains("default via 172.17.0.1 dev eth0"));
    plugin.mode("");
    let _ = d.docker(&["rm", "-f", "one"]).ok();
    let _ = d.docker(&["network", "rm", "net"]).ok();
    assert_eq!(devices(&d), 0);
    finish(d, plugin);
}

/// A bridge of the daemon's own with addresses of a plugin, which forgets when it is started anew.
#[test]
fn a_plugin_gives_addresses_to_bridges() {
    let (mut d, mut plugin) = with_plugin(&["IpamDriver", "forgetful", "mac"]);
    let _ = d.docker(&["network", "create", "--ipam-driver", "test", "net"]).ok();
    sleeper(&d, "one", &["--network", "net"]);
    let asked = plugin.arguments("IpamDriver.RequestAddress");
    let mac = d.inspect("one", "{{(index .NetworkSettings.Networks \"net\").MacAddress}}");
    assert_eq!(asked["Options"]["com.docker.network.endpoint.macaddress"], mac);
    assert_eq!(d.inspect("one", "{{(index .NetworkSettings.Networks \"net\").IPAddress}}"), "10.200.0.2");
    // Both start anew: the plugin is told what is in use before it is asked for more.
    plugin.kill();
    d.crash();
    plugin.again(&d);
    sleeper(&d, "two", &["--network", "net"]);
    assert_eq!(d.inspect("two", "{{(index .NetworkSettings.Networks \"net\").IPAddress}}"), "10.200.0.3");
    assert_eq!(inside(&d, "two", "ping -c1 -W30 one >/dev/null && echo ok"), "ok");
    let create =
        |more: &[&str]| d.docker(&[&["network", "create", "--ipam-driver", "test"], more, &["other"]].concat());
    create(&["--ipam-opt", "refuse=no more"]).fails(1, "remote: no more");
    create(&["-d", "test"]).fails(1, "Plugin does not implement the requested driver");
    let _ = create(&["--ipam-opt", "gateway=10.200.1.254/24"]).ok();
    sleeper(&d, "three", &["--network", "other"]);
    assert!(inside(&d, "three", "ip route").contains("default via 10.200.1.254"));
    // An address that the plugin has given before is not given to another one.
    plugin.mode(r#"say IpamDriver.RequestAddress {"Address": "10.200.0.3/24"}"#);
    d.docker(&["run", "--network", "net", "busybox", "true"]).fails(125, "Address already in use");
    plugin.mode("");
    d.remove_containers();
    let _ = d.docker(&["network", "rm", "net", "other"]).ok();
    assert_eq!(plugin.calls().iter().filter(|call| *call == "IpamDriver.ReleasePool").count(), 2);
    finish(d, plugin);
}

/// A plugin that does not answer holds up nobody but who asks for its own.
#[test]
fn a_network_plugin_that_hangs() {
    let (d, mut plugin) = with_plugin(&[]);
    let _ = d.docker(&["network", "create", "-d", "test", "--subnet", "10.46.0.0/24", "theirs"]).ok();
    let _ = plugin.calls();
    plugin.mode("hang NetworkDriver.CreateNetwork");
    let mut stuck = d.spawn(&["network", "create", "-d", "test", "--subnet", "10.47.0.0/24", "stuck"]);
    plugin.await_call("NetworkDriver.CreateNetwork");
    d.docker(&["network", "create", "stuck"]).fails(1, "network with name stuck already exists");
    let _ = d.docker(&["network", "create", "ours"]).ok();
    let _ = d.docker(&["run", "--rm", "--network", "ours", "busybox", "true"]).ok();
    let _ = d.docker(&["network", "rm", "ours"]).ok();
    assert_eq!(d.docker(&["network", "ls", "-qf", "name=stuck"]).text(), "");
    plugin.mode("hang NetworkDriver.Join");
    let mut held = d.spawn(&["run", "--name", "held", "--network", "theirs", "busybox", "true"]);
    plugin.await_call("NetworkDriver.Join");
    let _ = d.docker(&["run", "--rm", "busybox", "true"]).ok();
    assert_eq!(d.inspect("held", "{{.State.Status}}"), "created");
    // It is gone in the middle of its calls, and comes back without a memory of them.
    plugin.mode("");
    plugin.kill();
    plugin.again(&d);
    let (stuck, held) = (stuck.end(), held.end());
    assert!(stuck.code == 0 && held.code == 125 || held.code == 0, "{stuck:?} {held:?}");
    d.remove_containers();
    let _ = d.docker(&["network", "rm", "theirs"]).ok();
    let _ = d.docker(&["network", "rm", "stuck"]).ok();
    finish(d, plugin);
}

/// What a plugin says is checked before it is believed, and what it was told is taken back.
#[test]
fn a_network_plugin_that_lies() {
    let (d, plugin) = with_plugin(&[]);
    let create = || d.docker(&["network", "create", "-d", "test", "--ipam-driver", "test", "new"]);
    for (mode, text) in [
        (r#"say NetworkDriver.CreateNetwork {"Err": "no room"}"#, "remote: no room"),
        ("say NetworkDriver.CreateNetwork no json", "invalid character"),
        (r#"status NetworkDriver.CreateNetwork {"Err": "out of order"}"#, "NetworkDriver.CreateNetwork: out of order"),
        (r#"say IpamDriver.RequestPool {"PoolID": "x", "Pool": "nowhere"}"#, "is no subnet"),
        (r#"say IpamDriver.RequestPool {"PoolID": "x", "Pool": "fd00::/64"}"#, "is not of the family"),
        (r#"say IpamDriver.RequestPool {"PoolID": 7}"#, "cannot unmarshal number"),
        (r#"say IpamDriver.RequestAddress {"Address": "10.99.0.1/24"}"#, "failed to allocate gateway"),
        (r#"say IpamDriver.RequestAddress {}"#, "no address returned"),
        (r#"status IpamDriver.GetDefaultAddressSpaces {}"#, "failed to get default address space"),
    ] {
        plugin.mode(mode);
        create().fails(1, text);
        assert_eq!(d.docker(&["network", "ls", "-qf", "name=new"]).text(), "", "{mode}");
    }
    plugin.mode("");
    let _ = create().ok();
    let run = || d.docker(&["run", "--rm", "--network", "new", "busybox", "true"]);
    for (mode, text) in [
        (r#"say NetworkDriver.CreateEndpoint {"Err": "full"}"#, "remote: full"),
        (r#"say NetworkDriver.CreateEndpoint {"Interface": {"MacAddress": "zz"}}"#, "invalid MAC address"),
        (
            r#"say NetworkDriver.CreateEndpoint {"Interface": {"Address": "10.1.1.1/24"}}"#,
            "driver modified interface address",
        ),
        (r#"say NetworkDriver.CreateEndpoint {"Interface": {"AddressIPv6": "10.1.1.1/24"}}"#, "is no IPv6 address"),
        (
            r#"say NetworkDriver.Join {"InterfaceName": {"SrcName": "nosuchlink", "DstPrefix": "eth"}}"#,
            "there is no link",
        ),
        (
            r#"say NetworkDriver.Join {"InterfaceName": {"SrcName": "../etc", "DstPrefix": "eth"}}"#,
            "is no name of a link",
        ),
        (
            r#"say NetworkDriver.Join {"InterfaceName": {"SrcName": "a-name-that-is-too-long", "DstPrefix": "eth"}}"#,
            "is no name of a link",
        ),
        (r#"say NetworkDriver.Join {"Gateway": "gate"}"#, "unable to parse Gateway \"gate\""),
        (r#"say NetworkDriver.Join {"StaticRoutes": [{"Destination": "x"}]}"#, "invalid CIDR address: x"),
        (r#"say NetworkDriver.ProgramExternalConnectivity {"Err": "no way out"}"#, "remote: no way out"),
    ] {
        plugin.mode(mode);
        let _ = plugin.calls();
        let output = run();
        assert!(output.code == 125 && output.stderr.contains(text), "{mode}: {output:?}");
        assert!(plugin.calls().contains(&"IpamDriver.ReleaseAddress".to_owned()), "{mode}");
    }
    plugin.mode("");
    let _ = run().ok();
    let _ = d.docker(&["network", "rm", "new"]).ok();
    assert_eq!(d.exec_inside(&["ip", "-o", "link"]).text().lines().filter(|line| line.contains("veth")).count(), 0);
    finish(d, plugin);
}

/// Containers end and networks are known while a plugin is gone; what was broken off is removed when it is back.
#[test]
fn a_network_plugin_that_goes() {
    let (mut d, mut plugin) = with_plugin(&["global"]);
    let _ = d.docker(&["network", "create", "-d", "test", "--subnet", "10.48.0.0/24", "net"]).ok();
    assert_eq!(
        d.docker(&["network", "ls", "-f", "scope=global", "--format", "{{.Name}} {{.Scope}}"]).text(),
        "net global"
    );
    sleeper(&d, "one", &["--network", "net"]);
    plugin.kill();
    let _ = d.docker(&["kill", "one"]).ok();
    assert!(eventually(|| d.inspect("one", "{{.State.Status}}") == "exited"));
    let _ = d.exec_inside(&["rm", SOCKET]).ok();
    d.docker(&["start", "one"]).fails(1, "plugin \"test\" not found");
    d.docker(&["network", "rm", "net"]).fails(1, "plugin \"test\" not found");
    assert_eq!(d.docker(&["network", "ls", "-qf", "name=net"]).text().lines().count(), 1, "it is still there");
    d.docker(&["network", "create", "-d", "nosuch", "x"]).fails(1, "plugin \"nosuch\" not found");
    d.docker(&["network", "create", "--ipam-driver", "nosuch", "x"]).fails(1, "plugin \"nosuch\" not found");
    plugin.again(&d);
    // The daemon dies while a network is made.
    let _ = plugin.calls();
    plugin.mode("hang NetworkDriver.CreateNetwork");
    let mut broken = d.spawn(&["network", "create", "-d", "test", "--subnet", "10.49.0.0/24", "broken"]);
    plugin.await_call("NetworkDriver.CreateNetwork");
    let _ = plugin.calls();
    d.crash();
    drop(broken.end());
    plugin.mode("");
    assert_eq!(plugin.calls(), [""; 0], "a start of the daemon waits for no plugin");
    assert_eq!(d.docker(&["network", "ls", "-qf", "name=broken"]).text(), "");
    let _ = d.docker(&["network", "rm", "-f", "nosuch"]);
    let _ = d.docker(&["rm", "one"]).ok();
    let _ = d.docker(&["network", "rm", "net"]).ok();
    plugin.await_call("NetworkDriver.DeleteNetwork");
    assert_eq!(plugin.calls().iter().filter(|call| *call == "NetworkDriver.DeleteNetwork").count(), 2);
    let _ = d.docker(&["network", "create", "--subnet", "10.49.0.0/24", "broken"]).ok();
    let _ = d.docker(&["network", "rm", "broken"]).ok();
    assert_eq!(devices(&d), 0);
    finish(d, plugin);
}
