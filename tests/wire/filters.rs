//! Filters of lists, one by one, in both forms: `{"key":{"value":true}}` of Go clients and `{"key":["value"]}` of the
//! others.

use serde_json::Value;
use testkit::Daemon;

use crate::{create, run, wait, with_busybox};

/// Percent-encodes what a query cannot carry.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// The list at `path` for `key=value,value`, asked for in both forms; what `name` sees of each entry, sorted.
#[track_caller]
fn listed(d: &Daemon, path: &str, filter: &str, name: &str) -> String {
    let forms: Vec<String> = if filter.is_empty() { vec!["{}".into()] } else { both_forms(filter).into() };
    let answers: Vec<String> = forms.iter().map(|filters| one_form(d, path, filters, name)).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{filter}: {answers:?}");
    answers[0].clone()
}

fn both_forms(filter: &str) -> [String; 2] {
    let (key, values) = filter.split_once('=').unwrap();
    let map: Vec<String> = values.split(',').map(|value| format!("{value:?}:true")).collect();
    let list: Vec<String> = values.split(',').map(|value| format!("{value:?}")).collect();
    [format!("{{{key:?}:{{{}}}}}", map.join(",")), format!("{{{key:?}:[{}]}}", list.join(","))]
}

#[track_caller]
fn one_form(d: &Daemon, path: &str, filters: &str, name: &str) -> String {
    let sign = if path.contains('?') { '&' } else { '?' };
    let list = d.http("GET", &format!("/v1.45{path}{sign}filters={}", encode(filters)), "").expect(200).json();
    let list = list.get("Volumes").unwrap_or(&list);
    let names = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| entry.pointer(name).and_then(Value::as_str).unwrap_or("-").trim_start_matches('/'));
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.join(" ")
}

