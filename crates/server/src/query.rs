//! The query of a request, read as Go reads a form.
//!
//! Keys may repeat. A boolean is false when it is empty, `0`, `no`, `false` or `none` in any case, and true otherwise
//! (B-api-7). Numbers fail with the texts of Go's strconv.

use model::filter::Filters;
use model::time::Timestamp;
use model::{Error, Result};

/// Decoded pairs in the order of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads what stands behind the `?`.
    pub fn parse(text: &str) -> Result<Query> {
        let mut pairs = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            if part.contains(';') {
                return Err(Error::invalid("invalid semicolon separator in query"));
            }
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((decode(key, true)?, decode(value, true)?));
        }
        Ok(Query { pairs })
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

/// Decodes percent escapes; in a query `+` is a blank.
pub fn decode(text: &str, plus_is_blank: bool) -> Result<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
                let Some(value) = hex.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit())) else {
                    let bad = String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 3)]);
                    return Err(Error::invalid(format!("invalid URL escape {}", go_quote(&bad))));
                };
                out.push(u8::from_str_radix(value, 16).unwrap_or_default());
                at += 3;
            }
            b'+' if plus_is_blank => {
                out.push(b' ');
                at += 1;
            }
            other => {
                out.push(other);
                at += 1;
            }
        }
    }
    Ok(String::from_utf8(out).unwrap_or_else(|broken| String::from_utf8_lossy(broken.as_bytes()).into_owned()))
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
        assert!(Query::parse("a=1;b=2").is_err());
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
