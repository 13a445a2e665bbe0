//! `gantry.egress`: what containers may reach, by names and by addresses, from a container that tries everything else.

use std::path::PathBuf;
use std::process::{Child, Command};

use testkit::command::run;
use testkit::{Daemon, Options, Output};

use crate::{eventually, with_busybox};

pub const DNS: &str = "192.0.2.53";
const ALLOWED: &str = "192.0.2.10";
const OTHER: &str = "192.0.2.11";
const SHORT_LIVED: &str = "192.0.2.12";

/// Servers in the daemon's network.
pub struct Outside {
    program: Child,
    log: PathBuf,
}

impl Outside {
    pub fn start(d: &Daemon) -> Outside {
        let log = d.path("queries");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/client/outside.py");
        let mut command: Command = d.namespaces().command("python3");
        command.arg(script).arg(&log).arg(DNS);
        command.args([
            format!("example.test={ALLOWED}:600"),
            format!("a.wild.test={ALLOWED}:600"),
            format!("wild.test={OTHER}:600"),
            format!("other.test={OTHER}:600"),
            format!("short.test={SHORT_LIVED}:1"),
            "rebound.test=169.254.169.254,127.0.0.1,172.17.0.1:600".to_owned(),
        ]);
        let outside = Outside { program: command.spawn().unwrap(), log };
        assert!(eventually(|| outside.asked("ready")), "the servers outside");
        outside
    }

