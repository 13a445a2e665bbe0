//! A daemon that dies at any moment while ranges of ports come and go: what the definition of a container says is published, is
//! shown, translated and held by sockets, each port of it and no other.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use testkit::{Daemon, command};

use crate::with_busybox;

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ports of the container that runs, and of one that is being started.
const OWN: std::ops::Range<u16> = 9000..10_000;
const OTHER: std::ops::Range<u16> = 12_000..13_000;
/// Those of its own that come and go.
const PART: std::ops::Range<u16> = 9200..9700;
/// TCP_LISTEN in /proc/net/tcp6 (proc_net_tcp, net/tcp_states.h).
const LISTENS: &str = "0A";

type Ports = BTreeSet<u16>;

fn map(ports: impl IntoIterator<Item = u16>) -> String {
    let bindings = ports.into_iter().map(|port| format!(r#""{port}/tcp":[{{"HostPort":"{port}"}}]"#));
    format!("{{{}}}", bindings.collect::<Vec<_>>().join(","))
}

/// Sends a request, and does not wait for its answer.
fn ask(d: &Daemon, path: &str, body: &str) -> UnixStream {
    let length = body.len();
    let head = "HTTP/1.1\r\nHost: d\r\nContent-Type: application/json";
    let request = format!("POST {path} {head}\r\nContent-Length: {length}\r\n\r\n{body}");
    let mut client = UnixStream::connect(d.socket()).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    client
}

/// What inspect has, in the definition and of the network.
fn told(d: &Daemon, name: &str) -> [Ports; 2] {
    let all = d.http("GET", &format!("/containers/{name}/json"), "").expect(200).json();
    [&all["HostConfig"]["PortBindings"], &all["NetworkSettings"]["Ports"]].map(|ports| {
        let published = ports.as_object().into_iter().flatten().filter(|(_, bindings)| !bindings.is_null());
        published.map(|(port, _)| port.trim_end_matches("/tcp").parse().unwrap()).collect()
    })
}

/// Ports that are translated.
fn translated(d: &Daemon) -> Ports {
    let mut ports = Ports::new();
    for map in ["range-any", "published-any"] {
        let listed = d.exec_inside(&["nft", "list", "map", "inet", "gantry", map]).stdout;
        for element in listed.split("tcp . ").skip(1) {
            let range = element.split(' ').next().unwrap();
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            ports.extend(first.parse::<u16>().unwrap()..=last.parse().unwrap());
        }
    }
    ports
}

/// Ports at which somebody listens for both families.
fn held(d: &Daemon) -> Ports {
    let sockets = d.exec_inside(&["cat", "/proc/net/tcp6"]).stdout;
    let listening = sockets.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = fields[1].split_once(':')?;
        (fields[3] == LISTENS).then(|| u16::from_str_radix(port, 16).unwrap())
    });
    listening.filter(|port| OWN.contains(port) || OTHER.contains(port)).collect()
}

#[test]
fn ranges_are_what_their_definitions_say_whenever_a_daemon_dies() {
    let mut d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "web", "busybox", "sleep", "100000"]).ok();
    let body =
        format!(r#"{{"Image":"busybox","Cmd":["sleep","100000"],"HostConfig":{{"PortBindings":{}}}}}"#, map(OTHER));
    let mut before = Ports::new();
    for round in 0..testkit::soak::rounds(6, 50) {
        let _ = d.http("POST", "/containers/create?name=other", &body).expect(201);
        let change = match before.is_superset(&PART.collect()) {
            true => format!(r#"{{"Remove":{}}}"#, map(PART)),
            false => format!(r#"{{"Add":{}}}"#, map(OWN.filter(|port| !before.contains(port)))),
        };
        let _clients = [ask(&d, "/containers/web/ports", &change), ask(&d, "/containers/other/start", "")];
        // Somewhere between the requests and their ends.
        std::thread::sleep(Duration::from_millis(u64::try_from(round * 37 % 300).unwrap()));
        d.kill9();
        d.again();
        let _ = d.http("DELETE", "/containers/other?force=1", "").expect(204);
        let mut found = Default::default();
        let agree = command::eventually(PATIENCE, || {
            let [defined, shown] = told(&d, "web");
            found = [defined, shown, translated(&d), held(&d)];
            found.iter().all(|ports| *ports == found[0])
        });
        let sizes = found.each_ref().map(Ports::len);
        assert!(agree, "round {round}: of the definition, shown, translated, held: {sizes:?}");
        let [defined, ..] = found;
        let whole: Ports = OWN.collect();
        let part = PART.collect();
        assert!(
            [&Ports::new(), &whole, &whole.difference(&part).copied().collect()].contains(&&defined),
            "round {round}: a change is whole or has not happened"
        );
        before = defined;
    }
    d.finish();
}
