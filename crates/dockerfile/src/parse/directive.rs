//! Directives: `# syntax=…`, `# escape=…`, `# check=…` in the first lines of a file.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::lines::Lines;

const SYNTAX: &str = "syntax";
const CHECK: &str = "check";
pub(super) const ESCAPE: &str = "escape";
const KNOWN: [&str; 3] = [SYNTAX, ESCAPE, CHECK];
/// In front of the text of a file that says it is UTF-8.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// In lower case.
    pub name: &'static str,
    /// Without the blanks around it.
    pub value: String,
    /// Where it stands.
    pub line: u32,
}

/// Reads line after line until one is no directive.
#[derive(Debug, Default)]
pub(super) struct Directives {
    line: u32,
    seen: BTreeSet<&'static str>,
    done: bool,
}

impl Directives {
    /// The directive on the next line, which is a comment that begins with `mark`.
    pub(super) fn read(&mut self, line: &str, mark: &str) -> Result<Option<Directive>> {
        self.line += 1;
        if self.done {
            return Ok(None);
        }
        let Some((name, value)) = line.strip_prefix(mark).and_then(|text| split(text.trim_start())) else {
            self.done = true;
            return Ok(None);
        };
        if !self.seen.insert(name) {
            return Err(Error::new(format!("only one {name} parser directive can be used")));
        }
        Ok(Some(Directive { name, value: value.to_owned(), line: self.line }))
    }
}

/// `name = value`, of a name that is known.
fn split(text: &str) -> Option<(&'static str, &str)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim_end_matches(|c: char| c.is_ascii_whitespace());
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
    let value = value.trim_matches(|c: char| c.is_ascii_whitespace());
    let known = KNOWN.into_iter().find(|known| name.eq_ignore_ascii_case(known))?;
    (plain && !value.is_empty()).then_some((known, value))
}

/// Another front end, as a file asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// The image.
    pub image: String,
    /// The whole value: the image and the words behind it.
    pub command: String,
    /// Where it is asked for.
    pub lines: Lines,
}

/// The directive `syntax`, behind `#` or `//`, or the member of that name of a JSON object. A first line `#!…` is left out.
pub fn syntax(text: &str) -> Option<Syntax> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let (text, above) = match text.starts_with("#!") {
        true => (text.split_once('\n').map_or("", |(_, rest)| rest), 1),
        false => (text, 0),
    };
    for mark in ["#", "//"] {
        if let Some(found) = find(text, SYNTAX, mark) {
            let line = found.line + above;
            let image = found.value.split(' ').next().unwrap_or_default().to_owned();
            return Some(Syntax { image, command: found.value, lines: Lines::new(line, line) });
        }
    }
    let object = gojson::value(text.as_bytes()).ok()?;
    let image = object.as_object()?.get(SYNTAX)?.as_str()?.to_owned();
    Some(Syntax { command: image.clone(), image, lines: Lines::new(above, above) })
}

/// The first word of the directive `check`.
pub fn check_directive(text: &str) -> Option<String> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let text = if text.starts_with("#!") { text.split_once('\n').map_or("", |(_, rest)| rest) } else { text };
    let found = find(text, CHECK, "#")?;
    found.value.split(' ').next().map(str::to_owned)
}

/// The first word of the directive `check` in a comment above an instruction.
pub fn directive_in_comment(comment: &str) -> Option<String> {
    let found = Directives::default().read(comment, "").ok().flatten().filter(|found| found.name == CHECK)?;
    found.value.split(' ').next().map(str::to_owned)
}

fn find(text: &str, name: &str, mark: &str) -> Option<Directive> {
    let mut directives = Directives::default();
    for line in text.lines() {
        match directives.read(line, mark) {
            Ok(Some(found)) if found.name == name => return Some(found),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_front_end_is_asked_for_in_three_ways() {
        for (text, image, command, line) in [
            ("# syntax=a/b:1\nFROM x", "a/b:1", "a/b:1", 1),
            ("#!/x\n#SYNTAX = a  b c \n", "a", "a  b c", 2),
            ("\u{feff}# escape=`\n# syntax=a\n", "a", "a", 2),
            ("// syntax=a\n{}", "a", "a", 1),
            ("{\"syntax\": \"a b\"}", "a b", "a b", 0),
        ] {
            let found = syntax(text).unwrap();
            assert_eq!((found.image.as_str(), found.command.as_str()), (image, command), "{text:?}");
            assert_eq!(found.lines, Lines::new(line, line), "{text:?}");
        }
        for text in ["FROM x\n# syntax=a", "# a comment\n# syntax=a", "\n# syntax=a", "# syntax=\n", "# syn-tax=a"] {
            assert_eq!(syntax(text), None, "{text:?}");
        }
    }

    #[test]
    fn checks_are_read_from_the_head_and_from_comments() {
        assert_eq!(
            check_directive("# escape=`\n# check=skip=A;error=true x\nFROM a").as_deref(),
            Some("skip=A;error=true")
        );
        assert_eq!(check_directive("FROM a\n# check=skip=A"), None);
        assert_eq!(directive_in_comment("check=skip=A").as_deref(), Some("skip=A"));
        assert_eq!(directive_in_comment("syntax=A"), None);
    }
}
