//! Patterns of paths: `*` and `?` do not cross a slash, `**` does, `[a-z]`, `\x`, `!` makes an exception. A pattern that
//! matches a directory matches everything below it; the last one that matches decides.

use model::mount::clean;
use regex_lite::Regex;

use model::{Error, Result};

/// Patterns of one list.
const MAX_PATTERNS: usize = 100_000;

/// A list of patterns.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    patterns: Vec<Pattern>,
}

/// Which patterns matched a directory; what is below it is asked with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches(Vec<bool>);

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    exception: bool,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Expression(Regex),
}

impl Matcher {
    /// Reads patterns; empty ones count for nothing.
    pub fn new(patterns: &[String]) -> Result<Matcher> {
        if patterns.len() > MAX_PATTERNS {
            return Err(Error::invalid(format!("more than {MAX_PATTERNS} patterns")));
        }
        let read = patterns.iter().map(|pattern| pattern.trim()).filter(|pattern| !pattern.is_empty());
        let patterns = read.map(Pattern::new).collect::<Result<_>>()?;
        Ok(Matcher { patterns })
    }

    /// Whether there is an exception among them.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exception)
    }

    /// Whether one of them leaves out everything at the top.
    pub fn leaves_out_all(&self) -> bool {
        let all = |pattern: &Pattern| !pattern.exception && matches!(pattern.text.as_str(), "*" | "**" | "**/*");
        self.patterns.iter().any(all)
    }

    /// Whether a path is meant, by itself or by one of the directories above it.
    pub fn matches(&self, path: &str) -> bool {
        let mut matched = false;
        for pattern in self.patterns.iter().filter(|pattern| !pattern.text.is_empty()) {
            // An exception counts only for what is meant so far, and a pattern only for what is not.
            if pattern.exception == matched && above_and_itself(path).any(|path| pattern.matches(path)) {
                matched = !pattern.exception;
            }
        }
        matched
    }

    /// The same for a path of a directory of which it is known what matched.
    pub fn within(&self, path: &str, above: &Matches) -> (bool, Matches) {
        let mut matched = false;
        let mut matches = Vec::with_capacity(self.patterns.len());
        for (at, pattern) in self.patterns.iter().enumerate() {
            let known = above.0.get(at).copied().unwrap_or_default();
            let asked = !known && pattern.exception == matched;
            let found = known
                || (asked
                    && match above.0.is_empty() {
                        true => above_and_itself(path).any(|path| pattern.matches(path)),
                        false => pattern.matches(path),
                    });
            matches.push(found);
            if found {
                matched = !pattern.exception;
            }
        }
        (matched, Matches(matches))
    }
}

/// `a`, `a/b`, `a/b/c` of the last.
fn above_and_itself(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).filter(|path| !path.is_empty()).chain([path])
}

impl Pattern {
    fn new(text: &str) -> Result<Pattern> {
        let text = clean(text);
        let (text, exception) = match text.strip_prefix('!') {
            Some("") => return Err(Error::invalid("illegal exclusion pattern: \"!\"")),
            Some(rest) => (rest.to_owned(), true),
            None => (text, false),
        };
        let form = form(&text)?;
        Ok(Pattern { text, exception, form })
    }

    fn matches(&self, path: &str) -> bool {
        match &self.form {
            Form::Exact(text) => path == text,
            Form::Prefix(text) => path.starts_with(text.as_str()),
            // `**/a` matches `a` as well.
            Form::Suffix(text) => path.ends_with(text.as_str()) || text.strip_prefix('/') == Some(path),
            Form::Expression(regex) => regex.is_match(path),
        }
    }
}

fn bad() -> Error {
    Error::invalid("syntax error in pattern")
}

/// Text without special characters, with `**` at its end or its start, or an expression.
fn form(text: &str) -> Result<Form> {
    let special = |text: &str| text.contains(['*', '?', '[', ']', '\\']);
    if !special(text) {
        return Ok(Form::Exact(text.to_owned()));
    }
    if let Some(rest) = text.strip_suffix("**").filter(|rest| !special(rest) && !rest.is_empty()) {
        return Ok(Form::Prefix(rest.to_owned()));
    }
    if let Some(rest) = text.strip_prefix("**").filter(|rest| !special(rest) && !rest.is_empty()) {
        return Ok(Form::Suffix(rest.to_owned()));
    }
    let regex = Regex::new(&format!("(?s)^{}$", expression(text)?)).map_err(|_| bad())?;
    Ok(Form::Expression(regex))
}

