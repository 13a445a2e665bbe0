//! Patterns of `${name#pattern}`, `${name%pattern}` and `${name/pattern/word}`: `*`, `?` and what is escaped.

use regex_lite::Regex;

use model::{Error, Result};

/// How much a `*` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Shortest,
    Longest,
}

/// Cuts what the pattern matches off the front.
pub(super) fn without_prefix(value: &str, pattern: &str, extent: Extent) -> Result<String> {
    let regex = compile(pattern, &format!("^{}", translate(pattern, extent)?))?;
    let end = regex.find(value).map_or(0, |found| found.end());
    Ok(value[end..].to_owned())
}

/// Cuts what the pattern matches off the end: a prefix of both turned round.
pub(super) fn without_suffix(value: &str, pattern: &str, extent: Extent) -> Result<String> {
    let turned: String = value.chars().rev().collect();
    let rest = without_prefix(&turned, &turned_round(pattern), extent)?;
    Ok(rest.chars().rev().collect())
}

/// Puts `word` in the place of the first match.
pub(super) fn replace_first(value: &str, pattern: &str, word: &str) -> Result<String> {
    let regex = compile(pattern, &translate(pattern, Extent::Longest)?)?;
    Ok(regex.replacen(value, 1, regex_lite::NoExpand(word)).into_owned())
}

/// Puts `word` in the place of every match, unless the result has more than so many bytes.
pub(super) fn replace_all(value: &str, pattern: &str, (word, limit): (&str, usize)) -> Result<String> {
    let regex = compile(pattern, &translate(pattern, Extent::Longest)?)?;
    let count = regex.find_iter(value).count();
    if count.saturating_mul(word.len()).saturating_add(value.len()) > limit {
        return Err(Error::invalid(format!("more than {limit} bytes")));
    }
    Ok(regex.replace_all(value, regex_lite::NoExpand(word)).into_owned())
}

fn compile(pattern: &str, expression: &str) -> Result<Regex> {
    let invalid = |why| Error::invalid(format!("invalid pattern ({pattern}) in substitution: {why}"));
    Regex::new(expression).map_err(invalid)
}

/// A regular expression for the pattern.
fn translate(pattern: &str, extent: Extent) -> Result<String> {
    let mut out = String::with_capacity(pattern.len() + 4);
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(match extent {
                Extent::Shortest => ".*?",
                Extent::Longest => ".*",
            }),
            '?' => out.push('.'),
            // Within `${}` a brace and a slash have to be escaped; the escape is no part of the pattern.
            '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
            '\\' => match chars.next() {
                Some(escaped @ ('*' | '?' | '\\')) => {
                    out.push_str(&regex_lite::escape(escaped.encode_utf8(&mut [0; 4])))
                }
                other => {
                    let shown = other.unwrap_or(char::REPLACEMENT_CHARACTER);
                    let why = format!("invalid pattern ({pattern}) in substitution: invalid escape '\\{shown}'");
                    return Err(Error::invalid(why));
                }
            },
            c => out.push_str(&regex_lite::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    Ok(out)
}

/// The pattern from its end to its start, escapes still in front of what they escape.
fn turned_round(pattern: &str) -> String {
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let mut part = String::from(c);
        if c == '\\' {
            part.extend(chars.next());
        }
        parts.push(part);
    }
    parts.into_iter().rev().collect()
}
