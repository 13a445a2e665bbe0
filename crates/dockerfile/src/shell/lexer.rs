//! The reader of words. Nesting is bounded; everything else takes time in proportion to the text.

use std::collections::BTreeSet;

use super::env::Variables;
use super::pattern::{self, Extent};
use crate::error::{Error, Result};
use crate::text::quote;

/// Substitutions within substitutions.
const MAX_NESTING: usize = 100;
/// Bytes of a text with its variables filled in.
const MAX_TEXT: usize = 16 << 20;

/// Characters of a text that an error shows.
const MAX_SHOWN: usize = 4096;
/// Why a text is refused that is longer.
const TOO_LONG: &str = "too long with its variables filled in";

/// What becomes of quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quotes {
    /// They hold together what is between them, and are left out.
    #[default]
    Removed,
    /// They hold together what is between them, and stay.
    Kept,
    /// They are characters like others.
    Ordinary,
}

/// What becomes of escape characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escapes {
    /// They are left out.
    #[default]
    Removed,
    /// They stay.
    Kept,
}

/// What becomes of variables that are not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unset {
    /// They are empty.
    #[default]
    Empty,
    /// The substitution stays as it was written.
    Kept,
}

/// How words are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lexer {
    /// `\` or the one of the directive `escape`.
    pub escape: char,
    /// Of `"` and `'`.
    pub quotes: Quotes,
    /// Of the escape character.
    pub escapes: Escapes,
    /// Of variables without value.
    pub unset: Unset,
}

/// A text with its variables filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// As one word.
    pub text: String,
    /// Split at blanks that are not quoted, those in values of variables included.
    pub words: Vec<String>,
    /// Variables that were asked for and are set.
    pub used: BTreeSet<String>,
    /// Variables that were asked for and are not set.
    pub missing: BTreeSet<String>,
}

impl Lexer {
    /// The usual reader.
    pub fn new(escape: char) -> Lexer {
        Lexer { escape, quotes: Quotes::default(), escapes: Escapes::default(), unset: Unset::default() }
    }

    /// Fills in the variables of a text.
    pub fn expand(&self, source: &str, variables: &dyn Variables) -> Result<Expansion> {
        let chars: Vec<char> = source.chars().collect();
        let reader = Reader { lexer: *self, variables, rest: &chars, depth: 0, seen: Expansion::default() };
        reader.whole().map_err(|error| error.prefix(format!("failed to process {}", quote(&shortened(source)))))
    }

    /// The same, as one word.
    pub fn word(&self, source: &str, variables: &dyn Variables) -> Result<String> {
        self.expand(source, variables).map(|expansion| expansion.text)
    }
}

/// The beginning of a text, for an error.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// Words that are being put together.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    open: String,
}

impl Words {
    /// A blank ends a word.
    fn add(&mut self, c: char) {
        match c.is_whitespace() {
            false => self.open.push(c),
            true => self.end(),
        }
    }

    fn end(&mut self) {
        if !self.open.is_empty() {
            self.done.push(std::mem::take(&mut self.open));
        }
    }
}

struct Reader<'a> {
    lexer: Lexer,
    variables: &'a dyn Variables,
    rest: &'a [char],
    depth: usize,
    seen: Expansion,
}

