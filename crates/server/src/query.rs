//! The query of a request, read as Go reads a form.
//!
//! Keys may repeat. A boolean is false when it is empty, `0`, `no`, `false` or `none` in any case, and true otherwise
//! (B-api-7). Numbers fail with the texts of Go's strconv.

use model::filter::Filters;
use model::time::Timestamp;
use model::{Error, Result};
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

/// Decoded pairs in the order of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads what stands behind the `?`. A semicolon and an escape that is none are refused, in Go's words.
    pub fn parse(text: &str) -> Result<Query> {
        for part in text.split('&') {
            if part.contains(';') {
                return Err(Error::invalid("invalid semicolon separator in query"));
            }
            check_escapes(part)?;
        }
        Ok(Query { pairs: form_urlencoded::parse(text.as_bytes()).into_owned().collect() })
    }

    /// The first value of a key, or nothing.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The first value of a key, or an empty text.
    pub fn text(&self, key: &str) -> &str {
        self.first(key).unwrap_or_default()
    }

    /// All values of a key.
    pub fn all<'q>(&'q self, key: &'q str) -> impl Iterator<Item = &'q str> {
        self.pairs.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Whether the key is there, with or without a value.
    pub fn has(&self, key: &str) -> bool {
        self.first(key).is_some()
    }

    /// A boolean that is false when missing.
    pub fn flag(&self, key: &str) -> bool {
        !matches!(self.text(key).trim().to_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A boolean with a default for a missing key.
    pub fn flag_or(&self, key: &str, default: bool) -> bool {
        if self.has(key) { self.flag(key) } else { default }
    }

    /// An integer; `None` when missing or empty. The error is Go's text, as a server error (see the callers).
    pub fn integer(&self, key: &str) -> Result<Option<i64>> {
        match self.text(key) {
            "" => Ok(None),
            text => integer(text).map(Some),
        }
    }

    /// A window size: required, not negative, at most 32 bits.
    pub fn size(&self, key: &str, what: &str) -> Result<u32> {
        let text = self.text(key);
        size(text).map_err(|reason| Error::invalid(format!("invalid resize {what} {}: {reason}", go_quote(text))))
    }

    /// Unix seconds with a fraction; `None` when missing or empty.
    pub fn unix_time(&self, key: &str) -> Result<Option<Timestamp>> {
        model::time::parse_unix(self.text(key))
    }

    /// The `filters` parameter, in either of its forms.
    pub fn filters(&self) -> Result<Filters> {
        Filters::parse(self.text("filters"))
    }
}

/// Go's `strconv.Atoi`.
fn integer(text: &str) -> Result<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let reason = if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        "invalid syntax"
    } else if let Ok(value) = text.parse() {
        return Ok(value);
    } else {
        "value out of range"
    };
    Err(Error::system(format!("strconv.Atoi: parsing {}: {reason}", go_quote(text))))
}

fn size(text: &str) -> Result<u32, &'static str> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("invalid syntax");
    }
    text.parse().map_err(|_| "value out of range")
}

/// Decodes the percent escapes of a path. What is no UTF-8 afterwards is replaced.
pub fn decode(text: &str) -> Result<String> {
    check_escapes(text)?;
    Ok(percent_decode_str(text).decode_utf8_lossy().into_owned())
}

/// Refuses what begins an escape and is none; the URL Standard leaves it as it is.
fn check_escapes(text: &str) -> Result<()> {
    let bytes = text.as_bytes();
    for at in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%').map(|(at, _)| at) {
        let escape = &bytes[at..bytes.len().min(at + 3)];
        if escape.len() < 3 || !escape[1..].iter().all(u8::is_ascii_hexdigit) {
            return Err(Error::invalid(format!("invalid URL escape {}", go_quote(&String::from_utf8_lossy(escape)))));
        }
    }
    Ok(())
}

/// A text in double quotes, as Go's `%q` shows plain texts.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).expect("valid query")
    }

    #[test]
    fn booleans_are_loose() {
        let all = query("a=1&b=True&c=yes&d=0&e=No&f=FALSE&g=none&h=&i&j=%20false%20&k=x");
        for key in ["a", "b", "c", "k"] {
            assert!(all.flag(key), "{key}");
        }
        for key in ["d", "e", "f", "g", "h", "i", "j", "missing"] {
            assert!(!all.flag(key), "{key}");
        }
        assert!(all.flag_or("missing", true) && !all.flag_or("i", true));
    }

    #[test]
    fn pairs_are_decoded_and_kept_in_order() {
        let all = query("changes=CMD+a&changes=ENV%20b%3D1&name=%2Fweb&x=%C3%A9");
        assert_eq!(all.all("changes").collect::<Vec<_>>(), ["CMD a", "ENV b=1"]);
        assert_eq!(all.text("name"), "/web");
        assert_eq!(all.text("x"), "\u{e9}");
        assert_eq!(Query::parse("a=%zz").expect_err("bad").message(), "invalid URL escape \"%zz\"");
        assert_eq!(Query::parse("a=%2").expect_err("bad").message(), "invalid URL escape \"%2\"");
        assert_eq!(Query::parse("%25=%%25").expect_err("bad").message(), "invalid URL escape \"%%2\"");
        assert!(Query::parse("a=1;b=2").is_err());
        let all = query("&&a=b=c&=d&e&f=%ff%2b+&\u{e9}=%26");
        let pairs = [("a", "b=c"), ("", "d"), ("e", ""), ("f", "\u{fffd}+ "), ("\u{e9}", "&")];
        assert_eq!(all.pairs, pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn paths_are_decoded() {
        assert_eq!(decode("/a+b%2Fc%25%e2%82%ac\u{e9}%ff").expect("valid"), "/a+b/c%\u{20ac}\u{e9}\u{fffd}");
        assert_eq!(decode("/a%").expect_err("bad").message(), "invalid URL escape \"%\"");
        assert_eq!(decode("/a%2\u{e9}").expect_err("bad").message(), "invalid URL escape \"%2\u{fffd}\"");
    }

    #[test]
    fn numbers_fail_as_in_go() {
        let bad = query("limit=x&big=99999999999999999999&ok=-5&empty=");
        assert_eq!(bad.integer("limit").expect_err("bad").message(), "strconv.Atoi: parsing \"x\": invalid syntax");
        assert!(bad.integer("big").expect_err("bad").message().ends_with("value out of range"));
        assert_eq!(bad.integer("ok").expect("number"), Some(-5));
        assert_eq!(bad.integer("empty").expect("nothing"), None);
    }

    #[test]
    fn window_sizes_are_checked() {
        let sizes = query("h=40&w=&n=-1&big=4294967296&t=4x&p=%2B4");
        assert_eq!(sizes.size("h", "height").expect("number"), 40);
        let text = |key: &str| sizes.size(key, "height").expect_err(key).message().to_owned();
        assert_eq!(text("w"), "invalid resize height \"\": invalid syntax");
        assert_eq!(text("n"), "invalid resize height \"-1\": value out of range");
        assert_eq!(text("big"), "invalid resize height \"4294967296\": value out of range");
        assert_eq!(text("t"), "invalid resize height \"4x\": invalid syntax");
        assert_eq!(text("p"), "invalid resize height \"+4\": invalid syntax");
    }
}
