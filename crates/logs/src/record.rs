//! An entry as a JSON object on a line of its own, as the reference encodes it.

use std::collections::BTreeMap;

use crate::{Stream, encode, time};

/// The time of an entry that has none.
pub const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// Appends an entry; without a text there is no `Line`, without attributes no `Attrs`.
pub fn write(stream: Stream, text: &[u8], when: &[u8], attrs: &BTreeMap<String, String>, out: &mut Vec<u8>) {
    out.push(b'{');
    if !text.is_empty() {
        member("Line", text, out);
        out.push(b',');
    }
    member("Source", stream.name().as_bytes(), out);
    out.extend_from_slice(b",\"Timestamp\":\"");
    if !time::write_trimmed(when, out) {
        out.extend_from_slice(NO_TIME.as_bytes());
    }
    out.push(b'"');
    let mut before: &[u8] = b",\"Attrs\":[{";
    for (key, value) in attrs {
        out.extend_from_slice(before);
        before = b",{";
        member("Key", key.as_bytes(), out);
        out.push(b',');
        member("Value", value.as_bytes(), out);
        out.push(b'}');
    }
    out.extend_from_slice(if attrs.is_empty() { b"}\n" } else { b"]}\n" });
}

/// Appends what is told of a log that cannot be read any further.
pub fn write_error(message: &str, out: &mut Vec<u8>) {
    out.push(b'{');
    member("Timestamp", NO_TIME.as_bytes(), out);
    out.push(b',');
    member("Error", message.as_bytes(), out);
    out.extend_from_slice(b"}\n");
}

fn member(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    encode::escape(value, out);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8], when: &str, attrs: &[(&str, &str)]) -> String {
        let attrs = attrs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        let mut out = Vec::new();
        write(Stream::Stderr, text, when.as_bytes(), &attrs, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_entry() {
        assert_eq!(
            written(b"<a>\n", "2026-11-23T17:37:59.310Z", &[]),
            "{\"Line\":\"\\u003ca\\u003e\\n\",\"Source\":\"stderr\",\"Timestamp\":\"2026-11-23T17:37:59.31Z\"}\n"
        );
        assert_eq!(
            written(b"", "never", &[("a", "x=y"), ("b", "\"")]),
            "{\"Source\":\"stderr\",\"Timestamp\":\"0001-01-01T00:00:00Z\",\
             \"Attrs\":[{\"Key\":\"a\",\"Value\":\"x=y\"},{\"Key\":\"b\",\"Value\":\"\\\"\"}]}\n"
        );
    }

    #[test]
    fn an_error() {
        let mut out = Vec::new();
        write_error("no \"log\"", &mut out);
        assert_eq!(out, b"{\"Timestamp\":\"0001-01-01T00:00:00Z\",\"Error\":\"no \\\"log\\\"\"}\n");
    }
}
