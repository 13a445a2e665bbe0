//! Small forms of text: Go's quoted strings and lists, rows of comma-separated values, slash-separated paths.

use model::mount::clean;

use model::{Error, Result};

/// A string in double quotes, escaped as Go's `%q` does.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() || (c.is_whitespace() && c != ' ') || c == '\u{feff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Strings as Go's `%q` shows a list: `["a" "b"]`.
pub fn quoted_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(" "))
}

/// Strings as Go's `%v` shows a list: `[a b]`.
pub fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// The fields of one row of comma-separated values (RFC 4180): a field in double quotes may hold commas, and quotes doubled.
pub fn csv_fields(row: &str) -> Result<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = row;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(',').unwrap_or(rest.len());
            let field = &rest[..end];
            if let Some(at) = field.find('"') {
                let column = row.len() - rest.len() + at + 1;
                return Err(Error::invalid(format!(
                    "parse error on line 1, column {column}: bare \" in non-quoted-field"
                )));
            }
            fields.push(field.to_owned());
            match rest.get(end + 1..) {
                None => return Ok(fields),
                Some(next) => rest = next,
            }
            continue;
        };
        let mut field = String::new();
        rest = quoted;
        loop {
            let Some(end) = rest.find('"') else {
                let column = row.len() + 1;
                let why = format!("parse error on line 1, column {column}: extraneous or missing \" in quoted-field");
                return Err(Error::invalid(why));
            };
            field.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                None => break,
                Some(next) => {
                    field.push('"');
                    rest = next;
                }
            }
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None if rest.is_empty() => return Ok(fields),
            None => {
                let column = row.len() - rest.len();
                let why = format!("parse error on line 1, column {column}: extraneous or missing \" in quoted-field");
                return Err(Error::invalid(why));
            }
        }
    }
}

/// Both joined by a slash and cleaned; an empty part counts for nothing.
pub fn join(parent: &str, path: &str) -> String {
    match (parent.is_empty(), path.is_empty()) {
        (true, true) => String::new(),
        (true, false) => clean(path),
        (false, true) => clean(parent),
        (false, false) => clean(&format!("{parent}/{path}")),
    }
}

/// The last element: `.` of nothing, `/` of slashes alone.
pub fn last_element(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit('/').next() {
        _ if path.is_empty() => ".",
        Some("") | None => "/",
        Some(last) => last,
    }
}

/// A boolean as Go's `strconv.ParseBool` reads it.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_go_does() {
        for (text, quoted) in [
            ("a b", r#""a b""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("t\tn\n\x01\x7f", r#""t\tn\n\x01\x7f""#),
            ("ü\u{a0}", "\"ü\\u00a0\""),
        ] {
            assert_eq!(quote(text), quoted);
        }
        assert_eq!(quoted_list(&["a".into(), "b c".into()]), r#"["a" "b c"]"#);
    }

    #[test]
    fn rows_have_plain_and_quoted_fields() {
        for (row, fields) in [
            ("", Some(vec![""])),
            ("a,b=c", Some(vec!["a", "b=c"])),
            ("a,", Some(vec!["a", ""])),
            (r#"a,"b,""c""",d"#, Some(vec!["a", "b,\"c\"", "d"])),
            (r#"a"b"#, None),
            (r#""a"#, None),
            (r#""a"b"#, None),
        ] {
            assert_eq!(csv_fields(row).ok(), fields.map(|f| f.into_iter().map(String::from).collect()), "{row}");
        }
    }

    #[test]
    fn paths_are_joined_and_split() {
        for (path, last) in [("", "."), ("/", "/"), ("//", "/"), ("/a/b/", "b"), ("a", "a")] {
            assert_eq!(last_element(path), last, "{path}");
        }
        assert_eq!((join("/a", "../b").as_str(), join("", "b/").as_str(), join("/a", "").as_str()), ("/b", "b", "/a"));
    }
}
