//! The text of a Dockerfile as a list of instructions, each with its words, flags, inline documents and lines.
//!
//! Nothing of what an instruction means is known here, but how its words are split is.

mod directive;
mod document;
mod heredoc;
mod node;
mod words;

pub use directive::{Directive, Syntax, check_directive, directive_in_comment, syntax};
pub use document::{Document, parse};
pub use heredoc::Heredoc;
pub use node::{Arguments, Node, Pair};
