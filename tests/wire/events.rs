//! `GET /events`: the order of what happened, its attributes, the window, the filters, the bytes of a line.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use testkit::command::{PATIENCE, eventually};
use testkit::{Daemon, process};

use crate::normal::Names;
use crate::raw::{connect, exchange, joined, segment, split, until};
use crate::{create, run, start, wait, with_busybox};

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Percent-encodes what a query cannot carry.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Everything up to now that passes the filters (JSON, may be empty).
#[track_caller]
fn past(d: &Daemon, filters: &str) -> Vec<Value> {
    let path = format!("/v1.45/events?since=0&until={:.9}&filters={}", now(), encode(filters));
    let text = d.http("GET", &path, "").expect(200).text();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Type and action of each, in order.
#[track_caller]
fn order(d: &Daemon, filters: &str) -> Vec<String> {
    let name = |event: &Value| format!("{} {}", event["Type"].as_str().unwrap(), event["Action"].as_str().unwrap());
    past(d, filters).iter().map(name).collect()
}

/// What happened since the last call.
struct Since(usize);

impl Since {
    #[track_caller]
    fn next(&mut self, d: &Daemon) -> Vec<String> {
        let all = order(d, "");
        let new = all[self.0..].to_vec();
        self.0 = all.len();
        new
    }
}

const SLEEP: &str = r#"{"Image":"busybox","Cmd":["sleep","1000"],"Labels":{"k":"v"}}"#;

#[test]
fn order_of_run_and_remove() {
    let d = with_busybox();
    let mut since = Since(order(&d, "").len());
    let _ = d.docker(&["run", "--rm", "busybox", "true"]).ok();
    let wanted = [
        "container create",
        "container attach",
        "network connect",
        "container start",
        "network disconnect",
        "container die",
        "container destroy",
    ];
    // The CLI may be done before the last one.
    eventually(PATIENCE, || order(&d, "").len() >= since.0 + wanted.len());
    assert_eq!(since.next(&d), wanted);
    run(&d, "f1", SLEEP);
    assert_eq!(since.next(&d), ["container create", "network connect", "container start"]);
    let _ = d.http("DELETE", "/containers/f1?force=1", "").expect(204);
    let wanted = ["container kill", "network disconnect", "container die", "container destroy"];
    assert_eq!(since.next(&d), wanted);
    create(&d, "c1", SLEEP);
    let _ = d.http("DELETE", "/containers/c1", "").expect(204);
    assert_eq!(since.next(&d), ["container create", "container destroy"]);
    d.finish();
}

#[test]
fn order_of_stop_restart_kill_pause() {
    let d = with_busybox();
    run(&d, "s1", SLEEP);
    let mut since = Since(order(&d, "").len());
    let post = |path: &str| drop(d.http("POST", &format!("/containers/s1/{path}"), "").expect(204));
    // As process 1 it ignores SIGTERM, so both signals are needed.
    post("stop?t=0");
    let stopped = ["container kill", "container kill", "network disconnect", "container stop", "container die"];
    assert_eq!(since.next(&d), stopped);
    post("start");
    assert_eq!(since.next(&d), ["network connect", "container start"]);
    post("restart?t=0");
    let again = ["network connect", "container start", "container restart"];
    assert_eq!(since.next(&d), [&stopped[..], &again].concat());
    post("pause");
    post("unpause");
    assert_eq!(since.next(&d), ["container pause", "container unpause"]);
    post("kill?signal=HUP");
    post("kill");
    let killed = ["container kill", "container kill", "network disconnect", "container die"];
    assert_eq!(since.next(&d), killed);
    post("restart");
    assert_eq!(since.next(&d), again);
    let _ = d.http("POST", "/containers/s1/rename?name=s2", "").expect(204);
    let _ = d.http("GET", "/containers/s2/top", "").expect(200);
    assert_eq!(since.next(&d), ["container rename", "container top"]);
    d.finish();
}

#[test]
fn order_of_exec() {
    let d = with_busybox();
    run(&d, "e1", SLEEP);
    let mut since = Since(order(&d, "").len());
    assert_eq!(d.docker(&["exec", "e1", "sh", "-c", "exit 4"]).code, 4);
    let wanted = ["container exec_create: sh -c exit 4", "container exec_start: sh -c exit 4", "container exec_die"];
    eventually(PATIENCE, || order(&d, "").len() >= since.0 + wanted.len());
    assert_eq!(since.next(&d), wanted);
    let die = past(&d, r#"{"event":["exec_die"]}"#).remove(0);
    let attributes = &die["Actor"]["Attributes"];
    let id = attributes["execID"].as_str().unwrap();
    assert_eq!(*attributes, json!({"execID": id, "exitCode": "4", "image": "busybox", "k": "v", "name": "e1"}));
    assert_eq!(id.len(), 64);
    // A blank follows the program even without arguments; the start is told before it is known whether it works.
    assert_ne!(d.docker(&["exec", "e1", "/nosuch"]).code, 0);
    assert_eq!(since.next(&d), ["container exec_create: /nosuch ", "container exec_start: /nosuch "]);
    d.finish();
}

#[test]
fn order_of_images_and_volumes() {
    let d = with_busybox();
    assert_eq!(order(&d, ""), ["image load"]);
    let mut since = Since(1);
    let _ = d.http("POST", "/images/busybox/tag?repo=other&tag=1", "").expect(201);
    let _ = d.http("DELETE", "/images/other:1", "").expect(200);
    let _ = d.http("POST", "/volumes/create", r#"{"Name":"v1"}"#).expect(201);
    let _ = d.http("POST", "/volumes/create", r#"{"Name":"v1"}"#).expect(201);
    assert_eq!(since.next(&d), ["image tag", "image untag", "volume create"]);
    run(&d, "m1", r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"Binds":["v1:/data"],"NetworkMode":"none"}}"#);
    wait(&d, "m1");
    let _ = d.http("DELETE", "/containers/m1", "").expect(204);
    let _ = d.http("DELETE", "/volumes/v1", "").expect(204);
    let volumes: Vec<String> = since.next(&d).into_iter().filter(|name| name.starts_with("volume")).collect();
    assert_eq!(volumes, ["volume mount", "volume unmount", "volume destroy"]);
    let mount = past(&d, r#"{"event":["mount"]}"#).remove(0);
    let attributes = &mount["Actor"]["Attributes"];
    let id = attributes["container"].as_str().unwrap();
    let wanted =
        json!({"container": id, "destination": "/data", "driver": "local", "propagation": "", "read/write": "true"});
    assert_eq!((&mount["Actor"]["ID"], attributes), (&json!("v1"), &wanted));
    d.finish();
}

#[test]
fn attributes() {
    let d = with_busybox();
    let body = r#"{"Image":"busybox","Cmd":["sh","-c","read x; sleep 1; exit 3"],"Labels":{"k":"v"},"Tty":true,"OpenStdin":true}"#;
    let begin = Instant::now();
    let id = run(&d, "a1", body);
    let _ = d.http("POST", "/containers/a1/resize?h=20&w=30", "").expect(200);
    let _ = d.http("POST", "/containers/a1/kill?signal=CONT", "").expect(204);
    let _ = d.http("POST", "/containers/a1/rename?name=a2", "").expect(204);
    let mut input = d.connection();
    assert_eq!(input.upgrade("/containers/a2/attach?stdin=1&stream=1", "").status, 101);
    input.send(b"\n").unwrap();
    wait(&d, "a2");
    drop(input);
    let longest = begin.elapsed().as_secs();
    let network = d.http("GET", "/networks/bridge", "").json()["Id"].as_str().unwrap().to_string();
    let attributes = |action: &str| {
        let event = past(&d, &format!(r#"{{"event":["{action}"]}}"#)).remove(0);
        let of_network = event["Type"] == "network";
        assert_eq!(event["Actor"]["ID"], if of_network { network.as_str() } else { &id }, "{action}");
        assert_eq!((&event["scope"], event["status"].is_null()), (&json!("local"), of_network), "{action}");
        event["Actor"]["Attributes"].clone()
    };
    let lasted = attributes("die")["execDuration"].as_str().unwrap().to_string();
    assert!((1..=longest).contains(&lasted.parse().unwrap()), "{lasted} s");
    for (action, own) in [
        ("create", json!({"name": "a1"})),
        ("start", json!({"name": "a1"})),
        ("resize", json!({"height": "20", "name": "a1", "width": "30"})),
        ("kill", json!({"name": "a1", "signal": "18"})),
        ("rename", json!({"name": "a2", "oldName": "/a1"})),
        ("die", json!({"execDuration": lasted, "exitCode": "3", "name": "a2"})),
    ] {
        let mut wanted = json!({"image": "busybox", "k": "v"});
        wanted.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        assert_eq!(attributes(action), wanted, "{action}");
    }
    for action in ["connect", "disconnect"] {
        assert_eq!(attributes(action), json!({"container": id, "name": "bridge", "type": "bridge"}), "{action}");
    }
    d.finish();
}

/// A line of the stream, byte by byte, below 1.52 and from there on.
#[test]
fn bytes_of_a_line() {
    let d = with_busybox();
    create(&d, "b1", SLEEP);
    let actor = r#""Type":"container","Action":"create","Actor":{"ID":"<id1>","Attributes":{"image":"busybox","k":"v","name":"b1"}},"scope":"local","time":"#;
    let head = "HTTP/1.1 200 OK|Api-Version: 1.56|Content-Type: <type>|Docker-Experimental: false|Ostype: linux|";
    let old = format!(r#"{{"status":"create","id":"<id1>","from":"busybox",{actor}"#);
    for (version, kind, wanted) in [
        ("v1.45", "application/json", old.clone()),
        ("v1.51", "application/json", old),
        ("v1.52", "application/jsonl", format!("{{{actor}")),
    ] {
        let filters = encode(r#"{"event":{"create":true}}"#);
        let request = format!(
            "GET /{version}/events?since=0&until={:.9}&filters={filters} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
            now()
        );
        let (fields, body) = split(&exchange(&d, request.as_bytes()));
        assert!(fields.join("|").starts_with(&head.replace("<type>", kind)), "{fields:?}");
        let line = String::from_utf8(joined(&body)).unwrap();
        let line = Names::new("/nowhere").apply(&line);
        let (text, times) = line.split_at(wanted.len());
        assert_eq!(text, wanted, "{version}");
        let times: Value = serde_json::from_str(&format!("{{\"time\":{}", times.trim_end())).unwrap();
        assert!(times["time"].as_i64() == times["timeNano"].as_i64().map(|nano| nano / 1_000_000_000), "{line}");
        assert!(line.ends_with("}\n"), "{line:?}");
    }
    d.finish();
}

/// The head at once, then each event as it happens.
#[test]
fn live() {
    let d = with_busybox();
    let mut stream = connect(&d);
    let filters = encode(r#"{"type":["container"]}"#);
    let request = format!("GET /v1.45/events?filters={filters} HTTP/1.1\r\nHost: d\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let (head, body) = split(&segment(&mut stream));
    assert_eq!((head[0].as_str(), body.len()), ("HTTP/1.1 200 OK", 0));
    create(&d, "l1", SLEEP);
    let chunk = String::from_utf8(until(&mut stream, b"\n\r\n")).unwrap();
    assert!(chunk.contains("{\"status\":\"create\""), "{chunk}");
    start(&d, "l1");
    let chunk = String::from_utf8(until(&mut stream, b"\n\r\n")).unwrap();
    assert!(chunk.contains("{\"status\":\"start\""), "{chunk}");
    drop(stream);
    d.finish();
}

/// A stream ends at the time given.
#[test]
fn live_until() {
    let d = with_busybox();
    let mut stream = connect(&d);
    let (filters, end) = (encode(r#"{"type":["volume"]}"#), now() as u64 + 3);
    let request = format!("GET /v1.45/events?filters={filters}&until={end} HTTP/1.1\r\nHost: d\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let (head, body) = split(&until(&mut stream, b"0\r\n\r\n"));
    assert_eq!((head[0].as_str(), body.as_slice()), ("HTTP/1.1 200 OK", &b"0\r\n\r\n"[..]));
    assert!(now() >= end as f64 - 0.1);
    drop(stream);
    d.finish();
}

#[test]
fn window() {
    let d = with_busybox();
    create(&d, "w1", SLEEP);
    std::thread::sleep(Duration::from_millis(20));
    let middle = now();
    std::thread::sleep(Duration::from_millis(20));
    create(&d, "w2", SLEEP);
    let names = |query: String| {
        let text =
            d.http("GET", &format!("/v1.45/events?{query}&filters={}", encode(r#"{"event":["create"]}"#)), "").text();
        let name = |line: &str| {
            serde_json::from_str::<Value>(line).unwrap()["Actor"]["Attributes"]["name"].as_str().unwrap().to_string()
        };
        text.lines().map(name).collect::<Vec<_>>().join(",")
    };
    let end = now();
    assert_eq!(names(format!("since=0&until={end:.9}")), "w1,w2");
    assert_eq!(names(format!("since={middle:.9}&until={end:.9}")), "w2");
    assert_eq!(names(format!("since=0&until={middle:.9}")), "w1");
    assert_eq!(names(format!("until={middle:.9}")), "w1");
    let message = |query: &str| d.http("GET", &format!("/v1.45/events?{query}"), "").expect(400).message();
    assert_eq!(message("since=20&until=10"), "`since` time (20) cannot be after `until` time (10)");
    assert_eq!(message("since=0&until=1&filters=x"), "invalid filter");
    d.finish();
}

/// B-ev-1
#[test]
fn filters() {
    // Names that no id begins with: a filter takes a prefix of either.
    let d = with_busybox();
    let id = run(&d, "web-1", r#"{"Image":"busybox","Cmd":["true"],"Labels":{"tier":"front"}}"#);
    wait(&d, "web-1");
    let _ = d.docker(&["run", "--network", "none", "--name", "sql", "busybox", "true"]).ok();
    let _ = d.http("POST", "/volumes/create", r#"{"Name":"data"}"#).expect(201);
    let count = |filters: &str| order(&d, filters).len();
    let all = count("");
    let web = 3;
    for (filters, wanted) in [
        (r#"{"container":["web-1"]}"#, web),
        (&format!(r#"{{"container":["{id}"]}}"#), web),
        (&format!(r#"{{"container":["{}"]}}"#, &id[..12]), web),
        (r#"{"container":{"web-1":true,"sql":true}}"#, web + 4),
        (r#"{"type":["volume"]}"#, 1),
        (r#"{"volume":["data"]}"#, 1),
        (r#"{"network":["bridge"]}"#, 2),
        (r#"{"event":["die"]}"#, 2),
        (r#"{"event":["die","start"]}"#, 4),
        (r#"{"event":["die"],"container":["sql"]}"#, 1),
        (r#"{"label":["tier"]}"#, web),
        (r#"{"label":["tier=front"]}"#, web),
        (r#"{"label":["tier=back"]}"#, 0),
        (r#"{"image":["busybox"]}"#, web + 4),
        (r#"{"image":["busybox:latest"]}"#, 0),
        (r#"{"scope":["local"]}"#, all),
        (r#"{"scope":["swarm"]}"#, 0),
        (r#"{"type":["container"],"event":["create"]}"#, 2),
        (r#"{"zz":["1"]}"#, all),
    ] {
        assert_eq!(count(filters), wanted, "{filters}: {:?}", order(&d, filters));
    }
    d.finish();
}

/// Attributes of each event but the labels: by type and action; those of containers have `image` and `name`, too.
const ATTRIBUTES: &[(&str, &str, &[&str])] = &[
    ("builder", "prune", &["reclaimed"]),
    ("container", "archive-path", &[]),
    ("container", "attach", &[]),
    ("container", "commit", &["comment", "imageID", "imageRef"]),
    ("container", "create", &[]),
    ("container", "destroy", &[]),
    ("container", "detach", &[]),
    ("container", "die", &["execDuration", "exitCode"]),
    ("container", "exec_create", &["execID"]),
    ("container", "exec_detach", &["execID"]),
    ("container", "exec_die", &["execID", "exitCode"]),
    ("container", "exec_start", &["execID"]),
    ("container", "export", &[]),
    ("container", "extract-to-dir", &[]),
    ("container", "health_status", &[]),
    ("container", "kill", &["signal"]),
    ("container", "oom", &[]),
    ("container", "pause", &[]),
    ("container", "prune", &["reclaimed"]),
    ("container", "rename", &["oldName"]),
    ("container", "resize", &["height", "width"]),
    ("container", "restart", &[]),
    ("container", "start", &[]),
    ("container", "stop", &[]),
    ("container", "top", &[]),
    ("container", "unpause", &[]),
    ("container", "update", &[]),
    (
        "daemon",
        "reload",
        &[
            "debug",
            "default-cgroupns-mode",
            "default-ipc-mode",
            "default-runtime",
            "default-shm-size",
            "default-stop-timeout",
            "features",
            "insecure-registries",
            "labels",
            "live-restore",
            "max-concurrent-downloads",
            "max-concurrent-uploads",
            "max-download-attempts",
            "name",
            "registry-mirrors",
            "runtimes",
            "shutdown-timeout",
        ],
    ),
    ("image", "create", &["name"]),
    ("image", "delete", &["name"]),
    ("image", "import", &["name"]),
    ("image", "load", &["name"]),
    ("image", "prune", &["reclaimed"]),
    ("image", "save", &["name"]),
    ("image", "tag", &["name"]),
    ("image", "untag", &["name"]),
    ("network", "connect", &["container", "name", "type"]),
    ("network", "create", &["name", "type"]),
    ("network", "destroy", &["name", "type"]),
    ("network", "disconnect", &["container", "name", "type"]),
    ("network", "prune", &["reclaimed"]),
    ("volume", "create", &["driver"]),
    ("volume", "destroy", &["driver"]),
    ("volume", "mount", &["container", "destination", "driver", "propagation", "read/write"]),
    ("volume", "prune", &["reclaimed"]),
    ("volume", "unmount", &["container", "driver"]),
];

/// Whatever a container can be told, until it is gone.
fn use_a_container(d: &Daemon) {
    let call = |method: &str, path: &str, body: &str| {
        let answer = d.http(method, path, body);
        assert!(answer.status < 300, "{method} {path}: {}", answer.text());
        answer
    };
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep", "1000"], "Labels": {"k": "v"}, "Tty": true, "OpenStdin": true,
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 50_000_000}, "HostConfig": {"Binds": ["v1:/data"]},
    });
    run(d, "a", &body.to_string());
    let detaches = |path: &str, body: &str| {
        let mut client = d.connection();
        assert_eq!(client.upgrade(path, body).status, 101, "{path}");
        client.send(b"x").unwrap();
        let _ = client.rest();
    };
    detaches("/containers/a/attach?stream=1&stdin=1&stdout=1&detachKeys=x", "");
    let exec = json!({"Cmd": ["sleep", "1000"], "AttachStdin": true, "Tty": true, "DetachKeys": "x"}).to_string();
    let made = call("POST", "/containers/a/exec", &exec).json();
    detaches(&format!("/exec/{}/start", made["Id"].as_str().unwrap()), r#"{"Tty":true}"#);
    for path in ["resize?h=20&w=30", "pause", "unpause", "restart?t=0", "stop?t=0", "start", "rename?name=b"] {
        let _ = call("POST", &format!("/containers/a/{path}"), "");
    }
    let _ = call("POST", "/containers/b/update", r#"{"CpuShares":512}"#);
    let _ = call("GET", "/containers/b/top", "");
    let _ = call("GET", "/containers/b/export", "");
    let archive = call("GET", "/containers/b/archive?path=/etc/passwd", "").body;
    let put = "PUT /containers/b/archive?path=/tmp HTTP/1.1\r\nHost: d\r\nConnection: close\r\n";
    let head = format!("{put}Content-Length: {}\r\n\r\n", archive.len());
    let answer = exchange(d, &[head.as_bytes(), &archive].concat());
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let _ = call("POST", "/commit?container=b&repo=made&comment=c", "");
    assert!(eventually(PATIENCE, || order(d, "").contains(&"container health_status: healthy".to_owned())));
    let _ = call("DELETE", "/containers/b?force=1", "");
    let memory = json!({"Memory": 8 << 20, "MemorySwap": 8 << 20, "NetworkMode": "none"});
    run(d, "full", &json!({"Image": "busybox", "Cmd": ["tail", "/dev/zero"], "HostConfig": memory}).to_string());
    wait(d, "full");
    let _ = call("POST", "/containers/prune", "");
}

/// Everything that is told of a host without registries, with its attributes (B-ev-2).
#[test]
fn every_event_has_its_attributes() {
    let d = with_busybox();
    use_a_container(&d);
    let words: &[&[&str]] = &[
        &["network", "create", "n1"],
        &["network", "rm", "n1"],
        &["network", "prune", "-f"],
        &["volume", "rm", "v1"],
        &["volume", "prune", "-f"],
        &["tag", "made", "other"],
        &["rmi", "other"],
        &["rmi", "made"],
        &["image", "prune", "-f"],
        &["builder", "prune", "-f"],
    ];
    let _ = d.http("GET", "/images/busybox/get", "").expect(200);
    words.iter().for_each(|words| drop(d.docker(words).ok()));
    let _ = d.docker_input(&["import", "-", "brought"], &[0; 1024]).ok();
    assert!(process::signal(d.pid(), rustix::process::Signal::HUP));
    assert!(eventually(PATIENCE, || order(&d, "").contains(&"daemon reload".to_owned())));
    let mut missing: Vec<_> = ATTRIBUTES.iter().map(|(kind, action, _)| (*kind, *action)).collect();
    let text = d.http("GET", &format!("/events?since=0&until={:.9}", now()), "").expect(200).text();
    for event in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let (kind, action) = (event["Type"].as_str().unwrap(), event["Action"].as_str().unwrap());
        let action = action.split(':').next().unwrap();
        let row = ATTRIBUTES.iter().find(|(of, told, _)| (*of, *told) == (kind, action));
        let Some((_, _, wanted)) = row else { panic!("{event}") };
        let of_container = kind == "container" && action != "prune";
        let mut wanted: Vec<_> =
            wanted.iter().copied().chain(["image", "name"].into_iter().filter(|_| of_container)).collect();
        wanted.sort_unstable();
        let shown: Vec<_> =
            event["Actor"]["Attributes"].as_object().unwrap().keys().filter(|key| *key != "k").collect();
        assert_eq!(shown, wanted, "{event}");
        missing.retain(|one| *one != (kind, action));
    }
    assert_eq!(missing, []);
    d.finish();
}
