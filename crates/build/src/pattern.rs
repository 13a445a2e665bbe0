//! Patterns of paths: `*`, `?`, `[a-z]`, `\x` within a component, `**` for any number of them (path.Match of Go, and the rules of
//! .dockerignore).

/// Whether a component matches a pattern without slashes. A malformed one matches nothing.
pub fn component(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    glob(&pattern, &name)
}

/// Whether the text has a character that means something in a pattern.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

/// Iterative, with one place to go back to: the last star.
fn glob(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
            continue;
        }
        match (name.get(n), one(&pattern[p..], name.get(n).copied())) {
            (None, _) if p == pattern.len() => return true,
            (Some(_), Some(width)) => {
                p += width;
                n += 1;
                continue;
            }
            _ => {}
        }
        let Some((at, from)) = star else { return false };
        if from >= name.len() {
            return false;
        }
        star = Some((at, from + 1));
        (p, n) = (at + 1, from + 1);
    }
}

/// How much of the pattern matches one character; `None`: it does not match.
fn one(pattern: &[char], c: Option<char>) -> Option<usize> {
    let c = c?;
    match pattern.first()? {
        '?' => Some(1),
        '\\' => (pattern.get(1) == Some(&c)).then_some(2),
        '[' => class(pattern, c),
        other => (*other == c).then_some(1),
    }
}

fn class(pattern: &[char], c: char) -> Option<usize> {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&'^');
    at += usize::from(negated);
    let (mut found, mut first) = (false, true);
    loop {
        let low = match pattern.get(at)? {
            ']' if !first => break,
            '\\' => {
                at += 1;
                *pattern.get(at)?
            }
            other => *other,
        };
        at += 1;
        let mut high = low;
        if pattern.get(at) == Some(&'-') {
            at += 1;
            at += usize::from(pattern.get(at) == Some(&'\\'));
            high = *pattern.get(at)?;
            at += 1;
        }
        found |= (low..=high).contains(&c);
        first = false;
    }
    (found != negated).then_some(at + 1)
}

/// Whether all components match all of the pattern, `**` standing for any number of them.
pub fn path(pattern: &[&str], path: &[&str]) -> bool {
    // Which prefixes of the pattern match the components so far.
    let mut alive = vec![false; pattern.len() + 1];
    alive[0] = true;
    close(pattern, &mut alive);
    for name in path {
        let mut next = vec![false; pattern.len() + 1];
        for (at, part) in pattern.iter().enumerate().filter(|(at, _)| alive[*at]) {
            match *part {
                "**" => next[at] = true,
                part if component(part, name) => next[at + 1] = true,
                _ => {}
            }
        }
        alive = next;
        close(pattern, &mut alive);
    }
    alive[pattern.len()]
}

/// `**` may stand for nothing.
fn close(pattern: &[&str], alive: &mut [bool]) {
    for (at, part) in pattern.iter().enumerate() {
        if alive[at] && *part == "**" {
            alive[at + 1] = true;
        }
    }
}

/// The components of a path, without empty ones and `.`; `..` takes one back.
pub fn components(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_match_as_go_has_it() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "a.txt", true),
            ("a*c", "abbc", true),
            ("a*c", "abbcd", false),
            ("a*b*c", "axbxbxc", true),
            ("?", "ä", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[a", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a", "ab", false),
        ] {
            assert_eq!(component(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn two_stars_stand_for_directories() {
        let matches = |pattern: &str, text: &str| path(&components(pattern), &components(text));
        assert!(matches("**/x", "x") && matches("**/x", "a/b/x") && !matches("*/x", "a/b/x"));
        assert!(matches("a/**", "a") && matches("a/**/b", "a/b") && !matches("a/**/b", "a/c"));
    }
}
