//! "Did you mean …?": the known word that is nearest to an unknown one.

use crate::error::Error;

/// Words at this many changes or more are no likelier meant than any other.
const FAR: usize = 3;
/// Longer words are not compared: the time grows with the square.
const MAX_WORD: usize = 256;

/// Whether `Run` and `run` are one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// They are two.
    Sensitive,
    /// They are one; what is suggested takes the case of what was written.
    Insensitive,
}

/// The option nearest to `word`, the first of those equally near. `None`: none is near, or `word` is one of them.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>, case: Case) -> Option<String> {
    if word.len() > MAX_WORD {
        return None;
    }
    let folded = |text: &str| match case {
        Case::Sensitive => text.to_owned(),
        Case::Insensitive => text.to_lowercase(),
    };
    let wanted = folded(word);
    let mut best: Option<(usize, String)> = None;
    for option in options.into_iter().filter(|option| option.len() <= MAX_WORD) {
        let option = folded(option);
        if option == wanted {
            return None;
        }
        let far = distance(&wanted, &option);
        if far < best.as_ref().map_or(FAR, |(least, _)| *least) {
            best = Some((far, option));
        }
    }
    let (_, option) = best?;
    Some(if case == Case::Insensitive && word.to_uppercase() == word && word.to_lowercase() != word {
        option.to_uppercase()
    } else {
        option
    })
}

/// The error with ` (did you mean X?)` behind it where something is near.
pub fn with_suggestion<'a>(error: Error, word: &str, options: impl IntoIterator<Item = &'a str>, case: Case) -> Error {
    match nearest(word, options, case) {
        None => error,
        Some(option) => error.suffix(format!(" (did you mean {option}?)")),
    }
}

/// Insertions, deletions and replacements that make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested() {
        let words = ["add", "run", "volume"];
        assert_eq!(nearest("RUNN", words, Case::Insensitive).as_deref(), Some("RUN"));
        assert_eq!(nearest("runn", words, Case::Insensitive).as_deref(), Some("run"));
        assert_eq!(nearest("mont", ["mount", "network"], Case::Sensitive).as_deref(), Some("mount"));
        assert_eq!(nearest("run", words, Case::Sensitive), None);
        assert_eq!(nearest("entirely", words, Case::Sensitive), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
