//! Hosts whose firewall a program keeps that reads its own configuration: the real firewalld and the real ufw, made by
//! `cargo xtask test` below `target/tools/firewalls`, with a bus and directories of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use network::networks::firewalld;
use network::{Enabled, NetworkConfig, NewNetwork};
use store::Store;

use crate::firewalls::Scene;
use crate::world::*;

/// Where the programs lie.
fn tools() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of the test");
    let target = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists() && dir.ends_with("target"));
    let place = target.expect("a target directory").join("tools/firewalls");
    assert!(place.join("complete").exists(), "{} is missing: `cargo xtask test` makes it", place.display());
    place
}

/// A program that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a program"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bus, and the directory of a firewalld on it.
struct Host {
    dir: tempfile::TempDir,
    tools: PathBuf,
    _bus: Running,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().expect("a directory");
        let tools = tools();
        let config = dir.path().join("bus.conf");
        let socket = dir.path().join("bus");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\
             <busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context='default'>\
             <allow user='*'/><allow own='*'/><allow send_destination='*'/><allow send_type='method_call'/>\
             <allow send_type='signal'/><allow receive_type='method_call'/><allow receive_type='method_return'/>\
             <allow receive_type='error'/><allow receive_type='signal'/></policy></busconfig>",
            socket.display()
        );
        std::fs::write(&config, text).expect("a configuration");
        let config = format!("--config-file={}", config.display());
        let bus = Running::start(Command::new("dbus-daemon").args([&config, "--nofork", "--nopidfile"]));
        eventually("the bus", || socket.exists());
        copy(&tools.join("etc/firewalld"), &dir.path().join("firewalld"));
        Host { dir, tools, _bus: bus }
    }

    fn config(&self) -> NetworkConfig {
        let system_bus = dbus::parse(&self.address());
        NetworkConfig { system_bus, ..NetworkConfig::default() }
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.dir.path().join("bus").display())
    }

    fn python(&self, program: &str) -> Command {
        let mut command = Command::new("/usr/bin/python3");
        command.arg("-s").arg(self.tools.join(program));
        command.env("PYTHONPATH", self.tools.join("usr/lib/python3/dist-packages"));
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("DBUS_SYSTEM_BUS_ADDRESS", self.address());
        command
    }

    fn firewalld(&self) -> Running {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let mut command = self.python("usr/sbin/firewalld");
        command.args(["--nofork", "--nopid", "--log-file", &path("log"), "--system-config", &path("firewalld")]);
        command.arg("--default-config").arg(self.tools.join("usr/lib/firewalld"));
        let running = Running::start(&mut command);
        eventually("firewalld", || self.client(&["--state"]).status.success());
        running
    }

    fn client(&self, words: &[&str]) -> Output {
        self.python("usr/bin/firewall-cmd").args(words).output().expect("firewall-cmd")
    }

    fn ask(&self, words: &[&str]) -> String {
        let out = self.client(words);
        assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("text").trim().to_owned()
    }

    fn members(&self) -> Vec<String> {
        self.ask(&["--zone=docker", "--list-interfaces"]).split_whitespace().map(str::to_owned).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").args([from, to]).status().expect("cp");
    assert!(copied.success(), "{}", from.display());
}