#[test]
fn of_containers() {
    let d = with_busybox();
    let _ = d.http("POST", "/volumes/create", r#"{"Name":"data"}"#).expect(201);
    run(
        &d,
        "up",
        r#"{"Image":"busybox","Cmd":["sleep","1000"],"Labels":{"a":"1","b":""},"ExposedPorts":{"81/tcp":{}},"HostConfig":{"Binds":["data:/data"],"PortBindings":{"80/tcp":[{"HostPort":"8080"}]}}}"#,
    );
    run(
        &d,
        "down",
        r#"{"Image":"busybox","Cmd":["sh","-c","exit 3"],"Labels":{"a":"2"},"HostConfig":{"NetworkMode":"none"}}"#,
    );
    wait(&d, "down");
    run(&d, "frozen", r#"{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none"}}"#);
    let _ = d.http("POST", "/containers/frozen/pause", "").expect(204);
    let id = create(&d, "made", r#"{"Image":"busybox","HostConfig":{"NetworkMode":"host"}}"#);
    let image = d.http("GET", "/images/busybox/json", "").json()["Id"].as_str().unwrap().to_string();
    let short = image.trim_start_matches("sha256:")[..12].to_string();
    for (filter, wanted) in [
        ("", "down frozen made up"),
        ("status=running", "up"),
        ("status=exited,created", "down made"),
        ("status=paused", "frozen"),
        ("exited=3", "down"),
        ("exited=0", ""),
        ("label=a", "down up"),
        ("label=a=1", "up"),
        ("label=a,b", "up"),
        ("label=b=", "up"),
        ("name=up", "up"),
        ("name=w", "down"),
        ("name=^/?(up|made)$", "made up"),
        (&format!("id={id}"), "made"),
        (&format!("id={}", &id[..10]), "made"),
        ("ancestor=busybox", "down frozen made up"),
        ("ancestor=busybox:latest", "down frozen made up"),
        (&format!("ancestor={image}"), "down frozen made up"),
        (&format!("ancestor={short}"), "down frozen made up"),
        ("ancestor=nosuch", ""),
        ("before=frozen", "down up"),
        ("since=down", "frozen made"),
        ("network=bridge", "up"),
        ("network=none", "down frozen"),
        ("network=host", "made"),
        ("volume=data", "up"),
        ("volume=/data", "up"),
        ("volume=other", ""),
        ("publish=8080", "up"),
        ("publish=8080/udp", ""),
        ("publish=8000-8100", "up"),
        ("expose=80", "up"),
        ("expose=81/tcp", "up"),
        ("health=none", "down frozen made up"),
        ("health=healthy", ""),
        ("is-task=true", ""),
        ("is-task=false", "down frozen made up"),
        ("isolation=default", "down frozen made up"),
    ] {
        assert_eq!(listed(&d, "/containers/json?all=1", filter, "/Names/0"), wanted, "{filter}");
    }
    for (query, wanted) in
        [("", "frozen up"), ("?all=0", "frozen up"), ("?limit=2", "frozen made"), ("?limit=-1", "frozen up")]
    {
        assert_eq!(listed(&d, &format!("/containers/json{query}"), "", "/Names/0"), wanted, "{query}");
    }
    // A status asked for is looked for among all.
    assert_eq!(listed(&d, "/containers/json", "status=exited", "/Names/0"), "down");
    d.finish();
}

/// Values that are false in the map form are values nevertheless.
#[test]
fn both_forms_together() {
    let d = with_busybox();
    create(&d, "one", r#"{"Image":"busybox","Labels":{"a":"b=c"}}"#);
    for filters in [
        r#"{"label":{"a=b=c":false}}"#,
        r#"{"label":{"a=b=c":true},"status":{"created":true}}"#,
        r#"{"label":["a=b=c"],"status":["created"]}"#,
    ] {
        assert_eq!(one_form(&d, "/containers/json?all=1", filters, "/Names/0"), "one", "{filters}");
    }
    for bad in
        ["[]", "x", r#"{"label":"a"}"#, r#"{"label":{"a":1}}"#, r#"{"label":["a"],"status":{"x":true}}"#, r#""a""#]
    {
        let answer = d.http("GET", &format!("/v1.45/containers/json?filters={}", encode(bad)), "");
        assert_eq!((answer.status, answer.message().as_str()), (400, "invalid filter"), "{bad}");
    }
    d.finish();
}

#[test]
fn of_images() {
    let d = with_busybox();
    for name in ["repo=other&tag=1.0", "repo=localhost:5000/deep/name&tag=x"] {
        let _ = d.http("POST", &format!("/images/busybox/tag?{name}"), "").expect(201);
    }
    let tags = |filter: &str| {
        let all: Vec<String> = both_forms(filter)
            .iter()
            .map(|form| {
                let list =
                    d.http("GET", &format!("/v1.45/images/json?filters={}", encode(form)), "").expect(200).json();
                let tags = list.as_array().unwrap().iter().flat_map(|image| image["RepoTags"].as_array().unwrap());
                let mut tags: Vec<String> = tags.map(|tag| tag.as_str().unwrap().to_string()).collect();
                tags.sort();
                tags.join(" ")
            })
            .collect();
        assert_eq!(all[0], all[1], "{filter}");
        all[0].clone()
    };
    let all = "busybox:latest localhost:5000/deep/name:x other:1.0";
    for (filter, wanted) in [
        ("reference=busybox", "busybox:latest"),
        ("reference=busybox:latest", "busybox:latest"),
        ("reference=oth*", "other:1.0"),
        ("reference=*:1.*", "other:1.0"),
        ("reference=localhost:5000/*/*", "localhost:5000/deep/name:x"),
        ("reference=busybox,other", "busybox:latest other:1.0"),
        ("reference=nosuch", ""),
        ("dangling=false", all),
        ("dangling=true", ""),
        ("label=none", ""),
        ("before=busybox", ""),
        ("since=busybox", ""),
        ("until=2000000000", all),
    ] {
        assert_eq!(tags(filter), wanted, "{filter}");
    }
    d.finish();
}

#[test]
fn of_networks_and_volumes() {
    let d = with_busybox();
    let id = d.http("GET", "/networks/host", "").expect(200).json()["Id"].as_str().unwrap().to_string();
    for (filter, wanted) in [
        ("", "bridge host none"),
        ("name=bridge", "bridge"),
        ("name=o", "host none"),
        (&format!("id={id}"), "host"),
        (&format!("id={}", &id[..12]), "host"),
        ("driver=bridge", "bridge"),
        ("driver=null,host", "host none"),
        ("type=builtin", "bridge host none"),
        ("type=custom", ""),
        ("scope=local", "bridge host none"),
        ("scope=swarm", ""),
        ("label=x", ""),
        ("dangling=true", ""),
    ] {
        assert_eq!(listed(&d, "/networks", filter, "/Name"), wanted, "{filter}");
    }
    for (name, label) in [("one", r#","Labels":{"a":"1"}"#), ("two", "")] {
        let _ = d.http("POST", "/volumes/create", &format!(r#"{{"Name":"{name}"{label}}}"#)).expect(201);
    }
    create(&d, "c1", r#"{"Image":"busybox","HostConfig":{"Binds":["two:/data"]}}"#);
    for (filter, wanted) in [
        ("", "one two"),
        ("name=on", "one"),
        ("driver=local", "one two"),
        ("driver=other", ""),
        ("label=a", "one"),
        ("label=a=1", "one"),
        ("label=a=2", ""),
        ("dangling=true", "one"),
        ("dangling=false", "two"),
    ] {
        assert_eq!(listed(&d, "/volumes", filter, "/Name"), wanted, "{filter}");
    }
    d.finish();
}
