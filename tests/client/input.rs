//! Bad input: the reference's status and text, and no half-made thing left.

use std::time::Duration;

use testkit::Daemon;

use crate::{eventually, with_busybox};

fn refused(d: &Daemon, query: &str, body: &str, status: u16, message: &str) {
    let answer = d.http("POST", &format!("/containers/create{query}"), body);
    assert_eq!((answer.status, answer.message().as_str()), (status, message), "{body}");
}

#[test]
fn creating() {
    let d = with_busybox();
    refused(&d, "", "{bad", 400, "invalid JSON: invalid character 'b' looking for beginning of object key string");
    refused(&d, "", "{}", 400, "config cannot be empty in order to create a container");
    refused(&d, "", r#"{"Image":"nosuch:1"}"#, 404, "No such image: nosuch:1");
    refused(
        &d,
        "?name=a%20b",
        r#"{"Image":"busybox"}"#,
        400,
        "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
    );
    refused(&d, "", r#"{"Image":"busybox"} {"x":1}"#, 400, "unexpected content after JSON");
    refused(
        &d,
        "",
        r#"{"Image":"busybox","HostConfig":{"RestartPolicy":{"Name":"zz"}}}"#,
        400,
        "invalid restart policy: unknown policy 'zz'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
    );
    refused(
        &d,
        "",
        r#"{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"bind","Source":"/no/such","Target":"/x"}]}}"#,
        400,
        "invalid mount config for type \"bind\": bind source path does not exist: /no/such",
    );
    refused(
        &d,
        "",
        r#"{"Image":"busybox","HostConfig":{"StorageOpt":{"size":"1G"}}}"#,
        500,
        "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
    );
    let of_host = |config: &str| format!(r#"{{"Image":"busybox","HostConfig":{{{config}}}}}"#);
    refused(&d, "", &of_host(r#""IpcMode":"container:nosuch""#), 400, "No such container: nosuch");
    refused(&d, "", &of_host(r#""VolumesFrom":["nosuch"]"#), 400, "No such container: nosuch");
    let file = r#"{"Image":"busybox","WorkingDir":"/etc/passwd"}"#;
    refused(&d, "", file, 500, "Cannot mkdir: /etc/passwd is not a directory");
    let below = r#"{"Image":"busybox","WorkingDir":"/etc/passwd/x/y"}"#;
    refused(&d, "", below, 500, "lstat /etc/passwd/x/y: not a directory");
    let over_file = "cannot mount volume over existing file, file exists /etc/passwd";
    refused(&d, "", r#"{"Image":"busybox","Volumes":{"/etc/passwd":{}}}"#, 500, over_file);
    assert_eq!(d.http("GET", "/volumes", "").json()["Volumes"].as_array().map_or(0, Vec::len), 0);
    assert_eq!(d.http("GET", "/containers/json?all=1", "").json().as_array().unwrap().len(), 0);
    // A network to share may come later; a 404 of create would make clients pull the image.
    let _ = d.http("POST", "/containers/create?name=c1", &of_host(r#""NetworkMode":"container:nosuch""#)).expect(201);
    let missing = "joining network namespace of container: No such container: nosuch";
    assert_eq!(d.http("POST", "/containers/c1/start", "").expect(500).message(), missing);
    d.finish();
}

#[test]
fn bodies_and_types() {
    let d = with_busybox();
    let raw = |text: &str| {
        let mut connection = d.connection();
        connection.send(text.as_bytes()).unwrap();
        let head = connection.head().unwrap();
        let body = connection.body(&head).unwrap();
        (head.status, String::from_utf8_lossy(&body).into_owned())
    };
    let (status, text) =
        raw("POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(
        (status, text.as_str()),
        (400, "{\"message\":\"unsupported Content-Type header (text/plain): must be 'application/json'\"}\n")
    );
    let (status, text) = raw(
        "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!((status, text.as_str()), (400, "{\"message\":\"invalid JSON: EOF\"}\n"));
    d.finish();
}

#[test]
fn users_and_directories_at_start() {
    let d = with_busybox();
    let _ = d.docker(&["create", "--name", "u1", "-u", "nosuch", "busybox", "true"]).ok();
    d.docker(&["start", "u1"]).fails(1, "unable to find user nosuch: no matching entries in passwd file");
    assert_eq!(d.inspect("u1", "{{.State.Status}}"), "created");
    // A missing working directory is made; a file in its place is refused.
    assert_eq!(d.docker(&["run", "--rm", "-w", "/new/dir", "busybox", "pwd"]).text(), "/new/dir");
    d.docker(&["run", "--name", "w1", "-w", "/etc/passwd", "busybox", "true"])
        .fails(125, "Cannot mkdir: /etc/passwd is not a directory");
    d.docker(&["run", "--rm", "-w", "relative", "busybox", "true"])
        .fails(125, "the working directory 'relative' is invalid, it needs to be an absolute path");
    d.docker(&["run", "--rm", "-m", "1k", "busybox", "true"]).fails(125, "Minimum memory limit allowed is 6MB");
    d.finish();
}

#[test]
fn a_huge_body_is_refused_and_memory_stays() {
    let d = with_busybox();
    let before = testkit::process::memory_kib(d.pid(), "status", "RssAnon:").unwrap();
    let mut connection = d.connection();
    connection.patience(Duration::from_secs(30));
    let length = 1_u64 << 30;
    let head = format!(
        "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{\"Image\":\""
    );
    connection.send(head.as_bytes()).unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..256 {
        if connection.send(&block).is_err() {
            break;
        }
    }
    let after = testkit::process::memory_kib(d.pid(), "status", "RssAnon:").unwrap();
    assert!(after < before + (64 << 10), "{before} KiB, then {after} KiB");
    assert_eq!(d.http("GET", "/_ping", "").status, 200);
    drop(connection);
    d.finish();
}

#[test]
fn slow_and_broken_clients_disturb_nobody() {
    let d = with_busybox();
    let mut slow: Vec<_> = (0..50).map(|_| d.connection()).collect();
    for connection in &mut slow {
        connection.send(b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Le").unwrap();
    }
    assert_eq!(d.docker(&["run", "--rm", "busybox", "echo", "ok"]).text(), "ok");
    drop(slow);
    for garbage in [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", &[b'A'; 100_000]] {
        let mut connection = d.connection();
        let _ = connection.send(garbage);
        let _ = connection.half_close();
        let _ = connection.rest();
    }
    assert_eq!(d.http("GET", "/_ping", "").status, 200);
    d.finish();
}

#[test]
fn clients_that_vanish() {
    let d = with_busybox();
    let _ =
        d.docker(&["run", "-d", "--name", "c1", "busybox", "sh", "-c", "while true; do echo x; sleep 0.01; done"]).ok();
    for path in ["attach?stream=1&stdout=1&stdin=1", "logs?follow=1&stdout=1"] {
        for _ in 0..5 {
            let mut connection = d.connection();
            let method = if path.starts_with("logs") { "GET" } else { "POST" };
            connection
                .send(
                    format!("{method} /containers/c1/{path} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
                        .as_bytes(),
                )
                .unwrap();
            connection.head().unwrap();
            drop(connection);
        }
    }
    let mut waiting = d.connection();
    waiting.send(b"POST /containers/c1/wait HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n").unwrap();
    waiting.head().unwrap();
    drop(waiting);
    d.finish();
}

/// Waits until nothing comes any more of what clients that have vanished asked for.
fn heard_out(d: &Daemon) {
    let states = || {
        let list = d.http("GET", "/containers/json?all=1", "").expect(200).json();
        let states = list.as_array().unwrap().iter().map(|c| (c["Id"].clone(), c["State"].clone()));
        states.collect::<Vec<_>>()
    };
    assert!(eventually(|| {
        let before = states();
        std::thread::sleep(Duration::from_secs(1));
        states() == before
    }));
}

/// Whether a request of a client that closes at once is taken is a race; half-made things are not allowed either way.
#[test]
fn mutations_of_clients_that_vanish_are_whole_or_nothing() {
    let d = with_busybox();
    let vanish = |head: String, body: &str| {
        let text = format!(
            "{head} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        d.connection().send(text.as_bytes()).unwrap();
    };
    let names: Vec<String> = (0..10).map(|n| format!("v{n}")).collect();
    for name in &names {
        vanish(format!("POST /containers/create?name={name}"), r#"{"Image":"busybox","Cmd":["sleep","1000"]}"#);
    }
    heard_out(&d);
    let mut connection = d.connection();
    let made: Vec<&String> = names
        .iter()
        .filter(|name| match connection.request("GET", &format!("/containers/{name}/json"), "").status {
            200 => true,
            404 => false,
            other => panic!("{name}: {other}"),
        })
        .collect();
    for name in &made {
        vanish(format!("POST /containers/{name}/start"), "");
    }
    heard_out(&d);
    for name in &made {
        let status = connection.request("POST", &format!("/containers/{name}/start"), "").status;
        assert!(matches!(status, 204 | 304), "{name}: {status}");
        assert_eq!(d.inspect(name, "{{.State.Status}}"), "running");
    }
    d.finish();
}

#[test]
fn paths_do_not_climb() {
    let d = with_busybox();
    for path in ["/containers/%00/json", "/containers/a%2fb/json"] {
        let status = d.http("GET", path, "").status;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    // What climbs is sent to where it leads, which is no place.
    let moved = d.http("GET", "/containers/..%2f..%2fetc/json", "").expect(301);
    assert_eq!(moved.header("Location"), Some("/etc/json"));
    d.finish();
}

/// What a create request names beside its image: when it is missing the answer is no 404, for which clients pull the image.
#[test]
fn what_a_request_names_must_be_there() {
    let d = with_busybox();
    let body = |rest: &str| format!(r#"{{"Image":"busybox","Cmd":["true"],{rest}}}"#);
    let host = |rest: &str| body(&format!(r#""HostConfig":{{{rest}}}"#));
    let endpoint = |rest: &str| body(&format!(r#""NetworkingConfig":{{"EndpointsConfig":{{{rest}}}}}"#));
    let missing = "No such container: nosuch";
    refused(&d, "", &host(r#""VolumesFrom":["nosuch"]"#), 400, missing);
    refused(&d, "", &host(r#""Links":["nosuch:x"]"#), 400, &format!("could not get container for nosuch: {missing}"));
    refused(&d, "", &host(r#""Links":["a:b:c"]"#), 400, "bad format for links: a:b:c");
    let mac = "invalid JSON: address zz: invalid MAC address";
    refused(&d, "", &endpoint(r#""bridge":{"MacAddress":"zz"}"#), 400, mac);
    let start = |body: &str| {
        let id = d.http("POST", "/containers/create", body).expect(201).json()["Id"].as_str().unwrap().to_owned();
        let answer = d.http("POST", &format!("/containers/{id}/start"), "");
        (answer.status, answer.message())
    };
    assert_eq!(start(&endpoint(r#""bridge":{},"nosuch":{}"#)), (404, "network nosuch not found".into()));
    let bind =
        r#""Mounts":[{"Type":"bind","Source":"/tmp","Target":"/x","BindOptions":{"ReadOnlyNonRecursive":true}}]"#;
    let conflict = "mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive";
    assert_eq!(start(&host(bind)), (500, conflict.into()));
    d.finish();
}

/// What is accepted and has no effect yet is warned of.
#[test]
fn nothing_is_ignored_in_silence() {
    let d = with_busybox();
    let warnings = |rest: &str| {
        let body = format!(r#"{{"Image":"busybox","Cmd":["true"],{rest}}}"#);
        let answer = d.http("POST", "/containers/create", &body).expect(201).json();
        answer["Warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let _ = d.docker(&["create", "--name", "other", "busybox", "true"]).ok();
    assert_eq!(warnings(r#""Healthcheck":{"Test":["NONE"]}"#), [""; 0]);
    assert_eq!(warnings(r#""Healthcheck":{"Test":["CMD","true"]}"#), [""; 0]);
    assert_eq!(
        warnings(r#""Healthcheck":{"Test":["HTTP","true"]}"#),
        ["The health check has no effect: its test begins neither with NONE nor with CMD or CMD-SHELL."]
    );
    let deprecated = "Links on the default bridge network are deprecated and will be removed in a future release. \
                      Use a custom network instead.";
    assert_eq!(warnings(r#""HostConfig":{"Links":["other:x"]}"#), [deprecated]);
    d.finish();
}