/// The bridges of all networks are in the zone, as long as they are, after each reload and each start of firewalld.
#[test]
fn firewalld_has_the_bridges_in_its_zone() {
    in_namespace(|| {
        let host = Host::new();
        let running = host.firewalld();
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("db")).expect("a store");
        let world = World::with(host.config(), store.clone());
        let watch = world.networks.watch().expect("a watch");
        let scene = Scene::new(&world);
        scene.works();
        assert_eq!(host.members(), ["docker0"]);
        assert!(firewalld(&world.networks).runs);
        // The zone accepts what containers send to the host; the others do not.
        serve(&sys::netlink::namespace::current().expect("a namespace"), 9000);
        assert!(scene.asks_the_host(9000) && scene.is_refused_by_the_host(9000));
        let row = world.networks.create(NewNetwork { name: "more".into(), ..crate::networks::new("more") });
        let row = row.expect("a network");
        let device = format!("br-{}", row.id.short());
        assert!(host.members().contains(&device));
        host.ask(&["--reload"]);
        eventually("the bridges after a reload", || host.members().len() == 2);
        eventually("the time of the reload", || firewalld(&world.networks).reloaded_at.is_some());
        scene.works();
        world.networks.remove(&row.id).expect("a network");
        assert_eq!(host.members(), ["docker0"]);
        drop(running);
        eventually("the end of firewalld", || !firewalld(&world.networks).runs);
        let _running = host.firewalld();
        eventually("the bridges after a restart", || host.members() == ["docker0"]);
        scene.works();
        world.networks.release(&scene.web.endpoint.container).expect("a container");
        drop((watch, world));
        // Who wants no rules leaves the zone; what others have in it stays.
        host.ask(&["--zone=docker", "--add-interface=other0"]);
        let config = NetworkConfig { iptables: Enabled::No, ip6tables: Enabled::No, ..host.config() };
        let world = World::with(config, store);
        assert!(firewalld(&world.networks).runs);
        assert_eq!(host.members(), ["other0"]);
    });
}

/// Where firewalld comes later, and where the administrator has put a bridge elsewhere.
#[test]
fn firewalld_comes_later_and_keeps_what_its_administrator_chose() {
    in_namespace(|| {
        let host = Host::new();
        let world = World::open(host.config());
        let _watch = world.networks.watch().expect("a watch");
        let scene = Scene::new(&world);
        scene.works();
        assert!(!firewalld(&world.networks).runs);
        let _running = host.firewalld();
        let zones = || host.ask(&["--get-zones"]);
        eventually("the zone", || zones().contains("docker") && host.members() == ["docker0"]);
        scene.works();
        let policy = host.ask(&["--info-policy=docker-forwarding"]);
        assert!(policy.contains("egress-zones: docker") && policy.contains("target: ACCEPT"), "{policy}");
        host.ask(&["--permanent", "--zone=trusted", "--add-interface=docker0"]);
        host.ask(&["--reload"]);
        eventually("the time of the reload", || firewalld(&world.networks).reloaded_at.is_some());
        assert_eq!(host.ask(&["--get-zone-of-interface=docker0"]), "trusted");
        scene.works();
    });
}

/// ufw writes its rules anew whenever it is told to: with each of its answers to what is forwarded containers work, and
/// what it is told to deny is denied.
#[test]
fn ufw_is_enabled_reloaded_and_disabled() {
    world(NetworkConfig::default(), |world| {
        let (dir, tools) = (tempfile::tempdir_in("/root").expect("a directory"), tools());
        let place = dir.path();
        ["etc", "lib", "usr"].iter().for_each(|part| copy(&tools.join(part), &place.join(part)));
        let ufw = |words: &[&str]| {
            let mut command = Command::new("/usr/bin/python3");
            command.arg("-s").arg(place.join("usr/sbin/ufw"));
            command.args([format!("--rootdir={}", place.display()), format!("--datadir={}", place.display())]);
            command.args(words).env("PYTHONPATH", place.join("usr/lib/python3/dist-packages"));
            let out = command.output().expect("ufw");
            assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
        };
        let jumps = || {
            let out = Command::new("iptables-nft").args(["-S", "FORWARD"]).output().expect("iptables");
            String::from_utf8_lossy(&out.stdout).contains("GANTRY-FORWARD")
        };
        let _watch = world.networks.watch().expect("a watch");
        let scene = Scene::new(world);
        ufw(&["--force", "enable"]);
        for routed in ["deny", "reject"] {
            ufw(&["default", routed, "routed"]);
            ufw(&["reload"]);
            eventually("the jump", jumps);
            scene.works();
        }
        ufw(&["route", "reject", "proto", "tcp", "from", "172.17.0.0/16", "to", "any", "port", "7000"]);
        eventually("a route that is denied", || !scene.reaches_out_once());
        assert!(scene.is_reached());
        ufw(&["disable"]);
        eventually("the jump's end", || !jumps());
        scene.works();
    });
}
