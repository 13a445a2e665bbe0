//! Golden files: exchanges one after the other, each on a connection of its own, with one daemon.
//!
//! ```text
//! == a name
//! POST /v1.45/containers/{id1}/wait text/plain .Key     method, path, then perhaps the type of the body, and a key
//! the body, JSON unless another type is named           of the answer that alone is compared
//! <- 404 Not Found json                                 status line and the kind of head (see HEADS)
//! the body
//! ```
//!
//! The word `upgrade` in place of a type asks to upgrade. Answers are normalised first ([`normal`](crate::normal)). The
//! head is compared byte by byte, with its order. So is the body, except that JSON on several lines is compared by value
//! ([`compare`](crate::compare)). A body ends with a newline unless it ends with `\`; `\x01` and `\r` are one byte.
//! Chunked bodies are joined.

use serde_json::Value;
use testkit::Daemon;

use crate::normal::Names;
use crate::{NEWEST, compare, raw};

/// The header fields of an answer, in order, by kind. `*` is the common part, `Date`, `Server` and `Content-Length` have
/// values that are checked elsewhere.
const HEADS: &[(&str, &str)] = &[
    (
        "json",
        "Api-Version|Content-Type: application/json|Docker-Experimental: false|Ostype: linux|Server|Date|Content-Length|Connection: close",
    ),
    ("none", "Api-Version|Docker-Experimental: false|Ostype: linux|Server|Date|Connection: close"),
    ("empty", "Api-Version|Docker-Experimental: false|Ostype: linux|Server|Date|Content-Length|Connection: close"),
    ("bare", "Content-Type: application/json|Date|Content-Length|Connection: close"),
    ("gate", "Api-Version|Content-Type: application/json|Ostype: linux|Server|Date|Content-Length|Connection: close"),
    (
        "gate-text",
        "Api-Version|Content-Type: text/plain; charset=utf-8|Ostype: linux|Server|X-Content-Type-Options: nosniff|Date|Content-Length|Connection: close",
    ),
    (
        "ping",
        "Api-Version|Builder-Version: 2|Cache-Control: no-cache, no-store, must-revalidate|Docker-Experimental: false|Ostype: linux|Pragma: no-cache|Server|Swarm: inactive|Date|Content-Length|Content-Type: text/plain; charset=utf-8|Connection: close",
    ),
    (
        "ping-head",
        "Api-Version|Builder-Version: 2|Cache-Control: no-cache, no-store, must-revalidate|Content-Length|Content-Type: text/plain; charset=utf-8|Docker-Experimental: false|Ostype: linux|Pragma: no-cache|Server|Swarm: inactive|Date|Connection: close",
    ),
    (
        "stream",
        "Api-Version|Content-Type: application/json|Docker-Experimental: false|Ostype: linux|Server|Date|Connection: close|Transfer-Encoding: chunked",
    ),
    (
        "multiplexed",
        "Api-Version|Content-Type: application/vnd.docker.multiplexed-stream|Docker-Experimental: false|Ostype: linux|Server|Date|Connection: close|Transfer-Encoding: chunked",
    ),
    (
        "raw",
        "Api-Version|Content-Type: application/vnd.docker.raw-stream|Docker-Experimental: false|Ostype: linux|Server|Date|Connection: close|Transfer-Encoding: chunked",
    ),
    (
        "exec-raw",
        "Content-Type: application/vnd.docker.raw-stream|Api-Version|Docker-Experimental: false|Ostype: linux|Server",
    ),
    (
        "exec-multiplexed",
        "Content-Type: application/vnd.docker.multiplexed-stream|Connection: Upgrade|Upgrade: tcp|Api-Version|Docker-Experimental: false|Ostype: linux|Server",
    ),
];

/// One exchange of a file.
#[derive(Debug, Default)]
struct Exchange {
    name: String,
    request: Vec<String>,
    answer: Vec<String>,
}