    /// Whether the DNS server was asked for a name.
    pub fn asked(&self, name: &str) -> bool {
        std::fs::read_to_string(&self.log).unwrap_or_default().lines().any(|line| line == name)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn inside(d: &Daemon, name: &str, command: &str) -> Output {
    d.docker(&["exec", name, "sh", "-c", command])
}

/// Whether a web server answers a container at an address or a name, each with a port or without. The name is resolved
/// first.
fn reaches(d: &Daemon, name: &str, to: &str) -> bool {
    let (host, port) = to.split_once(':').unwrap_or((to, "80"));
    let address = match host.parse::<std::net::IpAddr>() {
        Ok(_) => host.to_owned(),
        Err(_) => {
            let found = inside(d, name, &format!("nslookup {host}.")).stdout;
            let answer = found.split_once("\n\n").map_or("", |(_, answer)| answer);
            let Some(address) = answer.lines().find_map(|line| line.strip_prefix("Address: ")) else { return false };
            address.to_owned()
        }
    };
    let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {address} {port}");
    inside(d, name, &ask).stdout.contains("ok")
}

fn denied(d: &Daemon, since: &str) -> Vec<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let until = (now + 1).to_string();
    let format =
        "{{.Action}} {{.Actor.Attributes.destination}} {{.Actor.Attributes.port}} {{.Actor.Attributes.protocol}}";
    let filters = ["--filter", "event=egress_denied"];
    let words = [&["events", "--since", since, "--until", &until, "--format", format][..], &filters].concat();
    d.docker(&words).stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_container_reaches_the_names_of_its_rules() {
    let mut d = Options::new().args(&["--dns", DNS]).start();
    d.busybox();
    let outside = Outside::start(&d);
    let rules = "gantry.egress=allow:example.test:80,*.wild.test,short.test,rebound.test";
    let _ = d.docker(&["run", "-d", "--name", "web", "--label", rules, "busybox", "sleep", "1000"]).ok();
    let _ = d.docker(&["run", "-d", "--name", "free", "busybox", "sleep", "1000"]).ok();
    // On the default network, too, it asks the resolver of its sandbox.
    assert!(inside(&d, "web", "cat /etc/resolv.conf").text().contains("nameserver 127.0.0.11\n"));
    assert!(!reaches(&d, "web", ALLOWED), "nobody has asked for its name");
    let all = |d: &Daemon| {
        assert!(reaches(d, "web", "example.test") && reaches(d, "web", "a.wild.test:81"));
        assert!(!reaches(d, "web", "other.test") && !reaches(d, "web", "wild.test"));
        assert!(!reaches(d, "web", OTHER) && !reaches(d, "web", "172.17.0.1"));
        assert!(reaches(d, "free", OTHER));
    };
    all(&d);
    assert!(outside.asked("example.test") && outside.asked("a.wild.test"));
    assert!(!outside.asked("other.test") && !outside.asked("wild.test"), "no query leaks");
    // Another DNS server, and names that stand for what is not their owner's.
    assert!(!inside(&d, "web", &format!("timeout 3 nslookup other.test {DNS}")).stdout.contains(OTHER));
    let _ = inside(&d, "web", "nslookup rebound.test");
    assert!(outside.asked("rebound.test"));
    for address in ["169.254.169.254", "172.17.0.1"] {
        assert!(!reaches(&d, "web", address), "{address}");
    }
    assert!(eventually(|| {
        let seen = denied(&d, "0");
        let has = |wanted: &str| seen.iter().any(|line| line == &format!("egress_denied {wanted}"));
        let answer = format!("{OTHER} 80 tcp");
        has(&answer)
            && has("192.0.2.53 53 udp")
            && has("169.254.169.254 80 tcp")
            && seen.iter().any(|line| line.starts_with("egress_denied other.test ") && line.ends_with(" dns"))
    }));
    let mut reach = Command::new(testkit::places::gantryd());
    let reach = run(reach.args(["reach", "web", "--exec-root", d.exec_root().to_str().unwrap()]), b"");
    assert!(reach.stdout.contains("reaches only example.test:80, *.wild.test, short.test, rebound.test"), "{reach:?}");
    // Nothing of it depends on the daemon.
    d.kill9();
    d.boot().unwrap();
    all(&d);
    let _ = d.docker(&["restart", "-t", "0", "web"]).ok();
    all(&d);
    drop(outside);
    d.finish();
}

/// The address of a name passes as long as the answer lasts.
#[test]
fn answers_expire() {
    let d = Options::new().args(&["--dns", DNS]).start();
    d.busybox();
    let outside = Outside::start(&d);
    let _ = d.docker(&["network", "create", "app"]).ok();
    let rules = "gantry.egress=allow:short.test:80";
    let _ = d
        .docker(&["run", "-d", "--name", "web", "--network", "app", "--label", rules, "busybox", "sleep", "1000"])
        .ok();
    // On a slow machine the time may be over before the container has used it.
    let at_once =
        format!("nslookup short.test. >/dev/null; printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {SHORT_LIVED} 80");
    let once = || eventually(|| inside(&d, "web", &at_once).stdout.contains("ok"));
    assert!(once());
    assert!(eventually(|| !reaches(&d, "web", SHORT_LIVED)), "its time is over");
    assert!(once(), "asked for again");
    drop(outside);
    d.finish();
}

#[test]
fn rules_of_networks_and_names_of_containers() {
    let d = Options::new().args(&["--dns", DNS]).start();
    d.busybox();
    let outside = Outside::start(&d);
    let option = "gantry.egress=allow:example.test";
    let _ = d.docker(&["network", "create", "-o", option, "app"]).ok();
    let serve = "echo ok > /tmp/index.html; httpd -f -h /tmp";
    let _ = d.docker(&["run", "-d", "--name", "db", "--network", "app", "busybox", "sh", "-c", serve]).ok();
    let _ = d.docker(&["run", "-d", "--name", "web", "--network", "app", "busybox", "sleep", "1000"]).ok();
    assert!(reaches(&d, "web", "db") && reaches(&d, "web", "example.test:81"));
    assert!(!reaches(&d, "web", "other.test") && !reaches(&d, "web", OTHER) && !outside.asked("other.test"));
    // A container's own rules are about its neighbours, too.
    for (name, rules, may) in [("one", "allow:db:80", true), ("two", "allow:example.test", false)] {
        let rules = format!("gantry.egress={rules}");
        let words = ["run", "-d", "--name", name, "--network", "app", "--label", &rules, "busybox", "sleep", "1000"];
        let _ = d.docker(&words).ok();
        assert_eq!((reaches(&d, name, "db"), reaches(&d, name, "example.test")), (may, !may), "{name}");
    }
    // A network that is joined later brings no way out.
    let _ = d.docker(&["network", "create", "second"]).ok();
    let _ = d.docker(&["network", "connect", "second", "two"]).ok();
    assert!(!reaches(&d, "two", OTHER) && reaches(&d, "two", "example.test"));
    drop(outside);
    d.finish();
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    let label = "gantry.egress=allow:10.0.0.0/8";
    for mode in ["host", "none", "container:c1"] {
        let refused = d.docker(&["create", "--label", label, "--network", mode, "busybox"]);
        refused.fails(1, "conflicting options: gantry.egress and the network mode");
    }
    for value in ["", "all", "allow:", "allow:10.0.0.0/33", "allow:a..b", "allow:example.org:99999", "allow:*"] {
        let label = format!("gantry.egress={value}");
        d.docker(&["create", "--label", &label, "busybox"]).fails(1, "invalid gantry.egress value");
        let body = format!(r#"{{"Image":"busybox","Labels":{{"gantry.egress":"{value}"}}}}"#);
        assert!(d.http("POST", "/containers/create", &body).expect(400).message().contains("gantry.egress"), "{value}");
        d.docker(&["network", "create", "-o", &label, "bad"]).fails(1, "invalid gantry.egress value");
        d.docker(&["network", "create", "--label", &label, "bad"]).fails(1, "invalid gantry.egress value");
    }
    let option = "gantry.egress=allow:example.test";
    d.docker(&["network", "create", "-d", "macvlan", "-o", option, "bad"]).fails(1, "driver \"bridge\" only");
    d.docker(&["network", "create", "-o", "gantry.egres=allow:a", "bad"]).fails(1, "unknown option \"gantry.egres\"");
    // What a running container joins has to be checked, too.
    let _ = d.exec_inside(&["ip", "link", "add", "parent0", "type", "bridge"]).ok();
    let _ = d.docker(&["network", "create", "-d", "macvlan", "-o", "parent=parent0", "lan"]).ok();
    d.docker(&["create", "--label", label, "--network", "lan", "busybox"]).fails(1, "driver \"bridge\" only");
    let _ = d.docker(&["run", "-d", "--name", "c2", "--label", label, "busybox", "sleep", "1000"]).ok();
    d.docker(&["network", "connect", "lan", "c2"]).fails(1, "driver \"bridge\" only");
    d.remove_containers();
    d.remove_networks();
    let _ = d.exec_inside(&["ip", "link", "del", "parent0"]).ok();
    d.finish();
}
