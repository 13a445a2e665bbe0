//! Requests that are refused, and the words: `refused.txt` holds what was compared with a real engine (Docker 26.1.5), line
//! by line.
//!
//! ```text
//! POST /v1.45/containers/create text/plain      method, path, and the type of the body if it is not JSON (`none`: no type)
//! {"Image":"busybox"}                           the body; `-`: none
//! 400 unsupported Content-Type header …         status and message; ids are `<id>`, `\n` is a new line
//! # 26.1: 500 … (newer: where)                  an empty line, or what that engine answers and why Gantry differs
//! ```
//!
//! Reasons are `newer` (the reference's source of the API version that Gantry speaks says so, at the path that follows),
//! `later` (the option is not supported yet) and `ours` (an accident that is not repeated).

use testkit::Daemon;

use crate::{create, raw, with_busybox};

/// 64 hex digits in a row, whatever they are, as `<id>`.
fn without_ids(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = rest.bytes().take_while(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).count();
        let (told, length) = if digits == 64 { ("<id>", 64) } else { (&rest[..first.len_utf8()], first.len_utf8()) };
        out.push_str(told);
        rest = &rest[length..];
    }
    out
}

/// Status and message of an answer.
fn answered(d: &Daemon, head: &str, body: &str) -> String {
    let mut words = head.splitn(3, ' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let media_type = words.next().unwrap_or("application/json");
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n");
    if body != "-" {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    if media_type != "none" && (body != "-" || media_type != "application/json") {
        request += &format!("Content-Type: {media_type}\r\n");
    }
    request += "\r\n";
    if body != "-" {
        request += body;
    }
    let answer = String::from_utf8_lossy(&raw::exchange(d, request.as_bytes())).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    let json: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let message = json.and_then(|json| json["message"].as_str().map(str::to_owned)).unwrap_or_else(|| body.to_owned());
    let message = without_ids(message.trim()).replace('\\', "\\\\").replace('\n', "\\n");
    format!("{status} {message}").trim_end().to_owned()
}

#[test]
fn refusals_have_the_words_of_the_reference() {
    let d = with_busybox();
    let _ = d.docker(&["tag", "busybox", "bb"]).ok();
    let _ = create(&d, "cc", r#"{"Image":"bb","Cmd":["true"]}"#);
    let _ = d.docker(&["run", "-d", "--name", "rr", "bb", "sleep", "100000"]).ok();
    let _ = d.docker(&["volume", "create", "vv"]).ok();
    let mut others = Vec::new();
    let table = include_str!("refused.txt");
    let lines: Vec<&str> = table.lines().collect();
    for entry in lines.chunks(4) {
        let [head, body, wanted, ..] = *entry else { panic!("not three lines: {entry:?}") };
        let remark = entry.get(3).copied().unwrap_or_default();
        let is_reasoned = ["(newer: ", "(later: ", "(ours: "].iter().any(|reason| remark.contains(reason));
        assert!(remark.is_empty() || remark.starts_with("# 26.1: ") && is_reasoned, "{remark}");
        let found = answered(&d, head, body);
        if found != wanted.trim_end() {
            others.push(format!("{head}\n{body}\n  wanted {wanted}\n  found  {found}"));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
    d.finish();
}
