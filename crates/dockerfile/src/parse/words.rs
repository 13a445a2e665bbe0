//! How the words behind a keyword are split: flags, words in quotes, JSON.

use serde_json::Value;

use crate::error::{Error, Result};

/// The blanks within a line.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// The text up to the first blanks, and what is behind them.
pub(super) fn split_first(text: &str) -> (&str, Option<&str>) {
    match text.find(is_blank) {
        None => (text, None),
        Some(at) => (&text[..at], Some(text[at..].trim_start_matches(is_blank))),
    }
}

/// The words between blanks.
pub(super) fn plain_words(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    let mut words = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let (word, behind) = split_first(text);
        words.push(word.to_owned());
        rest = behind;
    }
    words
}

/// The flags in front, their quotes and escapes resolved, and what is behind them. `--` ends them.
pub(super) fn flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (word, behind) = flag(rest, escape);
        rest = behind;
        match word {
            Some(word) if word == "--" => return (flags, rest),
            word => flags.extend(word),
        }
    }
}

/// One word in front; `None`: quotes around nothing are a word, but nothing at all is none.
fn flag(text: &str, escape: char) -> (Option<String>, &str) {
    let mut word = String::new();
    let mut quoted = false;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return ((quoted || !word.is_empty()).then_some(word), &text[at..]),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                quoted = true;
            }
            Some(open) if c == open => quote = None,
            _ if c == escape => word.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => word.push(c),
        }
    }
    ((quoted || !word.is_empty()).then_some(word), "")
}

/// Words between blanks that are not quoted; quotes and escapes stay in them.
pub(super) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        // Nothing is escaped within single quotes; an escape at the very end is left out.
        if c == escape && quote != Some('\'') {
            if let Some(escaped) = chars.next() {
                word.push(c);
                word.push(escaped);
            }
            continue;
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// A JSON array of strings. `None`: it is none, and the text stands for itself.
pub(super) fn json(text: &str) -> Result<Option<Vec<String>>> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(Value::Array(items)) = gojson::value(text.as_bytes()) else { return Ok(None) };
    let strings = items.into_iter().map(|item| match item {
        Value::String(text) => Ok(text),
        _ => Err(Error::new("when using JSON array syntax, arrays must be comprised of strings only")),
    });
    strings.collect::<Result<Vec<String>>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_in_front() {
        for (text, words, rest) in [
            ("a --b", vec![], "a --b"),
            ("--a --b=c d", vec!["--a", "--b=c"], "d"),
            ("--a='b c' --d=\"e\\\"f\" g", vec!["--a=b c", "--d=e\"f"], "g"),
            ("--a -- --b", vec!["--a"], " --b"),
            ("--a", vec!["--a"], ""),
            ("--a\\ b c", vec!["--a b"], "c"),
            ("-a", vec![], "-a"),
        ] {
            let (found, behind) = flags(text, '\\');
            assert_eq!((found, behind), (words.into_iter().map(String::from).collect(), rest), "{text}");
        }
    }

    #[test]
    fn words_keep_their_quotes() {
        for (text, words) in [
            ("a=b  c", vec!["a=b", "c"]),
            ("a='b c' d=\"e \\\" f\"", vec!["a='b c'", "d=\"e \\\" f\""]),
            ("a\\ b c\\", vec!["a\\ b", "c"]),
            ("'a\\' b", vec!["'a\\'", "b"]),
            ("''", vec!["''"]),
        ] {
            assert_eq!(quoted_words(text, '\\'), words, "{text}");
        }
    }

    #[test]
    fn json_is_an_array_of_strings() {
        assert_eq!(json(r#"["a", "b\n"] "#).unwrap(), Some(vec!["a".into(), "b\n".into()]));
        for text in ["[ -f /x ]", "['a']", "[\"a\"", "a", "[\"a\"] b", ""] {
            assert_eq!(json(text).unwrap(), None, "{text}");
        }
        assert!(json("[\"a\", 1]").is_err());
        assert_eq!(json("[]").unwrap(), Some(vec![]));
    }
}
