//! `docker stats`: samples of what containers use, and the processor figures between them.

use serde_json::Value;
use testkit::Daemon;
use testkit::http::Connection;

use crate::{eventually, with_busybox};

/// The reference's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";
const ONE_SHOT: &str = "stream=0&one-shot=1";

fn sample(d: &Daemon, name: &str, query: &str) -> Value {
    let answer = d.http("GET", &format!("/v1.52/containers/{name}/stats?{query}"), "").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

/// A client of the stream that has read its head.
fn stream(d: &Daemon, name: &str) -> Connection {
    let mut connection = d.connection();
    let head = format!("GET /v1.52/containers/{name}/stats HTTP/1.1\r\nHost: d\r\n\r\n");
    connection.send(head.as_bytes()).unwrap();
    assert_eq!(connection.head().unwrap().status, 200);
    connection
}

fn next(connection: &mut Connection) -> Option<Value> {
    connection.chunk().unwrap().map(|chunk| serde_json::from_slice(&chunk).unwrap())
}

fn number(sample: &Value, path: &str) -> u64 {
    sample.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {sample}"))
}

/// B-ss-1 to B-ss-4
#[test]
fn what_a_container_uses() {
    let d = with_busybox();
    let limits = ["--memory", "32m", "--pids-limit", "50"];
    let work = "dd if=/dev/zero of=/dev/shm/f bs=1M count=4 2>/dev/null; wget -q -O /dev/null http://172.17.0.1:1/; \
                echo ready; while :; do :; done";
    let _ = d.docker(&[&["run", "-d", "--name", "busy"], &limits[..], &["busybox", "sh", "-c", work]].concat()).ok();
    assert!(eventually(|| d.docker(&["logs", "busy"]).text().contains("ready")));
    let one = sample(&d, "busy", ONE_SHOT);
    assert_eq!((&one["id"], &one["name"]), (&d.inspect("busy", "{{.Id}}").into(), &"/busy".into()));
    assert_eq!((&one["os_type"], &one["preread"]), (&"linux".into(), &NEVER.into()));
    assert_eq!(number(&one, "/precpu_stats/cpu_usage/total_usage"), 0);
    assert_eq!((number(&one, "/pids_stats/current"), number(&one, "/pids_stats/limit")), (1, 50));
    assert_eq!(number(&one, "/memory_stats/limit"), 32 << 20);
    assert!((4 << 20..32 << 20).contains(&number(&one, "/memory_stats/usage")), "{one}");
    assert!(number(&one, "/networks/eth0/tx_packets") > 0, "{one}");
    assert!(one["networks"].get("lo").is_none());

    // The processor is busy between the two samples of a pair.
    let pair = sample(&d, "busy", "stream=0");
    assert_ne!(pair["preread"], NEVER);
    let used = |field: &str| number(&pair, &format!("/{field}/cpu_usage/total_usage"));
    let system = |field: &str| number(&pair, &format!("/{field}/system_cpu_usage"));
    assert!(used("cpu_stats") > used("precpu_stats") && system("cpu_stats") > system("precpu_stats"), "{pair}");
    assert!(number(&pair, "/cpu_stats/online_cpus") > 0);
    let shown = d.docker(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "busy"]).text();
    assert!(shown.starts_with("busy ") && shown.contains("/ 32MiB") && shown.ends_with(" 1"), "{shown}");

    // Below 1.52 there is no `os_type`; the host's links are not those of a container.
    let old = d.http("GET", &format!("/v1.51/containers/busy/stats?{ONE_SHOT}"), "").expect(200).json();
    assert!(old.get("os_type").is_none());
    let _ = d.docker(&["run", "-d", "--name", "host", "--network", "host", "busybox", "sleep", "1000"]).ok();
    let host = sample(&d, "host", ONE_SHOT);
    assert!(host.get("networks").is_none());
    let memory = &d.http("GET", "/info", "").expect(200).json()["MemTotal"];
    assert_eq!(&host["memory_stats"]["limit"], memory, "the limit of one without a limit is the machine's memory");
    // One that joins another's network shows that one's links.
    let _ =
        d.docker(&["run", "-d", "--name", "joined", "--network", "container:busy", "busybox", "sleep", "1000"]).ok();
    assert!(number(&sample(&d, "joined", ONE_SHOT), "/networks/eth0/tx_packets") > 0);
    let _ = d.docker(&["rm", "-f", "busy", "host", "joined"]).ok();
    d.finish();
}

/// A stream goes on through stop and start, names the container meanwhile, and ends with it (B-ss-1).
#[test]
fn a_stream_lasts_as_long_as_its_container() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    let (mut client, mut other) = (stream(&d, "c"), stream(&d, "c"));
    let first = next(&mut client).unwrap();
    assert_eq!((&first["preread"], first["read"] != NEVER), (&NEVER.into(), true));
    let second = next(&mut client).unwrap();
    assert_eq!(second["preread"], first["read"]);
    let of_other = (next(&mut other).unwrap(), next(&mut other).unwrap());
    assert_eq!(of_other.1["preread"], of_other.0["read"]);
    let _ = d.docker(&["stop", "-t", "0", "c"]).ok();
    let mut stopped = next(&mut client).unwrap();
    while stopped["read"] != NEVER {
        stopped = next(&mut client).unwrap();
    }
    assert_eq!((&stopped["name"], &stopped["memory_stats"]), (&"/c".into(), &serde_json::json!({})));
    for query in [ONE_SHOT, "stream=0"] {
        assert_eq!(sample(&d, "c", query)["read"], NEVER);
    }
    let _ = d.docker(&["start", "c"]).ok();
    while next(&mut client).unwrap()["read"] == NEVER {}
    let _ = d.docker(&["pause", "c"]).ok();
    assert_ne!(sample(&d, "c", ONE_SHOT)["read"], NEVER);
    let _ = d.docker(&["rm", "-f", "c"]).ok();
    while next(&mut client).is_some() {}
    while next(&mut other).is_some() {}
    let _ = d.http("GET", "/containers/c/stats", "").expect(404);
    let both = d.http("GET", "/containers/c/stats?one-shot=1", "").expect(400);
    assert_eq!(both.message(), "cannot have stream=true and one-shot=true");
    d.finish();
}