impl Reader<'_> {
    fn whole(mut self) -> Result<Expansion> {
        let mut words = Words::default();
        let text = self.until(None, &mut words)?;
        words.end();
        Ok(Expansion { text, words: words.done, ..self.seen })
    }

    fn peek(&self) -> Option<char> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<char> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Reads up to `stop`, or to the end.
    fn until(&mut self, stop: Option<char>, words: &mut Words) -> Result<String> {
        let mut text = String::new();
        while let Some(c) = self.peek() {
            if text.len() > MAX_TEXT {
                return Err(Error::new(TOO_LONG));
            }
            if stop == Some(c) {
                self.next();
                return Ok(text);
            }
            let quoted = self.lexer.quotes != Quotes::Ordinary;
            let part = match c {
                '$' => {
                    let value = self.substitution()?;
                    value.chars().for_each(|c| words.add(c));
                    text.push_str(&value);
                    continue;
                }
                '<' => self.angle(),
                '\'' if quoted => self.single_quoted()?,
                '"' if quoted => self.double_quoted()?,
                _ => {
                    self.plain(&mut text, words);
                    continue;
                }
            };
            words.open.push_str(&part);
            text.push_str(&part);
        }
        match stop {
            None => Ok(text),
            Some(c) => Err(Error::new(format!("unexpected end of statement while looking for matching {c}"))),
        }
    }

    /// A character, or one that is escaped; an escape character at the end is left out.
    fn plain(&mut self, text: &mut String, words: &mut Words) {
        let Some(c) = self.next() else { return };
        if c != self.lexer.escape {
            words.add(c);
            text.push(c);
            return;
        }
        if self.lexer.escapes == Escapes::Kept {
            words.open.push(c);
            text.push(c);
        }
        if let Some(escaped) = self.next() {
            words.open.push(escaped);
            text.push(escaped);
        }
    }

    /// `<`, or `<<` with the blanks behind it: those of a heredoc belong to the word.
    fn angle(&mut self) -> String {
        self.next();
        let mut text = String::from("<");
        if self.peek() == Some('<') {
            text.extend(self.next());
            while matches!(self.peek(), Some('\t' | '\r' | ' ')) {
                text.extend(self.next());
            }
        }
        text
    }

    fn single_quoted(&mut self) -> Result<String> {
        let kept = self.lexer.quotes == Quotes::Kept;
        let mut text = String::new();
        text.extend(self.next().filter(|_| kept));
        loop {
            match self.next() {
                None => {
                    let why = "unexpected end of statement while looking for matching single-quote";
                    return Err(Error::new(why));
                }
                Some('\'') => {
                    text.extend(kept.then_some('\''));
                    return Ok(text);
                }
                Some(c) => text.push(c),
            }
        }
    }

    /// Variables are filled in; `"`, `$` and the escape character itself can be escaped.
    fn double_quoted(&mut self) -> Result<String> {
        let kept = self.lexer.quotes == Quotes::Kept;
        let mut text = String::new();
        text.extend(self.next().filter(|_| kept));
        loop {
            match self.peek() {
                None => {
                    let why = "unexpected end of statement while looking for matching double-quote";
                    return Err(Error::new(why));
                }
                Some('"') => {
                    text.extend(self.next().filter(|_| kept));
                    return Ok(text);
                }
                Some('$') if text.len() > MAX_TEXT => return Err(Error::new(TOO_LONG)),
                Some('$') => text.push_str(&self.substitution()?),
                Some(c) if c != self.lexer.escape => text.extend(self.next()),
                Some(escape) => {
                    self.next();
                    text.extend((self.lexer.escapes == Escapes::Kept).then_some(escape));
                    match self.peek() {
                        None => {}
                        Some(c) if c == '"' || c == '$' || c == escape => text.extend(self.next()),
                        Some(_) => text.push(escape),
                    }
                }
            }
        }
    }

    fn look_up(&mut self, name: &str) -> Option<String> {
        let value = self.variables.value(name);
        let list = if value.is_some() { &mut self.seen.used } else { &mut self.seen.missing };
        list.insert(name.to_owned());
        value.map(str::to_owned)
    }

    /// What begins with `$`.
    fn substitution(&mut self) -> Result<String> {
        self.next();
        if self.peek() == Some('{') {
            self.next();
            self.depth += 1;
            if self.depth > MAX_NESTING {
                return Err(Error::new("syntax error: too many substitutions within each other"));
            }
            let value = self.braced();
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".into());
        }
        let kept = self.lexer.unset == Unset::Kept;
        Ok(self.look_up(&name).unwrap_or_else(|| if kept { format!("${name}") } else { String::new() }))
    }

    /// Letters, digits and `_`; digits alone if it begins with one; one of the special parameters of POSIX.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let digits = self.peek().is_some_and(char::is_numeric);
        while let Some(c) = self.peek() {
            let special = name.is_empty() && matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!');
            let fits = if digits { c.is_numeric() } else { c.is_alphanumeric() || c == '_' };
            if !special && !fits {
                break;
            }
            name.extend(self.next());
            // `$0` is one of the special parameters; `$01` is read like other numbers.
            if special {
                break;
            }
        }
        name
    }

    /// What stands between `${` and `}`, and the brace.
    fn braced(&mut self) -> Result<String> {
        match self.peek() {
            None => return Err(Error::new("syntax error: missing '}'")),
            Some('{' | '}' | ':') => return Err(Error::new("syntax error: bad substitution")),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => {
                let kept = self.lexer.unset == Unset::Kept;
                Ok(self.look_up(&name).unwrap_or_else(|| if kept { format!("${{{name}}}") } else { String::new() }))
            }
            Some(':') => {
                let sign = self.next();
                self.modified(&name, sign, EmptyIs::Unset)
            }
            Some('/') => self.replaced(&name),
            sign => self.modified(&name, sign, EmptyIs::Set),
        }
    }

    /// `-`, `+`, `?`, `#` and `%` behind a name, perhaps with a colon in front.
    fn modified(&mut self, name: &str, sign: Option<char>, empty: EmptyIs) -> Result<String> {
        let colon = if empty == EmptyIs::Unset { ":" } else { "" };
        let signs = format!("{colon}{}", sign.unwrap_or(char::REPLACEMENT_CHARACTER));
        let unsupported = || Err(Error::new(format!("unsupported modifier ({signs}) in substitution")));
        let cuts = matches!(sign, Some('#' | '%'));
        if (empty == EmptyIs::Unset && cuts)
            || (empty == EmptyIs::Set && !matches!(sign, Some('-' | '+' | '?' | '#' | '%')))
        {
            return unsupported();
        }
        let escapes = if cuts { Escapes::Kept } else { Escapes::Removed };
        let word = self.part('}', escapes, "syntax error: missing '}'")?;
        let value = self.look_up(name);
        if value.is_none() && self.lexer.unset == Unset::Kept {
            return Ok(format!("${{{name}{signs}{word}}}"));
        }
        let counts = |value: &String| empty == EmptyIs::Set || !value.is_empty();
        match sign {
            Some('-') => Ok(value.filter(counts).unwrap_or(word)),
            Some('+') => Ok(value.filter(counts).map(|_| word).unwrap_or_default()),
            Some('?') => {
                let why = if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let why = if word.is_empty() { why } else { &word };
                value.filter(counts).ok_or_else(|| Error::new(format!("{name}: {why}")))
            }
            Some(sign @ ('#' | '%')) => {
                let (pattern, extent) = match word.strip_prefix(sign) {
                    Some(rest) => (rest, Extent::Longest),
                    None => (word.as_str(), Extent::Shortest),
                };
                let value = value.unwrap_or_default();
                Ok(match sign {
                    '#' => pattern::without_prefix(&value, pattern, extent)?,
                    _ => pattern::without_suffix(&value, pattern, extent)?,
                })
            }
            _ => unsupported(),
        }
    }

    /// `/pattern/word` behind a name; a second slash in front replaces all.
    fn replaced(&mut self, name: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.part('/', Escapes::Kept, "syntax error: missing '/' in ${}")?;
        let word = self.part('}', Escapes::Kept, "syntax error: missing '}'")?;
        let value = self.look_up(name);
        match value {
            None if self.lexer.unset == Unset::Kept => Ok(format!("${{{name}/{pattern}/{word}}}")),
            None => Ok(pattern::replace_first("", &pattern, &word)?),
            Some(value) if all => Ok(pattern::replace_all(&value, &pattern, (&word, MAX_TEXT))?),
            Some(value) => Ok(pattern::replace_first(&value, &pattern, &word)?),
        }
    }

    /// A part of a substitution up to `stop`; at the end of the text it is `missing`.
    fn part(&mut self, stop: char, escapes: Escapes, missing: &str) -> Result<String> {
        let outer = std::mem::replace(&mut self.lexer.escapes, escapes);
        let part = self.until(Some(stop), &mut Words::default());
        self.lexer.escapes = outer;
        part.map_err(|error| if self.rest.is_empty() { Error::new(missing) } else { error })
    }
}

/// Whether a variable with an empty value counts as set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EmptyIs {
    Set,
    Unset,
}
