//! Inline documents: `<<NAME`.

use crate::error::Result;
use crate::shell::{Escapes, Lexer, Quotes, Unset};

/// Escapes in the words of a document, whatever the file says.
const DEFAULT_ESCAPE: char = '\\';

/// An inline document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// Whether variables in it are filled in: no part of the word is quoted.
    pub expand: bool,
    /// Whether tabs in front of its lines are cut (`<<-`).
    pub chomp: bool,
    /// Its lines, as they were written.
    pub content: String,
}

impl Heredoc {
    /// The lines, without the tabs in front where they are cut.
    pub fn lines(&self) -> String {
        match self.chomp {
            true => without_tabs(&self.content),
            false => self.content.clone(),
        }
    }

    /// From a word `<<NAME` of an instruction; `None`: it is none.
    pub fn in_word(word: &str) -> Result<Option<Heredoc>> {
        let Some((_, rest)) = word.split_once("<<").filter(|(fd, _)| fd.bytes().all(|b| b.is_ascii_digit())) else {
            return Ok(None);
        };
        let (rest, chomp) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
        if rest.is_empty() || rest.contains('<') {
            return Ok(None);
        }
        let lexer = Lexer { unset: Unset::Kept, ..Lexer::new(DEFAULT_ESCAPE) };
        let [name] = <[String; 1]>::try_from(lexer.expand(rest, &())?.words).unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        let raw = Lexer { quotes: Quotes::Kept, ..lexer }.expand(rest, &())?.words.concat();
        let quotes = |text: &str| text.matches(['\'', '"']).count();
        let expand = quotes(&name) == quotes(&raw);
        Ok(Some(Heredoc { name, expand, chomp, content: String::new() }))
    }

    /// Those that the words of a line name.
    pub(super) fn in_line(line: &str) -> Result<Vec<Heredoc>> {
        let lexer = Lexer { escape: DEFAULT_ESCAPE, quotes: Quotes::Kept, escapes: Escapes::Kept, unset: Unset::Kept };
        let words = lexer.expand(line, &()).map(|expansion| expansion.words).unwrap_or_default();
        words.iter().filter_map(|word| Heredoc::in_word(word).transpose()).collect()
    }
}

fn without_tabs(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
