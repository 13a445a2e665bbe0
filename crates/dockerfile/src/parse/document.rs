//! Lines: comments, continuations, inline documents.

use super::directive::{BYTE_ORDER_MARK, Directives, ESCAPE};
use super::heredoc::Heredoc;
use super::node::Node;
use crate::error::{Error, Result};
use crate::lines::Lines;

/// Bytes of a line, without its end.
const MAX_LINE: usize = 65535;
const DEFAULT_ESCAPE: char = '\\';

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its instructions.
    pub nodes: Vec<Node>,
    /// The character that escapes and continues lines.
    pub escape: char,
    /// The last line of each instruction with an empty line within.
    pub empty_continuations: Vec<u32>,
}

/// Reads a file.
pub fn parse(text: &str) -> Result<Document> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut reader = Reader {
        rest: text,
        at: 0,
        too_long: false,
        directives: Directives::default(),
        comments: Vec::new(),
        document: Document { nodes: Vec::new(), escape: DEFAULT_ESCAPE, empty_continuations: Vec::new() },
    };
    while let Some(line) = reader.next() {
        reader.instruction(line)?;
    }
    let here = Lines::new(reader.at, reader.at);
    if reader.document.nodes.is_empty() {
        return Err(Error::new("file with no instructions").at(here));
    }
    if reader.too_long {
        let why = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
        return Err(Error::new(why).at(here));
    }
    Ok(reader.document)
}

struct Reader<'a> {
    rest: &'a str,
    /// Lines that were read.
    at: u32,
    too_long: bool,
    directives: Directives,
    comments: Vec<String>,
    document: Document,
}

impl<'a> Reader<'a> {
    /// The next line with its end; one that is too long ends the file.
    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() || self.too_long {
            return None;
        }
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        if end > MAX_LINE {
            self.too_long = true;
            return None;
        }
        let (line, rest) = self.rest.split_at((end + 1).min(self.rest.len()));
        self.rest = rest;
        self.at += 1;
        Some(line)
    }

    /// An instruction that begins on this line, or nothing.
    fn instruction(&mut self, line: &'a str) -> Result<()> {
        let before = self.at - 1;
        let line = line.trim_end_matches(['\r', '\n']);
        self.comment(line);
        let trimmed = line.trim_start();
        self.directive(trimmed).map_err(|error| error.at(Lines::new(before, before)))?;
        let first = if is_comment(trimmed) { "" } else { trimmed };
        let (first, mut ended) = self.continued(first);
        if ended && first.is_empty() {
            return Ok(());
        }
        let start = self.at;
        let mut text = first.to_owned();
        let mut empty = false;
        while !ended {
            let Some(line) = self.next() else { break };
            let line = line.trim_end_matches(['\r', '\n']);
            if is_comment(line) {
                continue;
            }
            if line.trim_start().is_empty() {
                empty = true;
                continue;
            }
            let (part, last) = self.continued(line);
            text.push_str(part);
            ended = last;
        }
        if empty {
            self.document.empty_continuations.push(self.at);
        }
        let comments = std::mem::take(&mut self.comments);
        let at = |error: Error, end: u32| error.at(Lines::new(start, end));
        let mut node = Node::read(&text, self.document.escape, comments).map_err(|error| at(error, self.at))?;
        if node.takes_heredocs() && text.contains("<<") {
            node.heredocs = Heredoc::in_line(&text).map_err(|error| at(error, self.at))?;
            for heredoc in &mut node.heredocs {
                let done = self.content(heredoc);
                done.map_err(|error| at(error, self.at))?;
            }
        }
        node.lines = Lines::new(start, self.at);
        self.document.nodes.push(node);
        Ok(())
    }

    /// Comments that describe the next instruction; an empty one begins anew.
    fn comment(&mut self, line: &str) {
        if !is_comment(line) {
            return;
        }
        let mut chars = line.chars();
        chars.next();
        match chars.as_str().trim() {
            "" => self.comments.clear(),
            text => self.comments.push(text.to_owned()),
        }
    }

    fn directive(&mut self, line: &str) -> Result<()> {
        let Some(directive) = self.directives.read(line, "#")? else { return Ok(()) };
        self.comments.pop();
        if directive.name != ESCAPE {
            return Ok(());
        }
        self.document.escape = match directive.value.as_str() {
            "`" => '`',
            "\\" => '\\',
            other => {
                let why = format!("invalid escape token '{other}' does not match ` or \\");
                return Err(Error::new(why));
            }
        };
        Ok(())
    }

    /// A line without the character that continues it, and whether it ends the instruction. That character may be
    /// followed by blanks, and is not one that is escaped itself.
    fn continued<'b>(&self, line: &'b str) -> (&'b str, bool) {
        let bare = line.trim_end_matches([' ', '\t']);
        match bare.strip_suffix(self.document.escape) {
            Some(rest) if !rest.ends_with(self.document.escape) => (rest, false),
            _ => (line, true),
        }
    }

    fn content(&mut self, heredoc: &mut Heredoc) -> Result<()> {
        while let Some(line) = self.next() {
            let bare = line.trim_end_matches(['\r', '\n']);
            let bare = if heredoc.chomp { bare.trim_start_matches('\t') } else { bare };
            if bare == heredoc.name {
                return Ok(());
            }
            heredoc.content.push_str(line);
        }
        Err(Error::new("unterminated heredoc"))
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}
