//! Patterns of names, as Go's `path.Match` reads them.

use crate::catalog::parsed;

/// Whether a pattern means this full name: with or without tag, as users write it or in full.
pub(crate) fn name_matches(pattern: &str, name: &str) -> bool {
    let Some(reference) = parsed(name) else { return false };
    let forms = [
        reference.familiar(),
        reference.familiar_name(),
        reference.clone().with_default_tag().canonical(),
        reference.name(),
    ];
    forms.iter().any(|form| glob(pattern.as_bytes(), form.as_bytes()))
}

/// Whether a pattern can match anything at all.
pub(crate) fn is_glob(pattern: &str) -> bool {
    let mut rest = pattern.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = match first {
            b'[' => match class(behind) {
                Some((_, behind)) => behind,
                None => return false,
            },
            b'\\' if behind.is_empty() => return false,
            b'\\' => &behind[1..],
            _ => behind,
        };
    }
    true
}

/// Go's `path.Match`: `*` and `?` stop at slashes, `[a-z]` and `[^a-z]`, `\` quotes. A bad pattern matches nothing.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return text.is_empty() };
    match first {
        b'*' => {
            let reach = text.iter().position(|b| *b == b'/').unwrap_or(text.len());
            (0..=reach).any(|n| glob(rest, &text[n..]))
        }
        b'?' => text.first().is_some_and(|b| *b != b'/') && glob(rest, &text[1..]),
        b'[' => match (text.split_first(), class(rest)) {
            (Some((b, text)), Some((set, rest))) => set.contains(b) && glob(rest, text),
            _ => false,
        },
        b'\\' => match rest.split_first() {
            Some((quoted, rest)) => text.first() == Some(quoted) && glob(rest, &text[1..]),
            None => false,
        },
        literal => text.first() == Some(literal) && glob(rest, &text[1..]),
    }
}

/// The bytes a class stands for, and the pattern behind it.
fn class(pattern: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (negated, mut at) = if pattern.first() == Some(&b'^') { (true, 1) } else { (false, 0) };
    let mut listed = Vec::new();
    while *pattern.get(at)? != b']' {
        let first = *pattern.get(at)?;
        let last = if pattern.get(at + 1) == Some(&b'-') { *pattern.get(at + 2)? } else { first };
        at += if last == first && pattern.get(at + 1) != Some(&b'-') { 1 } else { 3 };
        listed.extend(first..=last);
    }
    let set = (0..=255).filter(|b| listed.contains(b) != negated && *b != b'/').collect();
    Some((set, &pattern[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_match_as_paths_do() {
        for (pattern, text, expected) in [
            ("busy*", "busybox:latest", true),
            ("*", "busybox", true),
            ("*", "localhost/busybox", false),
            ("*/*", "localhost/busybox", true),
            ("busybox:?", "busybox:1", true),
            ("busybox:[0-9]", "busybox:1", true),
            ("busybox:[^0-9]", "busybox:1", false),
            ("busybox:[0-9", "busybox:1", false),
            ("b\\*", "b*", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
