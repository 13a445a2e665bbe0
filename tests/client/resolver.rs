//! Names on networks that users make: who is found by which name, while everything changes.

use testkit::Daemon;

use crate::with_busybox;

fn sleeper(d: &Daemon, name: &str, options: &[&str]) {
    let words = [&["run", "-d", "--name", name][..], options, &["busybox", "sleep", "1000"]].concat();
    let _ = d.docker(&words).ok();
}

fn inside(d: &Daemon, name: &str, command: &str) -> testkit::command::Output {
    d.docker(&["exec", name, "sh", "-c", command])
}

/// The addresses of a name, as a container finds them; sorted.
fn look_up(d: &Daemon, from: &str, name: &str) -> Vec<String> {
    let found = inside(d, from, &format!("nslookup {name}."));
    let answer = found.stdout.split_once("\n\n").map_or("", |(_, answer)| answer);
    let lines = answer.lines().filter_map(|line| line.strip_prefix("Address: "));
    let mut addresses: Vec<String> = lines.map(str::to_owned).collect();
    addresses.sort();
    addresses
}

fn address(d: &Daemon, name: &str, network: &str) -> String {
    d.inspect(name, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"))
}

#[test]
fn containers_of_a_network_find_each_other_by_name() {
    let d = with_busybox();
    for network in ["app", "other"] {
        let _ = d.docker(&["network", "create", network]).ok();
    }
    sleeper(&d, "db", &["--network", "app", "--network-alias", "sql", "--hostname", "dbhost"]);
    sleeper(&d, "web", &["--network", "app"]);
    sleeper(&d, "far", &["--network", "other"]);
    let db = address(&d, "db", "app");
    let short = d.docker(&["ps", "-q", "-f", "name=db"]).text();
    for name in ["db", "sql", "dbhost", short.as_str(), "DB", "db.app"] {
        assert_eq!(look_up(&d, "web", name), std::slice::from_ref(&db), "{name}");
    }
    assert_eq!(look_up(&d, "db", "web"), [address(&d, "web", "app")]);
    assert!(look_up(&d, "web", "far").is_empty(), "another network");
    assert!(look_up(&d, "web", "db.other").is_empty(), "another network");
    // The C library of the host, which reads resolv.conf by itself.
    sleeper(&d, "glibc", &["--network", "app", "-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro"]);
    let line = inside(&d, "glibc", "/usr/bin/getent ahostsv4 db").text();
    assert!(line.starts_with(&db), "{line}");
    d.finish();
}
