//! Published ports beyond the everyday: whole ranges, thousands at once, servers that are late, texts.

use testkit::{Daemon, Options, process};

use crate::{eventually, with_busybox};

/// The body of a create request that publishes `count` ports from `first` on, the host's of the same number.
fn body(first: u32, count: u32, host_ip: &str) -> String {
    let ports = first..first + count;
    let exposed: Vec<_> = ports.clone().map(|port| format!(r#""{port}/tcp":{{}}"#)).collect();
    let bindings = ports.map(|port| format!(r#""{port}/tcp":[{{"HostIp":"{host_ip}","HostPort":"{port}"}}]"#));
    let bindings: Vec<_> = bindings.collect();
    format!(
        r#"{{"Image":"busybox","Cmd":["sleep","1000"],"ExposedPorts":{{{}}},"HostConfig":{{"PortBindings":{{{}}}}}}}"#,
        exposed.join(","),
        bindings.join(",")
    )
}

#[test]
fn every_port_at_once_is_created() {
    let d = with_busybox();
    for (name, host_ip) in [("all", ""), ("named", "127.0.0.1")] {
        let _ = d.http("POST", &format!("/containers/create?name={name}"), &body(1, 65_535, host_ip)).expect(201);
        let shown = d.http("GET", &format!("/containers/{name}/json"), "").expect(200).json();
        assert_eq!(shown["HostConfig"]["PortBindings"].as_object().unwrap().len(), 65_535);
        let _ = d.http("DELETE", &format!("/containers/{name}"), "").expect(204);
    }
    d.finish();
}

fn kib(pid: u32) -> u64 {
    process::memory_kib(pid, "status", "RssAnon:").unwrap()
}

/// KiB that stay with the daemon after twenty thousand ports at most: a row of these takes some mebibytes in each of its forms.
const KEPT: u64 = 20 << 10;

/// With their sockets for IPv4 and IPv6 they are more than the descriptors that a process may have, unless the limit may be
/// raised, which takes CAP_SYS_RESOURCE.
#[test]
fn twenty_thousand_published_ports() {
    let d = with_busybox();
    let count = 20_000;
    let last = 40_000;
    let first = last + 1 - count;
    let cycle = || {
        let _ = d.http("POST", "/containers/create?name=many", &body(first, count, "")).expect(201);
        let _ = d.http("POST", "/containers/many/start", "").expect(204);
        let serve =
            format!("mkdir /www; echo many > /www/index.html; httpd -p {first} -h /www; httpd -p {last} -h /www");
        assert_eq!(d.docker(&["exec", "many", "sh", "-c", &serve]).code, 0);
        for (host, port) in [("127.0.0.1", first), ("127.0.0.1", last), ("172.17.0.1", last), ("[::1]", last)] {
            let url = format!("http://{host}:{port}/");
            let mut text = String::new();
            assert!(
                eventually(|| {
                    text = d.exec_inside(&["curl", "-s", "-m", "20", &url]).stdout;
                    text == "many\n"
                }),
                "{url}: {text:?}"
            );
        }
        let taken = d.docker(&["run", "--rm", "-p", "39999:80", "busybox", "true"]);
        assert!(taken.stderr.contains(":39999 failed: port is already allocated"), "{taken:?}");
        // The raised limits are the daemon's and the monitor's alone.
        let limits = |args: &[&str]| d.docker(&[args, &["sh", "-c", "ulimit -Sn; ulimit -Hn"]].concat()).text();
        let inside = limits(&["exec", "many"]);
        assert_eq!(inside, limits(&["run", "--rm", "busybox"]));
        assert_eq!(inside, d.exec_inside(&["sh", "-c", "ulimit -Sn; ulimit -Hn"]).text());
        let _ = d.http("DELETE", "/containers/many?force=1", "").expect(204);
    };
    let _ = d.docker(&["run", "--rm", "busybox", "true"]).ok();
    let before = kib(d.pid());
    for n in 1..=3 {
        cycle();
        // Given back, a moment after it was freed.
        let is_back = eventually(|| kib(d.pid()) < before + KEPT);
        assert!(is_back, "{before} KiB before the first, {} KiB after {n}", kib(d.pid()));
    }
    d.finish();
}

#[test]
fn a_server_that_is_late_is_reached_by_its_first_client() {
    let d = with_busybox();
    let script = "mkdir -p /www; echo late > /www/index.html; sleep 0.5; exec httpd -f -p 80 -h /www";
    let _ = d.docker(&["run", "-d", "--name", "web", "-p", "8081:80", "busybox", "sh", "-c", script]).ok();
    let answer = d.exec_inside(&["curl", "-s", "-m", "60", "http://127.0.0.1:8081/"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (0, "late\n"), "{answer:?}");
    d.finish();
}

#[test]
fn a_used_up_range_starts_again() {
    let d = with_busybox();
    let run = || {
        let id = d.docker(&["run", "-d", "-p", "8000-8002:80", "busybox", "sleep", "100"]).text();
        let port = d.docker(&["port", &id, "80"]).text().lines().next().unwrap_or_default().to_owned();
        let _ = d.docker(&["rm", "-f", &id]).ok();
        port
    };
    let ports: Vec<_> = (0..5).map(|_| run()).collect();
    let wanted = [8000, 8001, 8002, 8000, 8001].map(|port| format!("0.0.0.0:{port}"));
    assert_eq!(ports, wanted);
    // What is asked for by number is not given to what may have any.
    let range = ["run", "-d", "--name", "both", "-p", "8000-8001:70", "-p", "8000:80", "busybox", "sleep", "100"];
    let _ = d.docker(&range).ok();
    assert_eq!(d.docker(&["port", "both", "80"]).text().lines().next(), Some("0.0.0.0:8000"));
    assert_eq!(d.docker(&["port", "both", "70"]).text().lines().next(), Some("0.0.0.0:8001"));
    d.finish();
}

#[test]
fn a_port_of_the_daemon_is_taken() {
    let d = Options::new().args(&["-H", "tcp://127.0.0.1:2375"]).start();
    d.busybox();
    for published in ["2375:80", "127.0.0.1:2375:80"] {
        let output = d.docker(&["run", "-d", "-p", published, "busybox", "sleep", "100"]);
        assert_eq!(output.code, 125);
        assert!(output.stderr.contains("Bind for 127.0.0.1:2375 failed: port is already allocated"), "{output:?}");
    }
    let _ = d.docker(&["run", "-d", "-p", "2375:80/udp", "busybox", "sleep", "100"]).ok();
    d.finish();
}

/// Malformed ports, in the reference's words.
#[test]
fn texts_of_malformed_ports() {
    let d = with_busybox();
    let create = |rest: &str| d.http("POST", "/containers/create", &format!(r#"{{"Image":"busybox",{rest}}}"#));
    for (key, text) in [
        ("19039;1230", "invalid syntax"),
        ("65536/tcp", "value out of range"),
        ("99999999999999999999/tcp", "value out of range"),
        ("-1/tcp", "invalid syntax"),
        ("+80/tcp", "invalid syntax"),
        ("80-81/tcp", "invalid syntax"),
        ("abc/tcp", "invalid syntax"),
        (" 80/tcp", "invalid syntax"),
        ("1e3/tcp", "invalid syntax"),
        ("/tcp", "value is empty"),
    ] {
        let number = key.split('/').next().unwrap();
        let wanted = format!("invalid JSON: invalid port '{number}': {text}");
        let published = format!(r#""HostConfig":{{"NetworkMode":"default","PortBindings":{{"{key}":[{{}}]}}}}"#);
        assert_eq!(create(&published).expect(400).message(), wanted);
        assert_eq!(create(&format!(r#""ExposedPorts":{{"{key}":{{}}}}"#)).expect(400).message(), wanted);
    }
    let at = |port: &str, binding: &str| {
        create(&format!(r#""Cmd":["true"],"HostConfig":{{"PortBindings":{{"{port}":[{{{binding}}}]}}}}"#))
    };
    assert_eq!(at("0/tcp", "").expect(400).message(), r#"invalid port specification: "0/tcp""#);
    for host in ["abc", "65536", "-1", "8000-", "-8000", "8001-8000", "8000-8001-8002", " 8000", "+8000", "8000,8001"] {
        let wanted = format!("invalid port specification: {host:?}");
        assert_eq!(at("80/tcp", &format!(r#""HostPort":"{host}""#)).expect(400).message(), wanted);
    }
    for (ip, text) in
        [("abc", r#"ParseAddr("abc"): unable to parse IP"#), ("1.2.3", r#"ParseAddr("1.2.3"): IPv4 address too short"#)]
    {
        let wanted = format!("invalid JSON: {text}");
        assert_eq!(at("80/tcp", &format!(r#""HostIp":"{ip}""#)).expect(400).message(), wanted);
    }
    let start = |binding: &str| {
        let id = at("080/tcp", binding).expect(201).json()["Id"].as_str().unwrap().to_owned();
        d.http("POST", &format!("/containers/{id}/start"), "")
    };
    for binding in
        [r#""HostPort":"8000/udp""#, r#""HostPort":"00""#, r#""HostPort":"0-0""#, r#""HostIp":"::ffff:127.0.0.1""#]
    {
        assert_eq!(start(binding).status, 204, "{binding}");
    }
    for (binding, wanted) in [
        (r#""HostPort":"0-10""#, "invalid port range: 0-10"),
        (
            r#""HostIp":"10.99.99.99","HostPort":"18099""#,
            "failed to bind host port 10.99.99.99:18099/tcp: cannot assign requested address",
        ),
        (
            r#""HostIp":"fe80::1%lo","HostPort":"18099""#,
            "failed to bind host port [fe80::1]:18099/tcp: invalid argument",
        ),
    ] {
        let message = start(binding).expect(500).message();
        assert!(message.ends_with(wanted), "{message}");
    }
    d.finish();
}

/// Published ports come and go while the container runs; connections that stand go on.
#[test]
fn ports_of_a_running_container_are_changed() {
    let mut d = with_busybox();
    let script = "mkdir -p /w && echo hello > /w/index.html && httpd -f -p 80 -h /w & nc -ll -p 90 -e cat";
    let run = ["run", "-d", "--name", "web", "-p", "8095:80", "-p", "8096:90", "busybox", "sh", "-c", script];
    let _ = d.docker(&run).ok();
    let answers = |d: &Daemon, port: u16| {
        let url = format!("http://127.0.0.1:{port}/");
        d.exec_inside(&["curl", "-s", "-m", "20", &url]).stdout == "hello\n"
    };
    assert!(eventually(|| answers(&d, 8095)));
    let change = |d: &Daemon, body: &str| d.http("POST", "/containers/web/ports", body);
    let body = r#"{"Add":{"80/tcp":[{"HostPort":"8097"}]},"Remove":{"80/tcp":[{"HostPort":"8095"}]}}"#;
    let ports = change(&d, body).expect(200).json()["Ports"].clone();
    assert_eq!(ports["80/tcp"][0]["HostPort"], "8097", "{ports}");
    assert_eq!(ports["90/tcp"][0]["HostPort"], "8096", "{ports}");
    assert!(eventually(|| answers(&d, 8097)) && !answers(&d, 8095));
    // A port that is taken changes nothing.
    let _ = d.docker(&["run", "-d", "--name", "other", "-p", "8098:80", "busybox", "sleep", "1000"]).ok();
    let body = r#"{"Add":{"80/tcp":[{"HostPort":"8098"}]},"Remove":{"80/tcp":[{"HostPort":"8097"}]}}"#;
    assert!(change(&d, body).expect(500).message().contains("port is already allocated"));
    assert!(eventually(|| answers(&d, 8097)));
    assert!(change(&d, r#"{"Remove":{"81/tcp":null}}"#).expect(404).message().contains("port 81/tcp is not published"));
    // The definition has them: the next run, and the next daemon, too.
    let _ = d.docker(&["restart", "-t", "0", "web"]).ok();
    assert!(eventually(|| answers(&d, 8097)) && !answers(&d, 8095));
    d.kill9();
    d.again();
    let gantryd = |d: &Daemon, words: &[&str]| {
        let root = d.exec_root().display().to_string();
        let program = testkit::places::gantryd().display().to_string();
        d.exec_inside(&[&[program.as_str()], words, &["--config-file=", "--exec-root", &root]].concat())
    };
    let told = gantryd(&d, &["ports", "add", "web", "127.0.0.1:8099:80"]);
    assert!(told.stdout.contains("80/tcp -> 127.0.0.1:8099\n"), "{told:?}");
    assert!(eventually(|| answers(&d, 8099)));
    let reach = gantryd(&d, &["reach", "web"]).stdout;
    let own = d.inspect("web", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    for line in [
        "this host -> 127.0.0.1:8099/tcp -> port 80 of the container (by the proxy)".to_owned(),
        "anyone with a route to it -> 0.0.0.0:8097/tcp -> port 80 of the container (translated".to_owned(),
        format!("containers of network bridge -> {own}, all ports (on the bridge)"),
    ] {
        assert!(reach.contains(&line), "{line}: {reach}");
    }
    let json: serde_json::Value = serde_json::from_str(&gantryd(&d, &["reach", "--json"]).stdout).unwrap();
    assert_eq!((&json[0]["name"], &json[1]["name"]), (&"other".into(), &"web".into()));
    assert_eq!(gantryd(&d, &["ports", "rm", "web", "127.0.0.1:8099:80"]).code, 0);
    assert_eq!(gantryd(&d, &["ports", "rm", "web", "8097:80"]).code, 0);
    assert_ne!(gantryd(&d, &["ports", "rm", "web", "8097:80"]).code, 0);
    assert!(!answers(&d, 8099) && !answers(&d, 8097));
    // Of one that does not run: for the next start.
    let _ = d.docker(&["stop", "-t", "0", "web"]).ok();
    let _ = change(&d, r#"{"Add":{"80/tcp":[{"HostPort":"8095"}]}}"#).expect(200);
    let _ = d.docker(&["start", "web"]).ok();
    assert!(eventually(|| answers(&d, 8095)));
    d.finish();
}

/// Parts of a range of ports come and go while the container runs and the daemon dies.
#[test]
fn ranges_of_a_running_container_are_changed() {
    let mut d = with_busybox();
    let script = "mkdir -p /w && echo hello > /w/index.html; for p in 9000 10500 12999; do httpd -p $p -h /w; done; exec sleep 1000";
    let _ = d.docker(&["run", "-d", "--name", "web", "busybox", "sh", "-c", script]).ok();
    let gantryd = |d: &Daemon, words: &[&str]| {
        let root = d.exec_root().display().to_string();
        let program = testkit::places::gantryd().display().to_string();
        d.exec_inside(&[&[program.as_str()], words, &["--config-file=", "--exec-root", &root]].concat())
    };
    let answers = |d: &Daemon, port: u16| {
        // By the proxy, by it from IPv6, by the packet filter.
        ["127.0.0.1", "[::1]", "172.17.0.1"].iter().all(|ip| {
            let url = format!("http://{ip}:{port}/");
            d.exec_inside(&["curl", "-s", "-m", "20", &url]).stdout == "hello\n"
        })
    };
    let elements = |d: &Daemon| {
        let listed = d.exec_inside(&["nft", "list", "map", "inet", "gantry", "range-any"]).stdout;
        listed.matches("tcp . ").count()
    };
    let told = gantryd(&d, &["ports", "add", "web", "9000-12999:9000-12999"]);
    assert!(told.stdout.contains("12999/tcp -> 0.0.0.0:12999\n"), "{told:?}");
    assert!(eventually(|| [9000, 10_500, 12_999].iter().all(|port| answers(&d, *port))));
    assert_eq!(elements(&d), 1);
    assert_eq!(gantryd(&d, &["ports", "rm", "web", "10000-11000:10000-11000"]).code, 0);
    assert_eq!((elements(&d), answers(&d, 9000), answers(&d, 12_999)), (2, true, true));
    assert!(!answers(&d, 10_500));
    let other = ["run", "-d", "--name", "other", "-p", "10500:80", "busybox", "sleep", "1000"];
    let _ = d.docker(&other).ok();
    let refused = gantryd(&d, &["ports", "add", "web", "10400-10600:10400-10600"]);
    assert!(refused.stderr.contains("Bind for 0.0.0.0:10500 failed: port is already allocated"), "{refused:?}");
    d.kill9();
    d.again();
    assert!(eventually(|| answers(&d, 9000) && answers(&d, 12_999)));
    assert_eq!(elements(&d), 2);
    let refused = d.docker(&["run", "--rm", "-p", "12000:80", "busybox", "true"]);
    assert!(refused.stderr.contains(":12000 failed: port is already allocated"), "{refused:?}");
    let _ = d.docker(&["rm", "-f", "other"]).ok();
    assert_eq!(gantryd(&d, &["ports", "add", "web", "10000-11000:10000-11000"]).code, 0);
    assert!(eventually(|| answers(&d, 10_500)));
    assert_eq!(elements(&d), 1);
    assert_eq!(gantryd(&d, &["ports", "rm", "web", "9000-12999:9000-12999"]).code, 0);
    assert_eq!(elements(&d), 0);
    assert!(!answers(&d, 9000));
    let uneven = gantryd(&d, &["ports", "add", "web", "80-81:80-82"]);
    assert!(uneven.stderr.contains("invalid ranges specified"), "{uneven:?}");
    d.finish();
}

/// A container that asks at another address of the host gets its answer from there.
#[test]
fn datagrams_are_answered_by_the_address_that_was_spoken_to() {
    let d = with_busybox();
    d.probe();
    let _ = d.exec_inside(&["ip", "address", "add", "10.88.0.1/32", "dev", "lo"]).ok();
    let _ = d.docker(&["run", "-d", "--name", "u", "-p", "9054:53/udp", "probe", "udp-echo", "53"]).ok();
    // One that publishes to one family, whose socket is of that alone.
    let _ = d.docker(&["run", "-d", "--name", "v", "-p", "0.0.0.0:9055:53/udp", "probe", "udp-echo", "53"]).ok();
    for address in ["10.88.0.1:9054", "172.17.0.1:9054", "10.88.0.1:9055"] {
        let mut answer = String::new();
        let asked = eventually(|| {
            answer = d.docker(&["run", "--rm", "probe", "udp-ask", address, "hello"]).stdout;
            answer == "hello\n"
        });
        assert!(asked, "{address}: {answer:?}");
    }
    d.finish();
}

/// A transfer through a port that is taken back goes on, by the packet filter and by the proxy.
#[test]
fn connections_outlive_their_port() {
    let d = with_busybox();
    let run = ["run", "-d", "--name", "c", "-p", "8101:90", "busybox", "nc", "-ll", "-p", "90", "-e", "cat"];
    let _ = d.docker(&run).ok();
    let gateway = "172.17.0.1";
    for (round, address) in ["127.0.0.1", gateway].into_iter().enumerate() {
        let out = format!("/tmp/out-{}-{round}", std::process::id());
        let fifo = format!("/tmp/in-{}-{round}", std::process::id());
        let script = format!(
            "mkfifo {fifo}; busybox nc {address} 8101 < {fifo} > {out} & exec 3> {fifo}; echo one >&3; \
             n=0; until grep -q one {out} || test $n = 400; do sleep 0.05; n=$((n+1)); done; touch {out}.open; n=0; until test -e {out}.go || test $n = 400; do sleep 0.05; n=$((n+1)); done; \
             echo two >&3; n=0; until grep -q two {out} || test $n = 400; do sleep 0.05; n=$((n+1)); done; \
             cat {out}; exec 3>&-; rm -f {fifo} {out} {out}.open {out}.go"
        );
        let text = std::thread::scope(|scope| {
            let client = scope.spawn(|| d.exec_inside(&["sh", "-c", &script]).stdout);
            assert!(eventually(|| std::path::Path::new(&format!("{out}.open")).exists()));
            let _ = d.http("POST", "/containers/c/ports", r#"{"Remove":{"90/tcp":null}}"#).expect(200);
            std::fs::write(format!("{out}.go"), "").unwrap();
            client.join().unwrap()
        });
        assert_eq!(text, "one\ntwo\n", "{address}");
        let _ = d.http("POST", "/containers/c/ports", r#"{"Add":{"90/tcp":[{"HostPort":"8101"}]}}"#).expect(200);
    }
    d.finish();
}

/// With `publish-mode: host-firewall` the host's own INPUT rules decide about published ports, and nothing goes past them.
#[test]
fn the_host_s_firewall_decides_about_published_ports() {
    let d = Options::new().config(r#"{"publish-mode": "host-firewall"}"#).start();
    d.busybox();
    let serve = "echo web > /tmp/index.html; httpd -f -p 80 -h /tmp";
    let words = ["run", "-d", "--name", "web", "-p", "8080:80", "-p", "8053:53/udp", "busybox", "sh", "-c", serve];
    let _ = d.docker(&words).ok();
    let mut neighbour = d.namespaces().command("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap();
    let pid = neighbour.id().to_string();
    // It is in the test's own at first, then in the daemon's.
    let others = [d.pid(), std::process::id()].map(|pid| process::namespace(pid, "net"));
    let own = || !others.contains(&process::namespace(neighbour.id(), "net"));
    assert!(eventually(own), "the neighbour has a network of its own");
    let ip = |words: &str| {
        let _ = d.exec_inside(&[&["ip"], &words.split(' ').collect::<Vec<_>>()[..]].concat()).ok();
    };
    ip(&format!("link add near type veth peer name far netns {pid}"));
    ip("address add 10.77.0.1/24 dev near");
    ip("link set near up");
    let inside = |words: &[&str]| d.exec_inside(&[&["nsenter", "-n", "-t", &pid], words].concat());
    for words in ["ip link set far up", "ip address add 10.77.0.2/24 dev far"] {
        let _ = inside(&words.split(' ').collect::<Vec<_>>()).ok();
    }
    let url = "http://10.77.0.1:8080/";
    let comes = || inside(&["curl", "-s", "-m", "20", url]).stdout == "web\n";
    assert!(eventually(comes));
    let nft = |command: &str| {
        let _ = d.exec_inside(&["nft", command]).ok();
    };
    nft("add table inet host { chain input { type filter hook input priority 0; policy accept; }; }");
    nft("add rule inet host input iifname near tcp dport 8080 drop");
    assert_ne!(inside(&["curl", "-s", "-m", "2", url]).stdout, "web\n", "dropped by the host");
    assert_eq!(d.exec_inside(&["curl", "-s", "-m", "20", "http://127.0.0.1:8080/"]).stdout, "web\n");
    nft("flush table inet host");
    assert!(eventually(comes));
    nft("delete table inet host");
    neighbour.kill().unwrap();
    let _ = neighbour.wait();
    assert!(
        eventually(|| d.exec_inside(&["ip", "link", "show", "near"]).code != 0),
        "the link goes with the neighbour"
    );
    d.finish();
    // Without a proxy nobody would carry the bytes.
    let refused = Options::new().config(r#"{"publish-mode": "host-firewall", "userland-proxy": false}"#).refused();
    assert!(refused.stderr.contains("invalid publish-mode"), "{}", refused.stderr);
    let refused = Options::new().config(r#"{"publish-mode": "open"}"#).refused();
    assert!(refused.stderr.contains("invalid publish-mode"), "{}", refused.stderr);
}
