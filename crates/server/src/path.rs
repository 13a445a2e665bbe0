//! The canonical form of a path, as the reference's router wants it: no empty segments, no `.`, no `..`.
//!
//! Clients that join a base address with a trailing slash and a path ask for `//v1.45/info`; those that follow redirects
//! get there.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The canonical form of a decoded path; `None` when it has that already. A slash at the end stays.
pub fn clean(path: &str) -> Option<String> {
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let end = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    let cleaned = format!("/{}{end}", kept.join("/"));
    (cleaned != path).then_some(cleaned)
}

/// What Go escapes in a path (`net/url`, `shouldEscape`): all but these and letters and digits.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// A decoded path as it stands in an address.
pub fn encode(path: &str) -> String {
    utf8_percent_encode(path, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, cleaned) in [
            ("//v1.45/info", "/v1.45/info"),
            ("/v1.45//info/", "/v1.45/info/"),
            ("/containers//json", "/containers/json"),
            ("/containers/../_ping", "/_ping"),
            ("/./_ping", "/_ping"),
            ("/..", "/"),
            ("//", "/"),
            ("/images/.", "/images"),
            ("", "/"),
            ("*", "/*"),
        ] {
            assert_eq!(clean(path).as_deref(), Some(cleaned), "{path}");
        }
        for path in ["/", "/info", "/images/a/b/json", "/containers/.a/json", "/v1.45/info/"] {
            assert_eq!(clean(path), None, "{path}");
        }
    }

    #[test]
    fn addresses_are_escaped() {
        assert_eq!(encode("/images/a b%/\u{e9}:1@x"), "/images/a%20b%25/%C3%A9:1@x");
    }
}
