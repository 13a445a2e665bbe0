//! `COPY` and `ADD`.

use super::flags::{Flags, Takes};
use crate::error::{Error, Result};
use crate::parse::{Heredoc, Node};

/// Files that come from somewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Paths, and addresses with `ADD`.
    pub sources: Vec<String>,
    /// Files whose content stands in the Dockerfile.
    pub documents: Vec<Heredoc>,
    /// Where they go.
    pub destination: String,
    /// The stage or image they come from; empty: the context.
    pub from: String,
    /// `user:group`; empty: root, or as they are.
    pub chown: String,
    /// The mode; empty: as they have it.
    pub chmod: String,
    /// Whether the result is a layer of its own.
    pub link: bool,
    /// Whether the directories above a source are kept.
    pub parents: bool,
    /// Patterns of what is left out.
    pub excludes: Vec<String>,
    /// What is expected of what is fetched; empty: nothing.
    pub checksum: String,
    /// Whether the directory `.git` is kept.
    pub keep_git_dir: Option<bool>,
    /// Whether archives are unpacked.
    pub unpack: Option<bool>,
}

impl Transfer {
    pub(super) fn add(node: &Node, words: Vec<String>) -> Result<Transfer> {
        let known = [
            ("chown", Takes::Value),
            ("chmod", Takes::Value),
            ("link", Takes::Switch),
            ("keep-git-dir", Takes::Switch),
            ("checksum", Takes::Value),
            ("unpack", Takes::Switch),
            ("exclude", Takes::Values),
        ];
        Transfer::read(node, words, "ADD", &known)
    }

    pub(super) fn copy(node: &Node, words: Vec<String>) -> Result<Transfer> {
        let known = [
            ("chown", Takes::Value),
            ("from", Takes::Value),
            ("chmod", Takes::Value),
            ("link", Takes::Switch),
            ("exclude", Takes::Values),
            ("parents", Takes::Switch),
        ];
        Transfer::read(node, words, "COPY", &known)
    }

    fn read(node: &Node, words: Vec<String>, keyword: &str, known: &[(&'static str, Takes)]) -> Result<Transfer> {
        let Some((destination, sources)) = words.split_last().filter(|(_, sources)| !sources.is_empty()) else {
            return Err(Error::new(format!(
                "{keyword} requires at least two arguments, but only one was provided. Destination could not be \
                 determined"
            )));
        };
        let flags = Flags::read(&node.flags, known)?;
        if Heredoc::in_word(destination).ok().flatten().is_some() {
            return Err(Error::new(format!("{keyword} cannot accept a heredoc as a destination")));
        }
        let mut transfer = Transfer {
            destination: destination.clone(),
            from: flags.text("from"),
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.switch("link").unwrap_or_default(),
            parents: flags.switch("parents").unwrap_or_default(),
            excludes: flags.list("exclude"),
            checksum: flags.text("checksum"),
            keep_git_dir: flags.switch("keep-git-dir"),
            unpack: flags.switch("unpack"),
            ..Transfer::default()
        };
        for source in sources {
            match Heredoc::in_word(source).ok().flatten() {
                None => transfer.sources.push(source.clone()),
                Some(mut document) => {
                    // Of two with one name the last counts for both.
                    let known = node.heredocs.iter().rev().find(|known| known.name == document.name);
                    document.content = known.map(|known| known.content.clone()).unwrap_or_default();
                    document.content = document.lines();
                    transfer.documents.push(document);
                }
            }
        }
        Ok(transfer)
    }
}
