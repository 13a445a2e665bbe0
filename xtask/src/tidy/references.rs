//! Citations of behaviours: every `B-area-number` in code or documentation is an item of the page that lists them.

use std::collections::BTreeSet;
use std::path::Path;

use super::sources::listed;

/// The page whose items are cited.
const PAGE: &str = "docs/reference/behaviours.md";

/// One fault per citation that leads nowhere.
pub fn check(root: &Path) -> Result<Vec<String>, String> {
    let read = |path: &Path| std::fs::read_to_string(root.join(path)).map_err(|e| format!("{}: {e}", path.display()));
    let page = read(Path::new(PAGE))?;
    let items = items(&page);
    let mut faults = Vec::new();
    for path in listed(root)?.iter().filter(|path| cites(path)) {
        let text = read(path)?;
        let unknown = citations(&text).into_iter().filter(|id| !items.contains(id));
        faults.extend(unknown.map(|id| format!("{}: {id} is no item of {PAGE}", path.display())));
    }
    Ok(faults)
}

fn cites(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "rs" || ext == "md") && path != Path::new(PAGE)
}

/// The ids that the page defines, as `[B-area-number]`.
fn items(page: &str) -> BTreeSet<&str> {
    citations(page).into_iter().filter(|id| page.contains(&format!("- [{id}] "))).collect()
}

/// Every `B-area-number` of a text, area in lower-case letters.
fn citations(text: &str) -> BTreeSet<&str> {
    let starts = text.match_indices("B-").map(|(at, _)| at);
    let own_word = |at: &usize| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '-');
    starts.filter(own_word).filter_map(|at| citation(&text[at..])).collect()
}

/// The id at the beginning of a text.
fn citation(text: &str) -> Option<&str> {
    let area = text[2..].bytes().take_while(u8::is_ascii_lowercase).count();
    let number = text[2 + area..].strip_prefix('-')?.bytes().take_while(u8::is_ascii_digit).count();
    (area > 0 && number > 0).then(|| &text[..2 + area + 1 + number])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn citations_are_whole_words() {
        let found = citations("B-st-1, (B-im-10); B-x, B-1, AB-st-2 and B-Y-3");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["B-im-10", "B-st-1"]);
    }

    #[test]
    fn items_stand_in_brackets() {
        let found = items("- [B-st-1] Exit codes, see B-st-2.\n");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["B-st-1"]);
    }
}
