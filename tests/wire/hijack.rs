//! Connections that leave HTTP: attach, exec, websockets; and `wait`, whose head must come before its answer.
//!
//! Segments are looked at as they arrive: a client that reads the head through a buffer loses what came with it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use testkit::Daemon;
use testkit::command::{PATIENCE, eventually};

use crate::raw::{connect, expect, segment, split, to_end, until};
use crate::{NEWEST, create, run, start, wait, with_busybox};

const MULTIPLEXED: &str = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
const RAW: &str = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
const NOT_UPGRADED: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";

/// Sends a request that takes over the connection, and gives the head when it has come alone.
#[track_caller]
fn hijack(d: &Daemon, path: &str, upgrade: bool, body: &str) -> (UnixStream, String) {
    let mut stream = connect(d);
    stream.write_all(request(path, upgrade, body).as_bytes()).unwrap();
    let head = String::from_utf8(segment(&mut stream)).unwrap();
    assert!(head.ends_with("\r\n\r\n"), "the head does not come alone: {head:?}");
    (stream, head)
}

fn request(path: &str, upgrade: bool, body: &str) -> String {
    let wish = if upgrade { "Connection: Upgrade\r\nUpgrade: tcp\r\n" } else { "" };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    format!("POST {path} HTTP/1.1\r\nHost: docker\r\n{wish}{kind}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn frame(stream: u8, text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[stream, 0, 0, 0], &length[..], text.as_bytes()].concat()
}

const CAT: &str = r#"{"Image":"busybox","Cmd":["sh","-c","cat; echo done >&2"],"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"OpenStdin":true,"StdinOnce":true}"#;
const TTY_CAT: &str = r#"{"Image":"busybox","Cmd":["cat"],"Tty":true,"OpenStdin":true}"#;

#[test]
fn attach_upgrades_half_closes_and_ends_with_the_container() {
    let d = with_busybox();
    create(&d, "a1", CAT);
    let (mut stream, head) = hijack(&d, "/v1.45/containers/a1/attach?stdin=1&stdout=1&stderr=1&stream=1", true, "");
    assert_eq!(head, MULTIPLEXED);
    start(&d, "a1");
    stream.write_all(b"abc\n").unwrap();
    expect(&mut stream, &frame(1, "abc\n"));
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(to_end(&mut stream), frame(2, "done\n"));
    d.finish();
}

#[test]
fn heads_of_attach_by_version_terminal_and_wish() {
    let d = with_busybox();
    run(&d, "plain", r#"{"Image":"busybox","Cmd":["sleep","1000"]}"#);
    run(&d, "tty", r#"{"Image":"busybox","Cmd":["sleep","1000"],"Tty":true}"#);
    for (version, name, upgrade, wanted) in [
        ("v1.45", "plain", true, MULTIPLEXED),
        ("v1.42", "plain", true, MULTIPLEXED),
        ("v1.41", "plain", true, RAW),
        ("v1.24", "plain", true, RAW),
        ("v1.45", "tty", true, RAW),
        ("v1.45", "plain", false, NOT_UPGRADED),
        ("v1.45", "tty", false, NOT_UPGRADED),
        ("v1.41", "plain", false, NOT_UPGRADED),
    ] {
        let (_, head) = hijack(&d, &format!("/{version}/containers/{name}/attach?stdout=1&stream=1"), upgrade, "");
        assert_eq!(head, wanted, "{version} {name} {upgrade}");
    }
    d.finish();
}

#[test]
fn a_terminal_is_raw() {
    let d = with_busybox();
    create(&d, "t1", r#"{"Image":"busybox","Cmd":["echo","x"],"Tty":true}"#);
    let (mut stream, head) = hijack(&d, "/v1.45/containers/t1/attach?stdout=1&stderr=1&stream=1", true, "");
    assert_eq!(head, RAW);
    start(&d, "t1");
    assert_eq!(to_end(&mut stream), b"x\r\n");
    d.finish();
}

/// What the client sends behind its request belongs to the container.
#[test]
fn input_that_comes_with_the_request_arrives() {
    let d = with_busybox();
    create(&d, "a1", CAT);
    let mut stream = connect(&d);
    let request = request("/v1.45/containers/a1/attach?stdin=1&stdout=1&stderr=1&stream=1", true, "");
    stream.write_all(format!("{request}early\n").as_bytes()).unwrap();
    assert_eq!(segment(&mut stream), MULTIPLEXED.as_bytes());
    start(&d, "a1");
    expect(&mut stream, &frame(1, "early\n"));
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(to_end(&mut stream), frame(2, "done\n"));
    d.finish();
}

/// The faster the engine, the surer would head and payload share a segment.
#[test]
fn head_and_payload_never_share_a_segment() {
    let d = with_busybox();
    run(&d, "busy", r#"{"Image":"busybox","Cmd":["sh","-c","while true; do echo x; done"]}"#);
    for _ in 0..20 {
        let (mut stream, _) = hijack(&d, "/containers/busy/attach?stdout=1&stream=1", true, "");
        assert_eq!(segment(&mut stream)[..4], [1, 0, 0, 0]);
        let (mut stream, _) = hijack(&d, "/containers/busy/attach?stdout=1&logs=1", true, "");
        assert_eq!(segment(&mut stream)[..4], [1, 0, 0, 0]);
    }
    for _ in 0..20 {
        let made = d.http("POST", "/containers/busy/exec", r#"{"Cmd":["echo","y"],"AttachStdout":true}"#).expect(201);
        let id = made.json()["Id"].as_str().unwrap().to_string();
        let (mut stream, _) = hijack(&d, &format!("/exec/{id}/start"), true, r#"{"Detach":false}"#);
        assert_eq!(to_end(&mut stream), frame(1, "y\n"));
    }
    d.finish();
}

#[test]
fn attach_where_there_is_nothing_to_attach_to() {
    let d = with_busybox();
    run(&d, "p1", r#"{"Image":"busybox","Cmd":["sleep","1000"]}"#);
    let attach = |name: &str| d.http("POST", &format!("/v1.45/containers/{name}/attach?stream=1&stdout=1"), "");
    assert_eq!(attach("zz").expect(404).text(), "No such container: zz\r\n");
    let _ = d.http("POST", "/containers/p1/pause", "").expect(204);
    let text = "container p1 is paused, unpause the container before attach";
    assert_eq!(attach("p1").expect(409).text(), format!("{text}\r\n"));
    let _ = d.http("POST", "/containers/p1/unpause", "").expect(204);
    let keys = d.http("POST", "/v1.45/containers/p1/attach?detachKeys=nokey", "");
    assert_eq!(keys.expect(400).text(), "Invalid detach keys (nokey) provided\r\n");
    let (mut stream, _) = hijack(&d, "/v1.45/containers/p1/attach?stream=1", true, "");
    assert_eq!(to_end(&mut stream), b"");
    d.finish();
}

/// The log first, then what comes; the log alone when no stream is asked for.
#[test]
fn attach_replays_and_goes_on() {
    let d = with_busybox();
    let script = "echo old; echo bad >&2; read x; echo new";
    run(&d, "l1", &format!(r#"{{"Image":"busybox","Cmd":["sh","-c","{script}"],"OpenStdin":true}}"#));
    let logged = || d.http("GET", "/containers/l1/logs?stdout=1&stderr=1", "").body.len();
    assert!(eventually(PATIENCE, || logged() == 8 + 4 + 8 + 4));
    let (mut log, _) = hijack(&d, "/containers/l1/attach?logs=1&stdout=1", true, "");
    assert_eq!(to_end(&mut log), frame(1, "old\n"));
    let (mut both, _) = hijack(&d, "/containers/l1/attach?logs=1&stream=1&stdin=1&stdout=1&stderr=1", true, "");
    let mut seen = segment(&mut both);
    both.write_all(b"go\n").unwrap();
    seen.extend(to_end(&mut both));
    assert_eq!(seen, [frame(1, "old\n"), frame(2, "bad\n"), frame(1, "new\n")].concat());
    d.finish();
}

/// The log of a terminal is replayed as the terminal's stream goes on: raw.
#[test]
fn attach_replays_a_terminal_raw() {
    let d = with_busybox();
    run(&d, "t1", r#"{"Image":"busybox","Cmd":["echo","old"],"Tty":true}"#);
    wait(&d, "t1");
    let (mut log, _) = hijack(&d, "/containers/t1/attach?logs=1&stdout=1", true, "");
    assert_eq!(to_end(&mut log), b"old\r\n");
    d.finish();
}

#[test]
fn detach_keys_end_the_stream_and_not_the_container() {
    let d = with_busybox();
    run(&d, "t1", TTY_CAT);
    for (query, keys) in [("", "\u{10}\u{11}"), ("&detachKeys=ctrl-a,x", "\u{1}x"), ("&detachKeys=q", "q")] {
        let path = format!("/v1.45/containers/t1/attach?stdin=1&stdout=1&stream=1{query}");
        let (mut stream, _) = hijack(&d, &path, true, "");
        stream.write_all(b"hello\r").unwrap();
        until(&mut stream, b"hello\r\nhello\r\n");
        stream.write_all(keys.as_bytes()).unwrap();
        assert_eq!(to_end(&mut stream), b"", "{query}");
    }
    assert_eq!(d.http("GET", "/containers/t1/json", "").json()["State"]["Status"], "running");
    // Without a terminal the keys are input like any other.
    create(&d, "a1", CAT);
    let (mut stream, _) = hijack(&d, "/v1.45/containers/a1/attach?stdin=1&stdout=1&stream=1", true, "");
    start(&d, "a1");
    stream.write_all(b"\x10\x11\n").unwrap();
    expect(&mut stream, &frame(1, "\u{10}\u{11}\n"));
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(to_end(&mut stream), b"");
    d.finish();
}

/// Without a terminal and StdinOnce the end of one client's input is not the end of the container's.
#[test]
fn input_stays_open_for_the_next_client() {
    let d = with_busybox();
    run(&d, "c1", r#"{"Image":"busybox","Cmd":["cat"],"OpenStdin":true}"#);
    for text in ["one\n", "two\n"] {
        let (mut stream, _) = hijack(&d, "/containers/c1/attach?stdin=1&stdout=1&stream=1", true, "");
        stream.write_all(text.as_bytes()).unwrap();
        expect(&mut stream, &frame(1, text));
        stream.shutdown(Shutdown::Write).unwrap();
        // The end of input ends this client's output as well.
        assert_eq!(to_end(&mut stream), b"");
    }
    d.finish();
}

#[track_caller]
fn exec(d: &Daemon, name: &str, body: &str) -> String {
    let made = d.http("POST", &format!("/v1.45/containers/{name}/exec"), body).expect(201).json();
    made["Id"].as_str().unwrap().to_string()
}

#[test]
fn exec_streams() {
    let d = with_busybox();
    run(&d, "c1", r#"{"Image":"busybox","Cmd":["sleep","1000"]}"#);
    let common = format!("Api-Version: {NEWEST}\r\nDocker-Experimental: false\r\nOstype: linux\r\n");
    let all = r#""AttachStdin":true,"AttachStdout":true,"AttachStderr":true"#;
    let id = exec(&d, "c1", &format!(r#"{{"Cmd":["sh","-c","cat; echo end >&2; exit 3"],{all}}}"#));
    let (mut stream, head) = hijack(&d, &format!("/v1.45/exec/{id}/start"), true, r#"{"Tty":false}"#);
    let (with_server, server) = head.split_at(head.find("Server: Docker/").expect("a server"));
    assert_eq!(format!("{with_server}\r\n"), MULTIPLEXED.replace("\r\n\r\n", &format!("\r\n{common}\r\n")));
    assert!(server.ends_with(" (linux)\r\n\r\n"), "{server}");
    stream.write_all(b"abc").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(to_end(&mut stream), [frame(1, "abc"), frame(2, "end\n")].concat());
    let ended = || d.http("GET", &format!("/exec/{id}/json"), "").json()["ExitCode"] == 3;
    assert!(eventually(PATIENCE, ended));
    let id = exec(&d, "c1", &format!(r#"{{"Cmd":["cat"],"Tty":true,{all}}}"#));
    let (mut stream, head) = hijack(&d, &format!("/v1.45/exec/{id}/start"), true, r#"{"Tty":true}"#);
    assert!(head.starts_with(RAW.trim_end()), "{head}");
    stream.write_all(b"x\r").unwrap();
    until(&mut stream, b"x\r\nx\r\n");
    let _ = d.http("POST", &format!("/exec/{id}/resize?h=20&w=30"), "").expect(200);
    stream.write_all(b"\x10\x11").unwrap();
    assert_eq!(to_end(&mut stream), b"");
    assert_eq!(d.http("GET", &format!("/exec/{id}/json"), "").json()["Running"], true);
    d.finish();
}

/// What a session and its client say may differ: the client's word shapes the stream, and a client without streams is
/// let go at once.
#[test]
fn exec_streams_that_are_odd() {
    let d = with_busybox();
    run(&d, "c1", r#"{"Image":"busybox","Cmd":["sleep","1000"]}"#);
    let started = |id: &str| {
        let (mut stream, _) = hijack(&d, &format!("/v1.45/exec/{id}/start"), true, "{}");
        to_end(&mut stream)
    };
    let inspect = |id: &str| d.http("GET", &format!("/exec/{id}/json"), "").expect(200).json();
    let id = exec(&d, "c1", r#"{"Cmd":["echo","a"],"Tty":true,"AttachStdout":true,"DetachKeys":"ctrl-x"}"#);
    assert_eq!(started(&id), frame(1, "a\r\n"));
    assert_eq!(inspect(&id)["DetachKeys"], "GA==");
    let id = exec(&d, "c1", r#"{"Cmd":["sleep","1000"]}"#);
    assert_eq!(started(&id), b"");
    assert_eq!(inspect(&id)["Running"], true);
    let id = exec(&d, "c1", r#"{"Cmd":["pwd"],"WorkingDir":"tmp","AttachStdout":true}"#);
    let text = "OCI runtime exec failed: exec failed: Cwd must be an absolute path: unknown\r\n";
    assert_eq!(started(&id), frame(1, text));
    assert_eq!(inspect(&id)["ExitCode"], 126);
    // What can be refused before the stream begins is.
    let id = exec(&d, "c1", r#"{"Cmd":["true"],"AttachStdout":true}"#);
    let _ = d.http("POST", "/containers/c1/pause", "").expect(204);
    let paused = d.http("POST", &format!("/exec/{id}/start"), "{}").expect(409).message();
    assert!(paused.ends_with(" is paused, unpause the container before exec"), "{paused}");
    let paused = d.http("POST", "/containers/c1/exec", r#"{"Cmd":["true"]}"#).expect(409).message();
    assert_eq!(paused, "Container c1 is paused, unpause the container before exec");
    d.finish();
}

#[test]
fn resize_reaches_the_terminal() {
    let d = with_busybox();
    let script = "trap 'stty size' WINCH; echo ready; while true; do sleep 0.1; done";
    create(&d, "t1", &format!(r#"{{"Image":"busybox","Cmd":["sh","-c","{script}"],"Tty":true}}"#));
    let (mut stream, _) = hijack(&d, "/containers/t1/attach?stdout=1&stream=1", true, "");
    start(&d, "t1");
    expect(&mut stream, b"ready\r\n");
    let answer = d.http("POST", "/v1.45/containers/t1/resize?h=33&w=111", "");
    assert_eq!(answer.expect(200).body.len(), 0);
    expect(&mut stream, b"33 111\r\n");
    d.finish();
}

/// `docker run` starts the container only when the head of its `wait` is there.
#[test]
fn the_head_of_wait_comes_before_the_start() {
    let d = with_busybox();
    create(&d, "w1", r#"{"Image":"busybox","Cmd":["sh","-c","sleep 0.5; exit 5"]}"#);
    for condition in ["next-exit", "removed"] {
        let mut stream = connect(&d);
        let path = format!("/v1.45/containers/w1/wait?condition={condition}");
        stream.write_all(request(&path, false, "").as_bytes()).unwrap();
        // It comes although there is nothing to tell yet.
        let (head, body) = split(&segment(&mut stream));
        assert_eq!((head[0].as_str(), body.as_slice()), ("HTTP/1.1 200 OK", &b""[..]));
        assert_eq!(head.last().unwrap(), "Transfer-Encoding: chunked");
        if condition == "next-exit" {
            start(&d, "w1");
        } else {
            let _ = d.http("DELETE", "/containers/w1", "").expect(204);
        }
        let answer = until(&mut stream, b"0\r\n\r\n");
        assert_eq!(answer, b"11\r\n{\"StatusCode\":5}\n\r\n0\r\n\r\n", "{condition}");
        // The connection serves on.
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n").unwrap();
        assert!(segment(&mut stream).starts_with(b"HTTP/1.1 200 OK"));
    }
    d.finish();
}

/// A container that removes itself still has its code told.
#[test]
fn wait_for_the_removal_of_one_that_removes_itself() {
    let d = with_busybox();
    for n in 0..5 {
        let name = format!("r{n}");
        let body = r#"{"Image":"busybox","Cmd":["sh","-c","exit 3"],"HostConfig":{"AutoRemove":true}}"#;
        create(&d, &name, body);
        let mut stream = connect(&d);
        let wish = format!(
            "POST /v1.45/containers/{name}/wait?condition=removed HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(wish.as_bytes()).unwrap();
        let _ = segment(&mut stream);
        start(&d, &name);
        assert_eq!(to_end(&mut stream), b"11\r\n{\"StatusCode\":3}\n\r\n0\r\n\r\n");
        assert_eq!(d.http("GET", &format!("/containers/{name}/json"), "").status, 404);
    }
    d.finish();
}

#[test]
fn a_client_that_leaves_takes_nothing_with_it() {
    let d = with_busybox();
    create(&d, "a1", r#"{"Image":"busybox","Cmd":["sh","-c","echo a; sleep 1; echo b"]}"#);
    let (stream, _) = hijack(&d, "/containers/a1/attach?stdout=1&stream=1", true, "");
    drop(stream);
    start(&d, "a1");
    assert_eq!(wait(&d, "a1"), 0);
    let log = d.http("GET", "/containers/a1/logs?stdout=1", "").body;
    assert_eq!(log, [frame(1, "a\n"), frame(1, "b\n")].concat());
    d.finish();
}

/// Opens a websocket and gives the head.
#[track_caller]
fn websocket(d: &Daemon, path: &str) -> (UnixStream, String) {
    let mut stream = connect(d);
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: docker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://docker\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let head = String::from_utf8(segment(&mut stream)).unwrap();
    (stream, head)
}

/// The payload of as many short frames of this kind as it takes: a fragment may come back as soon as it went in.
#[track_caller]
fn payload(stream: &mut UnixStream, kind: u8, length: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    while payload.len() < length {
        let mut head = [0; 2];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[0], kind);
        let start = payload.len();
        payload.resize(start + usize::from(head[1]), 0);
        stream.read_exact(&mut payload[start..]).unwrap();
    }
    payload
}

#[test]
fn websockets_carry_text_or_bytes() {
    let d = with_busybox();
    run(&d, "c1", r#"{"Image":"busybox","Cmd":["cat"],"OpenStdin":true}"#);
    // Binary frames since 1.28.
    for (version, kind) in [("v1.45", 0x82), ("v1.27", 0x81)] {
        let path = format!("/{version}/containers/c1/attach/ws?stream=1&stdin=1&stdout=1");
        let (mut stream, head) = websocket(&d, &path);
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        // "hi\n" masked with zeros, as two fragments.
        stream.write_all(&[0x01, 0x82, 0, 0, 0, 0, b'h', b'i', 0x80, 0x81, 0, 0, 0, 0, b'\n']).unwrap();
        assert_eq!(payload(&mut stream, kind, 3), b"hi\n", "{version}");
        // A ping is answered, a close as well.
        stream.write_all(&[0x89, 0x81, 0, 0, 0, 0, b'p']).unwrap();
        expect(&mut stream, &[0x8a, 1, b'p']);
        stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8]).unwrap();
        assert_eq!(to_end(&mut stream), [0x88, 2, 3, 0xe8]);
    }
    d.finish();
}
