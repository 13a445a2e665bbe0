//! Text to a tree, with the error texts of Go's scanner.
//!
//! A recursive descent over bytes. Strings that are not UTF-8 get replacement characters, as in Go.

use serde_json::Number;

use super::{DecodeError, Tree};

/// Deepest nesting of arrays and objects; no request of the API comes near.
pub const MAX_DEPTH: usize = 200;

/// Most values of one text: two bytes of it can be a value that takes sixteen times as many in memory. A container that
/// publishes every port of two protocols has five for each port.
pub const MAX_VALUES: usize = 1 << 20;

type Result<T> = std::result::Result<T, DecodeError>;

/// Reads exactly one value.
pub(super) fn document(bytes: &[u8]) -> Result<Tree> {
    let mut scanner = Scanner { bytes, at: 0, depth: 0, values: 0 };
    scanner.skip_blanks();
    if scanner.peek().is_none() {
        return Err(DecodeError::Empty);
    }
    let value = scanner.value()?;
    scanner.skip_blanks();
    match scanner.peek() {
        None | Some(b'}' | b']') => Ok(value),
        Some(_) => Err(DecodeError::Trailing),
    }
}

/// Reads the first value; what stands behind it is not looked at.
pub(super) fn first(bytes: &[u8]) -> Result<Tree> {
    let mut scanner = Scanner { bytes, at: 0, depth: 0, values: 0 };
    scanner.skip_blanks();
    if scanner.peek().is_none() { Err(DecodeError::Empty) } else { scanner.value() }
}

/// Reads one value with nothing behind it. A text that ends too early has `json.Unmarshal`'s words.
pub(super) fn whole(bytes: &[u8]) -> Result<Tree> {
    let mut scanner = Scanner { bytes, at: 0, depth: 0, values: 0 };
    let value = scanner.value().map_err(|error| match error {
        DecodeError::Invalid(text) if text == ENDED => DecodeError::Empty,
        other => other,
    })?;
    scanner.skip_blanks();
    match scanner.peek() {
        None => Ok(value),
        Some(_) => scanner.unexpected("after top-level value"),
    }
}

/// What the reference's stream decoder says of a text that ends too early.
const ENDED: &str = "unexpected EOF";

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    values: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The next byte is not what the grammar wants.
    fn unexpected<T>(&self, context: &str) -> Result<T> {
        match self.peek() {
            None => Err(DecodeError::Invalid(ENDED.to_owned())),
            Some(byte) => Err(DecodeError::Invalid(format!("invalid character {} {context}", quote(byte)))),
        }
    }

    fn value(&mut self) -> Result<Tree> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(DecodeError::Invalid("exceeded max number of values".to_owned()));
        }
        self.skip_blanks();
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string().map(Tree::String),
            Some(b't') => self.literal("true", Tree::Bool(true)),
            Some(b'f') => self.literal("false", Tree::Bool(false)),
            Some(b'n') => self.literal("null", Tree::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.unexpected("looking for beginning of value"),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Tree>) -> Result<Tree> {
        if self.depth == MAX_DEPTH {
            return Err(DecodeError::Invalid("exceeded max depth".to_owned()));
        }
        self.depth += 1;
        self.at += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Tree> {
        let mut members = Vec::new();
        self.skip_blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Tree::Object(members));
        }
        loop {
            self.skip_blanks();
            if self.peek() != Some(b'"') {
                return self.unexpected("looking for beginning of object key string");
            }
            let key = self.string()?;
            self.skip_blanks();
            if self.peek() != Some(b':') {
                return self.unexpected("after object key");
            }
            self.at += 1;
            let value = self.value()?;
            members.push((key, value));
            self.skip_blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return self.unexpected("after object key:value pair"),
            }
        }
        self.at += 1;
        Ok(Tree::Object(members))
    }

    fn array(&mut self) -> Result<Tree> {
        let mut list = Vec::new();
        self.skip_blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Tree::Array(list));
        }
        loop {
            list.push(self.value()?);
            self.skip_blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return self.unexpected("after array element"),
            }
        }
        self.at += 1;
        Ok(Tree::Array(list))
    }

    fn literal(&mut self, word: &str, value: Tree) -> Result<Tree> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                let context = format!("in literal {word} (expecting {})", quote(expected));
                return self.unexpected(&context);
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn digits(&mut self, context: &str) -> Result<()> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return self.unexpected(context);
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Tree> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        // A leading zero stands alone; the digit after it is an error of whatever comes next.
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        Ok(Tree::Number(number(text)))
    }

    fn string(&mut self) -> Result<String> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape(&mut out)?,
                Some(byte) if byte >= 0x20 => {
                    out.push(byte);
                    self.at += 1;
                }
                _ => return self.unexpected("in string literal"),
            }
        }
        self.at += 1;
        Ok(match String::from_utf8(out) {
            Ok(text) => text,
            Err(broken) => String::from_utf8_lossy(broken.as_bytes()).into_owned(),
        })
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.at += 1;
        let plain = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode(out),
            _ => return self.unexpected("in string escape code"),
        };
        out.push(plain);
        self.at += 1;
        Ok(())
    }

    /// `\uXXXX`, with a second half when it is a surrogate; a lone one becomes a replacement character.
    fn unicode(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let first = self.hex4()?;
        let mut decoded = char::from_u32(first);
        if (0xd800..0xdc00).contains(&first) && self.bytes[self.at..].starts_with(b"\\u") {
            let resume = self.at;
            self.at += 1;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                decoded = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            } else {
                self.at = resume;
            }
        }
        let mut buffer = [0; 4];
        out.extend_from_slice(decoded.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut buffer).as_bytes());
        Ok(())
    }

    /// Reads `u` and four hexadecimal digits.
    fn hex4(&mut self) -> Result<u32> {
        self.at += 1;
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(16)) else {
                return self.unexpected("in \\u hexadecimal character escape");
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}

/// A literal that is in the grammar: an integer if it fits, else a float; beyond that the largest float.
fn number(text: &str) -> Number {
    if let Ok(value) = text.parse::<i64>() {
        return value.into();
    }
    if let Ok(value) = text.parse::<u64>() {
        return value.into();
    }
    let float = text.parse::<f64>().unwrap_or(0.0).clamp(f64::MIN, f64::MAX);
    Number::from_f64(float).unwrap_or_else(|| 0.into())
}

/// A byte in single quotes, as Go's scanner shows it.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        0x20..=0x7e => format!("'{}'", char::from(byte)),
        0xa1..=0xff if byte != 0xad => format!("'{}'", char::from(byte)),
        0x80..=0xff => format!("'\\u00{byte:02x}'"),
        _ => format!("'\\x{byte:02x}'"),
    }
}
