//! Names on networks that users make: who is found by which name, while everything changes.

use testkit::{Daemon, Options};

use crate::egress::{DNS, Outside};
use crate::{eventually, with_busybox};

fn sleeper(d: &Daemon, name: &str, options: &[&str]) {
    let words = [&["run", "-d", "--name", name][..], options, &["busybox", "sleep", "1000"]].concat();
    let _ = d.docker(&words).ok();
}

fn inside(d: &Daemon, name: &str, command: &str) -> testkit::Output {
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

/// Everything that changes names changes them at once, also what happens after the daemon was killed.
#[test]
fn names_follow_their_containers() {
    let mut d = with_busybox();
    for network in ["app", "back"] {
        let _ = d.docker(&["network", "create", network]).ok();
    }
    sleeper(&d, "web", &["--network", "app"]);
    sleeper(&d, "db", &["--network", "app"]);
    let db = address(&d, "db", "app");
    let _ = d.docker(&["rename", "db", "sql"]).ok();
    assert_eq!(look_up(&d, "web", "sql"), std::slice::from_ref(&db));
    assert!(look_up(&d, "web", "db").is_empty(), "the old name");
    assert!(inside(&d, "web", &format!("nslookup {db}")).stdout.contains("name = sql.app"), "by its address");
    // One more network, with an alias, and away again.
    let _ = d.docker(&["network", "connect", "--alias", "store", "back", "sql"]).ok();
    assert!(look_up(&d, "web", "store").is_empty());
    let _ = d.docker(&["network", "connect", "back", "web"]).ok();
    assert_eq!(look_up(&d, "web", "store"), [address(&d, "sql", "back")]);
    let _ = d.docker(&["network", "disconnect", "app", "sql"]).ok();
    assert_eq!(look_up(&d, "web", "sql"), [address(&d, "sql", "back")]);
    // Who joins a sandbox joins its resolver.
    sleeper(&d, "guest", &["--network", "container:web"]);
    assert_eq!(look_up(&d, "guest", "store"), [address(&d, "sql", "back")]);
    d.kill9();
    let web = d.exec_inside(&["sh", "-c", "cat /proc/[0-9]*/comm | grep -c gantry-monitor"]).text();
    assert_ne!(web, "0");
    d.boot().unwrap();
    assert_eq!(look_up(&d, "web", "store"), [address(&d, "sql", "back")]);
    let _ = d.docker(&["restart", "-t", "0", "sql"]).ok();
    assert_eq!(look_up(&d, "web", "store"), [address(&d, "sql", "back")]);
    let _ = d.docker(&["rm", "-f", "sql"]).ok();
    assert!(look_up(&d, "web", "store").is_empty());
    d.finish();
}

/// No daemon is needed to find anybody.
#[test]
fn names_are_answered_while_no_daemon_runs() {
    let mut d = with_busybox();
    let _ = d.docker(&["network", "create", "app"]).ok();
    sleeper(&d, "db", &["--network", "app"]);
    let loop_ = "while :; do nslookup db. | grep -q \"Address: $0\" && echo found || echo lost; sleep 0.05; done";
    let db = address(&d, "db", "app");
    let _ = d.docker(&["run", "-d", "--name", "web", "--network", "app", "busybox", "sh", "-c", loop_, &db]).ok();
    let count = |d: &Daemon| d.docker(&["logs", "web"]).stdout.lines().count();
    assert!(eventually(|| count(&d) > 3));
    d.kill9();
    let log = d.data_root().join("containers");
    let lines = || -> usize {
        let dirs = std::fs::read_dir(&log).unwrap().flatten();
        let logs = dirs.flat_map(|dir| std::fs::read_dir(dir.path()).unwrap().flatten());
        let logs = logs.filter(|file| file.path().to_string_lossy().ends_with("-json.log"));
        logs.map(|file| std::fs::read_to_string(file.path()).unwrap().lines().count()).sum()
    };
    let before = lines();
    assert!(eventually(|| lines() > before + 5));
    d.boot().unwrap();
    let all = d.docker(&["logs", "web"]).stdout;
    assert!(!all.contains("lost"), "{all}");
    d.finish();
}

#[test]
fn the_files_of_containers_with_a_resolver() {
    let d = with_busybox();
    let _ = d.docker(&["network", "create", "app"]).ok();
    sleeper(&d, "web", &["--network", "app", "--dns", "10.9.8.7", "--dns-search", "corp", "--dns-option", "rotate"]);
    let text = inside(&d, "web", "cat /etc/resolv.conf").text();
    assert!(text.contains("\nnameserver 127.0.0.11\nsearch corp\noptions rotate ndots:0\n"), "{text}");
    assert!(text.contains("(internal resolver)\n# ExtServers: [10.9.8.7]\n"), "{text}");
    // A container of the default bridge gets a resolver with its first network of a user's.
    sleeper(&d, "plain", &[]);
    assert!(!inside(&d, "plain", "cat /etc/resolv.conf").text().contains("127.0.0.11"));
    let _ = d.docker(&["network", "connect", "app", "plain"]).ok();
    assert!(inside(&d, "plain", "cat /etc/resolv.conf").text().contains("nameserver 127.0.0.11\n"));
    assert_eq!(look_up(&d, "plain", "web"), [address(&d, "web", "app")]);
    // What somebody has written stays.
    sleeper(&d, "edited", &[]);
    let _ = inside(&d, "edited", "sleep 0.1; echo nameserver 10.1.1.1 > /etc/resolv.conf").ok();
    let _ = d.docker(&["network", "connect", "app", "edited"]).ok();
    assert_eq!(inside(&d, "edited", "cat /etc/resolv.conf").text(), "nameserver 10.1.1.1");
    d.finish();
}

#[test]
fn links_on_networks_of_users_are_names_of_one_container() {
    let d = with_busybox();
    let _ = d.docker(&["network", "create", "app"]).ok();
    sleeper(&d, "db", &["--network", "app"]);
    sleeper(&d, "web", &["--network", "app", "--link", "db:store"]);
    sleeper(&d, "other", &["--network", "app"]);
    assert_eq!(look_up(&d, "web", "store"), [address(&d, "db", "app")]);
    assert_eq!(look_up(&d, "web", "store.app"), [address(&d, "db", "app")]);
    assert!(look_up(&d, "other", "store").is_empty());
    assert_eq!(d.inspect("web", "{{json (index .NetworkSettings.Networks \"app\").Links}}"), r#"["db:store"]"#);
    d.finish();
}

#[test]
fn links_on_the_default_bridge() {
    let d = testkit::Options::new().env("DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS", "1").start();
    d.busybox();
    d.docker(&["run", "--link", "nobody:x", "busybox", "true"])
        .fails(125, "could not get container for nobody: No such container: nobody");
    let _ = d
        .docker(&["create", "--name", "db", "--hostname", "dbhost", "--expose", "5432", "busybox", "sleep", "1000"])
        .ok();
    d.docker(&["run", "--name", "early", "--link", "db:store", "busybox", "true"])
        .fails(125, "Cannot link to a non running container: /db AS /early/store");
    let _ = d.docker(&["start", "db"]).ok();
    sleeper(&d, "web", &["--link", "db:store"]);
    let old = d.inspect("db", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    let hosts = |d: &Daemon| inside(d, "web", "cat /etc/hosts").text();
    assert!(hosts(&d).contains(&format!("{old}\tstore dbhost db\n")), "{}", hosts(&d));
    let variables = inside(&d, "web", "tr '\\0' '\\n' < /proc/1/environ").text();
    assert!(variables.contains(&format!("STORE_PORT_5432_TCP_ADDR={old}\n")), "{variables}");
    assert!(variables.contains("STORE_NAME=/web/store\n"), "{variables}");
    assert_eq!(d.inspect("web", "{{json .HostConfig.Links}}"), r#"["/db:/web/store"]"#);
    assert_eq!(d.inspect("web/store", "{{.Name}}"), "/db");
    let names = d.docker(&["ps", "--no-trunc", "--format", "{{.Names}}"]).text();
    assert!(names.lines().any(|names| names == "db,early/store,web/store"), "{names}");
    // The other one comes back somewhere else, under another name.
    let _ = d.docker(&["stop", "-t", "0", "db"]).ok();
    sleeper(&d, "thief", &[]);
    let _ = d.docker(&["rename", "db", "sql"]).ok();
    let _ = d.docker(&["start", "sql"]).ok();
    let new = d.inspect("sql", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    assert_ne!(new, old);
    assert!(hosts(&d).contains(&format!("{new}\tstore dbhost db\n")), "{}", hosts(&d));
    assert_eq!(d.inspect("web", "{{json .HostConfig.Links}}"), r#"["/sql:/web/store"]"#);
    let _ = d.docker(&["rm", "--link", "web/store"]).ok();
    assert_eq!(d.inspect("web", "{{json .HostConfig.Links}}"), "null");
    d.docker(&["rm", "--link", "sql"]).fails(1, "Conflict, cannot remove the default link name of the container");
    d.finish();
}

#[test]
fn a_sandbox_has_a_path() {
    let mut d = with_busybox();
    let _ = d.docker(&["network", "create", "app"]).ok();
    sleeper(&d, "web", &["--network", "app"]);
    let key = d.inspect("web", "{{.NetworkSettings.SandboxKey}}");
    let id = d.inspect("web", "{{.Id}}");
    assert!(key.ends_with(&format!("/netns/{}", &id[..12])), "{key}");
    let entered = |d: &Daemon| d.exec_inside(&["nsenter", &format!("--net={key}"), "ip", "-o", "addr"]).text();
    let own = address(&d, "web", "app");
    assert!(entered(&d).contains(&own));
    d.crash();
    assert_eq!(d.inspect("web", "{{.NetworkSettings.SandboxKey}}"), key);
    assert!(entered(&d).contains(&own));
    let _ = d.docker(&["restart", "-t", "0", "web"]).ok();
    assert!(entered(&d).contains(&address(&d, "web", "app")));
    let _ = d.docker(&["stop", "-t", "0", "web"]).ok();
    assert!(eventually(|| std::fs::symlink_metadata(&key).is_err()));
    assert_eq!(d.inspect("web", "{{.NetworkSettings.SandboxKey}}"), "");
    d.finish();
}

/// Whatever the clients of a sandbox's resolver ask, the log of the container that owns it goes on, and so do its execs.
#[test]
fn a_flood_of_queries_does_not_hold_the_log_of_the_owner_up() {
    let d = Options::new().start();
    d.probe();
    let _ = d.docker(&["network", "create", "app"]).ok();
    let _ = d.docker(&["run", "-d", "--name", "web", "--network", "app", "probe", "ticks", "5"]).ok();
    let lines = || d.docker(&["logs", "web"]).stdout.lines().count();
    assert!(eventually(|| lines() > 3));
    // Two that are answered at once, and one whose queries go to servers that are not there.
    let names = ["web", "web.app", "nobody.example"];
    let mut floods: Vec<_> =
        names.iter().map(|name| d.spawn(&["exec", "web", "/probe", "dns-flood", name, "100000"])).collect();
    for _ in 0..3 {
        let before = lines();
        assert!(eventually(|| lines() > before + 20));
        assert_eq!(d.docker(&["exec", "web", "/probe", "echo", "here"]).text(), "here");
    }
    assert!(floods.iter_mut().all(|flood| flood.wait(std::time::Duration::ZERO).is_none()), "floods go on");
    let _ = d.docker(&["rm", "-f", "web"]).ok();
    drop(floods);
    d.finish();
}

/// Who is on internal networks only finds its neighbours, and no query of it comes out, whoever is asked.
#[test]
fn internal_networks_leak_no_query() {
    let d = Options::new().args(&["--dns", DNS]).start();
    d.busybox();
    let outside = Outside::start(&d);
    let _ = d.docker(&["network", "create", "--internal", "inner"]).ok();
    let _ = d.docker(&["network", "create", "outer"]).ok();
    sleeper(&d, "db", &["--network", "inner"]);
    sleeper(&d, "web", &["--network", "inner"]);
    assert_eq!(look_up(&d, "web", "db"), [address(&d, "db", "inner")]);
    for name in ["other.test", "secret.inner.test"] {
        assert!(look_up(&d, "web", name).is_empty() && !outside.asked(name), "{name}");
    }
    let _ = inside(&d, "web", &format!("timeout 3 nslookup direct.test {DNS}"));
    assert!(!outside.asked("direct.test"));
    // With a way out it asks, and without again it does not.
    let _ = d.docker(&["network", "connect", "outer", "web"]).ok();
    assert!(eventually(|| !look_up(&d, "web", "other.test").is_empty()));
    let _ = d.docker(&["network", "disconnect", "outer", "web"]).ok();
    assert!(look_up(&d, "web", "wild.test").is_empty() && !outside.asked("wild.test"));
    drop(outside);
    d.finish();
}