/// Plays a file; panics with all differences.
#[track_caller]
pub fn play(d: &Daemon, file: &str) {
    let mut names = Names::new(&d.data_root().display().to_string());
    let mut found = Vec::new();
    for exchange in parse(file) {
        let differences = exchange.play(d, &mut names);
        if !differences.is_empty() {
            found.push(format!("== {}\n  {}", exchange.name, differences.join("\n  ")));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn parse(file: &str) -> Vec<Exchange> {
    let mut all: Vec<Exchange> = Vec::new();
    for line in file.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            all.push(Exchange { name: name.to_string(), ..Exchange::default() });
            continue;
        }
        let Some(exchange) = all.last_mut() else { continue };
        if let Some(status) = line.strip_prefix("<- ") {
            exchange.answer.push(status.to_string());
        } else if !exchange.answer.is_empty() {
            exchange.answer.push(line.to_string());
        } else if !line.starts_with("# ") {
            exchange.request.push(line.to_string());
        }
    }
    for exchange in &mut all {
        while exchange.answer.last().is_some_and(String::is_empty) {
            exchange.answer.pop();
        }
    }
    all
}

impl Exchange {
    fn play(&self, d: &Daemon, names: &mut Names) -> Vec<String> {
        let request = names.fill(&self.request.join("\n"));
        let (line, body) = request.split_once('\n').unwrap_or((&request, ""));
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (keys, kinds): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with('.'));
        let sent = message(method, path, kinds.first().copied().unwrap_or_default(), body);
        let (head, body) = raw::split(&raw::exchange(d, sent.as_bytes()));
        let mut found = self.head_differences(&head, method, body.len());
        let chunked = head.iter().any(|field| field == "Transfer-Encoding: chunked");
        let body = if chunked { raw::joined(&body) } else { body };
        let text: String = body.iter().copied().map(char::from).collect();
        found.extend(self.body_differences(&names.apply(&text), keys.first().copied()));
        found
    }

    fn head_differences(&self, head: &[String], method: &str, length: usize) -> Vec<String> {
        let (status, kind) = self.answer.first().and_then(|line| line.rsplit_once(' ')).expect("a status and a kind");
        let (_, wanted) = HEADS.iter().find(|(name, _)| *name == kind).expect("a known kind of head");
        let wanted = wanted.replace("Api-Version", &format!("Api-Version: {NEWEST}"));
        let mut found = Vec::new();
        if head[0] != format!("HTTP/1.1 {status}") {
            found.push(format!("{}, wanted {status}", head[0]));
        }
        if let Some(told) = head.iter().find_map(|field| field.strip_prefix("Content-Length: "))
            && method != "HEAD"
            && told != length.to_string()
        {
            found.push(format!("Content-Length is {told}, the body has {length} bytes"));
        }
        let valued = ["Date", "Server", "Content-Length"];
        let shown = |field: &String| {
            let name = valued.iter().find(|name| field.strip_prefix(**name).is_some_and(|rest| rest.starts_with(':')));
            name.map_or_else(|| field.clone(), ToString::to_string)
        };
        let got: Vec<String> = head[1..].iter().map(shown).collect();
        if got.join("|") != wanted {
            found.push(format!("head\n    is     {}\n    wanted {wanted}", got.join("|")));
        }
        found
    }

    fn body_differences(&self, got: &str, key: Option<&str>) -> Vec<String> {
        let lines = &self.answer[1..];
        let text = lines.join("\n");
        if let (true, Ok(wanted)) = (lines.len() > 1, serde_json::from_str::<Value>(&text)) {
            let Ok(value) = serde_json::from_str::<Value>(got) else { return vec![format!("no JSON: {got}")] };
            let mut found = Vec::new();
            // Go writes no blanks, and a newline at the end.
            if format!("{value}\n") != got {
                found.push(format!("not as Go writes JSON: {got}"));
            }
            let part = key.map_or(&value, |key| &value[&key[1..]]);
            found.extend(compare::differences(&without_processors(part.clone()), &wanted));
            return found;
        }
        let wanted = match text.strip_suffix('\\') {
            Some(text) => text.to_string(),
            None if lines.is_empty() => String::new(),
            None => text + "\n",
        };
        let wanted = unescape(&wanted);
        if got == wanted { Vec::new() } else { vec![format!("body\n    is     {got:?}\n    wanted {wanted:?}")] }
    }
}

/// How many processors there are shows in what is masked.
fn without_processors(mut value: Value) -> Value {
    if let Some(paths) = value.pointer_mut("/HostConfig/MaskedPaths").and_then(Value::as_array_mut) {
        paths.retain(|path| !path.as_str().is_some_and(|path| path.ends_with("/thermal_throttle")));
    }
    value
}

/// The bytes of a request.
fn message(method: &str, path: &str, kind: &str, body: &str) -> String {
    let connection = if kind == "upgrade" { "Connection: Upgrade\r\nUpgrade: tcp" } else { "Connection: close" };
    let kind = match kind {
        "" | "upgrade" if body.is_empty() => String::new(),
        "" | "upgrade" => "Content-Type: application/json\r\n".to_string(),
        other => format!("Content-Type: {other}\r\n"),
    };
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: docker\r\n{connection}\r\n{kind}Content-Length: {length}\r\n\r\n{body}")
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escaped = &rest[at + 1..];
        let byte = escaped.strip_prefix('x').and_then(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok());
        if let Some(byte) = byte {
            out.push(char::from(byte));
            rest = &escaped[3..];
        } else if let Some(tail) = escaped.strip_prefix('r') {
            out.push('\r');
            rest = tail;
        } else {
            out.push('\\');
            rest = escaped;
        }
    }
    out + rest
}
