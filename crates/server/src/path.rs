//! The canonical form of a path, as the reference's router wants it: no empty segments, no `.`, no `..`.
//!
//! Clients that join a base address with a trailing slash and a path ask for `//v1.45/info`; those that follow redirects
//! get there.

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

/// A decoded path as it stands in an address.
pub fn encode(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/$&+,:;=@".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
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
