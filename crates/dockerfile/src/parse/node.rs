//! One instruction: its keyword, flags and words.

use super::heredoc::Heredoc;
use super::words;
use crate::error::{Error, Result};
use crate::lines::Lines;
use crate::text::quote;

/// An instruction as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// As written: `RUN`, `run`.
    pub keyword: String,
    /// `--name` or `--name=value` each.
    pub flags: Vec<String>,
    /// What follows.
    pub arguments: Arguments,
    /// The line, its continuations joined, without inline documents.
    pub text: String,
    /// Inline documents, in the order in which they are named.
    pub heredocs: Vec<Heredoc>,
    /// Where it stands.
    pub lines: Lines,
    /// Comments right above it, without their mark.
    pub comments: Vec<String>,
}

/// The words of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// There are none, or the keyword is not known.
    None,
    /// Words between blanks, words in quotes, or the rest of the line as a single one.
    Words(Vec<String>),
    /// A JSON array.
    Json(Vec<String>),
    /// `name=value …`, or `name value`.
    Pairs(Vec<Pair>),
    /// A word, and the form of the command behind it (`HEALTHCHECK`).
    Typed(String, Box<Arguments>),
    /// An instruction for later (`ONBUILD`).
    Instruction(Box<Node>),
}

/// A name with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Quotes and variables in it are not yet resolved.
    pub name: String,
    /// The same.
    pub value: String,
    /// Whether a blank stands in the place of `=`, the old form.
    pub legacy: bool,
}

/// How deep `ONBUILD` may stand within `ONBUILD` until it is refused for being there at all.
const MAX_DEPTH: usize = 4;

impl Node {
    /// Reads a line.
    pub(super) fn read(text: &str, escape: char, comments: Vec<String>) -> Result<Node> {
        Node::read_within(text, escape, comments, 0)
    }

    fn read_within(text: &str, escape: char, comments: Vec<String>, depth: usize) -> Result<Node> {
        let (keyword, rest) = words::split_first(text.trim());
        let (flags, rest) = rest.map_or((Vec::new(), ""), |rest| words::flags(rest, escape));
        let rest = rest.trim();
        let arguments = match keyword.to_ascii_lowercase().as_str() {
            "add" | "copy" | "volume" => listed(words::json(rest)?, rest),
            "cmd" | "entrypoint" | "run" | "shell" => command(rest)?,
            "arg" => of_words(words::quoted_words(rest, escape)),
            "env" => pairs(rest, "ENV", escape)?,
            "label" => pairs(rest, "LABEL", escape)?,
            "expose" | "from" => of_words(words::plain_words(rest)),
            "healthcheck" => typed(rest)?,
            "maintainer" | "stopsignal" | "user" | "workdir" => whole(rest),
            "onbuild" if rest.is_empty() || depth > MAX_DEPTH => whole(rest),
            "onbuild" => {
                let inner = Node::read_within(rest, escape, Vec::new(), depth + 1)?;
                Arguments::Instruction(Box::new(inner))
            }
            _ => Arguments::None,
        };
        let keyword = keyword.to_owned();
        let lines = Lines::default();
        Ok(Node { keyword, flags, arguments, text: text.to_owned(), heredocs: Vec::new(), lines, comments })
    }

    /// Whether inline documents may follow: those of `ONBUILD` belong to the instruction within.
    pub(super) fn takes_heredocs(&self) -> bool {
        let inner = match &self.arguments {
            Arguments::Instruction(inner) => inner,
            _ => self,
        };
        let takes = ["add", "copy", "run"].iter().any(|keyword| inner.keyword.eq_ignore_ascii_case(keyword));
        takes && !matches!(inner.arguments, Arguments::Json(_))
    }
}

fn of_words(words: Vec<String>) -> Arguments {
    if words.is_empty() { Arguments::None } else { Arguments::Words(words) }
}

fn whole(rest: &str) -> Arguments {
    if rest.is_empty() { Arguments::None } else { Arguments::Words(vec![rest.to_owned()]) }
}

fn listed(json: Option<Vec<String>>, rest: &str) -> Arguments {
    json.map_or_else(|| of_words(words::plain_words(rest)), Arguments::Json)
}

fn command(rest: &str) -> Result<Arguments> {
    Ok(words::json(rest)?.map_or_else(|| whole(rest), Arguments::Json))
}

fn typed(rest: &str) -> Result<Arguments> {
    if rest.is_empty() {
        return Ok(Arguments::None);
    }
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (kind, behind) = rest.split_at(end);
    Ok(Arguments::Typed(kind.to_owned(), Box::new(command(behind.trim_start())?)))
}

/// The first word decides: with `=` all of them are pairs, without it the line is one.
fn pairs(rest: &str, keyword: &str, escape: char) -> Result<Arguments> {
    let words = words::quoted_words(rest, escape);
    let Some(first) = words.first() else { return Ok(Arguments::None) };
    if !first.contains('=') {
        let (name, value) = words::split_first(rest);
        let value = value.ok_or_else(|| Error::new(format!("{keyword} must have two arguments")))?;
        let pair = Pair { name: name.to_owned(), value: value.to_owned(), legacy: true };
        return Ok(Arguments::Pairs(vec![pair]));
    }
    let pairs = words.iter().map(|word| {
        let (name, value) = word.split_once('=').ok_or_else(|| {
            let word = quote(word);
            Error::new(format!("Syntax error - can't find = in {word}. Must be of the form: name=value"))
        })?;
        Ok(Pair { name: name.to_owned(), value: value.to_owned(), legacy: false })
    });
    pairs.collect::<Result<_>>().map(Arguments::Pairs)
}
