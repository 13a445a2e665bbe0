//! Entries out of the file's lines.
//!
//! [`own`] knows exactly the form that the writer gives a line and copies nothing; whatever else is valid goes through
//! serde_json ([`loose`]). A line that neither understands is no entry: readers pass over it.

use serde::Deserialize;

/// A line's parts as they stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// Still escaped.
    pub log: &'a [u8],
    pub stream: &'a [u8],
    /// A JSON object, or empty.
    pub attrs: &'a [u8],
    /// RFC 3339.
    pub time: &'a [u8],
}

/// A line of exactly our form: `{"log":"…","stream":"…"[,"attrs":{…}],"time":"…"}`.
pub fn own(line: &[u8]) -> Option<Raw<'_>> {
    let rest = line.strip_prefix(b"{\"log\":\"")?;
    let (log, rest) = rest.split_at(string_end(rest)?);
    let rest = rest.strip_prefix(b"\",\"stream\":\"")?;
    let (stream, rest) = rest.split_at(memchr::memchr(b'"', rest)?);
    let rest = rest.strip_prefix(b"\"")?;
    let (attrs, rest) = match rest.strip_prefix(b",\"attrs\":") {
        Some(rest) => rest.split_at(object_end(rest)?),
        None => (&[][..], rest),
    };
    let time = rest.strip_prefix(b",\"time\":\"")?.strip_suffix(b"\"}")?;
    if time.contains(&b'"') || time.contains(&b'\\') || stream.contains(&b'\\') {
        return None;
    }
    Some(Raw { log, stream, attrs, time })
}

/// The index of the quote that ends a string whose contents begin here.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', text.get(from..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
    }
}

/// The index behind the brace that ends an object which begins here.
fn object_end(text: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    while let Some(&b) = text.get(at) {
        match b {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(at + 1),
            b'}' => depth -= 1,
            b'"' => at += 1 + string_end(&text[at + 1..])?,
            _ if depth == 0 => return None,
            _ => {}
        }
        at += 1;
    }
    None
}

/// An entry of any valid JSON form.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Loose {
    pub log: String,
    pub stream: String,
    pub time: String,
    pub attrs: serde_json::Value,
}

/// Any valid JSON object with the fields of an entry. A good entry behind the rest of one that was cut off by a crash is
/// found as well: inside a JSON string, the quotes of its beginning would be escaped.
pub fn loose(line: &[u8]) -> Option<Loose> {
    if let Ok(entry) = serde_json::from_slice(line) {
        return Some(entry);
    }
    let at = memchr::memmem::rfind(line, b"{\"log\":\"")?;
    if at == 0 { None } else { serde_json::from_slice(&line[at..]).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_form() {
        let line = br#"{"log":"a \"b\\\n","stream":"stdout","time":"2026-11-23T17:37:59.5Z"}"#;
        let raw = own(line).unwrap();
        assert_eq!(raw.log, br#"a \"b\\\n"#);
        assert_eq!((raw.stream, raw.attrs, raw.time), (&b"stdout"[..], &b""[..], &b"2026-11-23T17:37:59.5Z"[..]));
        let line = br#"{"log":"x","stream":"stderr","attrs":{"a":"}\"","b":""},"time":"t"}"#;
        assert_eq!(own(line).unwrap().attrs, br#"{"a":"}\"","b":""}"#);
    }

    #[test]
    fn other_forms_and_rubbish() {
        let line = br#"{ "time":"2026-11-23T17:37:59Z", "stream":"stdout", "log":"x\n" }"#;
        assert_eq!(own(line), None);
        assert_eq!(loose(line).unwrap().log, "x\n");
        let glued = br#"{"log":"cut of{"log":"whole\n","stream":"stdout","time":"2026-11-23T17:37:59Z"}"#;
        assert_eq!(own(glued), None);
        assert_eq!(loose(glued).unwrap().log, "whole\n");
        for bad in ["", "{", "{\"log\":\"", "{\"log\":\"x\\", "{\"log\":\"x\",\"stream\":\"s\",\"attrs\":{", "nonsense"]
        {
            assert!(own(bad.as_bytes()).is_none() && loose(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(own(b"\xff").is_none() && loose(b"\xff").is_none());
    }
}