fn expression(text: &str) -> Result<String> {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                // `**/` is `**`.
                if chars.peek() == Some(&'/') {
                    chars.next();
                }
                out.push_str(if chars.peek().is_none() { ".*" } else { "(?:.*/)?" });
            }
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            '\\' => out.push_str(&literal(chars.next().ok_or_else(bad)?)),
            '[' => out.push_str(&class(&mut chars)?),
            c => out.push_str(&literal(c)),
        }
    }
    Ok(out)
}

fn literal(c: char) -> String {
    regex_lite::escape(c.encode_utf8(&mut [0; 4]))
}

/// `[a-z]` or `[^a-z]`, behind the bracket that opens it.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String> {
    let mut out = String::from("[");
    if chars.peek() == Some(&'^') {
        chars.next();
        out.push('^');
    }
    let one = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| match chars.next() {
        None | Some('-' | ']') => Err(bad()),
        Some('\\') => chars.next().ok_or_else(bad),
        Some(c) => Ok(c),
    };
    loop {
        let low = one(chars)?;
        let high = match chars.peek() {
            Some('-') => {
                chars.next();
                one(chars)?
            }
            _ => low,
        };
        // A range the wrong way round holds nothing.
        if low <= high {
            out.push_str(&format!("\\x{{{:x}}}-\\x{{{:x}}}", u32::from(low), u32::from(high)));
        }
        if chars.peek() == Some(&']') {
            chars.next();
            break;
        }
    }
    out.push(']');
    // A class without members: a negated one is any character, another none.
    Ok(match out.as_str() {
        "[]" => "[^\\x{0}-\\x{10ffff}]".into(),
        "[^]" => ".".into(),
        _ => out,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(patterns: &str) -> Matcher {
        let patterns: Vec<String> = patterns.split(' ').map(str::to_owned).collect();
        Matcher::new(&patterns).unwrap()
    }

    #[test]
    fn patterns_match_paths() {
        for (patterns, path, matched) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "dir/file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir", false),
            ("**/dir", "dir", true),
            ("**/dir", "a/dir/b", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/*", "dir/dir2/d/file", true),
            ("**file", "dir/file", true),
            ("**file", "xfile", true),
            ("dir/*/file", "dir/a/file", true),
            ("dir/*/file", "dir/a/b/file", false),
            ("*", "a/b", true),
            ("a*", "b/a", false),
            ("a?", "ab", true),
            ("a?", "a", false),
            ("?", "/", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("a[b-d]e/*", "ace/f", true),
            ("abc.def", "abcZdef", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("**/foo/bar", "a/foo/bar/baz", true),
            ("a/**/*.go", "a/x.go", true),
            ("a/**/*.go", "a/b/c/x.go", true),
            ("docs !docs/README.md", "docs/README.md", false),
            ("docs !docs/README.md", "docs/a", true),
            ("docs !docs/README.md docs/README*", "docs/README.md", true),
            ("* !b", "b/c", false),
            ("a(b", "a(b", true),
            ("*/", "a/b", true),
        ] {
            let matcher = matcher(patterns);
            assert_eq!(matcher.matches(path), matched, "{patterns} {path}");
            let (found, _) = matcher.within(path, &Matches::default());
            assert_eq!(found, matched, "{patterns} {path}, of nothing known");
        }
    }

    #[test]
    fn what_matched_above_is_enough_to_know() {
        for (patterns, path) in [
            ("a !a/b a/b/c", "a/b/c"),
            ("**/x !**/y", "x/y/z"),
            ("a/* !a/b", "a/b/c"),
            ("* !a", "a/b"),
            ("!a/b a", "a/b"),
        ] {
            let matcher = matcher(patterns);
            let mut above = Matches::default();
            let mut found = false;
            for path in above_and_itself(path) {
                (found, above) = matcher.within(path, &above);
            }
            assert_eq!(found, matcher.matches(path), "{patterns} {path}");
        }
    }

    #[test]
    fn patterns_are_refused() {
        for (pattern, why) in [
            ("!", "illegal exclusion pattern: \"!\""),
            ("a[", "syntax error in pattern"),
            ("[]a", "syntax error in pattern"),
            ("[-]", "syntax error in pattern"),
            ("a\\", "syntax error in pattern"),
            ("[a-", "syntax error in pattern"),
        ] {
            assert_eq!(Matcher::new(&[pattern.to_owned()]).unwrap_err().message(), why, "{pattern}");
        }
        assert!(Matcher::new(&["[z-a]".into(), "[^z-a]".into()]).is_ok());
    }
}
