//! JSON strings as the reference's json-file driver writes and Go reads them.
//!
//! Escaped are `"`, `\`, newline, carriage return, all other control characters, `<`, `>`, `&` (as `\u00xx`), the line
//! separators U+2028 and U+2029, and every byte that is not part of valid UTF-8 (as `\ufffd`).

/// Bytes looked at together; long enough to be vectorised, short enough that a quote costs little.
const BLOCK: usize = 32;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Without short-circuits, so that a block's comparisons are made side by side. Signed, bytes beyond ASCII are negative.
const fn is_plain(b: u8) -> bool {
    (b as i8 >= 0x20) & (b != b'"') & (b != b'\\') & (b != b'<') & (b != b'>') & (b != b'&')
}

/// Appends the contents of a JSON string, without the quotes.
pub fn escape(mut bytes: &[u8], out: &mut Vec<u8>) {
    loop {
        let (plain, rest) = bytes.split_at(plain_prefix(bytes));
        out.extend_from_slice(plain);
        let Some(&first) = rest.first() else { return };
        if first < 0x80 {
            escape_ascii(first, out);
            bytes = &rest[1..];
        } else {
            let run = rest.iter().position(|&b| b < 0x80).unwrap_or(rest.len());
            escape_unicode(&rest[..run], out);
            bytes = &rest[run..];
        }
    }
}

/// The number of leading bytes that stand for themselves.
fn plain_prefix(bytes: &[u8]) -> usize {
    let clean = |block: &[u8; BLOCK]| block.iter().fold(0, |special, &b| special | u8::from(!is_plain(b))) == 0;
    let (blocks, rest) = bytes.as_chunks();
    let whole = blocks.iter().take_while(|block| clean(block)).count();
    if whole == blocks.len() {
        // The rest is looked at as one more block: with what is before it, or with spaces.
        let filled = || {
            let mut block = [b' '; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            block
        };
        if bytes.last_chunk().map_or_else(|| clean(&filled()), clean) {
            return bytes.len();
        }
    }
    let whole = whole * BLOCK;
    whole + bytes[whole..].iter().take_while(|&&b| is_plain(b)).count()
}

fn escape_ascii(b: u8, out: &mut Vec<u8>) {
    match b {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        }
    }
}

/// `run` has no ASCII in it.
fn escape_unicode(run: &[u8], out: &mut Vec<u8>) {
    for chunk in run.utf8_chunks() {
        let mut valid = chunk.valid();
        while let Some(at) = valid.find(['\u{2028}', '\u{2029}']) {
            out.extend_from_slice(&valid.as_bytes()[..at]);
            out.extend_from_slice(if valid[at..].starts_with('\u{2028}') { b"\\u2028" } else { b"\\u2029" });
            valid = &valid[at + '\u{2028}'.len_utf8()..];
        }
        out.extend_from_slice(valid.as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Appends what a JSON string's contents mean; false = not a valid string (`out` then has some of it).
pub fn unescape(mut text: &[u8], out: &mut Vec<u8>) -> bool {
    while let Some(at) = memchr::memchr(b'\\', text) {
        out.extend_from_slice(&text[..at]);
        let Some(&kind) = text.get(at + 1) else { return false };
        text = &text[at + 2..];
        match kind {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'"' | b'\\' | b'/' => out.push(kind),
            b'u' => {
                let Some((c, rest)) = unicode_escape(text) else { return false };
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                text = rest;
            }
            _ => return false,
        }
    }
    out.extend_from_slice(text);
    true
}

/// The character behind `\u`, surrogate pairs joined; a lone surrogate becomes U+FFFD as in Go.
fn unicode_escape(text: &[u8]) -> Option<(char, &[u8])> {
    let (high, rest) = hex4(text)?;
    if let Some(c) = char::from_u32(high) {
        return Some((c, rest));
    }
    if let Some((low, after)) = rest.strip_prefix(b"\\u").and_then(hex4)
        && (0xd800..0xdc00).contains(&high)
        && (0xdc00..0xe000).contains(&low)
    {
        let c = char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
        return Some((c.unwrap_or(char::REPLACEMENT_CHARACTER), after));
    }
    Some((char::REPLACEMENT_CHARACTER, rest))
}

fn hex4(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_at_checked(4)?;
    let digit = |n: u32, &b: &u8| char::from(b).to_digit(16).map(|d| n * 16 + d);
    Some((digits.iter().try_fold(0, digit)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        escape(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn as_the_reference_escapes() {
        assert_eq!(
            escaped(b"a \"q\" \\ <b>&\t\r\n\x1b\x7f"),
            "a \\\"q\\\" \\\\ \\u003cb\\u003e\\u0026\\u0009\\r\\n\\u001b\x7f"
        );
        assert_eq!(escaped("grüße \u{2028}\u{2029} 漢字 \u{fffd}".as_bytes()), "grüße \\u2028\\u2029 漢字 \u{fffd}");
        assert_eq!(escaped(b"\xff\xe2\x82x\xed\xa0\x80"), "\\ufffd\\ufffd\\ufffdx\\ufffd\\ufffd\\ufffd");
    }

    #[test]
    fn long_plain_text_is_untouched() {
        let text = "plain text, longer than a block or two, with ümläuts behind the first ones".repeat(20);
        assert_eq!(escaped(text.as_bytes()), text);
    }

    #[test]
    fn unescape_inverts_and_serde_agrees() {
        let text = "tab\t nl\n quote\" back\\ <>& \u{1} é 漢 😀 \u{2028}";
        let json = escaped(text.as_bytes());
        let mut out = Vec::new();
        assert!(unescape(json.as_bytes(), &mut out));
        assert_eq!(out, text.as_bytes());
        assert_eq!(serde_json::from_str::<String>(&format!("\"{json}\"")).unwrap(), text);
    }

    #[test]
    fn surrogates_and_broken_escapes() {
        let mut out = Vec::new();
        assert!(unescape(b"\\ud83d\\ude00 \\ud83d \\u00e9\\/\\b\\f\\t", &mut out));
        assert_eq!(out, "😀 \u{fffd} é/\u{8}\u{c}\t".as_bytes());
        for bad in ["\\", "\\x", "\\u12", "\\u12g4"] {
            assert!(!unescape(bad.as_bytes(), &mut out), "{bad}");
        }
    }
}
