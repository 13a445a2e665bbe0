//! `GET /containers/{id}/logs`: which lines, in which shape, how long.

use std::io::Write;
use std::time::{Duration, Instant};

use testkit::Daemon;
use testkit::command::{PATIENCE, eventually};
use testkit::http::frames;

use crate::raw::{connect, exchange, expect, joined, segment, split};
use crate::{create, run, start, wait, with_busybox};

/// The lines that a query selects, streams mixed.
#[track_caller]
fn lines(d: &Daemon, name: &str, query: &str) -> Vec<String> {
    let body = d.http("GET", &format!("/v1.45/containers/{name}/logs?{query}"), "").expect(200).body;
    frames(&body).iter().map(|(_, text)| String::from_utf8_lossy(text).trim_end().to_string()).collect()
}

/// The times of all lines.
#[track_caller]
fn times(d: &Daemon, name: &str) -> Vec<String> {
    let stamped = lines(d, name, "stdout=1&stderr=1&timestamps=1");
    stamped.iter().map(|line| line.split(' ').next().unwrap().to_string()).collect()
}

/// A time of a log line as unix seconds with nine digits of fraction; `shift` in nanoseconds.
fn unix(d: &Daemon, time: &str, shift: i128) -> String {
    let (whole, fraction) = time.trim_end_matches('Z').split_once('.').unwrap();
    let seconds = d.exec_inside(&["date", "-u", "-d", &format!("{whole}Z"), "+%s"]).text();
    let nanos: i128 = seconds.parse::<i128>().unwrap() * 1_000_000_000 + fraction.parse::<i128>().unwrap() + shift;
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

const FIVE: &str =
    r#"{"Image":"busybox","Cmd":["sh","-c","for i in 1 2 3 4 5; do echo line $i; sleep 0.02; done; echo bad >&2"]}"#;

#[test]
fn tail_since_until() {
    let d = with_busybox();
    run(&d, "l1", FIVE);
    wait(&d, "l1");
    let get = |query: &str| lines(&d, "l1", query).join(",");
    let all = "line 1,line 2,line 3,line 4,line 5,bad";
    assert_eq!(get("stdout=1&stderr=1"), all);
    assert_eq!((get("stderr=true").as_str(), get("stdout=yes&stderr=0").as_str()), ("bad", &all[..34]));
    for (tail, wanted) in
        [("2", "line 5,bad"), ("100", all), ("all", all), ("", all), ("-1", all), ("x", all), ("0", "")]
    {
        assert_eq!(get(&format!("stdout=1&stderr=1&tail={tail}")), wanted, "tail={tail}");
    }
    // The last lines are counted first, then chosen from.
    assert_eq!(get("stdout=1&tail=2"), "line 5");
    let times = times(&d, "l1");
    assert!(times.iter().all(|time| time.len() == "2026-11-23T17:37:59.311635274Z".len()), "{times:?}");
    let (second, fourth) = (unix(&d, &times[1], 0), unix(&d, &times[3], 0));
    assert_eq!(get(&format!("stdout=1&since={second}")), "line 2,line 3,line 4,line 5");
    assert_eq!(get(&format!("stdout=1&since={}", unix(&d, &times[1], 1))), "line 3,line 4,line 5");
    assert_eq!(get(&format!("stdout=1&until={fourth}")), "line 1,line 2,line 3,line 4");
    assert_eq!(get(&format!("stdout=1&until={}", unix(&d, &times[3], -1))), "line 1,line 2,line 3");
    assert_eq!(get(&format!("stdout=1&since={second}&until={fourth}&tail=4")), "line 3,line 4");
    assert_eq!(
        (get("stdout=1&stderr=1&until=1").as_str(), get("stdout=1&stderr=1&since=99999999999").as_str()),
        ("", "")
    );
    assert_eq!(get("stdout=1&stderr=1&since=0&until=0"), all);
    d.finish();
}

#[test]
fn bad_times_are_refused() {
    let d = with_busybox();
    create(&d, "l1", FIVE);
    let message =
        |query: &str| d.http("GET", &format!("/v1.45/containers/l1/logs?stdout=1&{query}"), "").expect(400).message();
    assert!(message("since=x").starts_with("invalid value for \"since\": "));
    assert!(message("until=1.x").starts_with("invalid value for \"until\": "));
    // A container that never ran has an empty log.
    assert_eq!(lines(&d, "l1", "stdout=1&stderr=1&follow=1"), Vec::<String>::new());
    d.finish();
}

#[test]
fn details_come_before_the_line() {
    let d = with_busybox();
    let body = r#"{"Image":"busybox","Cmd":["echo","x"],"Labels":{"tier":"a b","other":"1"},"Env":["MODE=c,d"],"HostConfig":{"LogConfig":{"Type":"json-file","Config":{"labels":"tier","env":"MODE"}}}}"#;
    run(&d, "l1", body);
    wait(&d, "l1");
    assert_eq!(lines(&d, "l1", "stdout=1&details=1"), ["MODE=c%2Cd,tier=a+b x"]);
    let stamped = lines(&d, "l1", "stdout=1&details=1&timestamps=1");
    assert!(stamped[0].ends_with("Z MODE=c%2Cd,tier=a+b x"), "{stamped:?}");
    assert_eq!(lines(&d, "l1", "stdout=1"), ["x"]);
    d.finish();
}

/// The same entries as JSON, by the query or by the type that the client accepts.
#[test]
fn json_from_1_54_on() {
    let d = with_busybox();
    let body = r#"{"Image":"busybox","Cmd":["sh","-c","echo '<x>'; echo bad >&2"],"Labels":{"tier":"a b"},"HostConfig":{"LogConfig":{"Type":"json-file","Config":{"labels":"tier"}}}}"#;
    run(&d, "l1", body);
    wait(&d, "l1");
    let get = |query: &str, accept: &str| {
        let answer = exchange(
            &d,
            format!("GET /{query} HTTP/1.1\r\nHost: docker\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        );
        let (head, body) = split(&answer);
        let kind = head.iter().find_map(|line| line.strip_prefix("Content-Type: ")).unwrap_or_default().to_owned();
        (kind, String::from_utf8(if head[0].contains("200") { joined(&body) } else { body }).unwrap())
    };
    let (kind, text) = get("v1.54/containers/l1/logs?stdout=1&format=json&timestamps=1", "text/html");
    assert_eq!(kind, "application/x-ndjson");
    let (line, time) = text.split_at(text.find("Timestamp").unwrap());
    assert_eq!(line, "{\"Line\":\"\\u003cx\\u003e\\n\",\"Source\":\"stdout\",\"");
    assert!(time.starts_with("Timestamp\":\"20") && time.ends_with("Z\"}\n"), "{time}");
    let (kind, text) = get("containers/l1/logs?stdout=1&stderr=1&details=1", "application/json-seq");
    assert_eq!((kind.as_str(), text.matches('\u{1e}').count()), ("application/json-seq", 2));
    assert!(text.contains("\"Attrs\":[{\"Key\":\"tier\",\"Value\":\"a b\"}]}\n"), "{text}");
    let (kind, text) = get("v1.53/containers/l1/logs?stdout=1&format=json", "application/jsonl");
    assert_eq!((kind.as_str(), &text[8..]), ("application/vnd.docker.multiplexed-stream", "<x>\n"));
    assert!(get("containers/l1/logs?stdout=1&format=xml", "*/*").1.contains("unsupported log format"));
    d.finish();
}

/// The head comes before the first line, every line as it is written, and the end with the container.
#[test]
fn follow() {
    let d = with_busybox();
    let script = "read a; echo one; read a; echo two >&2; read a; exit 0";
    run(&d, "l1", &format!(r#"{{"Image":"busybox","Cmd":["sh","-c","{script}"],"OpenStdin":true}}"#));
    let mut stream = connect(&d);
    stream
        .write_all(b"GET /v1.45/containers/l1/logs?stdout=1&stderr=1&follow=1 HTTP/1.1\r\nHost: docker\r\n\r\n")
        .unwrap();
    let (head, body) = split(&segment(&mut stream));
    assert_eq!((head[0].as_str(), body.as_slice()), ("HTTP/1.1 200 OK", &b""[..]));
    let mut input = d.connection();
    assert_eq!(input.upgrade("/containers/l1/attach?stdin=1&stream=1", "").status, 101);
    input.send(b"\n").unwrap();
    expect(&mut stream, b"C\r\n\x01\0\0\0\0\0\0\x04one\n\r\n");
    input.send(b"\n").unwrap();
    expect(&mut stream, b"C\r\n\x02\0\0\0\0\0\0\x04two\n\r\n");
    input.send(b"\n").unwrap();
    expect(&mut stream, b"0\r\n\r\n");
    // Of one that ended there is nothing to wait for.
    let begin = Instant::now();
    assert_eq!(lines(&d, "l1", "stdout=1&stderr=1&follow=1"), ["one", "two"]);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    d.finish();
}

/// A time in the future ends the following then.
#[test]
fn follow_until() {
    let d = with_busybox();
    run(&d, "l1", r#"{"Image":"busybox","Cmd":["sh","-c","while true; do echo x; sleep 0.1; done"]}"#);
    assert!(eventually(PATIENCE, || !lines(&d, "l1", "stdout=1").is_empty()), "nothing is written");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begin = Instant::now();
    let seen = lines(&d, "l1", &format!("stdout=1&follow=1&until={}", now + 2));
    assert!(!seen.is_empty() && begin.elapsed() < PATIENCE, "{:?} {}", begin.elapsed(), seen.len());
    assert_eq!(lines(&d, "l1", &format!("stdout=1&follow=1&until={}", now - 100)), Vec::<String>::new());
    d.finish();
}

/// Every line is complete although it was written in pieces or is longer than a frame.
#[test]
fn long_and_unfinished_lines() {
    let d = with_busybox();
    let script = "head -c 40000 /dev/zero | tr '\\\\0' a; echo; printf unfinished";
    run(&d, "l1", &format!(r#"{{"Image":"busybox","Cmd":["sh","-c","{script}"]}}"#));
    wait(&d, "l1");
    let answer =
        exchange(&d, b"GET /v1.45/containers/l1/logs?stdout=1 HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n");
    let body = joined(&split(&answer).1);
    let text: Vec<u8> = frames(&body).into_iter().flat_map(|(_, text)| text).collect();
    assert_eq!(text, ["a".repeat(40000).as_bytes(), b"\nunfinished"].concat());
    let whole = lines(&d, "l1", "stdout=1&tail=1").concat();
    assert_eq!(whole, "unfinished");
    // A long line is several entries of 16 KiB, and entries are counted.
    assert_eq!(lines(&d, "l1", "stdout=1&tail=2").concat().len(), 40000 % (16 << 10) + "unfinished".len());
    d.finish();
}

#[test]
fn logs_that_cannot_be_read() {
    let d = with_busybox();
    run(&d, "n1", r#"{"Image":"busybox","Cmd":["echo","x"],"HostConfig":{"LogConfig":{"Type":"none"}}}"#);
    let answer = d.http("GET", "/v1.45/containers/n1/logs?stdout=1", "");
    assert_eq!(answer.expect(501).message(), "configured logging driver does not support reading");
    create(&d, "l1", r#"{"Image":"busybox","Cmd":["echo","x"],"Tty":true}"#);
    start(&d, "l1");
    wait(&d, "l1");
    let answer = d.http("GET", "/v1.45/containers/l1/logs?stdout=1", "");
    assert_eq!(answer.header("Content-Type"), Some("application/vnd.docker.raw-stream"));
    assert_eq!(answer.text(), "x\r\n");
    d.finish();
}
