//! Commands.

use crate::parse::Heredoc;

/// Words of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// A single one where a shell reads it.
    pub words: Vec<String>,
    /// Whether a shell reads it.
    pub shell: bool,
    /// Inline documents.
    pub documents: Vec<Heredoc>,
}
